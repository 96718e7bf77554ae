#!/usr/bin/env python3
"""C++ nodes of dialects 0.5 and 0.4 against stock Rust kitsune2 0.5.3 and 0.4.1, through the stock relay and bootstrap
server of the same version and ours. The name of the folder of the Rust binaries says which.

usage: iroh.py --build BUILD_DIR --rust DIR_OF_RUST_BINARIES [--one-of-each] [NAME_PART…]
As interop.py; what both can do is taken from there.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import subprocess
import threading
import time
import urllib.request

from harness import Tests, arguments, check, die_with_parent, free_port, run
from interop import KINDS, exchange, pair

TESTS = Tests()
test = TESTS.register
MIXED = [("cpp", "rust"), ("rust", "cpp")]


@test(*((relay, *nodes) for relay in KINDS for nodes in itertools.product(KINDS, KINDS)), one=("cpp", "rust", "cpp"))
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


@test(*itertools.product(KINDS, KINDS, KINDS), one=("rust", "cpp", "rust"))
def thousand_ops_each_way(world, relay, a, b):
    """Published, fetched both ways: 1,000 ops of 64 B to 40 kB from each side."""
    left, right = pair(world, relay, a, b)
    exchange(world, left, right, 1000, 64, 40_000, 240)


def after_the_first_round(world, cpp):
    """Waits until `cpp` has gossiped: its next round with a stock node is 5 minutes later. Gossip has no metadata, and
    an op that it brings first is not fetched again when it is published."""

    def has_gossiped():
        since = cpp.mark()
        cpp.send("stats")
        return cpp.wait(r" GOSSIP completed (\d+) ", 20, since)[1] != "0"

    world.until(has_gossiped, 60, f"{cpp.label} has not gossiped")


@test()
def metadata_of_published_ops(world):
    """What a node of 0.5 publishes with an op id comes with the op, and what ours publishes disturbs no stock node."""
    if world.network() != "0.5":
        return  # 0.4.1 has none
    left, right = pair(world, "rust", "cpp", "rust")
    world.meet(left, right)
    after_the_first_round(world, left)
    exchange(world, left, right, 100, 64, 2000, 240)
    left.wait(r" METADATA 0 100$", 20)


@test(waits=True)
def a_stock_node_that_knows_us_late_is_asked_again(world):
    """A stock node drops an INITIATE of a node that its polls have not shown it yet. The round follows when it has
    spoken to ours, and not after the 5 minutes for which a silent peer is left alone."""
    _, addr = world.relay("cpp")
    stock = world.peer("rust", "stock", addr, poll_ms=4000)
    ours = world.peer("cpp", "ours", addr)
    for peer in (ours, stock):
        peer.wait(r" PEERS 0 1$", 60)
    world.meet(ours, stock)
    after_the_first_round(world, ours)


@test(waits=True)
def published_to_a_stock_node_that_does_not_know_us(world):
    """A stock node that asks the bootstrap server again after a minute hears nothing of a node that came since. What
    ours published meanwhile reaches it all the same, and nobody publishes it again."""
    _, addr = world.relay("cpp")
    stock = world.peer("rust", "stock", addr, poll_ms=60_000)
    ours = world.peer("cpp", "ours", addr, gossip_ms=1000)
    ours.wait(r" PEERS 0 1$", 60)
    ours.send("ops 20 64 2000 early")
    ours.wait(r" OK ops", 20)
    ours.send("publish")
    ours.wait(r" OK publish", 20)
    check(not stock.count(r" PEERS 0 1$"), "the stock node knows ours already")
    stock.wait(r" PEERS 0 1$", 180)
    stock.wait(r" HAVE 0 20 ", 60)


@test()
def a_stock_client_of_the_relay_over_tls(world):
    """It proves its key to TLS, and our relay confirms at once. Behind a proxy that ends TLS it asks as usual."""
    if world.network() != "0.5":
        return  # that of 0.4 has no such proof
    cert, key, der = world.certificate()

    def frames(address):
        program = f"{world.rust}/rust-relay-client"
        client = world.start("rust-client", [program, "--relay", f"https://{address}", "--root", der])
        client.wait(r"^PONG$", 20)
        client.wait(r"Using TLS key export for relay client authentication", 1)
        return re.findall(r"Reading frame frame_type=(\w+)", "\n".join(client.lines))

    _, outside = world.relay("cpp", tls=(cert, key))
    read = frames(outside)
    check(read == ["ServerConfirmsAuth"], read)
    _, inside = world.relay("cpp")
    read = frames(world.tls_end(cert, key, inside).address)
    check(read == ["ServerChallenge", "ServerConfirmsAuth"], read)


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


@test(*MIXED)
def within_the_rate_of_a_client(world, a, b):
    """Our relay reads a client that is over its rate later: all arrives, and nobody loses a connection."""
    left, right = pair(world, "cpp", a, b, limits=True)
    exchange(world, left, right, 2, 500_000, 1_000_000, 240)
    for peer in (left, right):
        check(not peer.count(" DISCONNECTED "), f"{peer.label} lost the other")


@test(*MIXED)
def within_the_rate_of_an_address(world, a, b):
    """The same with the rate that all clients of one address share, as both nodes do here."""
    _, addr = world.relay("cpp", options=["--sbd-limit-ip-kbps", "4000", "--sbd-limit-ip-byte-burst", "100000"])
    left, right = world.peer(a, "a", addr), world.peer(b, "b", addr)
    left.wait(r" PEERS 0 1$", 60)
    right.wait(r" PEERS 0 1$", 60)
    exchange(world, left, right, 2, 500_000, 1_000_000, 240)
    for peer in (left, right):
        check(not peer.count(" DISCONNECTED "), f"{peer.label} lost the other")


@contextlib.contextmanager
def connections_held(addr, limit, count):
    """Holds as many connections to a server as bring what `count()` tells to `limit`, each of which asks for something
    now and then. What others close meanwhile (the clients of the bootstrap server keep a connection for a while) is
    taken at once."""
    host, port = addr.rsplit(":", 1)
    held = []
    done = threading.Event()

    def ask(one):
        one.request("GET", "/health")
        check(one.getresponse().read() == b"{}", "no answer")

    def fill():
        while count() < limit:
            one = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                ask(one)
            except (OSError, http.client.HTTPException):
                one.close()  # the last place was taken meanwhile
                continue
            held.append(one)

    def keep():
        asked = time.monotonic()
        while not done.wait(0.1):
            fill()
            if time.monotonic() - asked >= 5:
                for one in held:
                    ask(one)
                asked = time.monotonic()

    fill()
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        for one in held:
            one.close()


@test(*MIXED)
def connections_of_an_address(world, a, b):
    """Our relay refuses what is over the number of connections of one address. A node that is refused comes in when
    there is room again, and one that is in goes on meanwhile."""
    limit, admin = 40, f"127.0.0.1:{free_port()}"
    _, addr = world.relay("cpp", options=["--limit-ip-connections", str(limit), "--admin", admin])
    left = world.peer(a, "left", addr)

    def metric(name):
        with urllib.request.urlopen(f"http://{admin}/metrics", timeout=60) as answer:
            return int(re.search(rf"^{re.escape(name)} (\d+)$", answer.read().decode(), re.M)[1])

    def connections():
        return metric("kitsune2_relay_connections")

    def settled():
        """No request of the node is under way, whose connection would be free in a moment."""
        seen = connections()
        for _ in range(20):
            time.sleep(0.1)
            if connections() != seen:
                return False
        return True

    refused = 'kitsune2_relay_rejects_total{reason="limit_ip"}'
    world.until(settled, 60, "the connections of a node alone change all the time")
    with connections_held(addr, limit, connections):
        before = metric(refused)
        right = world.peer(b, "right", addr, online=False)
        world.until(lambda: metric(refused) >= before + 3, 60, "it is not refused")
        # A stock node of 0.4.1 shows its url as soon as it has chosen a relay.
        sign = r" PEERS 0 [1-9]" if world.network() == "0.4" and b == "rust" else r" (URL|ONLINE) http:"
        check(not right.count(sign), "it came in")
        check(metric("relayserver_disconnects_total") == 0, "one that was in has lost its relay")
    left.wait(r" PEERS 0 1$", 60)
    right.wait(r" PEERS 0 1$", 60)
    exchange(world, left, right, 10, 64, 2000, 240)


@test(("cpp",), ("rust",))
def node_restarts(world, kind):
    """A node of `kind` is killed and returns with another url: both exchange ops again."""
    _, addr = world.relay("rust")
    stays = world.peer("rust" if kind == "cpp" else "cpp", "stays", addr)
    first = world.peer(kind, "first", addr)
    stays.wait(r" PEERS 0 1$", 60)
    first.wait(r" PEERS 0 1$", 60)
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


def notify_until_heard(world, sender, receiver, size, patience):
    """Repeats a notify: what is sent before the connection is back may be lost."""
    since = receiver.mark()
    sender.send(f"notify {size}")

    def heard():
        if receiver.count(rf" NOTIFY 0 {size} ", since):
            return True
        sender.send(f"notify {size}")
        return False

    world.until(heard, patience, f"{sender.label} does not reach {receiver.label}", every=2)


@test(*((relay, *nodes) for relay in KINDS for nodes in MIXED), one=("rust", "cpp", "rust"))
def relay_restarts(world, kind, a, b):
    """Relay and bootstrap server are killed and started again: the nodes return, and speak to each other."""
    port = free_port()
    relay, addr = world.relay(kind, port=port)
    left = world.peer(a, "a", addr)
    right = world.peer(b, "b", addr)
    left.wait(r" PEERS 0 1$", 60)
    right.wait(r" PEERS 0 1$", 60)
    world.meet(left, right)
    relay.kill()
    time.sleep(3)
    world.relay(kind, port=port)
    for size, (sender, receiver) in enumerate(((left, right), (right, left)), 1000):
        notify_until_heard(world, sender, receiver, size, 120)


@test(("cpp",), ("rust",), ("rust-0.5",))
def a_node_of_0_4_registers_its_key(world, kind):
    """A stock node of 0.4.1 registers its key with a token, and connects to the relay without one. Our server and that
    of 0.4.1 let it in by its key, and nobody who has registered none; that of 0.5.3 does not know the path, so that
    such a node does not start there. Ours of dialect 0.4 comes in at all three."""
    if world.network() != "0.4":
        return
    hook = world.hook(good=200)
    _, addr = world.relay(kind, hook=hook)
    stock = world.peer("rust", "stock", addr, material="good", online=False)
    refused = world.peer("rust", "refused", addr, material="bad", online=False)
    without = world.peer("rust", "without", addr, online=False)
    ours = world.peer("cpp", "ours", addr, material="good")
    world.until(lambda: hook.asked.count(b"good") >= 3 and b"bad" in hook.asked, 60, "they did not try")
    world.until(lambda: not refused.alive(), 60, "a stock node starts without the right to")
    if kind == "rust-0.5":
        other = world.peer("cpp", "other", addr, material="good")
        world.until(lambda: not stock.alive(), 60, "the server of 0.5.3 has registered a key of 0.4")
        check("404" in stock.errors(), stock.errors())
    else:
        stock.wait(r" (?:URL|ONLINE) http://", 60)
        other = stock
    ours.wait(r" PEERS 0 1$", 60)
    other.wait(r" PEERS 0 1$", 60)
    world.meet(ours, other)
    exchange(world, ours, other, 20, 64, 2000, 120)
    check(not without.count(r" PEERS 0 [1-9]"), "one without a token came in")


@test(*itertools.product(KINDS, KINDS))
def material_that_nobody_asks_for(world, kind, node):
    """A node that has material is served also by a server without a hook server."""
    _, addr = world.relay(kind)
    left, right = world.peer(node, "left", addr, material="any"), world.peer("cpp", "right", addr)
    left.wait(r" PEERS 0 1$", 60)
    right.wait(r" PEERS 0 1$", 60)
    world.meet(left, right)
    notify_until_heard(world, left, right, 5000, 60)


@test(*((relay, *nodes) for relay in KINDS for nodes in itertools.product(KINDS, KINDS)), one=("cpp", "cpp", "rust"))
def authentication(world, kind, a, b):
    """A hook server decides: two nodes that it accepts meet, and one that it refuses, one whose decision is pending and
    one without material stay outside. The pending one comes in when it is accepted. The server starts again and knows
    no token any more: nodes get new ones and speak to each other."""
    hook = world.hook(good=200, later=202)
    port = free_port()
    server, addr = world.relay(kind, port=port, hook=hook)
    left = world.peer(a, "left", addr, material="good")
    right = world.peer(b, "right", addr, material="good")
    outside = [world.peer("cpp", "refused", addr, material="bad", online=False),
               world.peer("cpp", "without", addr, online=False)]
    pending = world.peer("cpp", "pending", addr, material="later", online=False)
    left.wait(r" PEERS 0 1$", 30)
    right.wait(r" PEERS 0 1$", 30)
    world.meet(left, right)
    world.until(lambda: hook.asked.count(b"later") >= 2 and b"bad" in hook.asked, 60, "they did not try")
    for one in (*outside, pending):
        check(not one.count(r" (URL|ONLINE) (ws|http):"), f"{one.label} came in")
    hook.verdicts[b"later"] = 200
    pending.wait(r" (?:URL|ONLINE) http://", 60)
    left.wait(r" PEERS 0 2$", 60)
    pending.kill()
    asked = hook.asked.count(b"good")
    server.kill()
    world.relay(kind, port=port, hook=hook)
    for size, (sender, receiver) in enumerate(((left, right), (right, left)), 2000):
        # A stock node presents its first token for ever, and is let in again when it has told its key anew.
        notify_until_heard(world, sender, receiver, size, 300)
    # Ours may have heard each other on a direct path meanwhile.
    world.until(lambda: hook.asked.count(b"good") >= asked + 2, 300, "nobody asked for a new token")


def odd_endpoint(world, addr, *options):
    """An endpoint that claims or proves to be somebody else (odd_endpoint.cpp)."""
    program = f"{world.build}/tests/interop/odd-endpoint"
    return world.start("odd", [program, "--server", addr, "--space", "interop", *options])


@test(("cpp",), ("rust",))
def wrong_url_is_refused(world, kind):
    """A node closes the connection of who claims a url that is none, or one on another relay. Ours does also if it is
    the url of somebody else; a stock node believes that."""
    if world.network() != "0.5":
        return  # not tried with stock nodes of 0.4
    _, addr = world.relay("rust" if kind == "cpp" else "cpp")
    node = world.peer(kind, "node", addr)
    node.wait(r" URL", 20)  # its agent has joined: a stock node refuses everybody before that
    somebody = node.url[:-4] + ("0000" if node.url[-4:] != "0000" else "1111")

    def outcome(*claim):
        odd = odd_endpoint(world, addr, "--dial", node.url, *claim)
        return odd.wait(r"^(READ|CLOSED) ", 20)[1]

    check(outcome() == "READ", "an honest claim is not answered")
    for claim in ("nonsense", "http://127.0.0.1:1/relay/" + somebody[-64:]):
        check(outcome("--claim", claim) == "CLOSED", f"{claim} is taken")
    answer = outcome("--claim", somebody)
    check(answer == ("CLOSED" if kind == "cpp" else "READ"), f"who claims to be somebody else: {answer}")


@test(("cpp",), ("rust",))
def wrong_key_is_refused(world, kind):
    """A node that dials an endpoint ends the handshake with one that proves another key, and says nothing to it. Ours
    also ends it with one that dials."""
    if world.network() != "0.5":
        return  # not tried with stock nodes of 0.4
    _, addr = world.relay("rust" if kind == "cpp" else "cpp")
    node = world.peer(kind, "node", addr, timeout_s=5)
    odd = odd_endpoint(world, addr, "--other-key")
    odd.wait(r"^LISTED$", 20)
    node.wait(r" PEERS 0 1$", 60)
    node.send("notify 1000")
    odd.wait(r"^DIALLED$", 20)
    odd.wait(r"^CLOSED ", 20)
    node.wait(r" FAILED notify ", 30)
    check(not odd.count(r"^READ "), "the node has spoken to it")
    if kind == "cpp":
        dials = odd_endpoint(world, addr, "--other-key", "--dial", node.url)
        dials.wait(r"^CLOSED ", 20)
        check(not dials.count(r"^READ "), "the node has answered")


@test(*((relay, *nodes) for relay in KINDS for nodes in itertools.product(KINDS, KINDS)), one=("rust", "cpp", "rust"))
def simultaneous_open(world, relay, a, b):
    """Both dial each other in the same moment, which they have never done before: each is heard, one connection stays
    of two, and what is sent then arrives at once."""
    if world.network() != "0.5":
        return  # not tried with stock nodes of 0.4
    for _ in range(5 if a == b == "cpp" else 2):
        left, right = pair(world, relay, a, b)
        for size, sender in ((3000, left), (3001, right)):
            sender.send(f"notify {size}")
        for size, (sender, receiver) in ((3000, (left, right)), (3001, (right, left))):
            # A stock node loses what it sends on the connection that is closed.
            if sender.label.startswith("cpp-") and receiver.label.startswith("cpp-"):
                receiver.wait(rf" NOTIFY 0 {size} ", 60)
            else:
                notify_until_heard(world, sender, receiver, size, 60)
        for size, (sender, receiver) in ((4000, (left, right)), (4001, (right, left))):
            sender.send(f"notify {size}")
            receiver.wait(rf" NOTIFY 0 {size} ", 60)
        left.kill()
        right.kill()


@test(*((relay, *nodes) for relay in KINDS for nodes in MIXED), one=("cpp", "cpp", "rust"), waits=True)
def tokens_that_end(world, kind, a, b):
    """Tokens end after a while without use, and the nodes ask the bootstrap server less often: each gets new ones, and
    the connection to the relay stays. Cut off for longer, they come back with tokens that have ended."""
    hook = world.hook(a=200, b=200, c=200)
    # A stock node of 0.4.1 registers its key every two minutes, which cannot be set, and then comes back within 16 s.
    idle, poll = (40, 50) if world.network() == "0.4" else (6, 8)
    _, addr = world.relay(kind, hook=hook, options=["--auth-token-idle-millis", str(1000 * idle)])
    line = world.line(addr)
    left = world.peer(a, "left", line.address, material="a", poll_ms=1000 * poll)
    right = world.peer(b, "right", line.address, material="b", poll_ms=1000 * poll)
    left.wait(r" PEERS 0 1$", 60 + 2 * poll)
    right.wait(r" PEERS 0 1$", 60 + 2 * poll)
    world.meet(left, right)
    asked = {material: hook.asked.count(material) for material in (b"a", b"b")}
    world.until(lambda: all(hook.asked.count(one) >= n + 2 for one, n in asked.items()), 20 * idle, "no token has ended")
    newcomer = world.peer("cpp", "newcomer", line.address, material="c")
    for peer in (left, right):
        peer.wait(r" PEERS 0 2$", 60 + 2 * poll)
    newcomer.kill()
    for size, (sender, receiver) in enumerate(((left, right), (right, left)), 3000):
        since = receiver.mark()
        sender.send(f"notify {size}")
        receiver.wait(rf" NOTIFY 0 {size} ", 30, since)
        check(not sender.count(rf" DISCONNECTED {receiver.url}"), f"{sender.label} lost the other")
    line.cut(True)
    time.sleep(idle + 4)
    line.cut(False)
    for size, (sender, receiver) in enumerate(((left, right), (right, left)), 4000):
        notify_until_heard(world, sender, receiver, size, 300)


@test()
def requests_with_wrong_tokens(world):
    """Both servers answer them alike."""
    told_at = "/relay/register" if world.network() == "0.4" else "/relay/keepalive"

    def answers(kind):
        _, addr = world.relay(kind, hook=world.hook(good=200, later=202))

        def ask(method, path, body=None, authorization=None):
            connection = http.client.HTTPConnection(*addr.rsplit(":", 1), timeout=60)
            connection.request(method, path, body, {"Authorization": authorization} if authorization else {})
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            return answer.status, text

        status, text = ask("PUT", "/authenticate", b"good")
        check(status == 200, f"{kind}: {status} {text}")
        token = json.loads(text)["authToken"]
        out = [ask("PUT", "/authenticate", b"later")[0], ask("PUT", "/authenticate", b"bad")[0]]
        for value in (None, f"Bearer {token}", f"Bearer {token}x", f"bearer {token}", f"Bearer  {token}", token, "Bearer "):
            out += [ask("GET", "/bootstrap/AAAA", None, value), ask("PUT", told_at, b"short", value)[0],
                    ask("PUT", "/bootstrap/AAAA/AAAA", b"{}", value)[0], ask("GET", "/health", None, value)]
        return out

    ours, stock = answers("cpp"), answers("rust")
    check(ours == stock, f"ours: {ours}\n  stock: {stock}")
    check(ours.count((401, b"Unauthorized")) == 6, ours)


@test()
def share_and_fetch(world):
    """The program shares a folder in one process and fetches it in another, over the stock relay."""
    _, addr = world.relay("rust")
    folder = os.path.join(world.dir, "folder")
    os.makedirs(os.path.join(folder, "below"))
    for name, size in (("small", 100), ("below/large", 20_000_000), ("empty", 0)):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(hashlib.shake_256(name.encode()).digest(size))
    program = f"{world.build}/apps/kitsune2/kitsune2"
    share = [program, "share", "--data", os.path.join(world.dir, "sharer"), "--json"]
    sharer = world.start("share", [*share, "--network", world.network(), "--relay", addr, folder])
    link = json.loads(sharer.wait(r'^({"event":"shared".*)$', 40).group(1))["link"]
    check(link.endswith("?network=" + world.network()), link)
    sharer.wait(r'"event":"online"', 20)
    fetch = [program, "fetch", link, "--data", os.path.join(world.dir, "fetcher"), "--json"]
    fetcher = world.start("fetch", [*fetch, "--out", os.path.join(world.dir, "out"), "--timeout", "60"])
    done = json.loads(fetcher.wait(r'^({"event":"done".*)$', 60, progress='"event":"progress"').group(1))
    check(done["complete"] and done["files_written"] == 3, done)
    same = subprocess.run(["diff", "-r", folder, os.path.join(world.dir, "out")], capture_output=True, text=True)
    check(same.returncode == 0, same.stdout)
    status = subprocess.run([program, "status", "--data", os.path.join(world.dir, "sharer")], capture_output=True, text=True)
    check(f", network {world.network()}" in status.stdout.splitlines()[0], status.stdout)
    sharer.stop()

    # The folder remembers what it is for.
    again = world.start("share", [*share, "--relay", addr, folder])
    check(json.loads(again.wait(r'^({"event":"shared".*)$', 40).group(1))["link"] == link, "another link")
    again.stop()
    other = subprocess.run([*share, "--network", "0.2", "--relay", addr, folder], capture_output=True, text=True)
    check(other.returncode == 2 and f"has data of dialect {world.network()}, but this node is to speak 0.2" in other.stderr,
          f"{other.returncode} {other.stderr}")
    other = subprocess.run([*fetch, "--network", "0.2", "--out", world.dir + "/x"], capture_output=True, text=True)
    check(other.returncode == 2 and f"the link is of network {world.network()}, which contradicts --network 0.2" in other.stderr,
          f"{other.returncode} {other.stderr}")


if __name__ == "__main__":
    die_with_parent()
    args = arguments()
    raise SystemExit(run(TESTS, args))
