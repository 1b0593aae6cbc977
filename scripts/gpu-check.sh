#!/bin/sh
# What has to be run where a GPU is at hand, in parts that end within 9 minutes each:
#
#     scripts/gpu-check.sh tests     the program on CUDA against flex: pictures, captions, an experiment
#     scripts/gpu-check.sh bench     BERT-base, ViT-B/16, a U-Net step, trainings: this beside PyTorch
#     scripts/gpu-check.sh pictures  Stable Diffusion 1.5 at 512 x 512, 1, 8 and 16 at once, beside diffusers
#     scripts/gpu-check.sh job       the whole of configs/ccg3.toml
#
# It needs programs built with `cargo build --release --features cuda` and (for bench and pictures) `cargo
# bench --features cuda --bench rows --no-run`, and Python with what benches/compare.py names; no network,
# no toolchain; weights are drawn here. BINARY and ROWS name the programs, TESTS that of `cargo test
# --features cuda --test cuda --no-run` (the fast paths of a card; left out without it), WHEELS a folder of Python
# packages to install first, OUT the folder for what is made, DEVICE another device than `cuda`
# (DEVICE=ndarray, or flex for bench and pictures, tries this script where there is no GPU), MINUTES the
# most that bench and pictures may take, PRECISION theirs. Compiled and tuned kernels are kept in target/
# between calls: what is not tuned in time is left out of the table, and another call goes on from
# there. Each part prints its table last and ends with 1 where something differs or is left out.
set -eu
part=${1:?expected tests, bench, pictures or job}
binary=${BINARY:-target/release/mi2rage}
device=${DEVICE:-cuda}
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
case $part in
tests | job)
    test -x "$binary" || { echo "$binary: expected the program, or BINARY=FILE" >&2; exit 2; }
    "$binary" devices
    ;;
esac

now() { date +%s.%N; }
# seconds NAME COMMAND...: runs a command and notes how long it took.
seconds() {
    name=$1
    shift
    begun=$(now)
    "$@" >"$out/last.log" 2>&1 || { cat "$out/last.log" >&2; exit 1; }
    echo "$name $begun $(now)" | awk '{ printf "%s %.1f\n", $1, $3 - $2 }' >>"$out/seconds"
}
: >"$out/seconds"
# compare ROW...: the rows in turns with PyTorch, and the U-Net's share of what a plain product reaches.
compare() {
    rows=${ROWS:?expected the program that cargo bench --features cuda --bench rows --no-run names}
    [ -z "${WHEELS:-}" ] || python3 -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl
    # On a card all rows' programs compile at once; without one their memory might not suffice.
    case $device in cuda*) together=--together ;; *) together= ;; esac
    export TORCHINDUCTOR_COMPILE_THREADS="${TORCHINDUCTOR_COMPILE_THREADS:-4}"
    whole=0
    python3 benches/compare.py "$@" --rows "$rows" --device "$device" \
        --precision "${PRECISION:-bf16}" --compile $together --programs this PyTorch --rounds 5 \
        --minutes "${MINUTES:-8}" --json "$out/$part.json" || whole=1
    python3 - "$out/$part.json" <<'PY'
import json, statistics, sys
# Operations for one latent, two a multiply-add: torch.utils.flop_counter of benches/pytorch.py's U-Net.
UNET = 0.8033e12
WORK = {"product": 20 * 2 * 4096**3, "unet-2": 2 * UNET, "unet-16": 16 * UNET}
found = json.load(open(sys.argv[1]))
rates = {}
for row in WORK:
    for program, result in found.get(row, {}).items():
        rates[row, program] = WORK[row] / statistics.median(result["seconds"])
best = max((rate for (row, _), rate in rates.items() if row == "product"), default=None)
for (row, program), rate in rates.items():
    share = f", {100 * rate / best:.0f} % of the best product" if best else ""
    print(f"{row}, {program}: {rate / 1e12:.2f} tera-operations a second{share}")
PY
    return $whole
}

case $part in
tests)
    # One process a test: each compiles its kernels one after the other.
    failed=
    if [ -n "${TESTS:-}" ]; then
        tests=$("$TESTS" --list --ignored | sed -n 's/: test$//p')
        for test in $tests; do
            ("$TESTS" --ignored --nocapture --exact "$test" >"$out/$test.log" 2>&1 || touch "$out/$test.failed") &
        done
        wait
        for test in $tests; do
            echo "$test: $(grep -c -e 'beyond rounding' -e 'off by' "$out/$test.log") cases"
            [ ! -e "$out/$test.failed" ] || { failed=1; tail -5 "$out/$test.log"; }
        done
    fi
    words="a photo of a red wedding on plain paper"
    for each in flex "$device"; do
        mkdir -p "$out/$each"
        seconds "sample-$each" "$binary" sample "$words" -n 16 --seed 3 --device "$each" -o "$out/$each/p.png"
        # shellcheck disable=SC2046
        "$binary" caption $(ls "$out/$each"/p-*.png) --device "$each" >"$out/$each/captions.txt"
        seconds "experiment-$each" "$binary" experiment configs/ccg3.toml --device "$each" --seed 4 \
            --set data.train=80 --set data.validation=40 --set data.test=400 \
            --set student.recipe.updates=100 --set teacher.recipe.updates=60 \
            --set 'arms=["real-unimodal","ccg","ccg-mi","real-pairs"]' --out "$out/$each/run"
    done
    python3 - "$out" "$device" <<'PY'
import json, pathlib, sys
out, device = pathlib.Path(sys.argv[1]), sys.argv[2]
run = lambda name: json.loads((out / name / "run/results.json").read_text())
flex, other = run("flex"), run(device)
captions = [(out / name / "captions.txt").read_text().splitlines() for name in ("flex", device)]
text = lambda line: line.split("\t")[-1].split(": ")[-1]
same = sum(text(a) == text(b) for a, b in zip(*captions))
print(f"{same} of {len(captions[0])} captions are the same on flex and on {device}")
worst = 0.0
print(f"{'arm':16} {'flex':>6} {device:>6}   (micro-F1)")
for a, b in zip(flex["arms"], other["arms"]):
    x, y = 100 * a["micro_f1"]["mean"], 100 * b["micro_f1"]["mean"]
    worst = max(worst, abs(x - y))
    print(f"{a['name']:16} {x:6.1f} {y:6.1f}")
# Sums in another order make other trainings; five points are beyond what that does to 400 posts.
sys.exit(0 if same >= 0.9 * len(captions[0]) and worst <= 5.0 else 1)
PY
    cat "$out/seconds"
    [ -z "$failed" ]
    ;;
bench)
    compare product "world-*" bert vit caption unet-2 unet-16 vae-decode bert-training vit-training
    ;;
pictures)
    compare product unet-2 "pictures-*"
    ;;
job)
    # On a card generators compute in 16 bits, and students and teachers learn in mixed precision.
    case $device in
    cuda*)
        set -- --set 'generators.precision="bf16"' --set generators.batch=256 \
            --set student.recipe.mixed_precision=true --set teacher.recipe.mixed_precision=true
        ;;
    *) set -- ;;
    esac
    seconds ccg3 "$binary" experiment configs/ccg3.toml --device "$device" --out "$out/ccg3" "$@"
    sed -n '/^## Arms/,/^## Comparisons/p' "$out/ccg3/report.md"
    cat "$out/seconds"
    ;;
*)
    echo "$part: expected tests, bench, pictures or job" >&2
    exit 2
    ;;
esac
