#!/usr/bin/env bash
# Builds the stock Rust peers (once; K2_RUST_TARGET keeps them elsewhere) and runs the interop tests.
# usage: tests/interop/run.sh BUILD_DIR [NAME_PART…]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$1
shift
export CARGO_TARGET_DIR=${K2_RUST_TARGET:-$PWD/interop/rust/target}
cargo build --locked --manifest-path interop/rust/Cargo.toml
exec python3 tests/interop/interop.py --build "$build" --rust "$CARGO_TARGET_DIR/debug" "$@"
