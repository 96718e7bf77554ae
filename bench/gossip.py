#!/usr/bin/env python3
"""Runs the rows of gossip_bench and of the stock program in turn (ABAB), and prints medians and ratios. See
gossip.sh."""

import argparse
import json
import os
import statistics
import subprocess


def rows(ops):
    """Each row: title, arguments of ours, arguments of the stock program (None: ours alone), key, factor, unit."""
    missing = min(1_000, ops // 10)
    return [
        (f"start with {ops:,} ops: CPU", ["start", ops], ["start", ops], "cpu_s", 1, "s"),
        ("start with 1,000,000 ops: CPU", ["start", 1_000_000], None, "cpu_s", 1, "s"),
        (f"a stored op, at {ops:,}: CPU", ["stored", ops], ["stored", ops], "cpu_us_an_op", 1, "µs"),
        (f"a round in sync, {ops:,} ops: CPU", ["round", ops, 0], ["round", ops, 0], "cpu_s", 1e3, "ms"),
        ("the same: bytes", ["round", ops, 0], ["round", ops, 0], "bytes", 1, ""),
        (f"a round with 1 of {ops:,} missing: CPU", ["round", ops, 1], ["round", ops, 1], "cpu_s", 1e3, "ms"),
        ("the same: bytes", ["round", ops, 1], ["round", ops, 1], "bytes", 1, ""),
        (f"a round with {missing:,} of {ops:,} missing: CPU", ["round", ops, missing], ["round", ops, missing], "cpu_s",
         1e3, "ms"),
        ("the same: bytes", ["round", ops, missing], ["round", ops, missing], "bytes", 1, ""),
        (f"catch-up, {ops:,} ops of 1 KiB", ["catchup", ops, 1024], ["catchup", ops, 1024], "s", 1, "s"),
        ("the same: CPU", ["catchup", ops, 1024], ["catchup", ops, 1024], "cpu_s", 1, "s"),
        ("the same: bytes", ["catchup", ops, 1024], ["catchup", ops, 1024], "bytes", 1, ""),
        ("catch-up, 100,000 ops of 1 KiB", ["catchup", 100_000, 1024], None, "s", 1, "s"),
        ("first contact, 1,000,000 equal ops: bytes", ["contact", 1_000_000], None, "bytes", 1, ""),
    ]


def run(program, arguments):
    out = subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--stock")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--ops", type=int, default=10_000)
    args = parser.parse_args()
    results = {}

    def measured(program, arguments):
        """The runs of one side. Rows that show another figure of the same run do not run it again."""
        return results.setdefault((program, *arguments), [])

    table = rows(args.ops)
    for _ in range(args.reps):
        done = set()
        for _, ours, stock, *_ in table:
            for program, arguments in ((args.ours, ours), (args.stock, stock)):
                if program and arguments and (program, *arguments) not in done:
                    done.add((program, *arguments))
                    measured(program, arguments).append(run(program, arguments))
    print(f"load {os.getloadavg()[0]:.1f}, medians of {args.reps}")
    print("| row | ours | stock 0.2.2 | stock / ours |\n|---|---|---|---|")
    for title, ours, stock, key, factor, unit in table:
        figures = []
        for program, arguments in ((args.ours, ours), (args.stock, stock)):
            runs = measured(program, arguments) if program and arguments else []
            figures.append(statistics.median(r[key] for r in runs) * factor if runs else None)
        shown = ["–" if f is None else f"{f:,.4g} {unit}".strip() if unit else f"{f:,.0f}" for f in figures]
        ratio = f"{figures[1] / figures[0]:.3g}" if None not in figures and figures[0] else "–"
        print(f"| {title} | {shown[0]} | {shown[1]} | {ratio} |")


if __name__ == "__main__":
    main()
