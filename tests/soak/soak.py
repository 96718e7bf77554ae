#!/usr/bin/env python3
"""A small network for hours: nodes leave and come back (SIGTERM, SIGKILL, new keys, empty disks), the relay restarts.

usage: soak.py [--hours 2] [--nodes 5] [--seed 1] [--drain SECONDS] [--prefill OPS] --out DIR
Every node publishes ops all the time. At the end all come back, and every op that a node reported as stored must be at
all of them. Memory, fds, threads, CPU and database sizes go to DIR/samples.csv each 10 s; judge.py decides by rule and
draws DIR/soak.svg. Exit code 0: passed.
K2 and K2_SOAK_NODE name the programs (default: build/release).
"""
import argparse
import contextlib
import csv
import glob
import json
import os
import queue
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import judge

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
K2 = os.path.abspath(os.environ.get("K2", os.path.join(ROOT, "build/release/apps/kitsune2/kitsune2")))
NODE = os.path.abspath(os.environ.get("K2_SOAK_NODE", os.path.join(ROOT, "build/release/tests/soak/soak_node")))
STAYERS = 2  # these never restart: what leaks shows in them
TICK_HZ = os.sysconf("SC_CLK_TCK")
# More rounds than by default in the available time, because publish alone does not reach nodes that are away.
GOSSIP = {"initialInitiateIntervalMs": 2000, "initiateIntervalMs": 20000, "initiateJitterMs": 5000, "minInitiateIntervalMs": 30000}


class Proc:
    """A child process that communicates by JSON lines."""

    def __init__(self, args, log):
        self.proc = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.events = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.proc.stdout:
            try:
                self.events.put(json.loads(line))
            except ValueError:
                pass  # the last line of one that was killed
        self.events.put(None)

    def say(self, line):
        try:
            self.proc.stdin.write(line + "\n")
            self.proc.stdin.flush()
        except OSError:
            pass  # it has ended; who waits for the answer hears so

    def hear(self, name, seconds):
        """Returns the next event `name`; None if the process ends or is silent for this long."""
        end = time.monotonic() + seconds
        while True:
            try:
                event = self.events.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                return None
            if event is None or event.get("event") == name:
                return event

    def alive(self):
        return self.proc.poll() is None

    def end(self, number, seconds=30):
        if self.alive():
            self.proc.send_signal(number)
        code = self.proc.wait(seconds)
        self.proc.stdin.close()
        return code

    def usage(self):
        """(RSS in KiB, fds, threads, CPU seconds), or None when it is gone."""
        base = f"/proc/{self.proc.pid}"
        try:
            with open(base + "/status") as file:
                status = dict(line.split(":", 1) for line in file if ":" in line)
            with open(base + "/stat") as file:
                stat = file.read().rsplit(")", 1)[1].split()
            fds = len(os.listdir(base + "/fd"))
            return int(status["VmRSS"].split()[0]), fds, int(status["Threads"]), (int(stat[11]) + int(stat[12])) / TICK_HZ
        except (OSError, KeyError):
            return None


