#!/usr/bin/env python3
"""Decides by rules whether a soak passed, and draws its charts: judge.py DIR reads DIR/samples.csv and DIR/result.json.

Growth is judged over the second half, on the nodes that never restart and on the lives of the relay. The database grows
with what is published, so there the bytes per op must stay constant.
"""
import contextlib
import csv
import hashlib
import json
import os
import sqlite3
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "net"))

import plot
from k2net import ops_in

COLUMNS = ["t", "who", "life", "rss_kib", "fds", "threads", "cpu_s", "db", "wal", "peers_db", "ops", "bytes", "pending", "heap", "free",
           "sqlite", "fetched", "served", "duplicate", "overdue", "store_failures", "given_up", "rounds", "round_timeouts", "peers",
           "online", "acked"]
MIB = 1 << 20
# Bounds. SQLite's page caches fill as the database grows, and malloc keeps what the
# largest burst needed: a node with an empty disk fetches everything at once. So flatness
# is judged on the heap in use without the caches. RSS has a ceiling, and must be flat
# where the writer's cache was full by the middle.
HEAP_GROWTH = 1 * MIB  # over the second half
FULL_CACHE = 64 * MIB  # the writer's (docs/store-format.md); the reader's 16 MiB fill only with what is read
RSS_GROWTH = 4 * MIB  # over the second half
FD_GROWTH = 2
RSS_CEILING = 160 * MIB  # of any node at any time: 80 MiB of page caches, 64 MiB queued for one peer, and the program
PEERS_DB = 1 * MIB
OVERHEAD_PER_OP = 270  # database bytes beside the payload: a row, two entries in runs, slots that are free; 187 to 202 measured
DRIFT = 0.05  # of database bytes an op, middle to end
SLACK = 512 << 10  # pages in the file or the WAL that hold no op yet; what counts in a short run only
WAL = 40 * MIB


