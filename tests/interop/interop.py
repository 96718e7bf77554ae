#!/usr/bin/env python3
"""C++ nodes and relay against stock Rust kitsune2 of one version, both ways round.

usage: interop.py --build BUILD_DIR --rust DIR_OF_RUST_BINARIES [--one-of-each] [NAME_PART…]
Each test starts real processes on loopback and asserts on what they hold at the end.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import sqlite3
import sys
import time
import urllib.request

import gossip_flows
from harness import Tests, arguments, check, die_with_parent, digest_of, free_port, run

TESTS = Tests()
test = TESTS.register
KINDS = ("cpp", "rust")


def pair(world, relay, a, b, limits=False, **options):
    """A relay and two nodes that have found each other."""
    _, addr = world.relay(relay, limits=limits)
    left = world.peer(a, "a", addr, **options)
    right = world.peer(b, "b", addr, **options)
    # On a busy machine a stock node's second look at the server, after 10 s, may be too early. The third is 20 s later.
    left.wait(r" PEERS 0 1$", 60)
    right.wait(r" PEERS 0 1$", 60)
    return left, right


def exchange(world, left, right, count, smallest, largest, patience):
    """Each stores `count` ops and publishes them; both must end with all of them. `patience`: how long nothing may
    arrive.

    A stock node drops what it was about to publish when it loses the connection: then all publish again, as
    applications do. When a send takes longer than its timeoutS it drops that too: then the stock nodes publish again.
    With one of our nodes this must end soon, and our nodes must not need it among themselves."""
    peers = (left, right)
    stock = [peer for peer in peers if peer.label.startswith("rust-")]
    for peer in peers:
        peer.send(f"ops {count} {smallest} {largest} x")
    for peer in peers:
        peer.wait(rf" OK ops {count}", patience)
    world.meet(*peers)
    rounds = 0
    lost = failed = held = end = None
    while True:
        publishers = ()
        lost_before, lost = lost, sum(peer.count(r" DISCONNECTED ") for peer in stock)
        failed_before, failed = failed, sum(peer.count(r" FAILED publish ") for peer in stock)
        if lost != lost_before:
            publishers = peers
        elif failed != failed_before:
            publishers = stock
        rounds += 1 if publishers else 0
        check(len(stock) != 1 or rounds <= 4, f"published 4 times, and the stock node lost or failed again: {lost} connections "
              f"lost, {failed} publishes failed")
        for peer in publishers:
            peer.send("publish")
        before, held = held, [peer.last(r" HAVE 0 (\d+) (\w+)$") for peer in peers]
        if held != before:
            end = world.clock.now() + patience
        if all(found and found[0] == str(2 * count) for found in held):
            check(held[0] == held[1], f"the nodes hold different ops: {held}")
            return
        check(world.clock.now() < end, f"nothing came for {patience} s: of {2 * count} ops, the nodes hold {held}")
        time.sleep(0.1)


@test(*itertools.product(KINDS, KINDS, KINDS), one=("rust", "cpp", "rust"))
def thousand_ops_each_way(world, relay, a, b):
    """Found by bootstrap, published, fetched both ways: 1,000 ops of 64 B to 40 kB from each side."""
    left, right = pair(world, relay, a, b, timeout_s=5 if a == b == "rust" else 60)
    exchange(world, left, right, 1000, 64, 40_000, 240)


@test(*itertools.product(KINDS, [("cpp", "rust"), ("rust", "cpp")]), one=("cpp", ("rust", "cpp")))
def notify_1_byte_to_1_megabyte(world, relay, nodes):
    left, right = pair(world, relay, *nodes)
    for size in (1, 16_000, 16_330, 16_380, 16_400, 65_536, 1_000_000):
        expected = hashlib.sha256(bytes(k % 251 for k in range(size))).hexdigest()
        for sender, receiver in ((left, right), (right, left)):
            since = receiver.mark()
            sender.send(f"notify {size}")
            receiver.wait(rf" NOTIFY 0 {size} {expected}$", 60, since)


@test((60,), (5,), (2,), one=(2,))
def rust_timeouts(world, timeout_s):
    """The Rust side's short timeoutS does no harm: nodes connect, and stay connected over several of its idle
    limits."""
    _, addr = world.relay("cpp")
    rust = world.peer("rust", "a", addr, timeout_s=timeout_s)
    cpp = world.peer("cpp", "b", addr, timeout_s=timeout_s)
    rust.wait(r" PEERS 0 1$", 60)
    cpp.wait(r" PEERS 0 1$", 60)
    exchange(world, rust, cpp, 20, 64, 2000, 60)
    if timeout_s < 60:
        time.sleep(3 * timeout_s)
        since = cpp.mark()
        rust.send("notify 100")
        cpp.wait(r" NOTIFY 0 100 ", 30, since)


@test(("rust",), ("cpp",))
def node_restarts(world, kind):
    """A node of `kind` is killed while it is being asked, and returns: everything arrives."""
    _, addr = world.relay("cpp")
    other_kind = "cpp" if kind == "rust" else "rust"
    stays = world.peer(other_kind, "stays", addr, timeout_s=5)
    first = world.peer(kind, "goes", addr, timeout_s=5)
    stays.wait(r" PEERS 0 1$", 60)
    first.wait(r" PEERS 0 1$", 60)
    first.send("ops 200 64 20000 x")
    first.wait(r" OK ops", 30)
    first.send("publish")
    stays.wait(r" HAVE 0 \d+ ", 60)
    first.kill()
    # The same name makes the same ops again; agent and url are new.
    second = world.peer(kind, "goes", addr, timeout_s=5)
    second.send("ops 200 64 20000 x")
    second.wait(r" OK ops", 30)
    second.wait(r" PEERS 0 [12]$", 20)
    stays.wait(r" PEERS 0 2$", 30)
    stays.send("ops 50 64 2000 y")
    stays.wait(r" OK ops", 30)
    world.meet(stays, second)
    for _ in range(2):
        second.send("publish")
        stays.send("publish")
    left = digest_of(stays, 0, 250, 120)
    right = digest_of(second, 0, 250, 120)
    check(left == right, "different ops")


@test(("cpp", "rust"), ("rust", "cpp"), ("cpp", "cpp"))
def relay_restarts(world, a, b):
    """The relay is killed and started again on its port: the nodes return on their own, and all ops arrive."""
    port = free_port()
    relay, addr = world.relay("cpp", port=port)
    left = world.peer(a, "a", addr, timeout_s=5)
    right = world.peer(b, "b", addr, timeout_s=5)
    left.wait(r" PEERS 0 1$", 60)
    right.wait(r" PEERS 0 1$", 60)
    exchange(world, left, right, 50, 64, 2000, 60)
    marks = left.mark(), right.mark()
    relay.kill()
    time.sleep(1)
    world.relay("cpp", port=port)
    left.wait(r" ONLINE ", 60, marks[0])
    right.wait(r" ONLINE ", 60, marks[1])
    for peer in (left, right):
        peer.send("ops 100 64 2000 z")
        peer.wait(r" OK ops 100", 30)
    world.meet(left, right)
    # New urls spread by bootstrap and by publishing agents; publishing again is what an application does.
    end = world.clock.now() + 120
    while True:
        for peer in (left, right):
            peer.send("publish")
        try:
            sums = {digest_of(peer, 0, 300, 5) for peer in (left, right)}
            break
        except AssertionError:
            if world.clock.now() > end:
                raise
    check(len(sums) == 1, "different ops")


@test(("cpp", "rust", "rust"), ("cpp", "cpp", "rust"))
def three_nodes_16_spaces(world, *kinds):
    _, addr = world.relay("cpp")
    peers = [world.peer(kind, "abc"[i], addr, spaces=16, timeout_s=20) for i, kind in enumerate(kinds)]
    for peer in peers:
        for space in range(16):
            peer.wait(rf" PEERS {space} 2$", 60)
    for peer in peers:
        peer.send("ops 10 64 3000 x")
        peer.wait(r" OK ops", 30)
    world.meet(*peers)
    for peer in peers:
        peer.send("publish")
    # A stock node that dials a peer at the same moment as the peer dials it drops both connections and what it was
    # about to publish ("already connected" in its log), so stock nodes publish once more. Ours must not need that.
    for peer, kind in zip(peers, kinds):
        if kind == "rust":
            peer.wait(r" OK publish", 60)
            time.sleep(3)
            peer.send("publish")
    for space in range(16):
        sums = {digest_of(peer, space, 30, 120) for peer in peers}
        check(len(sums) == 1, f"different ops in space {space}")
    failed = [peer.label for peer, kind in zip(peers, kinds) if kind == "cpp" and peer.count(r" FAILED publish ")]
    check(not failed, f"a publish of {failed} failed")


@test()
def rust_asks_cpp_for_100_ids_at_once(world):
    rust, cpp = pair(world, "cpp", "rust", "cpp")
    cpp.send("ops 100 64 500 x")
    cpp.wait(r" OK ops", 20)
    cpp.send("own")
    ids = cpp.wait(r" OWN (.*)$", 10).group(1)
    rust.send(f"rawfetch {cpp.url} {ids}")
    digest_of(rust, 0, 100, 30)


@test()
def rust_asks_cpp_for_ids_it_lacks(world):
    """Half of the ids are unknown: the held ops arrive and the connection stays. None held: no answer, and the
    connection stays."""
    rust, cpp = pair(world, "cpp", "rust", "cpp")
    cpp.send("ops 10 64 500 x")
    cpp.wait(r" OK ops", 20)
    cpp.send("own")
    ids = cpp.wait(r" OWN (.*)$", 10).group(1).split()
    unknown = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(10)]
    mixed = " ".join(x for both in zip(ids, unknown) for x in both)
    rust.send(f"rawfetch {cpp.url} {mixed}")
    digest_of(rust, 0, 10, 30)
    rust.send(f"rawfetch {cpp.url} {' '.join(unknown)}")
    rust.wait(r" OK rawfetch", 10)
    since = cpp.mark()
    rust.send("notify 10")
    cpp.wait(r" NOTIFY 0 10 ", 20, since)
    cpp.send("stats")
    missing = int(cpp.wait(r" FETCH .* missing (\d+)", 10).group(1))
    check(missing == 20, f"20 ids were not held, counted {missing}")
    check(rust.count(r" DISCONNECTED ") == 0, "the connection was closed")


@test()
def cpp_asks_rust_for_many_and_for_lacking_ids(world):
    """One coalesced request is answered by one stock response; ids that Rust lacks stay pending and do no harm."""
    cpp, rust = pair(world, "rust", "cpp", "rust")
    rust.send("ops 100 64 500 x")
    rust.wait(r" OK ops", 20)
    rust.wait(r" HAVE 0 100 ", 10)
    # The ids of the stock ops are the beginnings of their payloads, which the test can compute.
    ids = [hashlib.sha256(f"b/x/0/{k}".encode()).hexdigest() for k in range(100)]
    unknown = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(5)]
    cpp.send(f"fetch {rust.url} {' '.join(unknown + ids)}")
    digest_of(cpp, 0, 100, 60)
    cpp.send("stats")
    asked = int(cpp.wait(r" FETCH .* asked (\d+)", 10).group(1))
    check(asked < 20, f"{asked} request messages for 105 ids: not coalesced")
    check(cpp.count(r" DISCONNECTED ") == 0, "the connection was closed")


@test()
def cpp_asks_rust_for_none_it_holds(world):
    """No answer arrives: the ids stay pending, and the connection stays and carries everything else both ways."""
    cpp, rust = pair(world, "rust", "cpp", "rust")
    unknown = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(10)]
    cpp.send(f"fetch {rust.url} {' '.join(unknown)}")
    cpp.wait(r" OK fetch", 10)

    def asked_again():  # after the delay
        since = cpp.mark()
        cpp.send("stats")
        found = cpp.wait(r" FETCH .* asked (\d+) pending (\d+)", 10, since)
        check(found.group(2) == "10", f"{found.group(2)} pending")
        return int(found.group(1)) >= 2

    world.until(asked_again, 30, "not asked again")
    exchange(world, cpp, rust, 20, 64, 2000, 60)
    since = cpp.mark()
    cpp.send("stats")
    check(cpp.wait(r" pending (\d+)", 10, since).group(1) == "10", "only the unknown ids stay pending")
    check(cpp.count(r" DISCONNECTED ") == 0 and rust.count(r" DISCONNECTED ") == 0, "the connection was closed")


@test(("rust",), ("cpp",), waits=True)
def a_relay_that_has_nothing_to_say_is_not_left(world, relay):
    """A node alone at a relay receives only the answers to its pings, and stays connected."""
    process, addr = world.relay(relay)
    alone = world.peer("cpp", "a", addr)
    mark = alone.mark()
    time.sleep(75)
    check(process.alive() and alone.alive(), "a process ended")
    check(alone.count(r" ONLINE ", mark) == 0, "the node had to reconnect")


@test(("cpp", "rust"), ("rust", "cpp"), waits=True)
def five_megabytes_within_the_stock_rate_limit(world, sender_kind, receiver_kind):
    """The stock relay's limit (1 Mbit/s for all of one IP) is respected: 5 MB pass and nobody is disconnected."""
    sender, receiver = pair(world, "rust", sender_kind, receiver_kind, limits=True)
    marks = sender.mark(), receiver.mark()
    size = 250_000
    # One after the other: a stock node gives a send 60 s, including queueing, and this much takes 80 s.
    for i in range(20):
        since = receiver.mark()
        sender.send(f"notify {size}")
        receiver.wait(rf" NOTIFY 0 {size} ", 60, since)
    for peer, mark in zip((sender, receiver), marks):
        check(peer.count(r" DISCONNECTED ", mark) == 0, f"{peer.label} was disconnected")
        check(peer.count(r" ONLINE ", mark) == 0, f"{peer.label} had to reconnect")


