#!/usr/bin/env bash
# Builds every libFuzzer target (clang, ASan and UBSan) and runs each for some seconds, starting from its corpus, as
# many at a time as there are processors.
# usage: tests/fuzz/run.sh BUILD_DIR SECONDS [TARGET…]; a finding is left in BUILD_DIR, is shown, and fails the run.
set -uo pipefail
cd "$(dirname "$0")/../.."
build=$1 seconds=$2
shift 2
mapfile -t targets < <(sed -nE 's/^k2_fuzz\(([a-z0-9_]+) .*/\1/p' tests/fuzz/CMakeLists.txt)
(($#)) && targets=("$@")
cmake --preset sanitized -B "$build" >/dev/null || exit 1
cmake --build "$build" --target "${targets[@]/#/fuzz_}" || exit 1

run_one() {
  local target=$1
  local log=$build/$target.log
  mkdir -p "$build/found/$target"
  if "$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=120 -print_final_stats=1 \
    -artifact_prefix="$build/$target-" "$build/found/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    echo "ok   $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
  else
    echo "FAIL $target"
    tail -n 60 "$log"
  fi
}
export -f run_one
export build seconds
results=$(printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'run_one {}' | tee /dev/stderr)
passed=$(grep -c '^ok   ' <<<"$results")
failed=$((${#targets[@]} - passed))
executions=$(awk '/^ok   / { n += $3 } END { print n + 0 }' <<<"$results")
echo "$passed passed, $failed failed, $executions executions"
((failed == 0))
