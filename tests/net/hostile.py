#!/usr/bin/env python3
"""Attacks on a node: memory and disk stay under ceilings, honest work goes on and comes back, refusals are counted.
K2_HOSTILE_NETWORK: the dialect, 0.2 (default) or 0.5."""
import collections
import itertools
import statistics
import urllib.error
import urllib.request

from k2net import *

PEER = os.environ.get("K2_HOSTILE_PEER", os.path.join(ROOT, "build/release/tests/net/hostile_peer"))
NETWORK = os.environ.get("K2_HOSTILE_NETWORK", "0.2")
IROH = NETWORK != "0.2"
# The honest peer is a newcomer whenever it has fetched all, and in 0.5 such a one is heard only some time after.
OPS, SIZE = (100_000 if IROH and FULL else 20_000), 1024
SPACE = "hostile"  # that of hostile_peer.cpp
SMALL = 300_000 if FULL else 50_000  # further ops of 80 B, for gossip to list
# Seconds without and with an attack. Where time is short, a whole run can be given shorter ones.
QUIET, LOUD = map(float, os.environ.get("K2_HOSTILE_SECONDS", "6 20" if FULL else "1 1.5" if IROH else "1.5 3").split())
WARM = 60  # at most so many seconds until all peers of an attack are there and it has done something
# The test judges how the victim divides its time, and not that attackers take the machine from it and from the honest
# peer. So if there are two cores, the victim has one for itself, and attackers have a low priority (nice).
CORES = sorted(os.sched_getaffinity(0))
VICTIM_CORES, OTHER_CORES = (CORES[:1], CORES[1:]) if len(CORES) > 1 else (CORES, CORES)
NICE = 5
CEILING_MIB = 2560 if FULL else 1280
# How many MiB an attack may add to the data folder (the WAL, which stays, may have 128 of them), and how many the
# victim may write to the disk in a second meanwhile, including what an earlier row has left in the WAL.
DISK_MIB, WRITTEN_MIB = 192, 48
# The share of honest work that must go on during an attack, and the share that must be reached within ten seconds
# after it. The quick run may have one core for everybody, so it only demands that some work goes on, and that a peer
# which has lost its connection comes back by itself; its back-off may last longer than a row.
LEAST, LEAST_AFTER = (0.5, 0.9) if FULL else (0.0, 0.0)
RECOVERY = 10
COMES_BACK = 120
# At least so many ids must have been sent. They are refused, and who sends them has to wait for each message.
PUBLISHED = int(500_000 * LOUD) if FULL else 0
# Words of the attacks to run, for work on one of them.
ONLY = os.environ.get("K2_HOSTILE_ONLY", "")
# Which part of a run: attackers of as few addresses as a row has, of 64, and through a foreign relay; on the UDP port
# while the honest peer is reached by it ("direct"), and by the relay ("beside"), which hostile_udp.py asks for.
PARTS = os.environ.get("K2_HOSTILE_PARTS", "one 64 foreign" if FULL else "one").split()
UDP = ("direct", "beside")
WAYS = {"own": "through its own relay", "foreign": "foreign relay", "direct": "direct path", "beside": "beside direct paths"}
# How often each attack is measured. Windows with and without it alternate, and medians are judged, so what else runs on
# the machine for a while meets both.
REPEAT = int(os.environ.get("K2_HOSTILE_REPEAT", "1"))

# `usual`: the undisturbed rate of the run that the row belongs to. `per_cpu`: what the honest peer had for each second
# of processor time of the victim, of the same without the attack.
Row = collections.namedtuple(
    "Row", "name base peak disk written loud relative cpu attackers_cpu then seen counted usual per_cpu spread")
# `rate`, `per_cpu`: ops for each second, and for each second of the victim's processor. Seconds, and of the processor.
Window = collections.namedtuple("Window", "rate per_cpu ops took cpu")


def chosen(name):
    return any(word in name for word in ONLY.split("|")) if ONLY else NOTHING not in name


def last(lines):
    return json.loads(lines[-1]) if lines else {}


