"""Each flow of gossip, between a node of ours and stock nodes of 0.2.2, in both roles.

A case must not pass because another flow brought the ops. So the nodes hold all their ops before they know each other:
each has a bootstrap server of its own, and the test shows the agent of one to the other, which then begins the round
(`introduce`). And each stock node logs the messages that it sends and receives, from which the test sees what took
place (`Gossip`).
"""

import base64
import dataclasses
import hashlib
import json
import re
import urllib.request

from harness import Tests, check, digest_of

TESTS = Tests()
test = TESTS.register

LOGS_MESSAGES = {"RUST_LOG": "kitsune2_gossip::gossip=debug", "NO_COLOR": "1"}
BYTES = r'b"(?:[^"\\]|\\.)*"'
HOUR, DAY = 3600, 86400
# Our node asks for all of a peer's ops at their first meeting, and then does not compare, if it holds fewer.
COMPARES_FROM = 1000


@dataclasses.dataclass
class Message:
    sent: bool  # by the stock node
    kind: str
    session: str
    ids: int  # of ops that it names
    is_equal: bool  # it says that nothing differs


class Gossip:
    """The messages of gossip that a stock node has sent and received."""

    def __init__(self, peer):
        self.peer = peer

    def messages(self):
        out = []
        for line in self.peer.log():
            found = re.search(r"(Sending gossip message to|handle_gossip_message from:) .*?\b([A-Z]\w+)\(K2Gossip\w+Message", line)
            if not found:
                continue
            lists = re.findall(rf"\b(?:new_ops|missing_ids): \[((?:{BYTES}(?:, )?)*)\]", line)
            session = re.search(rf"session_id: ({BYTES})", line)
            out.append(Message(found[1].startswith("Sending"), found[2], session[1],
                               sum(len(re.findall(BYTES, ids)) for ids in lists),
                               found[2] == "NoDiff" and "cannot_compare: false" in line))
        return out

    def rounds(self):
        """The rounds by session, each as the list of its messages."""
        out = {}
        for message in self.messages():
            out.setdefault(message.session, []).append(message)
        return list(out.values())

    def has_round(self, starter, *kinds):
        """Whether `starter` ("rust" or "cpp") began a round of exactly these messages, in which the stock node named
        ids after the comparison."""
        return any([m.kind for m in messages] == ["Initiate", "Accept", *kinds] and messages[0].sent == (starter == "rust")
                   and any(m.sent and m.ids > 0 for m in messages[3:]) for messages in self.rounds())

    def ours_named(self, *kinds):
        """Whether our node named ids in a message of these kinds."""
        return any(not m.sent and m.ids > 0 and m.kind in kinds for m in self.messages())


DISC = ("DiscSectorsDiff", "DiscSectorDetailsDiff", "DiscSectorDetailsDiffResponse", "Hashes")
RING = ("RingSectorDetailsDiff", "RingSectorDetailsDiffResponse", "Hashes")


def http(method, url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=60) as answer:
        return answer.read()


def introduce(world, source, target, agents=1):
    """Shows the agents at one bootstrap server to those at another."""
    space = base64.urlsafe_b64encode(b"interop").decode().rstrip("=")
    found = []

    def listed():
        found[:] = json.loads(http("GET", f"http://{source}/bootstrap/{space}"))
        return len(found) == agents

    world.until(listed, 30, f"of {agents} agents, {len(found)} are at the bootstrap server")
    for info in found:
        agent = json.loads(info["agentInfo"])["agent"]
        http("PUT", f"http://{target}/bootstrap/{space}/{agent}", json.dumps(info).encode())


def two_nodes(world, starter, options=None, **both):
    """A node of each kind, which do not know each other. Only `starter` will begin rounds. Returns (ours, the stock
    one, what makes the starter begin)."""
    _, relay = world.relay("cpp")
    _, other = world.relay("cpp")
    nodes = {}
    for kind in ("cpp", "rust"):
        own = {**both, **(options or {}).get(kind, {})}
        own |= {"gossip_ms": 400} if kind == starter else {"bootstrap": other, "min_gossip_ms": 100}
        if kind == "cpp":
            own["gossip_jitter_ms"] = 10  # as the other one has
            # Ours puts off for a minute a peer that it looks at during a round with it, so it must not look so soon.
            own.setdefault("min_gossip_ms", 1000)
        nodes[kind] = world.peer(kind, kind, relay, env=LOGS_MESSAGES, **own)
    return nodes["cpp"], nodes["rust"], lambda: introduce(world, other, relay)


