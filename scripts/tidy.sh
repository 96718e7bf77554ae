#!/usr/bin/env bash
# clang-tidy over the sources (or over those given), warnings are errors. usage: scripts/tidy.sh BUILD_DIR [FILE...]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh ci
build=$1
shift
files=("$@")
((${#files[@]})) || mapfile -t files < <(git ls-files 'src/*.cpp' 'apps/*.cpp')
# gcc's own flags in compile_commands.json mean nothing to clang.
printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 2 clang-tidy-14 -p "$build" --quiet --warnings-as-errors='*'
