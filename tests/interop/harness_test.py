#!/usr/bin/env python3
"""The bounds of the interop tests are bounds of work: they wait for a process that other programs keep from running,
but not for one that does nothing. Usage: harness_test.py"""

import os
import sys
import time

from harness import Failure, Proc

WORK = """
import time
end = time.process_time() + 0.6
while time.process_time() < end:
    pass
print("did its work", flush=True)
time.sleep(60)
"""


def main():
    # All on one processor, so that the load is the same on every machine.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    procs = [Proc(f"load {i}", [sys.executable, "-c", "while True: pass"]) for i in range(6)]
    try:
        start = time.monotonic()
        worker = Proc("worker", [sys.executable, "-c", WORK])
        procs.append(worker)
        patience = 2
        worker.wait("did its work", patience)
        took = time.monotonic() - start
        if took < patience:
            print(f"FAIL the load is no load: {took:.1f} s")
            return 1
        print(f"ok   0.6 s of work among 6 others, waited for with the patience of {patience} s: {took:.1f} s")
        for load in procs[:6]:
            load.kill()
        start = time.monotonic()
        try:
            worker.wait("never says this", 1)
            print("FAIL the patience for one that does nothing has no end")
            return 1
        except Failure:
            took = time.monotonic() - start
            print(f"ok   the patience of 1 s for one that sleeps: {took:.1f} s")
        return 0
    finally:
        for proc in procs:
            proc.kill()


sys.exit(main())