def look_at_store(path, acked):
    """What a stopped node has on disk."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = ops_in(path)
        ids, wrong = set(), 0
        for op, data in rows:
            ids.add(bytes(op))
            wrong += hashlib.sha256(data).digest() != bytes(op)
        return {"ops": len(ids), "missing": len(acked - ids), "wrong_hash": wrong,
                "integrity": db.execute("PRAGMA integrity_check").fetchone()[0],
                "digest": hashlib.sha256(b"".join(sorted(ids))).hexdigest()}


def read(folder):
    with open(os.path.join(folder, "samples.csv"), newline="") as file:
        rows = []
        for row in csv.DictReader(file):
            rows.append({k: v if k in ("who", "online") else (float(v) if v else None) for k, v in row.items()})
        return rows


def growth(rows, value):
    """The rise of the least-squares line through `value` from the first of `rows` to the last."""
    points = [(row["t"], value(row)) for row in rows]
    n = len(points)
    mean_t, mean_v = sum(t for t, _ in points) / n, sum(v for _, v in points) / n
    below = sum((t - mean_t) ** 2 for t, _ in points)
    slope = sum((t - mean_t) * (v - mean_v) for t, v in points) / below if below else 0.0
    return slope * (points[-1][0] - points[0][0])


def rss(row):
    return row["rss_kib"] * 1024


def own(row):
    return row["heap"] - row["sqlite"]


def findings(rows, result):
    """(rule, measured, held) for each."""
    out = []

    def rule(what, measured, held):
        out.append((what, measured, bool(held)))

    rule("nothing went wrong on the way", result["failure"] or "nothing", result["failure"] is None)
    rule("every op that was said to be stored is everywhere", f"{result['acked']} ops, {result['drain_s'] or 'never'} s after the last publish",
         result["drain_s"] is not None)
    stores = result.get("stores", {})
    rule("stores whole: none missing, each op hashes to its id, integrity_check",
         ", ".join(f"{name} {s['ops']}" for name, s in stores.items()),
         len(stores) == result["nodes"] and
         all(s["missing"] == 0 and s["wrong_hash"] == 0 and s["integrity"] == "ok" for s in stores.values()))
    rule("all stores hold the same ops", f"{len({s['digest'] for s in stores.values()})} kind(s)",
         len({s["digest"] for s in stores.values()}) == 1)
    nodes = [row for row in rows if row["who"] != "relay"]
    rule("no write of a store failed", f"{max(row['store_failures'] for row in nodes):.0f}",
         all(row["store_failures"] == 0 for row in nodes))
    peak = max(nodes, key=rss)
    rule(f"RSS of any node at most {RSS_CEILING // MIB} MiB", f"{rss(peak) / MIB:.1f} MiB ({peak['who']})", rss(peak) <= RSS_CEILING)
    half = result["hours"] * 3600 / 2
    stayers = sorted(name for name, lives in result["lives"].items() if lives == 1 and name != "relay")
    rule("two nodes or more never restarted", ", ".join(stayers), len(stayers) >= 2)
    for name in stayers:
        mine = [row for row in nodes if row["who"] == name]
        late = [row for row in mine if row["t"] >= half]
        if len(late) < 3:
            rule(f"{name}: samples of the second half", len(late), False)
            continue
        early = [row for row in mine if row["t"] < half]
        g = growth(late, own)
        rule(f"{name}: heap in use without SQLite's caches grows by at most {HEAP_GROWTH / MIB:.0f} MiB", f"{g / MIB:+.3f} MiB", g <= HEAP_GROWTH)
        if late[0]["sqlite"] >= FULL_CACHE:
            g = growth(late, rss)
            rule(f"{name}: with a full cache RSS grows by at most {RSS_GROWTH / MIB:.0f} MiB", f"{g / MIB:+.2f} MiB", g <= RSS_GROWTH)
        g = growth(late, lambda row: row["fds"])
        rule(f"{name}: fds by at most {FD_GROWTH}", f"{g:+.2f}", g <= FD_GROWTH)
        before, after = max(row["threads"] for row in early), max(row["threads"] for row in late)
        rule(f"{name}: no more threads than in the first half", f"{before:.0f}, {after:.0f}", after <= before)
        first, last = late[0], late[-1]
        bound = last["bytes"] + OVERHEAD_PER_OP * last["ops"] + SLACK
        rule(f"{name}: database at most payload + {OVERHEAD_PER_OP} B an op", f"{last['db']:.0f} B for {last['ops']:.0f} ops, {last['bytes']:.0f} B",
             last["db"] <= bound)
        drift = (last["db"] / last["ops"]) / (first["db"] / first["ops"]) - 1
        rule(f"{name}: database bytes an op within {DRIFT:.0%} of the middle", f"{last['db'] / last['ops']:.0f} B, {drift:+.1%}",
             abs(drift) <= DRIFT + SLACK / first["db"])
        rule(f"{name}: WAL at most {WAL // MIB} MiB, peer database at most {PEERS_DB // MIB} MiB",
             f"{max(row['wal'] for row in mine) / MIB:.1f}, {last['peers_db'] / MIB:.2f} MiB",
             max(row["wal"] for row in mine) <= WAL and last["peers_db"] <= PEERS_DB)
    relay = [row for row in rows if row["who"] == "relay"]
    before = [rss(row) for row in relay if row["t"] < half]
    after = [rss(row) for row in relay if row["t"] >= half]
    rule("relay: RSS of the second half at most 2 MiB over the first", f"{max(before) / MIB:.1f}, {max(after) / MIB:.1f} MiB",
         max(after) <= max(before) + 2 * MIB)
    return out


def cpu_share(rows):
    """CPU of all processes, in cores."""
    lives = {}
    for row in rows:
        lives[row["who"], row["life"]] = row["cpu_s"]
    return sum(lives.values()) / max(row["t"] for row in rows)


def judge(folder):
    rows = read(folder)
    with open(os.path.join(folder, "result.json")) as file:
        result = json.load(file)
    try:
        found = findings(rows, result)
    except ValueError as error:  # too short for a rule: no verdict is no pass
        found = [("samples for every rule", str(error), False)]
    lines = [f"{'ok  ' if held else 'FAIL'} {what}: {measured}" for what, measured, held in found]
    restarts = sum(lives - 1 for name, lives in result["lives"].items() if name != "relay")
    lines.append(f"     {result['acked']} ops, {restarts} restarts of nodes, {result['lives']['relay'] - 1} of the relay, "
                 f"{cpu_share(rows):.3f} cores in all")
    passed = all(held for _, _, held in found)
    lines.append("passed" if passed else "FAILED")
    text = "\n".join(lines)
    print(text, flush=True)
    with open(os.path.join(folder, "verdict.txt"), "w") as file:
        file.write(text + "\n")
    with open(os.path.join(folder, "soak.svg"), "w") as file:
        file.write(plot.draw(rows))
    return passed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: judge.py DIR")
    sys.exit(0 if judge(sys.argv[1]) else 1)
