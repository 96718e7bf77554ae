#!/usr/bin/env bash
# Checks the rules of docs/architecture.md that a compiler does not: direction of includes, purity of the core, file sizes.
set -uo pipefail
cd "$(dirname "$0")/.."
fail=0
complain() { echo "rules: $1" >&2; fail=1; }

# The core knows no clock, thread, socket, randomness or Asio. Its allocator has a lock: any thread lets go of a message.
if hits=$(grep -nE 'boost/(asio|beast)|::now\(\)|random_device|std::(jthread|thread|mutex)|#include <(thread|mutex|sys/socket\.h|random)>|randombytes' -r src/core --exclude=buffer.cpp); then
  complain "src/core must stay pure:"$'\n'"$hits"
fi

# Who may include whom (by the first folder of the include).
declare -A allowed=(
  [core]="core" [wire]="core wire" [store]="core wire store" [transport]="core wire transport" [net]="core transport net"
  [server]="core wire net server transport" [node]="core wire store transport net server node" [files]="core files node"
  [testing]="core wire store transport testing"
)
for layer in "${!allowed[@]}"; do
  [[ -d src/$layer ]] || continue
  while IFS=: read -r file line text; do
    target=$(sed -E 's/.*#include "([a-z0-9_]+)\/.*/\1/' <<<"$text")
    [[ $target == kitsune2 ]] && continue
    [[ -d src/$target ]] || continue
    [[ " ${allowed[$layer]} " == *" $target "* ]] || complain "$file:$line: $layer must not include $target"
  done < <(grep -nE '^#include "[a-z0-9_]+/' -r "src/$layer")
done

# Sockets stay in src/net and src/server.
if hits=$(grep -lE 'boost/(asio|beast)' -r src include | grep -vE '^src/(net|server)/'); then
  complain "Asio and Beast only in src/net and src/server:"$'\n'"$hits"
fi

while read -r lines file; do
  [[ $file == total ]] && continue
  ((lines <= 1000)) || complain "$file has $lines lines; split it (limit 1,000)"
done < <(git ls-files '*.cpp' '*.hpp' '*.py' '*.sh' '*.rs' | xargs wc -l)

# Every public header compiles alone.
if [[ ${1:-} == --headers ]]; then
  for header in include/kitsune2/*.hpp include/kitsune2/testing/*.hpp; do
    [[ -e $header ]] || continue
    printf '#include "%s"\n' "${header#include/}" | g++ -std=c++20 -fsyntax-only -Wall -Wextra -Werror -Iinclude -x c++ - || complain "$header does not compile alone"
  done
fi
((fail == 0)) && echo "rules: all hold"
exit $fail
