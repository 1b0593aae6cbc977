"""This project beside PyTorch and candle, in one run, row by row and in turns.

    pip install torch==2.15.0 transformers==5.23.0 diffusers==0.42.1 accelerate==1.15.0 \\
        safetensors==0.8.0 numpy==2.4.6
    (cd benches/candle && cargo build --release --locked)  # or else candle is left out
    python benches/compare.py [ROW ...] [--rounds 5] [--threads N] [--json FILE]

ROW is a name or a pattern such as "world-*"; `cargo bench --bench rows -- --list` prints the names.
A row's programs are started one after the other and run once before it counts; then they take
turns, so that one computes at a time. All keep their models in memory: the U-Net of Stable
Diffusion takes 4 to 6 GB in each. `--programs this PyTorch` measures fewer.

`--device cuda --precision bf16 --compile` measures a card, PyTorch compiled; `--rows FILE` names a
program that was built elsewhere; under `--minutes N` a row may take a quarter of what is left. With
`--together` the first runs of all rows, in which a card's kernels are compiled, on one core each, are
made at once and may take two thirds. (`bert-load` reads what this project writes: not with that.)
What gives no answer is left out, and the exit status is then 1.

Prints a table in Markdown: medians; the operations that PyTorch counts (two a multiply-add of matrix
products and convolutions) and the share that this project reaches of the row `machine-operations`, where
that comes before; the peaks of resident memory once the models are made, in brackets PyTorch's
without what importing its libraries takes. The JSON file has every figure.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import pathlib
import select
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version

HERE = pathlib.Path(__file__).parent
CANDLE = HERE / "candle" / "target" / "release" / "mi2rage-candle"
PROGRAMS = ["this", "PyTorch", "candle"]
PEAK = "machine-operations"
LIBRARIES = ["torch", "transformers", "diffusers"]
COLUMNS = [
    "row",
    "work",
    *PROGRAMS,
    "this / PyTorch",
    "this / candle",
    "this, a second",
    "GFLOP",
    "this, of the peak",
    *[f"{program}, peak MiB" for program in PROGRAMS],
]


class NoAnswer(Exception):
    """Of a program: it has ended, or `--minutes` are over."""


def build():
    """This project's program, built where need be."""
    command = "cargo bench --bench rows --no-run --message-format json".split()
    built = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    # The program itself is built too.
    executables = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
    return executables["rows"]


def listed(command):
    """The rows that a program serves, by name."""
    output = subprocess.run([*command, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.split("\t") for line in output.stdout.splitlines()]
    return {name: rest for name, *rest in lines}


def begin(command, threads):
    """Starts a program and has it run once, which does not count."""
    count = str(threads)
    environment = os.environ | {"RAYON_NUM_THREADS": count, "OMP_NUM_THREADS": count}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    tell(process, "go")
    return process


def tell(process, line):
    # That it has ended is seen where it should answer.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(line + "\n")
        process.stdin.flush()


def answer(process, end):
    """Its next line, before `end`."""
    if not select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0]:
        raise NoAnswer(f"{shlex.join(process.args)}: gave no answer in time")
    line = process.stdout.readline()
    if not line:
        raise NoAnswer(f"{shlex.join(process.args)}: ended without an answer")
    return json.loads(line)


def is_warm(process, end):
    """Waits for the first run; without one the program is stopped."""
    try:
        return bool(answer(process, end))
    except NoAnswer as reason:
        print(reason, file=sys.stderr)
        stop(process)
        return False


def warm(commands, threads, end):
    """Starts the programs of a row one after the other: one may read what the one before has written."""
    running = {}
    for program, command in commands.items():
        process = begin(command, threads)
        if is_warm(process, end):
            running[program] = process
    return running


def warm_together(rows, threads, end):
    """Starts the programs of all rows at once."""
    begun = {
        row: {program: begin(command, threads) for program, command in commands.items()}
        for row, commands in rows.items()
    }
    return {
        row: {name: process for name, process in running.items() if is_warm(process, end)}
        for row, running in begun.items()
    }


def measure(running, rounds, end):
    """Seconds of all rounds and memory, by program; before `end`. The programs are stopped."""
    seconds = {program: [] for program in running}
    try:
        for _ in range(rounds):
            for program, process in running.items():
                tell(process, "go")
                seconds[program].append(answer(process, end)["seconds"])
        for process in running.values():
            tell(process, "end")
        return {
            program: {"seconds": seconds[program]} | answer(process, end)
            for program, process in running.items()
        }
    except NoAnswer as reason:
        print(reason, file=sys.stderr)
        return {}
    finally:
        for process in running.values():
            stop(process)