def store(peer, count, size, tag, age):
    peer.send(f"ops {count} {size} {size} {tag} {int(age)}")
    peer.wait(rf" OK ops {count} {size} {size} {tag}", 60)


def ids_of(peer, count, tag):
    """The ids of the ops that `store` has made there."""
    name = peer.label.split("-", 1)[1]
    return [hashlib.sha256(f"{name}/{tag}/0/{k}".encode()).digest() for k in range(count)]


def digest(ids):
    """As the peers compute it."""
    total = 0
    for op in ids:
        total ^= int.from_bytes(op, "big")
    return f"{total:064x}"


def sector_of(op):
    words = [int.from_bytes(op[i:i + 4], "little") for i in range(0, len(op), 4)]
    location = 0
    for word in words:
        location ^= word
    return location >> 23


def block_new_ops(rust, op_bytes):
    """Makes the stock node name no new op: it lists them in the order of storing, and stops before the first that is
    larger than what the peer asks for. Then all else is found by comparing."""
    store(rust, 1, op_bytes + 1, "blocks", 1 * HOUR)


def stats(cpp):
    since = cpp.mark()
    cpp.send("stats")
    words = cpp.wait(r" ROUNDS (.*)$", 20, since)[1].split()
    return {name: int(count) for name, count in zip(words[::2], words[1::2])}


def comparison(world, starter, ages):
    """Each side holds ops of these ages that the other lacks, and the stock node names none of them unless it compares.
    Returns (ours, what the stock node saw) when both hold all, except that ours lacks the op that blocks."""
    op_bytes = 100_000
    cpp, rust, begin = two_nodes(world, starter, {"cpp": {"op_bytes": op_bytes}})
    block_new_ops(rust, op_bytes)
    of_cpp, of_rust = [], []
    for age in ages:
        store(cpp, COMPARES_FROM, 100, f"x{age}", age)
        of_cpp += ids_of(cpp, COMPARES_FROM, f"x{age}")
        store(rust, 100, 100, f"x{age}", age)
        of_rust += ids_of(rust, 100, f"x{age}")
    begin()
    everything = of_cpp + of_rust
    check(digest_of(cpp, 0, len(everything), 90) == digest(everything), "other ops than those of both")
    everything += ids_of(rust, 1, "blocks")
    check(digest_of(rust, 0, len(everything), 90) == digest(everything), "other ops than those of both")
    gossip = Gossip(rust)
    # In the messages of the comparison: the allowance of newcomers has room for half of what ours may name in a round.
    check(gossip.ours_named(*DISC[2:], *RING[1:]), f"ours named nothing after a comparison: {gossip.rounds()}")
    return cpp, gossip


@test(("rust",), ("cpp",), rare=True)
def a_difference_in_the_disc(world, starter):
    """Ops of half a year. What differs is found by sectors, then by slices."""
    cpp, gossip = comparison(world, starter, [200 * DAY])
    check(gossip.has_round(starter, *DISC), f"no comparison of the disc: {gossip.rounds()}")
    check(stats(cpp)["discs"] > 0, "ours has not compared the disc")


@test(("rust",), ("cpp",), rare=True)
def a_difference_in_the_rings(world, starter):
    """Ops of two days: no round compares the disc."""
    cpp, gossip = comparison(world, starter, [50 * HOUR])
    check(gossip.has_round(starter, *RING), f"no comparison of the rings: {gossip.rounds()}")
    check(stats(cpp)["rings"] > 0 and stats(cpp)["discs"] == 0, "ours has compared something else")


@test(("rust",), ("cpp",))
def differences_in_disc_and_rings(world, starter):
    """One comparison settles one of them, so a node that was away needs at least two rounds, and gets both."""
    cpp, gossip = comparison(world, starter, [200 * DAY, 50 * HOUR])
    check(gossip.has_round(starter, *DISC), f"no comparison of the disc: {gossip.rounds()}")
    check(gossip.has_round(starter, *RING), f"no comparison of the rings: {gossip.rounds()}")
    check(stats(cpp)["discs"] > 0 and stats(cpp)["rings"] > 0, "ours has not compared both")


