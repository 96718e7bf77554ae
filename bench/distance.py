#!/usr/bin/env python3
"""W1 to W3, and one op at a time, through a line that delays and throttles (bench/line_proxy): ours, libtorrent and
plain TCP in turn.

usage: distance.py --bin build/bench/bench [--ours NAME=TRANSFER]... [--libtorrent PYTHON] [--trips 10,50,200]
                   [--mbit 0,100,500] [--works w1,w2,w3,op]
                   [--store-dir DIR] [--reps 3] [--jitter MS] [--out results.jsonl] [--only ours,tcp,libtorrent]
Connections are warm: ours and plain TCP fetch one small item before the clock; of libtorrent what one item takes is
taken off, but for one round trip. Where the line is limited, items are added until the run is 20 round trips long. Work
opd is op with durable stores below --store-dir, on a disk. Every run is a JSON line in --out.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile

WORKS = {"w1": (10_000, 1024), "w2": (100_000, 80), "w3": (100, 1 << 20)}
PIECE = 16 << 10  # of libtorrent
MOST_S = 120


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def through_line(command, data, size, proxy, line, extra=()):
    """One run of `serve` and `get` with the proxy between them."""
    with subprocess.Popen([*command, "serve", data, str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = json.loads(server.stdout.readline())["addr"]
            host = address.split("://")[-1].split("/")[0]
            with subprocess.Popen([proxy, host, *line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as between:
                try:
                    near = json.loads(between.stdout.readline())["addr"]
                    got = subprocess.run([*command, "get", address.replace(host, near), data, str(size), *extra], stdout=subprocess.PIPE, text=True,
                                         timeout=MOST_S, check=True)
                finally:
                    between.kill()
            return last_json(got.stdout)
        finally:
            server.kill()


def latency(program, proxy, line, count, size, *folder):
    """One op at a time, from its storing at one node to its storing at the other."""
    with subprocess.Popen([program, str(count), str(size), *folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nodes:
        try:
            host = json.loads(nodes.stdout.readline())["addr"].split("://")[-1].split("/")[0]
            with subprocess.Popen([proxy, host, *line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as between:
                try:
                    near = json.loads(between.stdout.readline())["addr"]
                    return last_json(nodes.communicate(near + "\n", timeout=MOST_S)[0])
                finally:
                    between.kill()
        finally:
            nodes.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--ours", action="append", default=[], help="NAME=program, instead of BIN/transfer")
    parser.add_argument("--libtorrent", help="a Python that has libtorrent 2.1.1")
    parser.add_argument("--trips", default="10,50,200")
    parser.add_argument("--mbit", default="0,100,500")
    parser.add_argument("--works", default="w1,w2,w3,op")
    parser.add_argument("--only", default="ours,tcp,libtorrent")
    parser.add_argument("--store-dir", default=".")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--jitter", type=float, default=0)
    parser.add_argument("--out")
    args = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    ours = dict(each.split("=", 1) for each in args.ours) or {"ours": f"{args.bin}/transfer"}
    out = open(args.out, "a", encoding="utf-8") if args.out else None
    only = args.only.split(",")
    sides = [(name, [program], "warm") for name, program in ours.items()] if "ours" in only else []
    if "tcp" in only:
        sides.append(("tcp", [f"{args.bin}/plain_tcp"], "piece"))
    if "libtorrent" in only and args.libtorrent:
        sides.append(("libtorrent", [args.libtorrent, f"{here}/peers/libtorrent/peer_libtorrent.py"], "piece"))

    print(f"{'':32}" + "".join(f"{name:>26}" for name, *_ in sides) + "    s (MiB/s), medians")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        single = f"{folder}/single"
        with open(single, "wb") as file:
            file.write(random.randbytes(PIECE))
        for trip in [float(t) for t in args.trips.split(",")]:
            for mbit in [float(m) for m in args.mbit.split(",")]:
                line = [f"rtt={trip}", *([f"mbit={mbit}"] if mbit else []), *([f"jitter={args.jitter}"] if args.jitter else [])]
                for work in args.works.split(","):
                    if work in ("op", "opd"):
                        if mbit == 0:
                            with tempfile.TemporaryDirectory(dir=args.store_dir) as stores:
                                got = latency(f"{args.bin}/latency", f"{args.bin}/line_proxy", line, 20, 150, *([stores] if work == "opd" else []))
                            got |= {"trip_ms": trip, "work": work}
                            trips = (got["p50_s"] - got["commit_p50_s"] - got["far_commit_p50_s"]) * 1000 / trip
                            label = f"one op of 150 B, {trip:g} ms" + (", durable" if work == "opd" else "")
                            print(f"{label:40}{got['p50_s']:.4f} = {trips:.2f} round trips and both commits ({got['commit_p50_s']:.4f}, {got['far_commit_p50_s']:.4f}), "
                                  f"p90 {got['p90_s']:.4f}", flush=True)
                            if out:
                                print(json.dumps(got), file=out, flush=True)
                        continue
                    count, size = WORKS[work]
                    if mbit:  # at least 20 round trips of the line
                        count = max(count, math.ceil(20 * trip / 1000 * mbit * 125_000 / size))
                    data = f"{folder}/data"
                    with open(data, "wb") as file:
                        for _ in range(count):
                            file.write(random.randbytes(size))
                    walls = {}
                    for rep in range(args.reps):
                        for name, command, how in sides:
                            try:
                                extra = ["warm=1"] if how == "warm" else []
                                got = through_line(command, data, size if how == "warm" else PIECE, f"{args.bin}/line_proxy", line, extra)
                                if name == "libtorrent":
                                    one = through_line(command, single, PIECE, f"{args.bin}/line_proxy", line)["wall_s"]
                                    got |= {"one_s": one, "cold_s": got["wall_s"], "wall_s": got["wall_s"] - max(0, one - trip / 1000)}
                                walls.setdefault(name, []).append(got["wall_s"])
                            except (subprocess.SubprocessError, ValueError, KeyError, IndexError) as error:
                                got = {"failed": str(error)[:200]}
                                print(f"  {name}: {got['failed']}", file=sys.stderr)
                            got |= {"trip_ms": trip, "mbit": mbit, "jitter_ms": args.jitter, "work": work, "side": name, "rep": rep, "load": os.getloadavg()[0]}
                            if out:
                                print(json.dumps(got), file=out, flush=True)
                    os.remove(data)
                    cells = []
                    for name, *_ in sides:
                        wall = statistics.median(walls[name]) if name in walls else math.nan
                        cells.append(f"{wall:>16.3f} ({count * size / wall / (1 << 20):>7.1f})")
                    label = f"{work} {count} x {size}, {trip:g} ms" + (f", {mbit:g} Mbit/s" if mbit else "")
                    print(f"{label:32}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