@test(("cpp",), ("rust",))
def gossip_initiate_is_answered(world, relay):
    """A stock node that gossips every second gets our ops and we get its, without publish, over many rounds."""
    rust, cpp = pair(world, relay, "rust", "cpp", gossip_ms=1000)
    for peer in (rust, cpp):
        peer.send("ops 20 64 1000 x")
        peer.wait(r" OK ops", 20)
    sums = {digest_of(peer, 0, 40, 90) for peer in (rust, cpp)}
    check(len(sums) == 1, "different ops")
    # Later ops too: the rounds go on.
    for peer in (rust, cpp):
        peer.send("ops 5 64 1000 later")
        peer.wait(r" OK ops 5", 20)
    sums = {digest_of(peer, 0, 50, 90) for peer in (rust, cpp)}
    check(len(sums) == 1, "different ops")
    check(rust.count(r" DISCONNECTED ") == 0 and cpp.count(r" DISCONNECTED ") == 0, "a connection was closed")


def arcs_listed(addr, space):
    """The storage arcs of the agents that the bootstrap server gives out for a space."""
    name = base64.urlsafe_b64encode(space.encode()).decode().rstrip("=")
    with urllib.request.urlopen(f"http://{addr}/bootstrap/{name}", timeout=60) as answer:
        return [json.loads(agent["agentInfo"])["storageArc"] for agent in json.load(answer)]


