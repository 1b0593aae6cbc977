#!/bin/sh
# Runs a program built with the feature `cuda` where there is no card, on one made of the processor (benches/cuda/software):
# every kernel, burn's too, becomes a function of g++'s. Slow; to find errors. It is a card of compute capability 8.0, with
# HOPPER=1 of 9.0.
#
#     cargo test --release --features cuda --test cuda --no-run
#     scripts/software-card.sh target/release/deps/cuda-HASH --ignored --nocapture
#
# With IDLE=1 no kernel is made or run: what a program then takes is its own time, beside a card's. COUNTS=1 prints how
# often it launched, copied and waited.
#
# It needs an x86-64 machine with gcc and g++, and nothing of CUDA. Products of 32 bits, which burn gives the matrix
# units, are beyond it. What was compiled is kept in target/software-card.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
export SOFTWARE_CARD="$root/benches/cuda/software" KEPT="$root/target/software-card"
program=$(realpath "${1:?expected a program}")
shift
mkdir -p "$KEPT/run" "$KEPT/include"
gcc -O2 -shared -fPIC -w "$SOFTWARE_CARD/driver.c" -o "$KEPT/libcuda.so" -ldl
g++ -O2 -std=c++20 -shared -fPIC "$SOFTWARE_CARD/nvrtc.cpp" -o "$KEPT/libnvrtc.so"
# Programs look whether it is there; nothing reads it.
touch "$KEPT/include/cuda_runtime.h"
cd "$KEPT/run"
CUDA_PATH="$KEPT" LD_LIBRARY_PATH="$KEPT:${LD_LIBRARY_PATH:-}" exec "$program" "$@"
