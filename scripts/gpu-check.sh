#!/bin/sh
# What has to be run where a GPU is at hand, in parts that end within 9 minutes each:
#
#     scripts/gpu-check.sh tests    the program on CUDA against flex: pictures, captions, an experiment
#     scripts/gpu-check.sh bench    pictures and training updates a second, on CUDA and on flex
#     scripts/gpu-check.sh job      the whole of configs/ccg3.toml
#
# It needs a program built with `cargo build --release --features cuda` and nothing else: no network,
# no toolchain. BINARY names the program, OUT the folder for what is made, DEVICE another device than
# `cuda` (DEVICE=ndarray tries this script where there is no GPU). Each part prints its table last and
# ends with 1 where something differs.
set -eu
part=${1:?expected tests, bench or job}
binary=${BINARY:-target/release/mi2rage}
device=${DEVICE:-cuda}
out=${OUT:-$(mktemp -d)}
test -x "$binary" || { echo "$binary: expected the program, or BINARY=FILE" >&2; exit 2; }
mkdir -p "$out"
"$binary" devices

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

case $part in
tests)
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
    ;;
bench)
    for each in flex "$device"; do
        seconds "sample-256-pictures-$each" "$binary" sample "a red trophy" -n 256 --steps 8 --guidance 3 --device "$each" -o "$out/many.png" --sheet
        mkdir -p "$out/pretrain-$each"
        seconds "pretrain-vision-500-updates-$each" "$binary" pretrain configs/pretrain.toml --part vision --device "$each" \
            --set train=2000 --set vision.recipe.updates=500 --set vision.recipe.evaluations=1 --out "$out/pretrain-$each"
        seconds "pretrain-autoencoder-100-updates-$each" "$binary" pretrain configs/pretrain.toml --part autoencoder --device "$each" \
            --set train=2000 --set autoencoder.recipe.updates=100 --set autoencoder.recipe.evaluations=1 --out "$out/pretrain-$each"
    done
    echo "seconds, starting the program and (on CUDA) compiling its kernels included:"
    cat "$out/seconds"
    ;;
job)
    seconds ccg3 "$binary" experiment configs/ccg3.toml --device "$device" --out "$out/ccg3"
    sed -n '/^## Arms/,/^## Comparisons/p' "$out/ccg3/report.md"
    cat "$out/seconds"
    ;;
*)
    echo "$part: expected tests, bench or job" >&2
    exit 2
    ;;
esac