@test(("cpp",), ("rust",))
def a_stock_node_among_ours_finds_what_it_lacks_and_itself_in_sync(world, relay):
    """Ops of minutes to three years come to be on one side each, and the two compare in both roles: the disc for those
    of months, the rings for those of hours. When nothing differs, the stock node claims to store everything."""
    process, addr = world.relay(relay)
    rust, cpp = (world.peer(kind, kind, addr, gossip_ms=1000) for kind in ("rust", "cpp"))
    held = 0
    for hours in (1, 50, 2_000, 26_000):
        for peer in (rust, cpp):
            peer.send(f"ops 100 64 1000 x{hours} {hours * 3600}")
            peer.wait(r" OK ops", 20)
            held += 100
        sums = {digest_of(peer, 0, held, 90) for peer in (rust, cpp)}
        check(len(sums) == 1, "different ops")
    world.until(lambda: arcs_listed(addr, "interop") == 2 * [[0, 2**32 - 1]], 90, "the stock node's arc is not full")
    since = cpp.mark()
    cpp.send("stats")
    gossip = cpp.wait(r" GOSSIP completed (\d+) timeouts (\d+) errors (\d+)$", 20, since)
    check(int(gossip[1]) >= 4, "hardly any round was completed")
    check(gossip[2] == gossip[3] == "0", f"rounds that broke off: {gossip[0]}")
    check(rust.count(r" DISCONNECTED ") == 0 and cpp.count(r" DISCONNECTED ") == 0, "a connection was closed")


