#!/usr/bin/env python3
"""`kitsune2 fetch` of a folder beside `cp -r`, `sync` and `sha256sum` of the same folder, and beside the durable store
alone with the same bytes in ops of 256 KiB; and the bytes that each makes the system write.

usage: folder.py --program KITSUNE2 --ours TRANSFER --dir DIR [--mib 1024] [--reps 3] [--out results.jsonl]
The runs take turns. DIR is on the disk to be measured and needs six times the folder's size.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

OP = 256 << 10
MOST_S = 1800


def make_folder(path, mib):
    """Three quarters in files of 16 MiB at most, one quarter in files of 64 KiB."""
    chance = random.Random(11)
    big = min(16 << 20, (mib << 20) // 8)
    sizes = [big] * ((mib << 20) * 3 // 4 // big) + [64 << 10] * ((mib << 20) // 4 // (64 << 10))
    for i, size in enumerate(sizes):
        folder = os.path.join(path, f"d{i % 50}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"f{i}"), "wb") as file:
            file.write(chance.randbytes(size))
    return len(sizes), sum(sizes)


def timed(command, **more):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, check=True, timeout=MOST_S, stdout=subprocess.PIPE, **more)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # What the command made the system write to a disk, as write_bytes of /proc/PID/io.
    return {"wall_s": wall, "cpu_s": cpu, "written": (after.ru_oublock - before.ru_oublock) * 512}, done.stdout


def process_cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    out = open(args.out, "a", encoding="utf-8") if args.out else None
    lines = []

    def note(side, rep, line):
        line |= {"part": "C", "work": f"folder {args.mib} MiB", "side": side, "rep": rep, "load": os.getloadavg()[0]}
        lines.append(line)
        print(f"  folder {side} #{rep}: {line['wall_s']:.2f} s, CPU {line['cpu_s']:.2f} s", file=sys.stderr)
        if out:
            print(json.dumps(line), file=out, flush=True)

    top = tempfile.mkdtemp(dir=args.dir)
    at = lambda name: os.path.join(top, name)
    sharer = None
    try:
        os.mkdir(at("source"))
        files, size = make_folder(at("source"), args.mib)
        with open(at("data"), "wb") as data:
            chance = random.Random(12)
            for _ in range(size // OP):
                data.write(chance.randbytes(OP))
        os.sync()
        sharer = subprocess.Popen([args.program, "share", "--quiet", "--data", at("share"), "--network", "0.2", "--listen", "127.0.0.1:0", at("source")],
                                  stdout=subprocess.PIPE, text=True)
        link = sharer.stdout.readline().strip()
        print(f"{files} files, {size / 2**20:.0f} MiB, {args.reps} runs each in turn, medians")
        for rep in range(args.reps):
            script = 'cp -r "$0" "$1" && sync -f "$1" && find "$1" -type f -print0 | xargs -0 sha256sum >"$1.sums"'
            note("cp + sync + sha256sum", rep, timed(["sh", "-c", script, at("source"), at("copy")])[0])
            shutil.rmtree(at("copy"))
            os.mkdir(at("store"), 0o700)
            whole, told = timed([args.ours, "store", "256", at("data"), str(OP), at("store")])
            note("store alone", rep, json.loads(told) | {"written": whole["written"]})
            shutil.rmtree(at("store"))
            before = process_cpu(sharer.pid)
            line, _ = timed([args.program, "fetch", link, "--quiet", "--data", at("fetch"), "--out", at("got")])
            line["cpu_sharer_s"] = process_cpu(sharer.pid) - before
            note("kitsune2 fetch", rep, line)
            subprocess.run(["diff", "-r", at("source"), at("got")], check=True)
            shutil.rmtree(at("fetch"))
            shutil.rmtree(at("got"))
        walls = {side: statistics.median(l["wall_s"] for l in lines if l["side"] == side) for side in dict.fromkeys(l["side"] for l in lines)}
        slower = max(walls["cp + sync + sha256sum"], walls["store alone"])
        for side, wall in walls.items():
            written = statistics.median(l["written"] for l in lines if l["side"] == side) / size
            print(f"{side:24} {wall:8.2f} s {size / wall / 2**20:8.0f} MiB/s {written:8.2f} bytes written a byte")
        print(f"fetch / the slower of the others: {walls['kitsune2 fetch'] / slower:.2f}  wanted <= 1.3")
    finally:
        if sharer:
            sharer.terminate()
            sharer.wait(timeout=60)
        shutil.rmtree(top)


if __name__ == "__main__":
    main()
