#!/usr/bin/env bash
# Installs the missing Debian packages of the given groups (see cmake/packages.txt).
# usage: scripts/deps.sh build [test ci bench interop]
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=()
for group in "$@"; do
  while read -r g package; do
    [[ $g == "$group" ]] || continue
    # Rust may come from rustup instead of Debian.
    if [[ $package == cargo-web ]] && command -v cargo >/dev/null; then continue; fi
    wanted+=("$package")
  done <cmake/packages.txt
done

missing=()
for package in "${wanted[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

sudo=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "deps: need root or sudo to install: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "deps: installing ${missing[*]}"
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
