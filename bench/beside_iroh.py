#!/usr/bin/env python3
"""Ours in dialect 0.5 beside iroh-blobs, both through one relay process of ours (`kitsune2 relay`), in turn (ABAB):
with nothing but the relay, on a direct path, and on a direct path without UDP segmentation offload. Beside W3 the cost
of QUIC alone.

usage: beside_iroh.py --bin BUILD/bench --relay KITSUNE2 [--iroh PEER] [--reps 5] [--works w1,w2,w3] [--sides a,b]
                      [--out results.jsonl]

Every run makes the connection with one item of another kind (its time is that from the dial to the first op), waits
until its path is the wanted one, and then starts the clock. Which path it is: both programs say so, of what the getting
side sends, and the relay counts bytes, of what the serving side sends. A run on the wrong path has failed.
"""

import argparse
import functools
import json
import math
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request

from transfers import MOST_S, NAMES, WORKS, Results, last_json, make_data, pair, show

PAIRS = {  # what is compared with what
    "relay": ("ours relay", "iroh relay"),
    "direct": ("ours direct", "iroh direct"),
    "direct without GSO": ("ours no-gso", "iroh no-gso"),
}


class Relay:
    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "relay", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--sbd-disable-rate-limiting", "--json"],
            stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.process.stdout.readline())
        self.url, self.admin = f"http://{ready['addresses'][0]}/", ready["admin"]

    def bytes_in(self):
        with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=10) as answer:
            return int(re.search(r"^relayserver_bytes_recv_total (\d+)", answer.read().decode(), re.M).group(1))

    def cpu_s(self):
        threads = f"/proc/{self.process.pid}/task"
        total = 0
        for thread in os.listdir(threads):
            with open(f"{threads}/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def peak_rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1)) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


def run(relay, command, data, size, way, env):
    bytes_before, cpu_before = relay.bytes_in(), relay.cpu_s()
    line = pair(command, data, size, options=[f"relay={relay.url}", f"path={way}", "warm=1"], env=env)
    line["cpu_relay_s"], line["relay_bytes"] = relay.cpu_s() - cpu_before, relay.bytes_in() - bytes_before
    line["rss_relay"] = relay.peak_rss()
    by_relay = line["relay_bytes"] / line["bytes"]
    if set(line["path"]) != {way} or (by_relay < 1 if way == "relay" else by_relay > 0.05):
        raise ValueError(f"paths {line['path']}, {by_relay:.2f} of the bytes through the relay")
    return line


def quic_alone(program):
    line = last_json(subprocess.run([program, "100"], stdout=subprocess.PIPE, text=True, timeout=MOST_S, check=True).stdout)
    return line | {"items": 100}


def print_table(results, works):
    print(f"\n{'':30} {'side':12} {'speed':>8} {'wall s':>7} {'CPU s':>7} {'get':>7} {'serve':>7} {'relay':>7} {'RSS get':>8} {'serve':>6} "
          f"{'first op ms':>11} {'path ms':>8} {'runs':>5}")
    sides = list(dict.fromkeys(line["side"] for line in results.lines))
    for work in works:
        get = functools.partial(results.median, "I", work)
        for side in sides:
            done = [l for l in results.lines if (l["work"], l["side"]) == (work, side)]
            if not done:
                continue
            good = sum("failed" not in l for l in done)
            print(f"{NAMES[work]:30} {side:12} {show(get(side, WORKS[work][2])):>8} {show(get(side, 'wall_s')):>7} {show(get(side, 'cpu_s')):>7} "
                  f"{show(get(side, 'cpu_get_s')):>7} {show(get(side, 'cpu_serve_s')):>7} {show(get(side, 'cpu_relay_s')):>7} "
                  f"{show(get(side, 'rss_get') / 2**20):>8} {show(get(side, 'rss_serve') / 2**20):>6} "
                  f"{show(get(side, 'first_s') * 1e3):>11} {show(get(side, 'path_s') * 1e3):>8} {good:>2}/{len(done)}")
    print(f"\n{'ours / iroh-blobs':30} {'':20} {'speed':>6} {'CPU of both nodes':>18} {'relay CPU':>10} {'first op':>9}")
    for work in works:
        for name, (ours, theirs) in PAIRS.items():
            ratio = lambda key, w=work, a=ours, b=theirs: results.median("I", w, a, key) / results.median("I", w, b, key)
            if math.isnan(ratio("wall_s")):
                continue
            relay = ratio("cpu_relay_s") if name == "relay" else math.nan
            print(f"{NAMES[work]:30} {name:20} {show(1 / ratio('wall_s')):>6} {show(ratio('cpu_s')):>18} {show(relay):>10} {show(ratio('first_s')):>9}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--relay", required=True, help="the program kitsune2")
    parser.add_argument("--iroh", help="the program of bench/peers/iroh-blobs; without it, ours alone")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--works", default="w1,w2,w3")
    parser.add_argument("--sides", default=",".join(side for both in PAIRS.values() for side in both))
    parser.add_argument("--out")
    args = parser.parse_args()
    works, sides = args.works.split(","), [side for side in args.sides.split(",") if args.iroh or side.startswith("ours")]
    ours, results = os.path.join(args.bin, "transfer"), Results(args.out)
    without_gso = os.environ | {"LD_PRELOAD": os.path.abspath(os.path.join(args.bin, "libno_gso.so"))}
    folder = tempfile.mkdtemp(dir="/dev/shm")
    relay = Relay(args.relay)
    try:
        data = make_data(folder, works)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, {args.reps} runs each in turn, medians")
        for work in works:
            for rep in range(args.reps):
                for side in sides:
                    who, way = side.split()
                    command, env = [ours if who == "ours" else args.iroh], without_gso if way == "no-gso" else None
                    results.run("I", work, side, rep,
                                functools.partial(run, relay, command, data[work], WORKS[work][1], "relay" if way == "relay" else "direct", env))
                if work == "w3":
                    results.run("I", work, "QUIC alone", rep, functools.partial(quic_alone, os.path.join(args.bin, "quic_bench")))
        print_table(results, works)
        print(f"load {os.getloadavg()[0]:.2f}, peak RSS of the relay {relay.peak_rss() / 2**20:.0f} MiB")
    finally:
        relay.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
