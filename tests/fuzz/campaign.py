#!/usr/bin/env python3
"""Fuzzes for hours: gives every target the same CPU time, in slices, one process at a time, and keeps the totals.

usage: tests/fuzz/campaign.py BUILD_DIR STATE_DIR [--until HH:MM] [--processes N] [--slice CPU_SECONDS] [TARGET...]
       tests/fuzz/campaign.py STATE_DIR --table       what was run so far, as the table of docs/fuzzing.md

BUILD_DIR is what tests/fuzz/run.sh builds. STATE_DIR keeps found/TARGET (the corpus that grows), a log per target and
runs.jsonl (a line per slice), so that a later call continues where this one stopped; SIGTERM and SIGINT end it cleanly.
A finding is a file STATE_DIR/TARGET-crash-... (or -leak-, -timeout-, -oom-); its target rests until the file is gone.
"""
import argparse
import collections
import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TICK = os.sysconf("SC_CLK_TCK")


def all_targets():
    text = (ROOT / "tests/fuzz/CMakeLists.txt").read_text()
    return re.findall(r"^k2_fuzz\((\w+) ", text, re.M)


def read_runs(state):
    path = state / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def findings(state, target):
    return [p for kind in ("crash", "leak", "timeout", "oom") for p in state.glob(f"{target}-{kind}-*")]


def print_table(state):
    total = collections.defaultdict(lambda: [0, 0.0, 0])
    for run in read_runs(state):
        row = total[run["target"]]
        row[0] += run["executions"]
        row[1] += run["cpu"]
        row[2] = run["edges"] or row[2]
    print("| target | executions | CPU seconds | edges | corpus in the repository |")
    print("|---|---|---|---|---|")
    for target in all_targets():
        executions, cpu, edges = total[target]
        held = len(list((ROOT / "tests/fuzz/corpus" / target).iterdir()))
        print(f"| `{target}` | {executions:,} | {cpu:,.0f} | {edges} | {held} |")
    print(f"| all | {sum(r[0] for r in total.values()):,} | {sum(r[1] for r in total.values()):,.0f} | | |")


class Slice:
    """One run of a target, ended after some CPU seconds."""

    def __init__(self, build, state, target, limit, edges):
        self.target, self.limit, self.state = target, limit, state
        found = state / "found" / target
        found.mkdir(parents=True, exist_ok=True)
        self.log = state / f"{target}.log"
        command = [
            build / "tests/fuzz" / f"fuzz_{target}",
            "-print_final_stats=1",
            "-report_slow_units=1200",
            # Its bookkeeping of rare features takes most of the time where there are many.
            f"-entropic={int(0 < edges < 1500)}",
            f"-artifact_prefix={state}/{target}-",
            found,
            ROOT / "tests/fuzz/corpus" / target,
        ]
        # Short stacks of allocations, because unwinding would take most of a small execution. Reproducing shows them in
        # full.
        options = "malloc_context_size=4:quarantine_size_mb=64:" + os.environ.get("ASAN_OPTIONS", "")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, cwd=state,
                env=dict(os.environ, ASAN_OPTIONS=options))
        self.told = False

    def cpu(self):
        try:
            fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / TICK

    def tell_to_end(self):
        if not self.told:
            self.process.send_signal(signal.SIGUSR1)  # libFuzzer ends after the execution and prints its statistics
            self.told = True

    def look(self):
        """The record of the run if it has ended."""
        if self.cpu() >= self.limit:
            self.tell_to_end()
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        text = self.log.read_text(errors="replace")
        executed = re.findall(r"^stat::number_of_executed_units: *(\d+)", text, re.M)
        edges = re.findall(r" cov: (\d+) ", text)
        return {
            "target": self.target,
            "time": datetime.datetime.now().isoformat(timespec="seconds"),
            "executions": int(executed[-1]) if executed else 0,
            "cpu": round(usage.ru_utime + usage.ru_stime, 2),
            "edges": int(edges[-1]) if edges else 0,
            "exit": self.process.returncode,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="BUILD_DIR STATE_DIR [TARGET...], or STATE_DIR with --table")
    parser.add_argument("--until", help="HH:MM; else until it is told to end")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--slice", type=float, default=60, help="CPU seconds")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_intermixed_args()
    if args.table:
        return print_table(pathlib.Path(args.folders[0]))
    build, state = (pathlib.Path(folder).resolve() for folder in args.folders[:2])
    targets = args.folders[2:] or all_targets()
    state.mkdir(parents=True, exist_ok=True)
    end = None
    if args.until:
        hour, minute = map(int, args.until.split(":"))
        now = datetime.datetime.now()
        end = now.replace(hour=hour, minute=minute, second=0)
        end = (end if end > now else end + datetime.timedelta(days=1)).timestamp()

    stopping = []
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stopping.append(True))
    os.nice(19 - os.nice(0))
    spent, edges = collections.Counter(), collections.Counter()
    for run in read_runs(state):
        spent[run["target"]] += run["cpu"]
        edges[run["target"]] = run["edges"] or edges[run["target"]]
    slices, known = [], set()
    while True:
        if stopping or (end and time.time() >= end):
            if not slices:
                break
            for each in slices:
                each.tell_to_end()
        else:
            free = [t for t in targets if not findings(state, t) and t not in {s.target for s in slices}]
            while len(slices) < args.processes and free:
                target = min(free, key=lambda t: spent[t])
                free.remove(target)
                slices.append(Slice(build, state, target, args.slice, edges[target]))
            if not slices:
                print("every target has a finding")
                break
        time.sleep(0.5)
        for each in slices[:]:
            run = each.look()
            if run is None:
                continue
            slices.remove(each)
            spent[run["target"]] += max(run["cpu"], 1)
            edges[run["target"]] = run["edges"] or edges[run["target"]]
            with open(state / "runs.jsonl", "a") as out:
                out.write(json.dumps(run) + "\n")
            print("{time} {target}: {executions} executions, {cpu} s CPU, {edges} edges, exit {exit}".format(**run), flush=True)
            for finding in findings(state, run["target"]):
                if finding not in known:
                    known.add(finding)
                    print(f"FINDING {finding}", flush=True)
    return 1 if any(findings(state, t) for t in targets) else 0


if __name__ == "__main__":
    sys.exit(main())
