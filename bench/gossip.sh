#!/usr/bin/env bash
# Gossip and its DHT model beside the released kitsune2_gossip and kitsune2_dht 0.2.2, in turn; prints medians and
# ratios.
#
# usage: bench/gossip.sh [BUILD]     BUILD: the folder of our benchmarks (default: build/bench/bench, which is built)
#   REPS=3         runs of each row on each side
#   K2_GOSSIP_OPS=10000     ops of the rows on both sides; the stock start takes minutes of CPU for 100,000
#   K2_PEERS_TARGET         where the stock program is built; K2_STOCK=0 leaves it out
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/bench/bench}
if [[ $# == 0 ]]; then
  cmake --preset bench >/dev/null
  cmake --build build/bench --target gossip_bench -j "$(nproc)"
fi
ours=$build/gossip_bench stock=
if [[ ${K2_STOCK:-1} != 0 ]]; then
  target=${K2_PEERS_TARGET:-$PWD/bench/peers/target}
  CARGO_TARGET_DIR=$target cargo build --release --locked --manifest-path bench/peers/rust-gossip/Cargo.toml
  stock=$target/release/peer-gossip
fi
python3 bench/gossip.py --ours "$ours" ${stock:+--stock "$stock"} --reps "${REPS:-3}" --ops "${K2_GOSSIP_OPS:-10000}"
