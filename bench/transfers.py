#!/usr/bin/env python3
"""Two processes on loopback: our program and those of bench/peers in turn (ABAB); with --store-dir also our durable
store beside the store alone.

usage: transfers.py --ours TRANSFER [--iroh P] [--bitswap P] [--libtorrent P] [--reps 5] [--works w1,w2,w3]
                    [--store-dir DIR] [--out results.jsonl]

A side is a program as described in bench/peers/README.md. Every run gives a JSON line in --out, with the machine's
load; a run that fails or takes over two minutes gives a line with "failed" and does not count.
"""

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

WORKS = {  # items, bytes each, what is compared
    "w1": (10_000, 1024, "items_per_s"),
    "w2": (100_000, 80, "items_per_s"),
    "w3": (100, 1 << 20, "mib_per_s"),
}
NAMES = {"w1": "W1 10,000 x 1 KiB, items/s", "w2": "W2 100,000 x 80 B, items/s", "w3": "W3 100 x 1 MiB, MiB/s"}
BATCHES = (256, 1024, 4096)  # ops a call, of the store alone
TOGETHER = {"w1": 512, "w2": 4096, "w3": 4}  # the same beside a transfer: about what a fetch commits at once
MOST_S = 120


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def pair(command, data, size, folder=None, options=(), env=None):
    """One run of `serve` and `get`. With `folder` the getter's and the server's stores are in it."""
    extra = lambda role: ([os.path.join(folder, role)] if folder else []) + [*options]
    for role in ("serve", "get"):
        if folder:
            os.mkdir(os.path.join(folder, role), 0o700)
    with subprocess.Popen([*command, "serve", data, str(size), *extra("serve")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as server:
        try:
            address = json.loads(server.stdout.readline())["addr"]
            got = subprocess.run([*command, "get", address, data, str(size), *extra("get")], stdout=subprocess.PIPE, text=True, timeout=MOST_S, check=True, env=env)
            line = last_json(got.stdout)
            served = last_json(server.communicate(timeout=MOST_S)[0])
        finally:
            server.kill()
    line["cpu_get_s"], line["cpu_serve_s"] = line["cpu_s"], served["cpu_s"]
    line["cpu_s"] += served["cpu_s"]
    line["rss_get"], line["rss_serve"] = line.pop("peak_rss_bytes"), served["peak_rss_bytes"]
    return line


def alone(command, batch, data, size, folder):
    done = subprocess.run([*command, "store", str(batch), data, str(size), folder], stdout=subprocess.PIPE, text=True, timeout=MOST_S, check=True)
    return last_json(done.stdout)


def together(command, batch, data, size, folder):
    """The transfer into memory and the storing of the same ops, whose ids are known, started at the same moment:
    neither waits for the other. The time of both together is a lower bound for a durable fetch on this machine, however
    well its parts overlap."""
    with subprocess.Popen([*command, "serve", data, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = json.loads(server.stdout.readline())["addr"]
            at = f"at={time.monotonic_ns() + 2_000_000_000}"
            sides = [["get", address, data, str(size), at], ["store-named", str(batch), data, str(size), folder, at]]
            running = [subprocess.Popen([*command, *side], stdout=subprocess.PIPE, text=True) for side in sides]
            got, stored = (last_json(process.communicate(timeout=MOST_S)[0]) for process in running)
            served = last_json(server.communicate(timeout=MOST_S)[0])
        finally:
            server.kill()
    line = {key: got[key] for key in ("items", "bytes")}
    return line | {"wall_s": max(got["wall_s"], stored["wall_s"]), "cpu_s": got["cpu_s"] + stored["cpu_s"] + served["cpu_s"]}


class Results:
    def __init__(self, path):
        self.out = open(path, "a", encoding="utf-8") if path else None
        self.lines = []

    def run(self, part, work, side, rep, how):
        load = os.getloadavg()[0]
        try:
            line = how()
            line["items_per_s"], line["mib_per_s"] = line["items"] / line["wall_s"], line["bytes"] / line["wall_s"] / (1 << 20)
        except (subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
            line = {"failed": str(error)[:200]}
        line |= {"part": part, "work": work, "side": side, "rep": rep, "load": load}
        self.lines.append(line)
        if self.out:
            print(json.dumps(line), file=self.out, flush=True)
        shown = line.get("failed") or f"{line['wall_s']:.3f} s, CPU {line['cpu_s']:.3f} s"
        print(f"  {part} {work} {side} #{rep}: {shown}", file=sys.stderr)

    def median(self, part, work, side, key):
        values = [l[key] for l in self.lines if (l["part"], l["work"], l["side"]) == (part, work, side) and key in l]
        return statistics.median(values) if values else math.nan


def show(value, digits=3):
    return "-" if math.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def beside_others(results, works, sides, reps, data):
    for work in works:
        size = WORKS[work][1]
        for rep in range(reps):
            for side, command in sides.items():
                results.run("B", work, side, rep, lambda c=command, w=work, s=size: pair(c, data[w], s))
    print(f"\n{'memory stores':30} {'side':12} {'speed':>10} {'ours / it':>10} {'CPU s':>8} {'of it: get':>10} {'RSS get MiB':>12} {'RSS serve':>10}")
    for work in works:
        key = WORKS[work][2]
        ours = results.median("B", work, "ours", key)
        for side in sides:
            value = results.median("B", work, side, key)
            print(f"{NAMES[work]:30} {side:12} {show(value):>10} {show(ours / value):>10} {show(results.median('B', work, side, 'cpu_s')):>8} "
                  f"{show(results.median('B', work, side, 'cpu_get_s')):>10} {show(results.median('B', work, side, 'rss_get') / 2**20):>12} "
                  f"{show(results.median('B', work, side, 'rss_serve') / 2**20):>10}")


def durable(results, works, ours, reps, data, root):
    for work in works:
        size = WORKS[work][1]
        for rep in range(reps):
            for batch in (0, *BATCHES):  # 0: fetched
                with tempfile.TemporaryDirectory(dir=root) as folder:
                    how = (lambda f=folder, w=work, s=size: pair(ours, data[w], s, f)) if batch == 0 else (
                        lambda b=batch, f=folder, w=work, s=size: alone(ours, b, data[w], s, f))
                    results.run("C", work, f"store {batch}" if batch else "ours", rep, how)
            with tempfile.TemporaryDirectory(dir=root) as folder:
                results.run("C", work, "together", rep, lambda f=folder, w=work, s=size: together(ours, TOGETHER[w], data[w], s, f))
    print(f"\n{'SQLite, FULL':30} {'fetched':>10} {'store alone':>12} {'batch':>6} {'ratio':>7}  wanted >= 0.8  {'limit here':>10} {'ratio':>7}")
    for work in works:
        key = WORKS[work][2]
        best = max(BATCHES, key=lambda b: results.median("C", work, f"store {b}", key))
        ours_value, top = results.median("C", work, "ours", key), results.median("C", work, f"store {best}", key)
        print(f"{NAMES[work]:30} {show(ours_value):>10} {show(top):>12} {best:>6} {show(ours_value / top):>7}  {'':13}  "
              f"{show(results.median('C', work, 'together', key)):>10} {show(results.median('C', work, 'together', key) / top):>7}")
    print("limit here: the transfer into memory and the store at once, neither waiting for the other")


def make_data(folder, works):
    """The files of items in `folder`, by work."""
    data = {}
    for work in works:
        items, size, _ = WORKS[work]
        data[work] = os.path.join(folder, work)
        chance = random.Random(7)
        with open(data[work], "wb") as file:
            # Item by item: the most that this process ever held would count as the peak of the processes that it
            # starts.
            for _ in range(items):
                file.write(chance.randbytes(size))
    return data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--iroh")
    parser.add_argument("--bitswap")
    parser.add_argument("--libtorrent")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--works", default="w1,w2,w3")
    parser.add_argument("--store-dir")
    parser.add_argument("--out")
    args = parser.parse_args()
    works = args.works.split(",")
    sides = {"ours": [args.ours]}
    if args.iroh:
        sides["iroh-blobs"] = [args.iroh]
    if args.bitswap:
        sides["bitswap"] = [args.bitswap]
    if args.libtorrent:
        sides["libtorrent"] = ["/usr/bin/python3", args.libtorrent]
    results = Results(args.out)
    folder = tempfile.mkdtemp(dir="/dev/shm")
    try:
        data = make_data(folder, works)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {args.reps} runs each in turn, medians")
        beside_others(results, works, sides, args.reps, data)
        if args.store_dir:
            durable(results, works, [args.ours], args.reps, data, args.store_dir)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