class Peer:
    """A process of hostile_peer. Its lines are kept."""

    def __init__(self, *args, cores=OTHER_CORES, nice=0, udp=None):
        self.args = args
        self.lines = []

        def place():
            os.sched_setaffinity(0, cores)
            os.nice(nice)

        self.proc = subprocess.Popen([PEER, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     preexec_fn=place, env={**os.environ, "K2_HOSTILE_UDP": udp} if udp else None)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.proc.stdout:
            self.lines.append(line)

    def wait_line(self, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not self.lines:
            check(self.proc.poll() is None, f"{self.args} ended: {self.proc.returncode}")
            check(time.monotonic() < end, f"{self.args} says nothing")
            time.sleep(0.05)
        return last(self.lines)

    def say(self, text):
        self.proc.stdin.write(text + "\n")
        self.proc.stdin.flush()

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()


def cpu_seconds(pid):
    """Seconds of CPU that all its threads have used."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Share:
    """How much faster a process would be if others did not run on its cores, from now until `taken` is called. On a
    machine where something else is built meanwhile, a rate says as much about that as about the node."""

    def __init__(self, pid, cores):
        self.pid, self.cores = pid, cores
        self.threads = {}  # what each had run and waited at the first and the last look
        self.run, self.busy = cpu_seconds(pid), self._busy()
        self.over = threading.Event()
        self._look(is_first=True)
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def _watch(self):
        # Often, because the honest peer starts a node, with new threads, for each pass.
        while not self.over.wait(0.03):
            self._look()

    def _look(self, is_first=False):
        try:
            for thread in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{thread}/schedstat") as file:
                    now = tuple(int(word) / 1e9 for word in file.read().split()[:2])
                self.threads[thread] = (self.threads.get(thread, (now if is_first else (0, 0),))[0], now)
        except OSError:
            pass  # a thread has ended, or this kernel keeps no such numbers

    def _busy(self):
        out = 0
        with open("/proc/stat") as file:
            for line in file:
                words = line.split()
                if words[0] in [f"cpu{core}" for core in self.cores]:
                    user, nice, system, _, _, irq, soft_irq, steal = map(int, words[1:9])
                    out += (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
        return out

    def taken(self):
        """Seconds for which the process ran, and seconds that others took from it. What its own threads take from each
        other does not count: others took no more than they ran."""
        self.over.set()
        self.watcher.join()
        self._look()
        run, busy = cpu_seconds(self.pid) - self.run, self._busy() - self.busy
        ran, waited = (sum(last[i] - first[i] for first, last in self.threads.values()) for i in (0, 1))
        return run, max(0, min(run * waited / max(ran, 1e-9), busy - run))


def without_others(rate, shares):
    """The rate if others had taken no time from the process that needed most of its own."""
    run, taken = max((share.taken() for share in shares), key=sum)
    return rate * (run + taken) / run if run > 0 else rate


def written_mib(pid):
    """How many MiB it has caused to be written to the disk so far."""
    with open(f"/proc/{pid}/io") as file:
        for line in file:
            if line.startswith("write_bytes:"):
                return int(line.split()[1]) / (1 << 20)
    raise AssertionError("no write_bytes")


def lost_at(udp):
    """How many datagrams the system has dropped at this UDP socket so far: there was no room, or nobody wanted them."""
    port = f":{int(udp.rsplit(':', 1)[1]):04X}"
    with open("/proc/net/udp") as file:
        return sum(int(line.split()[-1]) for line in file if line.split()[1].endswith(port))


class Flood:
    """What was sent to the UDP port in a window, and what of it the system dropped."""

    def __init__(self, sent, lost, loud):
        self.sent, self.taken, self.loud = sent, max(sent - lost, 0), loud

    def told(self, quiets, way):
        """What the node's processor did for each that was sent is what it did beyond what so many ops take at rest."""
        cpu = self.loud.cpu - self.loud.ops / max(max(one.per_cpu for one in quiets), 1e-9)
        return (f"{self.sent / self.loud.took:,.0f} datagrams/s, {self.taken / self.loud.took:,.0f} of which came to the "
                f"node, {cpu / max(self.sent, 1) * 1e6:.2f} µs of its processor for each that was sent; the honest peer {way}")


def free_udp_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def metrics(admin):
    host, port = admin.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 30) as conn:
        conn.settimeout(30)
        conn.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := conn.recv(65536):
            data += part
    out = {}
    for line in data.decode().splitlines():
        if line and not line.startswith("#") and " " in line:
            name, value = line.rsplit(" ", 1)
            if name.startswith("kitsune2_") and value.isdigit():
                out[name] = int(value)
    return out


def refusals(before, after):
    """The counters of refusals that have grown between two reads of the metrics."""
    words = ("refused", "rejects", "unsolicited", "invalid", "rate_limited", "duplicate", "not_held")
    out = {}
    for name, value in after.items():
        grown = value - before.get(name, 0)
        if grown > 0 and any(word in name for word in words):
            short = name.replace("kitsune2_", "").replace("_total", "")
            short = short[:short.index("{space")] if "{space" in short else short
            out[short] = out.get(short, 0) + grown
    return out


def place_of(relay):
    """HOST:PORT, where the bootstrap server is too."""
    return relay.split("//")[1].split("/")[0]


def nobody_at(relay):
    """The url of a peer that does not exist."""
    return relay + "ab" * 32 if IROH else relay + "/7Y3LhBcLxGZnfYDKYxBq4YaPHcVCOCw4xMQYYKMSmTk"


def can_announce(relay, space):
    """During the attack the bootstrap server still takes an honest newcomer's info and returns it."""
    place = place_of(relay)
    path, body = subprocess.run([PEER, "info", relay, space], capture_output=True, text=True, check=True).stdout.splitlines()
    for method, where, text in [("PUT", path, body), ("GET", path.rsplit("/", 1)[0], None)]:
        request = urllib.request.Request(f"http://{place}{where}", method=method, data=text.encode() if text else None)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                got = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} of a newcomer: {error.code} {error.read()!r}") from None
    check(json.loads(body)["signature"] in got, f"the newcomer is not in its space: {got[:300]!r}")


