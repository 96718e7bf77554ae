#!/usr/bin/env python3
"""C++ nodes of dialect 0.5 against stock Rust kitsune2 0.5.3, through the stock relay and bootstrap server and ours.

usage: iroh.py --build BUILD_DIR --rust DIR_OF_RUST_BINARIES [NAME_PART…]
As interop.py; what both can do is taken from there.
"""

import argparse
import hashlib
import itertools
import time

from harness import check, die_with_parent, free_port, run
from interop import KINDS, exchange, pair

TESTS = []


def test(*params):
    """Registers a function once for each tuple of parameters, with the parameters in its name."""
    def register(function):
        for args in params or [()]:
            suffix = "".join(f" {a}" for a in args)
            TESTS.append((function.__name__ + suffix, lambda world, f=function, a=args: f(world, *a), False))
        return function
    return register


MIXED = [("cpp", "rust"), ("rust", "cpp")]


@test(*((relay, *nodes) for relay in KINDS for nodes in itertools.product(KINDS, KINDS)))
def notify_1_byte_to_50_megabytes(world, relay, *nodes):
    """Found by bootstrap, preflights both ways, then notifies both ways."""
    left, right = pair(world, relay, *nodes)
    world.meet(left, right)
    for size in (1, 1400, 16_400, 65_536, 1_000_000, 50_000_000):
        expected = hashlib.sha256(bytes(k % 251 for k in range(size))).hexdigest()
        for sender, receiver in ((left, right), (right, left)):
            since = receiver.mark()
            sender.send(f"notify {size}")
            receiver.wait(rf" NOTIFY 0 {size} {expected}$", 120, since)


@test(*itertools.product(KINDS, KINDS, KINDS))
def thousand_ops_each_way(world, relay, a, b):
    """Published, fetched both ways: 1,000 ops of 64 B to 40 kB from each side."""
    left, right = pair(world, relay, a, b)
    exchange(world, left, right, 1000, 64, 40_000, 240)


@test(*MIXED)
def a_few_large_ops(world, a, b):
    left, right = pair(world, "rust", a, b)
    exchange(world, left, right, 4, 1_000_000, 5_000_000, 240)


@test()
def gossip_without_publish(world):
    """Nodes that gossip every second get each other's ops, also old ones, without a publish."""
    left, right = pair(world, "rust", "cpp", "rust", gossip_ms=1000)
    world.meet(left, right)
    for peer in (left, right):
        peer.send("ops 50 64 2000 new")
        peer.send("ops 50 64 2000 old 1000000")
    for peer in (left, right):
        peer.wait(r" HAVE 0 200 ", 240, progress=r" HAVE 0 ")


@test(("cpp",), ("rust",))
def node_restarts(world, kind):
    """A node of `kind` is killed and returns with another url: both exchange ops again."""
    _, addr = world.relay("rust")
    stays = world.peer("rust" if kind == "cpp" else "cpp", "stays", addr)
    first = world.peer(kind, "first", addr)
    stays.wait(r" PEERS 0 1$", 20)
    first.wait(r" PEERS 0 1$", 20)
    world.meet(stays, first)
    first.kill()
    second = world.peer(kind, "second", addr)
    check(second.url != first.url, "the url is the same")
    stays.wait(r" PEERS 0 2$", 60)
    second.wait(r" PEERS 0 [12]$", 60)
    since = stays.mark()

    def heard():
        second.send("notify 77")
        return stays.count(r" NOTIFY 0 77 ", since)

    world.until(heard, 60, "the node that returned is not heard", every=1)


@test(*((relay, *nodes) for relay in KINDS for nodes in MIXED))
def relay_restarts(world, kind, a, b):
    """Relay and bootstrap server are killed and started again: the nodes return, and speak to each other."""
    port = free_port()
    relay, addr = world.relay(kind, port=port)
    left = world.peer(a, "a", addr)
    right = world.peer(b, "b", addr)
    left.wait(r" PEERS 0 1$", 20)
    right.wait(r" PEERS 0 1$", 20)
    world.meet(left, right)
    relay.kill()
    time.sleep(3)
    world.relay(kind, port=port)
    for size, (sender, receiver) in enumerate(((left, right), (right, left)), 1000):
        since = receiver.mark()
        sender.send(f"notify {size}")

        def heard():
            if receiver.count(rf" NOTIFY 0 {size} ", since):
                return True
            sender.send(f"notify {size}")
            return False

        world.until(heard, 120, f"{sender.label} does not reach {receiver.label}", every=2)


if __name__ == "__main__":
    die_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--rust", required=True)
    parser.add_argument("only", nargs="*")
    args = parser.parse_args()
    raise SystemExit(run(TESTS, args.build, args.rust, args.only))