class Node:
    def __init__(self, soak, number):
        self.soak, self.name = soak, f"n{number}"
        self.stays = number < STAYERS
        self.dir = os.path.join(soak.work, self.name)
        self.proc, self.life, self.due, self.next_publish = None, 0, None, 0.0
        self.acked = 0

    def start(self):
        self.life += 1
        self.proc = Proc([NODE, self.dir, self.soak.relay_url, "soak", self.soak.config], self.soak.log)
        if self.proc.hear("ready", 60) is None:
            raise RuntimeError(f"{self.name} does not start; see log.txt")
        if not self.stays:
            self.due = self.soak.now() + self.soak.rng.uniform(0.02, 0.08) * self.soak.length
        self.next_publish = self.soak.now()

    def publish(self, count=None):
        rng = self.soak.rng
        self.next_publish = self.soak.now() + rng.uniform(0.5, 1.5) * self.soak.args.period
        self.proc.say(f"publish {count or rng.randint(1, 2 * self.soak.args.batch - 1)} {rng.getrandbits(63)}")
        event = self.proc.hear("published", 60)
        if event is None:
            raise RuntimeError(f"{self.name} does not answer to publish; see log.txt")
        self.acked += len(event["ids"])
        self.soak.acked.update(bytes.fromhex(one) for one in event["ids"])

    def database(self):
        found = [path for path in glob.glob(os.path.join(self.dir, "*.db")) if not path.endswith(".peers.db")]
        return found[0] if found else None

    def ids(self):
        path = self.database()
        if path is None:
            return set()  # its disk was emptied and it is not back yet
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return {bytes(row[0]) for row in db.execute("SELECT id FROM op")}

    def leave(self):
        """Ends the node; what it does next is decided when it is down."""
        kill = self.soak.rng.random() < 0.5
        if kill and self.soak.rng.random() < 0.5:  # in the middle of a write
            self.proc.say(f"publish {self.soak.args.batch} {self.soak.rng.getrandbits(63)}")
            time.sleep(self.soak.rng.uniform(0, 0.01))
        code = self.proc.end(signal.SIGKILL if kill else signal.SIGTERM)
        if not kill and code != 0:
            raise RuntimeError(f"{self.name}: exit code {code} after SIGTERM")
        for event in iter(self.proc.events.get, None):  # what it still said counts
            if event.get("event") == "published":
                self.soak.acked.update(bytes.fromhex(one) for one in event["ids"])
        self.proc = None
        how, what = "kill" if kill else "term", self.soak.rng.random()
        if what < 0.15:
            # A node whose disk is emptied must not take the only copy of an op with it: that would not be the network's
            # fault.
            others = set().union(*(n.ids() for n in self.soak.nodes if n is not self))
            if self.ids() <= others:
                shutil.rmtree(self.dir)
                how += ", empty disk"
        elif what < 0.4:
            os.remove(os.path.join(self.dir, "agent.key"))
            how += ", new agent"
        self.due = self.soak.now() + self.soak.rng.uniform(0.001, 0.02) * self.soak.length
        self.soak.note(f"{self.name} left ({how})")