@test(("cpp",), ("rust",))
def partial_arcs_that_overlap(world, starter):
    """Both get what lies in the sectors that both want, and nothing else. Then they find that nothing differs."""
    cpp, rust, begin = two_nodes(world, starter, {"cpp": {"arc": "0-255"}, "rust": {"arc": "128-383"}})
    store(cpp, COMPARES_FROM, 100, "x", 200 * DAY)
    store(rust, 400, 100, "x", 200 * DAY)
    own = ids_of(cpp, COMPARES_FROM, "x"), ids_of(rust, 400, "x")
    common = [[op for op in ids if 128 <= sector_of(op) <= 255] for ids in own]
    begin()
    for peer, held in ((cpp, own[0] + common[1]), (rust, own[1] + common[0])):
        check(digest_of(peer, 0, len(held), 90) == digest(held), f"{peer.label} holds other ops")
    gossip = Gossip(rust)
    world.until(lambda: any(m.is_equal for m in gossip.messages()), 60, "the common sectors are not in sync")
    check(gossip.has_round(starter, *DISC), f"no comparison of the disc: {gossip.rounds()}")
    for peer, held in ((cpp, own[0] + common[1]), (rust, own[1] + common[0])):
        check(peer.last(r" HAVE 0 (\d+) (\w+)$") == (str(len(held)), digest(held)), f"{peer.label} got more")


@test(("rust",), ("cpp",))
def budgets_that_cut_every_list(world, starter):
    """Both ask for 40 kB in a round and hold more that the other lacks: no round names more than that, and several
    bring all of it."""
    op_bytes, size = 40_000, 200
    cpp, rust, begin = two_nodes(world, starter, op_bytes=op_bytes)
    block_new_ops(rust, op_bytes)
    store(cpp, COMPARES_FROM, size, "x", 200 * DAY)
    store(rust, 500, size, "x", 200 * DAY)
    everything = ids_of(cpp, COMPARES_FROM, "x") + ids_of(rust, 500, "x")
    begin()
    check(digest_of(cpp, 0, len(everything), 90) == digest(everything), "other ops than those of both")
    digest_of(rust, 0, len(everything) + 1, 90)
    gossip = Gossip(rust)
    named = [[sum(m.ids for m in messages if m.sent == sent) for messages in gossip.rounds()] for sent in (True, False)]
    most = op_bytes // size
    check(max(named[0]) <= most and max(named[1]) <= most, f"a round has named more than {most} ids: {named}")
    check(sum(1 for ids in named[0] if ids) >= 500 / most and sum(1 for ids in named[1] if ids) >= COMPARES_FROM / most,
          f"the lists were not cut: {named}")
    check(gossip.has_round(starter, *DISC), f"no comparison of the disc: {gossip.rounds()}")


@test(("rust",), ("cpp",))
def a_busy_node_is_asked_again(world, busy):
    """`busy` accepts one round at a time, and a third node has begun one that does not go on. As long as that lasts the
    other node is told BUSY; after that it gets its round, and both get their ops."""
    other = "cpp" if busy == "rust" else "rust"
    cpp, rust, begin = two_nodes(world, other, {busy: {"accept": 1}}, round_timeout_ms=3_600_000)
    nodes = {"cpp": cpp, "rust": rust}
    for node in nodes.values():
        store(node, 20, 100, "x", 50 * HOUR)
    relay = nodes[other].server
    staller = world.peer("rust", "stalls", relay, bootstrap=world.relay("cpp")[1], env=LOGS_MESSAGES)
    staller.send(f"stall {nodes[busy].url}")
    world.until(lambda: "Accept" in [m.kind for m in Gossip(staller).messages() if not m.sent], 30, "the first round is not accepted")
    begin()
    world.until(lambda: any(m.kind == "Busy" and m.sent == (busy == "rust") for m in Gossip(rust).messages()), 30, "not told BUSY")
    counter = "busy_received" if busy == "rust" else "busy_sent"
    world.until(lambda: stats(cpp)[counter] > 0, 30, "ours does not know of BUSY")
    check(cpp.last(r" HAVE 0 (\d+)")[0] == rust.last(r" HAVE 0 (\d+)")[0] == "20", "got ops while the other was busy")
    staller.send(f"release {nodes[busy].url}")
    sums = {digest_of(node, 0, 40, 60) for node in nodes.values()}
    check(len(sums) == 1, "different ops")
    check(any([m.kind for m in messages][:2] == ["Initiate", "Accept"] and messages[0].sent == (other == "rust")
              for messages in Gossip(rust).rounds()), "not by a round that was refused before")
