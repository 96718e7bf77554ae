#!/usr/bin/env bash
# Our relay of dialect 0.5 beside the stock one of kitsune2_bootstrap_srv 0.5.3, one after the other in one run: idle
# clients, and batches of 1, 16 and 64 KiB, as many as go through and 400 a second. The stock one is built from the
# registry, optimised, which takes half an hour on two cores; K2_RUST_TARGET keeps it elsewhere. --ours: without it.
# usage: bench/iroh_relay.sh [--ours] BUILD_DIR
set -euo pipefail
cd "$(dirname "$0")/.."
ours=0
[[ $1 == --ours ]] && ours=1 && shift
build=$1
export CARGO_TARGET_DIR=${K2_RUST_TARGET:-$PWD/interop/rust/target}
if ((!ours)); then
  cargo build --release --locked --manifest-path interop/rust/0.5.3/Cargo.toml --bin rust-relay
fi
port=$((20000 + RANDOM % 10000))
ulimit -n "$(ulimit -Hn)"
pid=
trap '[[ -z $pid ]] || kill "$pid"' EXIT
run() {
  local name=$1
  shift
  "$@" >/dev/null 2>&1 &
  pid=$!
  until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.1; done
  echo "$name"
  "$build/bench/iroh_relay_load" idle 127.0.0.1:$port $pid 10000 20
  local bytes
  for bytes in 1024 16384 65500; do "$build/bench/iroh_relay_load" forward 127.0.0.1:$port $pid $bytes 5; done
  for bytes in 1024 16384 65500; do "$build/bench/iroh_relay_load" forward 127.0.0.1:$port $pid $bytes 5 400; done
  kill $pid
  wait $pid 2>/dev/null || true
  pid=
}
uptime
run ours "$build/apps/kitsune2/kitsune2" relay --listen 127.0.0.1:$port --limit-ip-connections 20000 --sbd-disable-rate-limiting --quiet
port=$((port + 1))
if ((!ours)); then run stock "$CARGO_TARGET_DIR/release/rust-relay" --listen 127.0.0.1:$port; fi
uptime
