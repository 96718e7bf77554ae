#!/usr/bin/env bash
# Builds the stock Rust peers (once; K2_RUST_TARGET keeps them elsewhere) and runs the interop tests.
# usage: tests/interop/run.sh [--0.2|--iroh|--all] BUILD_DIR [NAME_PART…]
#        tests/interop/run.sh --peers
# Without an option: of each kind of test one pairing, against 0.2.2 and 0.5.3. --0.2, --iroh: every pairing against
# 0.2.2, or against 0.5.3. --all: every pairing against each version that README lists as proven, and sbd's compliance
# suite. --peers only builds the peers of 0.2.2 and 0.5.3. Nodes of 0.4.1 use the server of 0.4.1, and in some tests
# that of 0.5.3, as rust-relay-0.5.
set -euo pipefail
cd "$(dirname "$0")/../.."
versions="0.2.2 0.5.3" options=--one-of-each peers_only=
case $1 in
  --all) versions="0.1.16 0.2.2 0.2.17 0.3.2 0.5.3 0.4.1" options= ;;
  --0.2) versions=0.2.2 options= ;;
  --iroh) versions=0.5.3 options= ;;
  --peers) peers_only=yes ;;
esac
[[ $1 != --* ]] || shift
export CARGO_TARGET_DIR=${K2_RUST_TARGET:-$PWD/interop/rust/target}

# build_peers VERSION: the versions share their dependencies; the programs of each version have a folder of their own.
build_peers() (
  version=$1 folder=interop/rust/$1 programs="rust-peer rust-relay"
  [[ -d $folder ]] || folder=interop/rust
  mkdir -p "$CARGO_TARGET_DIR/$version"
  # Not in the middle of another version: all leave their programs in one folder.
  exec 9>"$CARGO_TARGET_DIR/peers.lock"
  flock -n 9 || { echo "interop: waits for another process that builds peers"; flock 9; }
  cargo build --locked --config interop/rust/profile.toml --manifest-path "$folder/Cargo.toml"
  case $version in
    0.2.2) programs+=" dht-oracle" ;;
    0.3.2) programs+=" sbd-tester" ;;
    0.5.3) programs+=" rust-relay-client" ;;
    0.4.1) cp -f "$CARGO_TARGET_DIR/0.5.3/rust-relay" "$CARGO_TARGET_DIR/$version/rust-relay-0.5" ;;
  esac
  for program in $programs; do
    cp -f "$CARGO_TARGET_DIR/debug/$program" "$CARGO_TARGET_DIR/$version/"
  done
)

if [[ $peers_only ]]; then
  for version in $versions; do build_peers "$version"; done
  exit
fi
build=$1
shift
passed=0 failed=0
for version in $versions; do
  build_peers "$version"
  tests=interop.py
  [[ $version != 0.[45].* ]] || tests=iroh.py
  echo "=== kitsune2 $version"
  # shellcheck disable=SC2086
  python3 tests/interop/$tests --build "$build" --rust "$CARGO_TARGET_DIR/$version" $options "$@" | tee "$CARGO_TARGET_DIR/$version/log" || true
  read -r good bad <<<"$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$CARGO_TARGET_DIR/$version/log")"
  passed=$((passed + ${good:-0})) failed=$((failed + ${bad:-1}))
done
# The sources of both are here now.
if [[ $versions == *0.2.2*0.5.3* ]]; then
  python3 tests/docs/reference_tests.py . || failed=$((failed + 1))
fi
[[ $versions != *" "* ]] || echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
