#!/usr/bin/env python3
"""Runs README's example as README says, twice, until each node holds the other's op: readme_example.py PROGRAM."""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 120
program = os.path.abspath(sys.argv[1])


class Run:
    """One run of the program; its lines come from a thread, because a read may not return."""

    def __init__(self, folder, *args):
        self.lines, self.seen = queue.Queue(), []
        self.process = subprocess.Popen([program, *args], cwd=folder, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def wait(self, start):
        """Returns the next line that begins like this."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                sys.exit(f"no line {start!r} within {PATIENCE} s; the last ones: {self.seen[-3:]}")
            if line is None:
                sys.exit(f"the program ended with {self.process.wait()} before a line {start!r}: {self.seen[-3:]}")
            self.seen.append(line)
            if line.startswith(start):
                return line


with tempfile.TemporaryDirectory() as folder:
    runs = []
    try:
        runs.append(Run(folder))
        relay = runs[0].wait("relay: ").removeprefix("relay: ")
        runs.append(Run(folder, relay))
        for run in runs:
            run.wait("holding 2 ops")
    finally:
        for run in runs:
            run.process.terminate()
            run.process.wait()
print("README's example: each node holds both ops")
