#!/usr/bin/env python3
"""Runs the fetch scenarios on our side and, if given, on kitsune2_core 0.2.2, in turn (ABAB). Prints medians, ratios.

usage: compare.py --cpp FETCH_ANCHOR [--rust ANCHOR_FETCH] [--reps 5] [--out results.jsonl] [--rows a1000,…]
                  [--prefix "nice -n -20"] [--rust-prefix …]

Every run is one process, whose JSON line goes to --out together with the machine's load. --prefix is put before each
command (--rust-prefix before the reference's, if it differs), for example to give the runs a higher priority on a busy
machine.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys

RUST = "store=raw tx=direct"
# key, description, arguments, additional arguments of the Rust side (None: not run there), compared value, target
ROWS = [
    ("a1000", "1,000 x 64 B", "bench=a n=1000 s=64", "", "ops_per_s", ">= 4x"),
    ("a10000", "10,000 x 64 B", "bench=a n=10000 s=64", "", "ops_per_s", ">= 25x"),
    ("a16000", "16,000 x 1 KiB", "bench=a n=16000 s=1024", "", "ops_per_s", ">= 25x"),
    ("a100000", "100,000 x 64 B", "bench=a n=100000 s=64", None, "ops_per_s", ">= 400 k/s, complete"),
    ("a1000000", "1,000,000 x 64 B", "bench=a n=1000000 s=64", None, "cpu_us_per_op", "<= 1.5x of 1,000"),
    ("a100m", "100 x 1 MiB", "bench=a n=100 s=1048576", "", "ops_per_s", ">= 1.5x"),
    ("b0", "500 ops, 0 pending", "bench=b m=0 n=500", "reinsert_ms=3600000", "cpu_us_per_op", "flat"),
    ("b10000", "500 ops, 10,000 pending", "bench=b m=10000 n=500", "reinsert_ms=3600000", "cpu_us_per_op", "flat"),
    ("b100000", "500 ops, 100,000 pending", "bench=b m=100000 n=500", None, "cpu_us_per_op", "flat"),
    ("b1000000", "500 ops, 1,000,000 pending", "bench=b m=1000000 n=500", None, "cpu_us_per_op", "flat"),
    ("c0", "100 ops, no bad peer", "bench=c m=0 peers=5 n=100", None, "wall_s", ""),
    ("cfail", "100 ops behind 5 failing peers", "bench=c m=10000 peers=5 n=100 mode=fail", "", "wall_s", "<= 1.2x of none"),
    ("csilent", "100 ops behind 5 silent peers", "bench=c m=10000 peers=5 n=100 mode=silent_ok", None, "wall_s", "<= 1.2x of none"),
    ("d1", "1,000 x 1 KiB, 1 peer, 50 ms", "bench=d n=1000 s=1024 peers=1 latency_ms=50 settle_ms=1000", None, "wall_s", ""),
    ("d8", "1,000 x 1 KiB, 8 peers, 50 ms", "bench=d n=1000 s=1024 peers=8 latency_ms=50 settle_ms=3000", "", "op_bytes_ratio", "<= 1.02"),
    ("d8dead", "the same, one dead", "bench=d n=1000 s=1024 peers=8 latency_ms=50 settle_ms=1000 dead=1", None, "op_bytes_ratio", "<= 1.1"),
    ("e1", "memory per pair, 1,000,000 pairs, 1 peer", "bench=e m=1000000 peers=1", None, "rss_bytes_per_pair", "<= 128 B"),
    ("e100", "memory per pair, 1,000,000 pairs, 100 peers", "bench=e m=1000000 peers=100", None, "rss_bytes_per_pair", "<= 128 B"),
]
# Lower bounds for a row on this machine, measured in turn with it.
LIMITS = {"a100m": ("  new memory for it and one copy, alone", "bench=f n=100 s=1048576")}


def run(prefix, binary, arguments, rep):
    done = subprocess.run([*prefix.split(), binary, *arguments.split(), f"rep={rep}"], capture_output=True, text=True, timeout=300)
    try:
        line = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        sys.exit(f"{binary} {arguments}: no result\n{done.stderr}")
    line["ops_per_s"] = line.get("ops_per_s", line.get("ops_s"))
    line["load"] = os.getloadavg()[0]
    line["arguments"] = arguments
    line["prefix"] = prefix
    return line


def median(lines, key):
    values = [line[key] for line in lines if line.get(key) is not None]
    return statistics.median(values) if values else math.nan


def show(value):
    return "-" if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cpp", required=True)
    parser.add_argument("--rust")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--out")
    parser.add_argument("--rows")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--rust-prefix")
    args = parser.parse_args()
    wanted = args.rows.split(",") if args.rows else [row[0] for row in ROWS]
    out = open(args.out, "w", encoding="utf-8") if args.out else None
    rust_prefix = args.prefix if args.rust_prefix is None else args.rust_prefix
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {args.reps} runs each, medians")
    print(f"{'work':46} {'value':20} {'kitsune2 C++':>14} {'kitsune2_core':>14} {'ratio':>8}  wanted")
    medians = {}
    for key, what, arguments, rust_extra, value, goal in ROWS:
        if key not in wanted:
            continue
        ours, theirs, limit = [], [], []
        for rep in range(args.reps):
            ours.append(run(args.prefix, args.cpp, arguments, rep))
            if args.rust and rust_extra is not None:
                theirs.append(run(rust_prefix, args.rust, f"{arguments} {RUST} {rust_extra}", rep))
            if key in LIMITS:
                limit.append(run(args.prefix, args.cpp, LIMITS[key][1], rep))
        for row, lines in ((key, ours + theirs), (f"{key} limit", limit)):
            for line in lines if out else ():
                out.write(json.dumps({"row": row, **line}) + "\n")
        a, b = median(ours, value), median(theirs, value)
        medians[key] = {name: median(ours, name) for name in ("wall_s", "cpu_us_per_op", "ops_per_s")}
        ratio = a / b if theirs and b else math.nan
        incomplete = " INCOMPLETE" if any(line.get("complete") == 0 for line in ours) else ""
        print(f"{what:46} {value:20} {show(a):>14} {show(b):>14} {show(ratio):>8}  {goal}{incomplete}", flush=True)
        if limit:
            print(f"{LIMITS[key][0]:46} {value:20} {show(median(limit, value)):>14} {'-':>14} {'-':>8}  (the limit here)", flush=True)

    def relate(label, top, bottom, name):
        if top in medians and bottom in medians:
            print(f"{label:82} {show(medians[top][name] / medians[bottom][name]):>14}")

    relate("CPU per op, 1,000,000 against 1,000 ops", "a1000000", "a1000", "cpu_us_per_op")
    relate("time behind 5 failing peers against none", "cfail", "c0", "wall_s")
    relate("time behind 5 silent peers against none", "csilent", "c0", "wall_s")
    relate("time from 8 peers against 1", "d8", "d1", "wall_s")
    if "d8" in medians and "d8dead" in medians:
        print(f"{'seconds more with one of the 8 dead (one overdue interval is 2)':82} {show(medians['d8dead']['wall_s'] - medians['d8']['wall_s']):>14}")
    pending = {0: "b0", 10_000: "b10000", 100_000: "b100000", 1_000_000: "b1000000"}
    points = [(math.log10(p + 1), math.log10(medians[k]["cpu_us_per_op"])) for p, k in pending.items() if k in medians]
    if len(points) >= 3:
        mx, my = (statistics.mean(axis) for axis in zip(*points))
        slope = sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)
        print(f"{'exponent of CPU per op over what is pending (wanted <= 0.1)':82} {slope:>14.3f}")


if __name__ == "__main__":
    main()
