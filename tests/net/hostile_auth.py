#!/usr/bin/env python3
"""Clients that attack the routes of a relay with a hook server: they ask for tokens without end, are refused, ask what
the hook server never answers, register or keep alive keys without end, with a good token or a wrong one, send a body
that is too large, or a byte at a time. From one address and from sixteen: an honest client that comes gets a token, one
that has a token goes on, and the relay's memory stays bounded."""
import re
import socket

from k2net import *

CLIENTS = 64
ROUNDS = 10
MOST_MIB = 96
# What the relay must have seen of an attack: so many requests. Of the last two: so many connections.
ENOUGH = {"accepted": 150, "refused": 150, "unanswered": 20, "registered": 150, "forged": 150, "large": 64, "slow": 64}
HONEST = ("127.0.0.200", 0)
KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")  # of RFC 8032, test 1


def decide(material):
    """Gives everybody a token but mallory."""
    return (401, "no") if material == "mallory" else (200, json.dumps({"authToken": "token-of-" + material}))


class Client:
    """A connection from a given address, which makes requests one after the other."""

    def __init__(self, address, source):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), PATIENCE, source)
        self.rest = b""

    def send(self, method, path, body=b"", token=None, size=None):
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body) if size is None else size}\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + body)

    def ask(self, *request, **more):
        """The status and the body of the answer."""
        self.send(*request, **more)
        while (end := self.rest.find(b"\r\n\r\n")) < 0:
            self.read()
        head = self.rest[:end].decode().lower()
        size = int(re.search(r"content-length: (\d+)", head)[1])
        while len(self.rest) < end + 4 + size:
            self.read()
        body, self.rest = self.rest[end + 4:end + 4 + size], self.rest[end + 4 + size:]
        return int(head.split()[1]), body.decode()

    def read(self):
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("closed")
        self.rest += more


def attack(address, kind, source):
    """Attacks until the process is killed, over one connection after the other."""
    while True:
        try:
            client = Client(address, (source, 0))
            token = None
            while True:
                if kind == "accepted":
                    client.ask("PUT", "/authenticate", os.urandom(16).hex().encode())
                elif kind == "refused":
                    client.ask("PUT", "/authenticate", b"mallory")
                elif kind == "unanswered":
                    client.ask("PUT", "/authenticate", b"hang")
                elif kind == "registered":
                    token = token or json.loads(client.ask("PUT", "/authenticate", b"eve")[1])["authToken"]
                    client.ask("PUT", "/relay/register", os.urandom(32), token=token)
                elif kind == "forged":
                    client.ask("PUT", "/relay/keepalive", os.urandom(32), token=os.urandom(16).hex())
                elif kind == "large":
                    client.send("PUT", "/authenticate", bytes(1 << 20), size=1 << 30)
                else:
                    for byte in b"PUT /relay/register HTTP/1.1\r\nX: " + bytes([0x61]) * 1000:
                        client.socket.sendall(bytes([byte]))
                        time.sleep(0.05)
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)  # refused or closed; it comes again


def attackers(address, kind, addresses):
    """One process, with CLIENTS threads."""
    threads = [threading.Thread(target=attack, args=(address, kind, f"127.0.0.{1 + i % int(addresses)}"), daemon=True)
               for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    sys.stdin.read()


def attacked(world, kind, addresses):
    hook = Hook(decide)
    relay = world.start("relay", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--authentication-hook-server",
                        hook.url)
    listening = relay.wait_event("listening")
    address, admin = listening["addresses"][0], listening["admin"]

    def metric(name):
        text = Client(admin, HONEST).ask("GET", "/metrics")[1]
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    old = Client(address, HONEST)
    status, answer = old.ask("PUT", "/authenticate", b"old")
    equal(status, 200, "status of the first token")
    token = json.loads(answer)["authToken"]
    # Its threads may not take the time of this process, which is also the hook server.
    crowd = subprocess.Popen([sys.executable, __file__, address, kind, str(addresses)], stdin=subprocess.PIPE)
    begun = time.monotonic()
    try:
        seen = "kitsune2_relay_accepted_total" if kind in ("large", "slow") else "kitsune2_relay_http_requests_total"
        came = 0
        while came < ROUNDS or metric(seen) < ENOUGH[kind]:
            check(time.monotonic() < begun + PATIENCE, f"{kind}: the relay has seen {metric(seen):.0f} of {seen}")
            equal(old.ask("GET", "/bootstrap/AAAA", token=token), (200, "[]"), f"{kind}: a list for one with a token")
            equal(old.ask("PUT", "/relay/keepalive", KEY, token=token)[0], 200, f"{kind}: a key kept alive")
            if kind != "unanswered":  # a hook server that is stuck gives nobody a token
                newcomer = Client(address, HONEST)
                status, answer = newcomer.ask("PUT", "/authenticate", f"new-{came}".encode())
                equal(status, 200, f"{kind}: a newcomer's token ({answer})")
                equal(newcomer.ask("GET", "/bootstrap/AAAA", token=json.loads(answer)["authToken"])[0], 200,
                      f"{kind}: a newcomer's list")
            came += 1
        requests, tokens, keys = (metric(f"kitsune2_relay_{name}") for name in
                                  ("http_requests_total", "auth_tokens", "auth_keys"))
    finally:
        crowd.kill()
        crowd.wait()
    peak = memory_mib(relay.proc.pid, "VmHWM")
    say(f"{kind}, {CLIENTS} clients of {addresses}: {came} rounds in {time.monotonic() - begun:.1f} s beside {requests:.0f} requests; "
        f"{tokens:.0f} tokens, {keys:.0f} keys, {peak:.0f} MiB")
    check(peak < MOST_MIB, f"the relay took {peak:.0f} MiB")
    hook.release.set()
    equal(relay.stop(), 0, "exit code of the relay")
    hook.close()


def test(world):
    for kind in ENOUGH:
        for addresses in (1, 16):
            attacked(world, kind, addresses)


if len(sys.argv) > 1:
    attackers(*sys.argv[1:])
else:
    main(test)