def stop(process):
    process.kill()
    process.wait()


def table_row(name, items, about, results, best):
    """`best` is the most operations a second, if known."""
    medians = {program: statistics.median(found["seconds"]) for program, found in results.items()}

    def seconds(program):
        return f"{medians[program]:.4g} s" if program in medians else ""

    def ratio(program):
        both = "this" in medians and program in medians
        return f"{medians['this'] / medians[program]:.2f}" if both else ""

    def peak(program):
        found = results.get(program)
        if not found:
            return ""
        own = found["peak_kib"] - found.get("imported_kib", 0)
        brackets = f" ({own / 1024:.0f})" if "imported_kib" in found else ""
        return f"{found['peak_kib'] / 1024:.0f}{brackets}"

    count, unit = items.split()
    rate = f"{int(count) / medians['this']:.3g} {unit}" if "this" in medians else ""
    flop = results.get("PyTorch", {}).get("flop")
    counted = f"{flop / 1e9:.3g}" if flop else ""
    share = f"{100 * flop / medians['this'] / best:.0f} %" if flop and best else ""
    cells = [name, about, *map(seconds, PROGRAMS), ratio("PyTorch"), ratio("candle"), rate]
    cells += [counted, share]
    return cells + [peak(program) for program in PROGRAMS]


def print_row(cells):
    print("|", " | ".join(cells), "|", flush=True)


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(": ")[1] for line in lines if line.startswith("model name"))


def main():
    parser = argparse.ArgumentParser(description="This project beside PyTorch and candle.")
    parser.add_argument("rows", nargs="*", default=["*"], metavar="ROW")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=PROGRAMS)
    parser.add_argument("--candle", type=pathlib.Path, default=CANDLE, help="candle's program")
    parser.add_argument("--work", help="where files are kept that a row needs")
    parser.add_argument("--json", type=pathlib.Path, help="a file for every figure")
    parser.add_argument("--rows", dest="program", help="this project's program, already built")
    parser.add_argument("--device", default="", help="as --device of the program")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--minutes", type=float, default=1e6, help="the most of all rows")
    parser.add_argument("--together", action="store_true", help="all first runs at once")
    options = parser.parse_args()

    end = time.monotonic() + 60 * options.minutes
    device = ["--device", options.device] * bool(options.device)
    setting = [*device, "--precision", options.precision]
    ours = [options.program or build(), *setting]
    python = [sys.executable, str(HERE / "pytorch.py"), "--threads", str(options.threads)]
    python += ["--device", options.device if options.device.startswith("cuda") else "cpu"]
    python += ["--precision", options.precision, *["--compile"] * options.compile]
    programs = {"this": ours, "PyTorch": python, "candle": [str(options.candle)]}
    if device or options.precision != "f32" or not options.candle.exists():
        del programs["candle"]
    programs = {name: command for name, command in programs.items() if name in options.programs}
    has = {program: listed(command) for program, command in programs.items()}

    conditions = [processor(), f"{options.threads} threads", f"{options.rounds} rounds"]
    conditions += [options.device, options.precision] if device else []
    libraries = [f"{name} {found}" for name in LIBRARIES if (found := installed(name))]
    print(f"{', '.join(conditions)}; {', '.join(libraries)}\n")
    print_row(COLUMNS)
    print_row(["---"] * len(COLUMNS))
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = ["--work", options.work or temporary]
        rows = listed(ours)
        best = None
        chosen = [name for pattern in options.rows for name in fnmatch.filter(rows, pattern)]
        commands = {
            name: {
                program: [*command, name, *work]
                for program, command in programs.items()
                if name in has[program]
            }
            for name in dict.fromkeys(chosen)
        }
        now = time.monotonic()
        begun = {}
        if options.together:
            begun = warm_together(commands, options.threads, now + (end - now) * 2 / 3)
        for name, of_row in commands.items():
            now = time.monotonic()
            limit = end if options.together else now + (end - now) / 4
            running = begun[name] if options.together else warm(of_row, options.threads, limit)
            found = results[name] = measure(running, options.rounds, limit)
            items, about = rows[name]
            if found:
                print_row(table_row(name, items, about, found, best))
            if name == PEAK and "this" in found:
                best = int(items.split()[0]) * 1e9 / statistics.median(found["this"]["seconds"])
            if options.json:
                options.json.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(0 if all(results[name].keys() == commands[name].keys() for name in commands) else 1)


if __name__ == "__main__":
    main()
