#!/usr/bin/env bash
# What an application meets: installs the build tree to a temporary prefix and uses it from outside, by CMake, by
# pkg-config and as a subdirectory. Each check prints a line; those that only wait for a compiler run side by side.
# usage: tests/install/run.sh BUILD_DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sanitize=$(sed -n 's/^K2_SANITIZE:[A-Z]*=//p' "$build/CMakeCache.txt")
flags=${sanitize:+-fsanitize=$sanitize}
prefix=$work/prefix

fail() { echo "install: $*" >&2; exit 1; }
configure() { cmake -G Ninja -DCMAKE_CXX_COMPILER_LAUNCHER=ccache "$@" >/dev/null; }

cmake --install "$build" --prefix "$prefix" >/dev/null
for file in bin/kitsune2 share/man/man1/kitsune2.1 share/doc/kitsune2/README.md share/doc/kitsune2/examples/embed.cpp; do
  [[ -e $prefix/$file ]] || fail "not there: $file"
done
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig:$(echo "$prefix"/lib/*/pkgconfig)

consumer_by_cmake() {
  configure -S "$here/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_FLAGS="$flags"
  cmake --build "$work/consumer" >/dev/null
  "$work/consumer/consumer"
  "$work/consumer/consumer_testing"
  "$work/consumer/consumer_suite" --gtest_brief=1
}

consumer_by_pkg_config_without_exceptions() {
  # shellcheck disable=SC2046
  ccache g++ -std=c++20 -fno-exceptions $flags -c "$here/consumer/main.cpp" -o "$work/main.o" $(pkg-config --cflags kitsune2)
  # shellcheck disable=SC2046
  g++ $flags "$work/main.o" -o "$work/by_pkg_config" $(pkg-config --libs --static kitsune2)
  "$work/by_pkg_config"
  # shellcheck disable=SC2046
  ccache g++ -std=c++20 $flags -c "$here/consumer/testing.cpp" -o "$work/testing.o" $(pkg-config --cflags kitsune2_testing)
  # shellcheck disable=SC2046
  g++ $flags "$work/testing.o" -o "$work/testing_by_pkg_config" $(pkg-config --libs --static kitsune2_testing)
  "$work/testing_by_pkg_config"
}

pkg_config_gives_no_flags_of_others() {
  local said
  said=$(pkg-config --cflags kitsune2_testing)
  [[ $said != *SPDLOG* ]] || fail "pkg-config gives spdlog's definitions: $said"
  [[ $(pkg-config --modversion kitsune2) == "$("$prefix/bin/kitsune2" --version | cut -d' ' -f2)" ]] || fail "two versions"
  [[ -d $(pkg-config --variable=boost_includedir kitsune2)/boost ]] || fail "pkg-config does not know where Boost is"
}

# refused FLAGS… -- WORDS…: a program that includes one public header must not link, and the linker must say WORDS.
refused() {
  local options=() out=$work/refused.$BASHPID
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  shift
  echo '#include <kitsune2/error.hpp>
int main() {}' >"$out.cpp"
  # shellcheck disable=SC2046
  ! g++ $flags "${options[@]}" "$out.cpp" -o "$out" $(pkg-config --cflags --libs --static kitsune2) 2>"$out.txt" ||
    fail "links with ${options[*]}"
  grep -q -- "$*" "$out.txt" || fail "${options[*]}: nothing of \"$*\" in: $(head -n 20 "$out.txt")"
  (($(wc -l <"$out.txt") < 20)) || fail "${options[*]}: $(wc -l <"$out.txt") lines of errors"
}

other_layouts_and_languages_are_refused_by_name() {
  local debug="undefined reference to .kitsune2_must_be_built_with_GLIBCXX_DEBUG_as_this_program_is"
  local strings="undefined reference to .kitsune2_must_be_built_with_GLIBCXX_USE_CXX11_ABI_0_as_this_program_is"
  refused -std=c++20 -O0 -D_GLIBCXX_DEBUG -- "$debug"
  refused -std=c++20 -O2 -flto -D_GLIBCXX_DEBUG -- "$debug"
  refused -std=c++20 -O2 -ffunction-sections -fdata-sections -Wl,--gc-sections -D_GLIBCXX_DEBUG -- "$debug"
  refused -std=c++20 -O0 -D_GLIBCXX_USE_CXX11_ABI=0 -- "$strings"
  refused -std=c++17 -- "kitsune2 needs C++20: compile with -std=c++20"
}

# The program's dependencies are not asked for, only what the parent needs is built, and only what is the parent's is
# installed.
subdirectory_of_another_project() {
  configure -S "$here/parent" -B "$work/parent" --no-warn-unused-cli -DKITSUNE2_SOURCE="$source" -DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON
  cmake --build "$work/parent" --target parent >/dev/null
  cmake --install "$work/parent" --prefix "$work/parents" >/dev/null
  [[ $(cd "$work/parents" && find . -type f) == ./bin/parent ]] || fail "the parent installs $(cd "$work/parents" && find . -type f)"
  "$work/parents/bin/parent"
  ! cmake --build "$work/parent" --target help | grep -q kitsune2_cli || fail "the parent builds the program"
}

installed_examples() {
  configure -S "$prefix/share/doc/kitsune2/examples" -B "$work/examples" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_CXX_FLAGS="$flags"
  cmake --build "$work/examples" --target example_embed >/dev/null
}

links_of_installed_documents() { python3 "$here/../docs/links.py" "$prefix/share/doc/kitsune2"; }

declare -A running
for check in consumer_by_cmake consumer_by_pkg_config_without_exceptions pkg_config_gives_no_flags_of_others \
  other_layouts_and_languages_are_refused_by_name subdirectory_of_another_project installed_examples links_of_installed_documents; do
  (set -e; start=$SECONDS; $check; echo "ok   $check ($((SECONDS - start)) s)") >"$work/$check.log" 2>&1 &
  running[$check]=$!
done
failed=0
for check in "${!running[@]}"; do
  wait "${running[$check]}" || { failed=1; echo "FAIL $check"; }
  cat "$work/$check.log"
done
exit $failed
