#!/usr/bin/env python3
"""Attacks on a node with a relay inside: memory stays under a ceiling, honest work goes on, refusals are counted."""
from k2net import *

PEER = os.environ.get("K2_HOSTILE_PEER", os.path.join(ROOT, "build/release/tests/net/hostile_peer"))
OPS, SIZE = 20_000, 1024
QUIET, LOUD = (6, 20) if FULL else (2, 5)  # seconds without and with an attack
WARM = 60  # seconds until an attack has all its peers and has done something, at most
# What is measured is the victim's work, not that attackers take the machine: they are nice where there is time for it.
NICE = 19 if FULL else 0
CEILING_MIB = 2560 if FULL else 1280
# Honest work that must go on, as a part of what it is without the attack. Speed is the machine's matter: the quick run,
# which may have one core for everybody, only demands that it goes on.
LEAST = 0.5 if FULL else 0.0


def last(lines):
    return json.loads(lines[-1]) if lines else {}


class Peer:
    """A hostile_peer process; its last line is kept."""

    def __init__(self, *args, nice=0):
        self.args = args
        self.lines = []
        self.proc = subprocess.Popen([PEER, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                     preexec_fn=lambda: os.nice(nice))
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


def memory_mib(pid, field):
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    raise AssertionError(f"no {field}")


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
    """What was counted as refused between two looks."""
    words = ("refused", "rejects", "unsolicited", "invalid", "rate_limited", "duplicate", "not_held")
    out = {}
    for name, value in after.items():
        grown = value - before.get(name, 0)
        if grown > 0 and any(word in name for word in words):
            short = name.replace("kitsune2_", "").replace("_total", "")
            short = short[:short.index("{space")] if "{space" in short else short
            out[short] = out.get(short, 0) + grown
    return out


class SlowClients:
    """Connections that send a byte of `head` now and then, and never its end. From an address of their own."""

    def __init__(self, relay, count, head, upgrade=None):
        host, port = relay.split("//")[1].rsplit(":", 1)
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
                while conn.recv(4096):
                    pass
                raise ConnectionError
            except BlockingIOError:
                pass
            except OSError:
                self.conns.remove(entry)
                conn.close()
                self.closed += 1
                continue
            try:
                conn.send(self.head[at % len(self.head):][:1])
                entry[1] = at + 1
                self.sent += 1
            except BlockingIOError:
                pass
            except OSError:
                self.conns.remove(entry)
                conn.close()
                self.closed += 1

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
#      name, kind, peers, what must be counted or seen: a metric, or "closed" by the attacker
ATTACKS = [
    ("1,000 connections at once", "connections", MANY, None),
    ("request flood, 16 peers", "requests", 16, None),
    ("requests for all ops in each message, without end, 1 peer", "amplify", 1, "fetch_requests_refused"),
    ("requests whose answers are never permitted, 300 peers", "no-permits", 300, None),
    ("permits of 64 MiB that are never used, 300 peers", "permits", 300, None),
    ("ids of 0 B and 1 MiB, 16 peers", "bad-ids", 16, "closed"),
    ("publish of 1,000,000 ids a message, 4 peers", "publish", 4, None),
    ("ops that nobody asked for, 8 peers", "unsolicited", 8, "fetch_ops_unsolicited"),
    ("agent infos of another space, 2 peers", "agents", 2, "publish_agents_rate_limited"),
    ("8 MiB of padding around a request, 2 peers", "padding", 2, "closed"),
]


def test(world):
    check(os.access(PEER, os.X_OK), f"no program at {PEER}; build it or set K2_HOSTILE_PEER")
    peers = []

    def start(*args, **options):
        peers.append(Peer(*args, **options))
        return peers[-1]

    try:
        run(world, start)
    finally:
        for peer in peers:
            peer.kill()


def run(world, start):
    say(f"a victim with {OPS} ops of {SIZE} B, and an honest peer that fetches them again and again")
    victim = start("victim", world.path("victim"), OPS, SIZE)
    info = victim.wait_line()
    pid = victim.proc.pid
    honest = start("honest", info["relay"], info["url"], OPS, SIZE)
    honest.wait_line()
    while last(honest.lines).get("ops", 0) == 0:
        check(honest.proc.poll() is None, "the honest peer ended")
        time.sleep(0.1)

    def rate(seconds, work=time.sleep):
        before, begin = last(honest.lines)["ops"], time.monotonic()
        work(seconds)
        check(victim.proc.poll() is None, "the victim ended")
        check(honest.proc.poll() is None, "the honest peer ended")
        return (last(honest.lines)["ops"] - before) / (time.monotonic() - begin)

    # Asked of nobody, so that answers of others are looked at.
    victim.say("want " + info["relay"] + "/7Y3LhBcLxGZnfYDKYxBq4YaPHcVCOCw4xMQYYKMSmTk")
    rows = []
    quiet = rate(QUIET)

    def attack(name, begin, work, stop):
        nonlocal quiet
        before = metrics(info["admin"])
        forget_peak(pid)
        base = memory_mib(pid, "VmRSS")
        begin()
        loud = rate(LOUD, work)
        peak = memory_mib(pid, "VmHWM")
        seen = stop()
        after = metrics(info["admin"])
        # Honest work is to come back by itself: the window after an attack is the one before the next.
        then = rate(QUIET)
        relative = loud / max((quiet + then) / 2, 1e-9)
        counted = refusals(before, after)
        rows.append((name, base, peak, loud, relative, seen, counted))
        text = ", ".join(f"{key} {value:,}" for key, value in counted.items()) or "-"
        say(f"{name}: RSS {base:.0f} -> {peak:.0f} MiB, honest {loud:,.0f} ops/s ({relative:.0%} of undisturbed); {seen}; {text}")
        quiet = then
        return counted

    for name, kind, count, wanted in ATTACKS:
        attacker = []

        def work(seconds):
            time.sleep(seconds)

        def begin():
            attacker.append(start("attack", kind, info["relay"], info["url"], OPS, SIZE, count, LOUD + WARM + 60, nice=NICE))
            attacker[0].wait_line()
            end = time.monotonic() + WARM
            while time.monotonic() < end:
                seen = last(attacker[0].lines)
                if seen.get("peers", 0) >= count and seen["messages"] + seen["closed"] + seen["failed"] > 0:
                    break
                time.sleep(0.1)

        def stop():
            seen = last(attacker[0].lines)
            attacker[0].kill()
            return {key: seen[key] for key in ("peers", "messages", "bytes", "failed", "closed", "received", "ids") if seen.get(key)}

        counted = attack(name, begin, work, stop)
        seen = rows[-1][5]
        check(seen.get("messages", 0) + seen.get("closed", 0) + seen.get("failed", 0) > 0, f"{name}: nothing was done: {seen}")
        if wanted == "closed":
            check(seen.get("closed", 0) > 0, f"{name}: nobody was sent away: {seen}")
        elif wanted:
            check(any(wanted in key for key in counted), f"{name}: {wanted} is not counted: {counted}")

    for name, head, upgrade in [("slow HTTP, 500 connections", b"GET /bootstrap/x HTTP/1.1\r\nA: " + b"b" * 4000, None),
                                ("slow WebSocket, 500 connections", b"\x82\xfe\x40\x00abcd" + b"x" * 16000, UPGRADE)]:
        clients = SlowClients(info["relay"], 500, head, upgrade)

        def stop():
            held = len(clients.conns)
            clients.close()
            return {"opened": clients.opened, "closed": clients.closed, "left": held, "bytes": clients.sent}

        attack(name, lambda: None, clients.run, stop)

    print("\n| attack | RSS before, MiB | RSS peak, MiB | honest peer, of undisturbed | refused |\n|---|---|---|---|---|")
    for name, base, peak, loud, relative, seen, counted in rows:
        text = ", ".join(f"`{key}` {value:,}" for key, value in counted.items()) or ", ".join(f"{k} {v:,}" for k, v in seen.items())
        print(f"| {name} | {base:.0f} | {peak:.0f} | {relative:.0%} | {text} |")
    print()
    for name, base, peak, loud, relative, seen, counted in rows:
        check(peak <= CEILING_MIB, f"{name}: {peak:.0f} MiB is over {CEILING_MIB}")
        check(loud > 0, f"{name}: the honest peer stood still")
        check(relative >= LEAST, f"{name}: honest work fell to {relative:.0%}")


main(test)