@test(("cpp", "rust", "rust"), ("cpp", "cpp", "rust"))
def three_nodes_of_disjoint_histories_come_to_the_same(world, *kinds):
    """Each node begins with ops of its own, of minutes to three years, and none is published. All get all of them by
    gossip, and claim to store everything."""
    _, addr = world.relay("cpp")
    peers = [world.peer(kind, "abc"[i], addr, gossip_ms=1000) for i, kind in enumerate(kinds)]
    ages = (600, 30 * 3600, 200 * 86400, 1090 * 86400)
    for peer in peers:
        for age in ages:
            peer.send(f"ops 60 64 1000 x{age} {age}")
            peer.wait(r" OK ops", 60)
    sums = {digest_of(peer, 0, 60 * len(ages) * len(peers), 120) for peer in peers}
    check(len(sums) == 1, "different ops")
    world.until(lambda: arcs_listed(addr, "interop") == len(peers) * [[0, 2**32 - 1]], 120, "an arc is not full")
    check(all(peer.count(r" DISCONNECTED ") == 0 for peer in peers), "a connection was closed")


@test(("cpp", "rust"), ("rust", "cpp"), rare=True)
def a_late_joiner_gets_20000_ops_of_all_ages(world, holder, joiner):
    """Of minutes to three years, 20 ages of 1,000 ops each, none of them published. A stock node fetches so many in
    several rounds, since its fetch has room for 16,384."""
    _, addr = world.relay("cpp")
    old = world.peer(holder, "old", addr, gossip_ms=1000)
    for step in range(20):
        age = int(300 * 1.947 ** step)  # the last: 3.0 years
        old.send(f"ops 1000 64 300 x{step} {age}")
        old.wait(r" OK ops", 60)
    held = digest_of(old, 0, 20_000, 120)
    new = world.peer(joiner, "new", addr, gossip_ms=1000)
    check(digest_of(new, 0, 20_000, 240) == held, "different ops")


