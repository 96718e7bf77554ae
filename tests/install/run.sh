#!/usr/bin/env bash
# usage: tests/install/run.sh BUILD_DIR : installs it, builds the consumer project by CMake and by pkg-config, runs both.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sanitize=$(sed -n 's/^K2_SANITIZE:[A-Z]*=//p' "$build/CMakeCache.txt")
flags=${sanitize:+-fsanitize=$sanitize}

cmake --install "$build" --prefix "$work/prefix" >/dev/null
for file in bin/kitsune2 share/man/man1/kitsune2.1; do
  [[ -e $work/prefix/$file ]] || { echo "not installed: $file" >&2; exit 1; }
done
"$work/prefix/bin/kitsune2" --version

cmake -S "$here/consumer" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
  -DCMAKE_CXX_FLAGS="$flags" >/dev/null
cmake --build "$work/build" >/dev/null
"$work/build/consumer"
"$work/build/consumer_testing"

export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig:$(echo "$work"/prefix/lib/*/pkgconfig)
# shellcheck disable=SC2046
g++ -std=c++20 $flags "$here/consumer/main.cpp" -o "$work/by_pkgconfig" $(pkg-config --cflags --libs --static kitsune2)
"$work/by_pkgconfig"
