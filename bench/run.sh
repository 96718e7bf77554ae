#!/usr/bin/env bash
# Builds both sides and runs the comparison. usage: bench/run.sh [quick]   (REPS=5 by default)
# quick: only our side and the micro benchmarks; no foreign peer is built.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-full}
cmake -S . -B build/bench -G Ninja -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_BUILD_TYPE=Release -DK2_BUILD_BENCH=ON -DK2_BUILD_TESTS=OFF \
  -DK2_BUILD_EXAMPLES=OFF >/dev/null
cmake --build build/bench -j "$(nproc)"
rust=()
if [[ $mode != quick ]]; then
  export CARGO_TARGET_DIR=${K2_ANCHOR_TARGET:-$PWD/bench/peers/rust-fetch/target}
  cargo build --release --locked --manifest-path bench/peers/rust-fetch/Cargo.toml
  rust=(--rust "$CARGO_TARGET_DIR/release/anchor-fetch")
fi
mkdir -p bench/results
python3 bench/compare.py --cpp build/bench/bench/fetch_anchor "${rust[@]}" --reps "${REPS:-5}" --out "bench/results/$(date +%Y%m%d-%H%M%S)-$mode.jsonl"