def as_if_stored_earlier(data, hours):
    """Makes it look as if the ops of the stopped node in folder `data` had been stored `hours` earlier."""
    (path,) = [p for p in pathlib.Path(data).glob("*.db") if not p.name.endswith(".peers.db")]
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        # Few and small ops: they are in no run of the index yet, and have their bytes in their rows.
        moved = db.execute("UPDATE op SET stored_at = stored_at - ?", (hours * 3_600_000_000,))
        check(moved.rowcount > 0, "no ops")


@test()
def a_stock_newcomer_gets_what_is_older_than_half_an_hour(world):
    """A stock node asks those it meets for the last 30 minutes, and compares to find the rest. We announce the rest
    unasked. Nobody publishes."""
    _, addr = world.relay("cpp")
    data = f"{world.dir}/old"
    first = world.peer("cpp", "old", addr, data=data)
    first.send("ops 20 64 1000 x")
    first.wait(r" OK ops 20", 20)
    first.send("quit")
    first.wait(r" END", 20)
    first.process.wait(20)
    as_if_stored_earlier(data, 2)
    cpp = world.peer("cpp", "old", addr, data=data)
    rust = world.peer("rust", "new", addr, gossip_ms=1000)
    check(digest_of(rust, 0, 20, 60) == digest_of(cpp, 0, 20, 20), "different ops")


def listed(addr, space):
    """The number of agents that the bootstrap server returns for a space."""
    name = base64.urlsafe_b64encode(space.encode()).decode().rstrip("=")
    with urllib.request.urlopen(f"http://{addr}/bootstrap/{name}", timeout=60) as answer:
        return len(json.load(answer))


@test(("cpp", "rust"), ("rust", "cpp"), ("cpp", "cpp"))
def leaving_spreads_a_tombstone(world, leaver_kind, stayer_kind):
    """The bootstrap server forgets agents that left. A C++ node tells its peers too; a stock Rust node does not."""
    _, addr = world.relay("cpp")
    leaver = world.peer(leaver_kind, "a", addr)
    stayer = world.peer(stayer_kind, "b", addr)
    leaver.wait(r" PEERS 0 1$", 60)
    stayer.wait(r" PEERS 0 1$", 60)
    exchange(world, leaver, stayer, 5, 64, 500, 60)
    check(listed(addr, "interop") == 2, "both are listed")
    since = stayer.mark()
    leaver.send("leave")
    if leaver_kind == "cpp":
        stayer.wait(r" PEERS 0 0$", 30, since)
    world.until(lambda: listed(addr, "interop") == 1, 30, "still listed")


