#!/usr/bin/env python3
"""Clients of the relay of dialect 0.5 that take nothing, only send pings, flood an honest endpoint or nobody, prove
no key, send a byte at a time or begin messages: from one address and from sixteen, an honest pair goes on, and the
relay's memory stays bounded. In the crowd there are some of several kinds, and 1,000 or (K2_NET_SIZE=full) 10,000
clients at the same moment. Both protocols of one port are also attacked at once, and honest nodes go on in both."""
import http.client
import re
import resource

from k2net import *

ENDPOINT = os.environ.get("K2_HOSTILE_ENDPOINT", os.path.join(ROOT, "build/release/tests/net/hostile_endpoint"))
PEER = os.environ.get("K2_HOSTILE_PEER", os.path.join(ROOT, "build/release/tests/net/hostile_peer"))
ROUNDS = 150
# limit_all_queue_bytes, and what an empty relay, its input buffers and the allocator have beside it.
MOST_MIB = 128 + 96
CLIENTS = 64
CROWD = 10_000 if FULL else 1000
# The relay goes on closing those that take nothing and those that begin messages; they come again, but are some time
# away. So that CROWD are there at a moment, more have to come.
COMING = CROWD * 5 // 4
# All of the crowd's greedy clients flood the same honest one, which loses most of what the other one sends it.
CROWD_ROUNDS = 10
CROWD_MOST_MIB = 512
# What the relay must have seen of each attack.
SEEN = {"deaf": "kitsune2_relay_iroh_dropped_full_total", "pings": "relayserver_got_ping_total",
        "greedy": "relayserver_send_packets_recv_total", "absent": "kitsune2_relay_iroh_dropped_absent_total",
        "unproven": "kitsune2_relay_accepted_total", "slow": "relayserver_accepts_total",
        "unfinished": "relayserver_accepts_total"}


def metric(admin, name):
    conn = http.client.HTTPConnection(*admin.split(":"), timeout=PATIENCE)
    conn.request("GET", "/metrics")
    text = conn.getresponse().read().decode()
    conn.close()
    return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


def test(world):
    check(os.access(ENDPOINT, os.X_OK), f"no program at {ENDPOINT}; build it or set K2_HOSTILE_ENDPOINT")
    both(world)
    for attack, seen in SEEN.items():
        for addresses in (1, 16):
            attacked(world, attack, addresses, CLIENTS, ROUNDS, seen, 60, MOST_MIB)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most_files < COMING + 200:
        raise Skip(f"a process may have {most_files} files here, too few for {COMING} clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    attacked(world, "crowd", 16, COMING, CROWD_ROUNDS, "relayserver_accepts_total", CROWD, CROWD_MOST_MIB)


def attacked(world, attack, addresses, count, rounds, seen, enough, most_mib):
    """One attack by `count` clients from `addresses`, which counts once the metric `seen` is over `enough`, and so
    are, of a crowd, the clients of this moment."""
    relay = world.start("relay", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    listening = relay.wait_event("listening")
    clients = subprocess.Popen([ENDPOINT, listening["addresses"][0], attack, str(addresses), str(count), str(rounds)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    most = 0  # clients at once
    try:
        end = time.monotonic() + PATIENCE
        while clients.poll() is None:
            now, n = (metric(listening["admin"], name) for name in ("kitsune2_relay_iroh_clients", seen))
            most = max(most, now)
            if n > enough and (attack != "crowd" or now > enough):
                break
            check(time.monotonic() < end, f"{attack}: the relay has seen {n:.0f} of {seen}, and has {now:.0f} clients")
            time.sleep(0.05)
        out, err = clients.communicate("\n", timeout=PATIENCE)
    finally:
        clients.kill()
    equal(clients.returncode, 0, f"exit code of {attack} ({err.strip()})")
    peak = memory_mib(relay.proc.pid, "VmHWM")
    say(f"{addresses} addresses, {out.strip()}; the relay's peak: {most:.0f} clients, {peak:.0f} MiB")
    check(peak < most_mib, f"the relay took {peak:.0f} MiB")
    equal(relay.stop(), 0, "exit code of the relay")


def both(world):
    """64 greedy clients of the relay of 0.5 and 48 of sbd that flood it with pings, pongs and empty fragments, all of
    one port. An honest pair of 0.5 goes on, and a node of 0.2 fetches a folder from another."""
    relay = world.start("relay", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    listening = relay.wait_event("listening")
    relay.url = relay_of(listening, "0.2")
    files = world.path("files")
    folder(files, 50, 4 << 20)
    share = world.share(relay, "sharer", files)
    nobody = f"{relay.url}/{43 * 'A'}"
    attackers = [subprocess.Popen([ENDPOINT, listening["addresses"][0], "greedy", "16", str(CLIENTS), str(ROUNDS)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)]
    for network, kind in enumerate(("ws-ping", "ws-pong", "ws-empty"), 1):
        attackers.append(subprocess.Popen([PEER, "attack", kind, relay.url, nobody, "1", "1", "16", str(PATIENCE), "16",
                                           str(network)], stdout=subprocess.PIPE, text=True))
    try:
        for attacker in attackers[1:]:
            while sum(json.loads(attacker.stdout.readline()).get(key, 0) for key in ("messages", "closed", "failed")) == 0:
                pass  # it has begun, but the relay has not seen it yet
        end = time.monotonic() + PATIENCE
        while metric(listening["admin"], SEEN["greedy"]) < 60 and attackers[0].poll() is None:
            check(time.monotonic() < end, "the flood of 0.5 has not begun")
            time.sleep(0.05)
        world.fetch_all(share.link)
        same(files, world.path("out"))
        for attacker in attackers[1:]:
            check(attacker.poll() is None, "an attacker of sbd has ended")
        out, err = attackers[0].communicate("\n", timeout=PATIENCE)
        equal(attackers[0].returncode, 0, f"exit code of greedy ({err.strip()})")
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
    peak = memory_mib(relay.proc.pid, "VmHWM")
    say(f"both protocols, {out.strip()}; the relay's peak: {peak:.0f} MiB")
    check(peak < MOST_MIB, f"the relay took {peak:.0f} MiB")
    equal(share.stop(), 0, "exit code of share")
    equal(relay.stop(), 0, "exit code of the relay")


main(test)
