#!/usr/bin/env bash
# clang-tidy, warnings are errors. usage: scripts/tidy.sh BUILD_DIR [--recent | FILE...]
# Without files: the whole tree, about 20 s of CPU a file. --recent is what CI runs: the sources that changed in the last
# 20 commits (or whose header did), the newest 8 of them, and the twentieth of the tree whose turn it is.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh ci
build=$1
shift
mapfile -t tree < <(git ls-files 'src/*.cpp' 'apps/*.cpp' 'examples/*.cpp')
if [[ ${1:-} == --recent ]]; then
  files=()
  if since=$(git rev-parse --verify --quiet HEAD~20); then
    while read -r path; do
      source=${path%.*}.cpp
      [[ -e $source && " ${tree[*]} " == *" $source "* && " ${files[*]} " != *" $source "* ]] && files+=("$source")
    done < <(git log --name-only --format= "$since..HEAD" -- src apps examples)
    files=("${files[@]:0:8}")
  fi
  turn=$(($(git rev-list --count HEAD) % 20))
  for i in "${!tree[@]}"; do
    ((i % 20 == turn)) && [[ " ${files[*]} " != *" ${tree[i]} "* ]] && files+=("${tree[i]}")
  done
elif (($#)); then
  files=("$@")
else
  files=("${tree[@]}")
fi
echo "clang-tidy: ${#files[@]} of ${#tree[@]} files"
# gcc's own flags in compile_commands.json mean nothing to clang.
printf '%s\n' "${files[@]}" |
  xargs -P "$(nproc)" -n 1 clang-tidy-14 -p "$build" --extra-arg=-Wno-unknown-warning-option --quiet --warnings-as-errors='*'