def examples_of(world):
    return f"{world.build}/examples"


@test()
def example_chat_with_a_rust_node(world):
    """A line typed into the chat example reaches a stock node as a notify, and vice versa."""
    _, addr = world.relay("cpp")
    rust = world.peer("rust", "a", addr, space="kitchen")
    chat = world.start("chat", [f"{examples_of(world)}/chat", f"ws://{addr}", "kitchen", "alice"])
    rust.wait(r" PEERS 0 1$", 30)
    said = b"alice: good morning"

    def heard():
        if rust.count(rf" NOTIFY 0 {len(said)} {hashlib.sha256(said).hexdigest()}$") > 0:
            return True
        # The chat learns of the Rust node by bootstrap or by its publish, so the line is repeated until it arrives.
        chat.send("good morning")
        return False

    world.until(heard, 30, "nothing arrived", every=0.5)
    since = chat.mark()
    rust.send("notify 20")
    chat.wait(r"^\x00\x01\x02", 20, since)


@test()
def example_embed_with_a_rust_node(world):
    """The 30-line node fetches what a stock node publishes. Its op ids are SHA-256, those of the stock test ops are
    not. Only the stock node's view of it as a peer and our count of refused ops can be compared, so it fetches from a
    C++ twin."""
    _, addr = world.relay("cpp")
    rust = world.peer("rust", "a", addr, space="example")
    first = world.start("embed", [f"{examples_of(world)}/embed", f"ws://{addr}", "example", "600", "first op", "second op"])
    second = world.start("embed2", [f"{examples_of(world)}/embed", f"ws://{addr}", "example", "600", "third op"])
    rust.wait(r" PEERS 0 2$", 30)
    for node in (first, second):
        node.wait(r"holding 3 ops, 25 bytes", 40)


def sbd_compliance_suite(world):
    """sbd's own suite of what a relay must do, eight tests, against our relay."""
    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sbd_server.py")
    relay = [f"{world.build}/apps/kitsune2/kitsune2", "relay", "--listen", "127.0.0.1:0", "--json"]
    suite = world.start("suite", [f"{world.rust}/sbd-tester", sys.executable, server, *relay])
    end = suite.wait(r"^END (\d+) passed, (\d+) failed", 120, progress=r"^-- RUNNING TEST ")
    failed = [line for line in suite.lines if line.startswith("FAILED ")]
    check((end.group(1), end.group(2)) == ("8", "0"), f"{end.group(0)}; {failed}")


def ten_thousand_pairs_of_op_sets_have_the_same_models(world):
    """Layout, hashes, snapshots and what follows from each comparison: ours and those of the stock DHT model. The pairs
    are other ones each time; K2_DHT_SEED repeats a run, K2_DHT_PAIRS makes more."""
    pairs = int(os.environ.get("K2_DHT_PAIRS", "10000"))
    seed = os.environ.get("K2_DHT_SEED") or str(int.from_bytes(os.urandom(4), "big"))
    run = world.start("pairs", [f"{world.build}/tests/interop/dht-pairs", f"{world.rust}/dht-oracle", str(pairs), seed])
    end = run.wait(r"^END (\d+) pairs equal, (\d+) different", 600)
    check((int(end[1]), end[2]) == (pairs, "0"), end.string)
    seen = {what: int(count) for count, what in (line.split(" ", 2)[1:] for line in run.lines if line.startswith("SEEN "))}
    for what in ("two that are identical", "two that cannot be compared", "no common sector", "disc sectors",
                 "disc sector details", "ring sector details", "a round to the end", "a list that the budget cut"):
        check(seen.get(what, 0) >= pairs / 50, f"hardly a pair had {what}: {seen}")
    check(run.process.wait(60) == 0, run.errors())
    return end.string[4:]


def main():
    args = arguments()
    if os.path.exists(os.path.join(args.rust, "dht-oracle")):  # it is built with one version of the peers only
        test()(ten_thousand_pairs_of_op_sets_have_the_same_models)
        TESTS.extend(gossip_flows.TESTS)
    die_with_parent()
    if os.path.exists(os.path.join(args.rust, "sbd-tester")):  # it is built with one version of the peers only
        test()(sbd_compliance_suite)
    return run(TESTS, args)


if __name__ == "__main__":
    sys.exit(main())
