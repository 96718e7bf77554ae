#!/usr/bin/env python3
"""Runs ctest, and closes with the number of test cases. Under a sanitizer, a ctest test is a part of a GoogleTest
program with many cases (cmake/targets.cmake, k2_parts).

usage: run_parts.py BUILD_DIR CTEST_OPTION…
"""

import os
import re
import subprocess
import sys


def count(log):
    """What ctest's log of the last run says: the numbers of cases that passed, failed and were skipped."""
    passed = failed = skipped = 0
    for block in re.split(r"^\d+/\d+ Testing: ", log, flags=re.M)[1:]:
        said = {word: sum(int(number) for number in re.findall(rf"^\[  {word} \] (\d+) tests?[.,]", block, re.M))
                for word in ("PASSED ", "FAILED ", "SKIPPED")}
        # A script is one case; so is what ended before it closed.
        is_program = re.search(r"^\[  PASSED  \] \d+ test", block, re.M)
        if re.search(r"^Test Failed\.$", block, re.M):
            failed += max(1, said["FAILED "])
        elif not is_program:
            passed += 1
        passed += said["PASSED "]
        skipped += said["SKIPPED"]
    return passed, failed, skipped


def main():
    build, *options = sys.argv[1:]
    result = subprocess.run(["ctest", "--test-dir", build, "--output-on-failure", *options])
    with open(os.path.join(build, "Testing/Temporary/LastTest.log"), errors="replace") as log:
        passed, failed, skipped = count(log.read())
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if result.returncode or failed else 0


if __name__ == "__main__":
    sys.exit(main())
