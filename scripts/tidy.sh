#!/usr/bin/env bash
# clang-tidy, warnings are errors. usage: scripts/tidy.sh BUILD_DIR [--recent | FILE...]
# BUILD_DIR is one of the preset tidy. Without files: all sources and tests, about 20 s of CPU per file. --recent is
# what CI runs, some 16 files: those that changed (or whose header did) in the last 20 commits, limited to the newest 7
# sources and the newest test, and in turn a part of the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh ci
build=$1
shift
mapfile -t sources < <(git ls-files 'src/*.cpp' 'apps/*.cpp' 'examples/*.cpp')
mapfile -t tests < <(git ls-files 'tests/*.cpp' ':!tests/install')  # tests/install is built from outside
tree=("${sources[@]}" "${tests[@]}")
# recent MOST PART FILE…: the newest MOST of the files that changed lately, and every PARTth of all files.
recent() {
  local most=$1 part=$2 since path source
  shift 2
  local found=()
  if since=$(git rev-parse --verify --quiet HEAD~20); then
    while read -r path; do
      source=${path%.*}.cpp
      [[ " $* " == *" $source "* && " ${found[*]} " != *" $source "* ]] && found+=("$source")
    done < <(git log --name-only --format= "$since..HEAD")
    found=("${found[@]:0:most}")
  fi
  local all=("$@") turn=$(($(git rev-list --count HEAD) % part))
  for i in "${!all[@]}"; do
    ((i % part == turn)) && [[ " ${found[*]} " != *" ${all[i]} "* ]] && found+=("${all[i]}")
  done
  files+=("${found[@]}")
}

if [[ ${1:-} == --recent ]]; then
  files=()
  recent 7 40 "${sources[@]}"
  recent 1 120 "${tests[@]}"
elif (($#)); then
  files=("$@")
else
  files=("${tree[@]}")
fi
echo "clang-tidy: ${#files[@]} of ${#tree[@]} files"
# gcc's own flags in compile_commands.json are unknown to clang.
printf '%s\n' "${files[@]}" |
  xargs -P "$(nproc)" -n 1 clang-tidy-14 -p "$build" --extra-arg=-Wno-unknown-warning-option --quiet --warnings-as-errors='*'