class Soak:
    def __init__(self, args):
        self.args, self.rng = args, random.Random(args.seed)
        self.length = args.hours * 3600
        self.out = os.path.abspath(args.out)
        self.work = os.path.join(self.out, "work")
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        self.log = open(os.path.join(self.out, "log.txt"), "w")
        self.notes = open(os.path.join(self.out, "notes.txt"), "w", buffering=1)
        self.config = os.path.join(self.work, "config.json")
        with open(self.config, "w") as file:
            json.dump({"k2Gossip": GOSSIP}, file)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.relay, self.relay_due, self.relay_life = None, 0, 0
        self.nodes = [Node(self, i) for i in range(args.nodes)]
        self.acked, self.started = set(), time.monotonic()
        self.csv_file = open(os.path.join(self.out, "samples.csv"), "w", newline="", buffering=1)
        self.csv = csv.DictWriter(self.csv_file, judge.COLUMNS)
        self.csv.writeheader()

    def now(self):
        return time.monotonic() - self.started

    def note(self, text):
        self.notes.write(f"{self.now():8.1f} {text}\n")

    def start_relay(self):
        self.relay = Proc([K2, "relay", "--listen", f"127.0.0.1:{self.port}", "--json"], self.log)
        event = self.relay.hear("listening", 30)
        if event is None:
            raise RuntimeError("the relay does not start; see log.txt")
        self.relay_url, self.relay_life = event["relay"], self.relay_life + 1
        self.relay_due = self.now() + self.rng.uniform(0.1, 0.25) * self.length

    def stop_relay(self):
        kill = self.rng.random() < 0.5
        code = self.relay.end(signal.SIGKILL if kill else signal.SIGTERM)
        if not kill and code != 0:
            raise RuntimeError(f"relay: exit code {code} after SIGTERM")
        self.relay = None
        self.relay_due = self.now() + self.rng.uniform(2, 20)
        self.note(f"relay {'killed' if kill else 'stopped'}")

    def sample(self):
        """Writes a line for each living process."""
        living = [n for n in self.nodes if n.proc]
        for node in living:
            node.proc.say("stats")
        for node in living:
            stats, usage = node.proc.hear("stats", 60), node.proc.usage()
            if stats is None or usage is None:
                raise RuntimeError(f"{node.name} does not answer; see log.txt")
            db = node.database()
            sizes = [os.path.getsize(p) if os.path.exists(p) else 0 for p in (db, db + "-wal", db[:-3] + ".peers.db", db + "-data")]
            sizes[0] += sizes.pop()  # both have what is held
            self.row(node.name, node.life, usage, dict(zip(("db", "wal", "peers_db"), sizes)), stats)
        if self.relay and (usage := self.relay.usage()):
            self.row("relay", self.relay_life, usage, {}, {})

    def row(self, who, life, usage, sizes, stats):
        row = {"t": f"{self.now():.1f}", "who": who, "life": life, "acked": len(self.acked), **sizes,
               **dict(zip(("rss_kib", "fds", "threads", "cpu_s"), usage))}
        row.update({name: value for name, value in stats.items() if name in judge.COLUMNS})
        self.csv.writerow(row)

    def churn(self):
        now = self.now()
        if now >= self.relay_due:
            self.stop_relay() if self.relay else self.start_relay()
        for node in self.nodes:
            if node.due is not None and now >= node.due:
                if node.proc:
                    node.leave()
                else:
                    node.start()
                    self.note(f"{node.name} is back")
            if node.proc and now >= node.next_publish:
                node.publish()

    def run(self):
        self.start_relay()
        for node in self.nodes:
            node.start()
        self.note(f"{len(self.nodes)} nodes and a relay run")
        next_sample = 0.0
        while len(self.acked) < self.args.prefill:
            self.nodes[0].publish(500)
        self.note(f"{len(self.acked)} ops are published at once")
        while self.now() < self.length:
            self.churn()
            if self.now() >= next_sample:
                self.sample()
                next_sample += self.args.every
            time.sleep(0.1)
        return self.drain()

    def drain(self):
        """All nodes return and nobody publishes. Returns how long it takes until all have everything; None if that
        never happens."""
        if not self.relay:
            self.start_relay()
        for node in self.nodes:
            if not node.proc:
                node.start()
        start, took = self.now(), None
        self.note("nothing more is published")
        while took is None and self.now() - start < self.args.drain:
            time.sleep(2)
            self.sample()
            if all(self.acked <= node.ids() for node in self.nodes):
                took = self.now() - start
        self.note("everything is everywhere" if took is not None else "some ops did not arrive")
        return took

    def close(self):
        for node in self.nodes:
            if node.proc:
                node.proc.end(signal.SIGKILL)
        if self.relay:
            self.relay.end(signal.SIGKILL)
        self.csv_file.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drain", type=float, default=300, help="seconds that the last ops may take (default 300)")
    parser.add_argument("--prefill", type=int, default=0, help="ops published at the start, e.g. to fill the page caches")
    parser.add_argument("--period", type=float, default=10, help="seconds between publishes of a node")
    parser.add_argument("--batch", type=int, default=5, help="ops of a publish, on average")
    parser.add_argument("--every", type=float, default=10, help="seconds between samples")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    for path in (K2, NODE):
        if not os.access(path, os.X_OK):
            parser.error(f"no program at {path}; build it or set K2 and K2_SOAK_NODE")
    soak = Soak(args)
    result = {"hours": args.hours, "nodes": args.nodes, "seed": args.seed, "failure": None, "drain_s": None}
    try:
        result["drain_s"] = soak.run()
        codes = [node.proc.end(signal.SIGTERM) for node in soak.nodes]
        if any(codes):
            result["failure"] = f"exit codes after SIGTERM: {codes}"
        result["stores"] = {node.name: judge.look_at_store(node.database(), soak.acked) for node in soak.nodes}
    except (RuntimeError, OSError, sqlite3.Error, subprocess.TimeoutExpired) as error:
        result["failure"] = str(error)
    finally:
        soak.close()
    result["acked"] = len(soak.acked)
    result["lives"] = {"relay": soak.relay_life, **{node.name: node.life for node in soak.nodes}}
    with open(os.path.join(soak.out, "result.json"), "w") as file:
        json.dump(result, file, indent=1)
    passed = judge.judge(soak.out)
    if passed:
        shutil.rmtree(soak.work)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