class SlowClients:
    """Connections that send a byte of `head` now and then and never finish it. They have an address of their own."""

    def __init__(self, relay, count, head, upgrade=None):
        host, port = place_of(relay).rsplit(":", 1)
        self.closed = self.sent = 0
        self.conns = []
        for _ in range(count):
            conn = socket.socket()
            conn.bind(("127.0.0.2", 0))
            conn.settimeout(10)
            conn.connect((host, int(port)))
            if upgrade:
                conn.sendall(upgrade)
            conn.setblocking(False)
            self.conns.append([conn, 0])
        self.head = head
        self.opened = count

    def turn(self):
        for entry in list(self.conns):
            conn, at = entry
            try:
                if self._answers(conn):
                    conn.send(self.head[at % len(self.head):][:1])
                    entry[1] = at + 1
                    self.sent += 1
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            self.conns.remove(entry)
            conn.close()
            self.closed += 1

    @staticmethod
    def _answers(conn):
        """Reads what has arrived. False: the connection was closed."""
        try:
            while conn.recv(4096):
                pass
            return False
        except BlockingIOError:
            return True

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()
            time.sleep(0.3)

    def close(self):
        for conn, _ in self.conns:
            conn.close()


UPGRADE = ("GET /iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
MANY = 1000
SLOTS = 4095 if FULL else 600
# A small victim for the quick run: the same share of its slots is taken.
if not FULL:
    os.environ.setdefault("K2_HOSTILE_MAX_PEERS", "600")
PUBLISHERS = 16 if FULL else 4


class Kind:
    """An attack: what it is called, what hostile_peer calls it, peers, addresses, and what must be counted or seen:
    words of a metric (one of them, divided by |), "closed" by the attacker, or "ids" that it was told."""

    def __init__(self, name, kind, peers, wanted=None, addresses=1, relays=("own", "foreign"), networks="0.2|0.5"):
        self.name, self.kind, self.peers, self.wanted, self.addresses = name, kind, peers, wanted, addresses
        self.relays, self.networks = relays, networks
        if wanted == "closed" and IROH:
            self.wanted = None  # there a message that is refused does not end the connection


# What the measurement itself is worth: nobody attacks, or somebody only uses the processor that attackers have. Run if
# K2_HOSTILE_ONLY asks for them.
NOTHING = "no attack"
# How many networks the attackers have; hostile_peer.cpp uses further ones.
NETWORKS = 190
# Each has addresses of its own: what an attacker did is remembered of its address for longer than a row takes. Of the
# addresses the whole run tries one and 64. Behind a foreign relay the victim sees none.
ATTACKS = [
    Kind(f"{NOTHING}, 1 peer", "nothing", 1, relays=tuple(WAYS)),
    Kind(f"{NOTHING}, but a busy processor, 1 peer", "spin", 1, relays=tuple(WAYS)),
    Kind("1,000 connections at once" if FULL else "500 connections at once", "connections", MANY if FULL else 500),
    Kind(f"{SLOTS:,} silent peers, all slots", "connections", SLOTS, addresses=4),
    Kind("request flood, 16 peers", "requests", 16),
    Kind("requests for all ops in each message, without end, 1 peer", "amplify", 1, "fetch_requests_refused"),
    Kind("requests whose answers are never permitted, 300 peers", "no-permits", 300, networks="0.2"),
    Kind("permits of 64 MiB that are never used, 300 peers", "permits", 300, networks="0.2"),
    Kind("peers that ask for small ops and do not read, 32", "deaf", 32, networks="0.2"),
    Kind("ids of 0 B and 1 MiB, 16 peers", "bad-ids", 16, "closed"),
    Kind(f"publish of 1,000,000 ids a message, {PUBLISHERS} peers", "publish", PUBLISHERS),
    Kind("the same 4,094 ids and a new one again and again, 8 peers", "repeat", 8),
    Kind("ops that nobody asked for, 8 peers", "unsolicited", 8, "fetch_ops_unsolicited"),
    Kind("agent infos of another space, 2 peers", "agents", 2, "publish_agents_rate_limited|budget"),
    Kind("believable agent infos of 29 minutes, 64 peers", "infos", 64, addresses=64),
    Kind("8 MiB of padding around a request, 2 peers", "padding", 2, "closed"),
    Kind("gossip messages of no round, 8 peers", "terminate", 8),
    Kind("gossip rounds begun and left, 64 peers, new urls", "initiate", 64),
    Kind("gossip rounds with 1,024 wrong infos, 64 peers, new urls", "bad-infos", 64),
    Kind("gossip comparisons in which all differs, budgets of 4 GiB, ids of nobody, 64 peers, new urls", "differ", 64,
         "ids"),
    Kind("gossip comparisons in which one slice differs for ever, 16 peers", "same-slice", 16, "ids"),
    Kind("gossip snapshots of sectors that do not exist, 64 peers, new urls", "outside", 64),
    Kind("GET of a bootstrap list, 100 connections", "http-get", 100, relays=("own",)),
    Kind("PUT of an info with a wrong signature, 100 connections", "http-put", 100, relays=("own",)),
    Kind("one key in 12,000 bootstrap spaces, 1 connection", "fill-bootstrap", 1, relays=("own",)),
    Kind("512 keys in a known bootstrap space, 1 connection", "fill-space", 1, relays=("own",)),
    Kind("handshakes begun again and again, 16 peers", "begin-again", 16, networks="0.2"),
    Kind("notify messages without end, 16 peers", "notify", 16),
    Kind("messages between clients that read nothing, 160 clients", "relay-queues", 160, relays=("own",), networks="0.2"),
    Kind("strangers that nobody lists and that go on sending, 64 peers", "strangers", 64, networks="0.5"),
    Kind("QUIC connections that ask for ops and do not read, 32", "quic-deaf", 32, networks="0.5"),
    Kind("frames of 100 MiB, a byte at a time, 300 peers", "quic-trickle", 300, networks="0.5"),
    Kind("streams of frames that do not exist, 16 peers", "quic-streams", 16, networks="0.5"),
    Kind("datagrams of rubbish through the relay, 16 peers", "quic-rubbish", 16, networks="0.5"),
    Kind("handshakes begun again and again, with new keys, 16 peers", "quic-handshakes", 16, networks="0.5"),
    Kind("connections without a preflight, again and again, 16 peers", "quic-no-preflight", 16, networks="0.5"),
    Kind("UDP: random bytes, 1 port", "udp-random", 1, relays=UDP, networks="0.5"),
    Kind("UDP: what looks like a ping, 64 ports", "udp-probes", 64, relays=UDP, networks="0.5"),
    Kind("UDP: QUIC Initial packets, 64 ports", "udp-initials", 64, relays=UDP, networks="0.5"),
    Kind("UDP: QUIC handshake packets, 64 ports", "udp-handshakes", 64, relays=UDP, networks="0.5"),
    Kind("UDP: QUIC packets of no connection, 64 ports", "udp-short", 64, relays=UDP, networks="0.5"),
    Kind("UDP: 65,507 B, 16 ports", "udp-large", 16, relays=UDP, networks="0.5"),
    Kind("UDP: empty ones, 64 ports", "udp-empty", 64, relays=UDP, networks="0.5"),
    Kind("UDP: 64 small ones that the system hands over as one, 16 ports", "udp-segments", 16, relays=UDP, networks="0.5"),
    Kind("UDP: names that were told to a connection that is over, 64 ports", "told-left", 64, relays=UDP, networks="0.5"),
    Kind("UDP: names of a connection that lives, 64 ports", "told-used", 64, relays=UDP, networks="0.5"),
    Kind("UDP: all of these, 512 ports", "udp-mixed", 512, relays=UDP, networks="0.5"),
    Kind("WebSocket pings, 100 connections", "ws-ping", 100, relays=("own",), networks="0.2"),
    Kind("WebSocket pongs, 100 connections", "ws-pong", 100, relays=("own",), networks="0.2"),
    Kind("empty fragments, 100 connections", "ws-empty", 100, relays=("own",), networks="0.2"),
]


def variants(relay):
    """The rows of a run: each attack from its addresses, in the whole run also from 64."""
    # While many strangers wait, newcomers become known later: those attacks come last.
    for kind in sorted(ATTACKS, key=lambda one: IROH and one.kind in ("connections", "strangers")):
        if IROH and not FULL and kind.kind.startswith(("http-", "fill-")):
            continue  # the bootstrap server is the same
        if relay not in kind.relays or NETWORK not in kind.networks.split("|"):
            continue
        counts = {kind.addresses, 64} if FULL and relay == "own" and kind.peers > 1 else {kind.addresses}
        if FULL and relay == "own":
            counts &= ({kind.addresses} if "one" in PARTS else set()) | ({64} if "64" in PARTS else set())
        for addresses in sorted(counts):
            name = kind.name + (f" of {addresses} addresses" if addresses > 1 else "")
            yield kind, addresses, name if relay == "own" else f"{WAYS[relay]}: {name}"


def test(world):
    check(os.access(PEER, os.X_OK), f"no program at {PEER}; build it or set K2_HOSTILE_PEER")
    peers = []

    def start(*args, **options):
        peers.append(Peer(*args, **options))
        return peers[-1]

    try:
        rows = []
        for relay in WAYS:
            if not ({"one", "64"} if relay == "own" else {relay}) & set(PARTS):
                continue
            for peer in peers:
                peer.kill()
            rows += run(world, start, relay)
        judge(rows)
    finally:
        for peer in peers:
            peer.kill()


def run(world, start, relay):
    say(f"a victim with {OPS} ops of {SIZE} B, and an honest peer that fetches them again and again")
    folder = world.path("victim-" + relay)
    # What attackers take from a relay of its own is no more the node's fault than what they take from the honest peer.
    foreign = world.relay(network=NETWORK) if relay == "foreign" else None
    udp = free_udp_port() if relay in UDP else None
    victim = start("victim", folder, OPS, SIZE, SMALL, foreign.url if foreign else "-", cores=VICTIM_CORES, udp=udp)
    info = victim.wait_line()
    pid = victim.proc.pid
    neighbour = start("neighbour", info["relay"])
    agent = neighbour.wait_line()["agent"]

    def knows():
        """Whether the victim still knows the neighbour, and how many infos it holds."""
        told = len(victim.lines)
        victim.say("knows " + agent)
        end = time.monotonic() + PATIENCE
        while True:
            for line in victim.lines[told:]:
                if "knows" in line:
                    return json.loads(line)
            check(time.monotonic() < end, "the victim says nothing")
            time.sleep(0.02)

    end = time.monotonic() + PATIENCE
    while not knows()["knows"]:
        check(time.monotonic() < end, "the victim does not hear of its neighbour")
        time.sleep(0.2)
    honest = start("honest", info["relay"], info["url"], OPS, SIZE, udp="127.0.0.1:0" if relay == "direct" else None)
    honest.wait_line()
    while last(honest.lines).get("ops", 0) < OPS:
        check(honest.proc.poll() is None, "the honest peer ended")
        time.sleep(0.1)

    def rate(seconds, work=time.sleep):
        before, begin = last(honest.lines)["ops"], time.monotonic()
        shares = [Share(pid, VICTIM_CORES), Share(honest.proc.pid, OTHER_CORES)]
        if foreign:
            shares.append(Share(foreign.proc.pid, CORES))
        start_cpu = cpu_seconds(pid)
        work(seconds)
        check(victim.proc.poll() is None, "the victim ended")
        check(honest.proc.poll() is None, "the honest peer ended")
        done, took, cpu = last(honest.lines)["ops"] - before, time.monotonic() - begin, cpu_seconds(pid) - start_cpu
        return Window(without_others(done / took, shares), done / max(cpu, 0.01), done, took, cpu)

    def honest_way(told):
        """How the honest peer was seen to be reached, since it had printed so many lines."""
        before, now = json.loads(honest.lines[told - 1]), last(honest.lines)
        direct, by_relay = (now.get(key, 0) - before.get(key, 0) for key in ("direct", "by_relay"))
        return f"{direct / max(direct + by_relay, 1):.0%} of the time by a direct path"

    # Asked of nobody, so that answers of others are looked at.
    victim.say("want " + nobody_at(info["relay"]))
    rows = []
    quiets = [rate(QUIET)]
    say(f"undisturbed: {quiets[0].rate:,.0f} ops/s; the victim on cores {VICTIM_CORES}, all others on {OTHER_CORES}")

    def attack(name, begin, work, stop, attacker_pid=lambda: None, wanted=None, sent=lambda: 0):
        before = metrics(info["admin"])

        def work_until_counted(seconds):
            work(seconds)
            end = time.monotonic() + PATIENCE  # on a busy machine an attack takes long to do anything
            while wanted and time.monotonic() < end:
                counted = refusals(before, metrics(info["admin"]))
                if any(word in key for key in counted for word in wanted.split("|")):
                    break
                time.sleep(0.2)

        forget_peak(pid)
        base, base_disk = memory_mib(pid, "VmRSS"), folder_mib(folder)
        begin()
        start_written = written_mib(pid)
        start_time, start_cpu = time.monotonic(), cpu_seconds(pid)
        attackers_cpu = cpu_seconds(attacker_pid()) if attacker_pid() else 0
        told = len(honest.lines)
        sent_before, lost = sent(), lost_at(udp) if udp else 0
        loud = rate(LOUD, work_until_counted)
        flood = Flood(sent() - sent_before, lost_at(udp) - lost, loud) if udp else None
        seconds = time.monotonic() - start_time
        late = max([json.loads(line).get("known_after", 0) for line in honest.lines[told:]], default=0)
        cpu = (cpu_seconds(pid) - start_cpu) / seconds
        attackers_cpu = (cpu_seconds(attacker_pid()) - attackers_cpu) / seconds if attacker_pid() else 0
        if "bootstrap" in name:
            # A new space, and one that the attack is about.
            can_announce(info["relay"], f"a space after {len(rows)} attacks")
            if "known" in name:
                can_announce(info["relay"], SPACE)
        peak, disk = memory_mib(pid, "VmHWM"), folder_mib(folder) - base_disk
        written = (written_mib(pid) - start_written) / seconds
        seen = stop()
        check(knows()["knows"], f"{name}: the victim has lost its neighbour")
        # In the whole run what is judged is the rate ten seconds after; the quick one does not wait for that.
        time.sleep(max(0, RECOVERY - QUIET) if FULL else 0)
        after = metrics(info["admin"])
        if not FULL and loud.rate == 0:
            here, end = last(honest.lines)["ops"], time.monotonic() + COMES_BACK
            while last(honest.lines)["ops"] == here:
                check(time.monotonic() < end, f"{name}: the honest peer stands still for {COMES_BACK} s after it")
                time.sleep(0.1)
        # Honest work is to come back by itself: the window after an attack is the one before the next.
        quiets.append(rate(QUIET))
        # The better of both: what is left of the attack before does not count as undisturbed.
        relative, per_cpu = (loud[i] / max(quiets[-2][i], quiets[-1][i], 1e-9) for i in (0, 1))
        counted, then = refusals(before, after), quiets[-1].rate
        rows.append(Row(name, base, peak, disk, written, loud.rate, relative, cpu, attackers_cpu, then, seen, counted, 0,
                        per_cpu, ""))
        text = ", ".join(f"{key} {value:,}" for key, value in counted.items()) or "-"
        if flood:
            text += f"; {flood.told(quiets[-2:], honest_way(told))}"
        text += f"; a newcomer was known after {late:.1f} s" if late else ""
        say(f"{name}: RSS {base:.0f} -> {peak:.0f} MiB, disk {disk:+.0f} MiB, {written:.1f} MiB/s written, honest {loud.rate:,.0f} ops/s ({relative:.0%} of undisturbed, {per_cpu:.0%} for each second of "
            f"the victim's processor), then {then:,.0f}; CPU {cpu:.2f}, attackers {attackers_cpu:.2f}; {seen}; {text}")
        return counted

    for row, addresses, name in itertools.chain.from_iterable([one] * REPEAT for one in variants(relay)):
        kind, count, wanted = row.kind, row.peers, row.wanted
        if not chosen(name):
            continue
        attacker = []

        def work(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.1)
            limit = time.monotonic() + PATIENCE
            while kind == "publish" and last(attacker[0].lines).get("ids", 0) < PUBLISHED:
                check(time.monotonic() < limit, f"{name}: only {last(attacker[0].lines)}")
                time.sleep(0.1)
            while wanted == "ids" and not last(attacker[0].lines).get("ids"):
                check(time.monotonic() < limit, f"{name}: nothing was listed: {last(attacker[0].lines)}")
                time.sleep(0.1)

        def begin():
            seconds = LOUD + WARM + 60 + (PATIENCE if kind == "publish" or wanted == "ids" else 0)
            attacker.append(start("attack", kind, f"udp://{udp}" if kind.startswith("udp-") else info["relay"], info["url"], OPS, SIZE, count, seconds, addresses,
                                  len(rows) % NETWORKS + 1, nice=NICE))
            attacker[0].wait_line()
            end = time.monotonic() + WARM
            while time.monotonic() < end:
                seen = last(attacker[0].lines)
                # The attacker's first line only says that it has begun: it has no counters yet.
                done = sum(seen.get(key, 0) for key in ("messages", "closed", "failed"))
                enough = count if FULL or not IROH else 1  # in 0.5 they have to become known first
                if done > 0 and (seen.get("peers", 0) >= enough or kind.startswith(("ws-", "nothing", "spin"))):
                    break
                time.sleep(0.1)

        def stop():
            seen = last(attacker[0].lines)
            attacker[0].kill()
            return {key: seen[key] for key in ("peers", "messages", "bytes", "failed", "closed", "received", "ids") if seen.get(key)}

        counted = attack(name, begin, work, stop, lambda: attacker[0].proc.pid,
                         None if wanted in ("closed", "ids") else wanted, lambda: last(attacker[0].lines).get("messages", 0))
        seen = rows[-1].seen
        check(seen.get("messages", 0) + seen.get("closed", 0) + seen.get("failed", 0) > 0, f"{name}: nothing was done: {seen}")
        if wanted == "closed":
            check(seen.get("closed", 0) > 0, f"{name}: nobody was sent away: {seen}")
        elif wanted and wanted != "ids":
            check(any(word in key for key in counted for word in wanted.split("|")), f"{name}: {wanted} is not counted: {counted}")

    for name, head, upgrade in [("slow HTTP, 500 connections", b"GET /bootstrap/x HTTP/1.1\r\nA: " + b"b" * 4000, None),
                                ("slow WebSocket, 500 connections", b"\x82\xfe\x40\x00abcd" + b"x" * 16000, UPGRADE)]:
        if relay != "own" or IROH or not chosen(name):
            continue  # in 0.5 the relay is the same, and hostile_relay attacks it
        clients = SlowClients(info["relay"], 500, head, upgrade)

        def stop():
            held = len(clients.conns)
            clients.close()
            return {"opened": clients.opened, "closed": clients.closed, "left": held, "bytes": clients.sent}

        attack(name, lambda: None, clients.run, stop)

    usual = statistics.median_high(one.rate for one in quiets)
    say(f"undisturbed, median, {relay} relay: {usual:,.0f} ops/s")
    return [together(list(group), usual) for _, group in itertools.groupby(rows, lambda row: row.name)]


def together(rows, usual):
    """One row for those of one attack: medians of what is judged by them, and the worst of what has a ceiling."""
    middle = {key: statistics.median(getattr(row, key) for row in rows)
              for key in ("loud", "relative", "cpu", "attackers_cpu", "then", "per_cpu")}
    worst = {key: max(getattr(row, key) for row in rows) for key in ("peak", "disk", "written")}
    spread = " (" + " ".join(f"{row.relative:.0%}" for row in sorted(rows, key=lambda row: row.relative)) + ")"
    return rows[0]._replace(**middle, **worst, usual=usual, spread=spread if len(rows) > 1 else "")


def judge(rows):
    print("\n| attack | RSS before, peak, MiB | disk, MiB | written, MiB/s | honest peer, of undisturbed: during, after | "
          "the same for each second of the node | cores used: node, attackers | refused |\n|---|---|---|---|---|---|---|---|")
    for row in rows:
        text = (", ".join(f"`{key}` {value:,}" for key, value in row.counted.items())
                or ", ".join(f"{key} {value:,}" for key, value in row.seen.items()))
        print(f"| {row.name} | {row.base:.0f}, {row.peak:.0f} | {row.disk:+.0f} | {row.written:.1f} | {row.relative:.0%}{row.spread}, "
              f"{row.then / max(row.usual, 1e-9):.0%} | {row.per_cpu:.0%} | {row.cpu:.2f}, {row.attackers_cpu:.2f} | {text} |")
    print(flush=True)
    wrong = []
    for row in rows:
        if row.peak > CEILING_MIB:
            wrong.append(f"{row.name}: {row.peak:.0f} MiB is over {CEILING_MIB}")
        if row.disk > DISK_MIB:
            wrong.append(f"{row.name}: the data folder grew by {row.disk:.0f} MiB, over {DISK_MIB}")
        if row.written > WRITTEN_MIB:
            wrong.append(f"{row.name}: {row.written:.0f} MiB/s written, over {WRITTEN_MIB}")
        if FULL and row.loud <= 0:
            wrong.append(f"{row.name}: the honest peer stood still")
        if row.relative < LEAST:
            wrong.append(f"{row.name}: honest work fell to {row.relative:.0%}")
        if row.then < LEAST_AFTER * row.usual:
            wrong.append(f"{row.name}: afterwards honest work stays at {row.then:,.0f} of {row.usual:,.0f} ops/s")
    check(not wrong, "; ".join(wrong))


main(test)
