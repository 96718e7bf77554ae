#!/usr/bin/env bash
# Builds the stock Rust peers (once; K2_RUST_TARGET keeps them elsewhere) and runs the interop tests.
# usage: tests/interop/run.sh [--all|--iroh] BUILD_DIR [NAME_PART…]
# --all: against each version that README lists as proven, and sbd's compliance suite; --iroh: dialect 0.5 against
# 0.5.3; otherwise 0.2.2 only. Nodes of 0.4.1 use the relay of 0.5.3, because that of 0.4.1 serves no later node.
set -euo pipefail
cd "$(dirname "$0")/../.."
versions=0.2.2
case $1 in
  --all) versions="0.1.16 0.2.2 0.2.17 0.3.2 0.5.3 0.4.1"; shift ;;
  --iroh) versions=0.5.3; shift ;;
esac
build=$1
shift
export CARGO_TARGET_DIR=${K2_RUST_TARGET:-$PWD/interop/rust/target}
passed=0 failed=0
for version in $versions; do
  folder=interop/rust/$version
  [[ -d $folder ]] || folder=interop/rust
  cargo build --locked --config interop/rust/profile.toml --manifest-path "$folder/Cargo.toml"
  # The versions share their dependencies; the programs of each version have a folder of their own.
  mkdir -p "$CARGO_TARGET_DIR/$version"
  programs="rust-peer rust-relay" tests=interop.py
  case $version in
    0.3.2) programs+=" sbd-tester" ;;
    0.4.1) programs=rust-peer tests=iroh.py; cp -f "$CARGO_TARGET_DIR/0.5.3/rust-relay" "$CARGO_TARGET_DIR/$version/" ;;
    0.5.3) tests=iroh.py ;;
  esac
  for program in $programs; do
    cp -f "$CARGO_TARGET_DIR/debug/$program" "$CARGO_TARGET_DIR/$version/"
  done
  echo "=== kitsune2 $version"
  python3 tests/interop/$tests --build "$build" --rust "$CARGO_TARGET_DIR/$version" "$@" | tee "$CARGO_TARGET_DIR/$version/log" || true
  read -r good bad <<<"$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$CARGO_TARGET_DIR/$version/log")"
  passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-1}))
done
[[ $versions != *" "* ]] || echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
