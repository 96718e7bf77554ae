#!/usr/bin/env python3
"""Clients of the relay of dialect 0.5 that take nothing, only send pings, flood an honest endpoint or nobody, prove no
key or send a byte at a time: from one address and from sixteen, an honest pair goes on, and the relay's memory stays
bounded."""
import http.client
import re

from k2net import *

ENDPOINT = os.environ.get("K2_HOSTILE_ENDPOINT", os.path.join(ROOT, "build/release/tests/net/hostile_endpoint"))
ROUNDS = 150
# limit_all_queue_bytes, and what an empty relay, its input buffers and the allocator have beside it.
MOST_MIB = 128 + 96
# What the relay must have seen of each attack.
SEEN = {"deaf": "kitsune2_relay_iroh_dropped_full_total", "pings": "relayserver_got_ping_total",
        "greedy": "relayserver_send_packets_recv_total", "absent": "kitsune2_relay_iroh_dropped_absent_total",
        "unproven": "kitsune2_relay_accepted_total", "slow": "relayserver_accepts_total"}


def metric(admin, name):
    conn = http.client.HTTPConnection(*admin.split(":"), timeout=PATIENCE)
    conn.request("GET", "/metrics")
    text = conn.getresponse().read().decode()
    conn.close()
    return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


def test(world):
    check(os.access(ENDPOINT, os.X_OK), f"no program at {ENDPOINT}; build it or set K2_HOSTILE_ENDPOINT")
    for attack, seen in SEEN.items():
        for addresses in (1, 16):
            relay = world.start("relay", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
            listening = relay.wait_event("listening")
            address = listening["addresses"][0]
            clients = subprocess.Popen([ENDPOINT, address, attack, str(addresses), str(ROUNDS)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                end = time.monotonic() + PATIENCE
                while clients.poll() is None and (count := metric(listening["admin"], seen)) <= 60:
                    check(time.monotonic() < end, f"{attack}: the relay has seen {count:.0f} of {seen}")
                    time.sleep(0.05)
                out, err = clients.communicate("\n", timeout=PATIENCE)
            finally:
                clients.kill()
            equal(clients.returncode, 0, f"exit code of {attack} ({err.strip()})")
            peak = memory_mib(relay.proc.pid, "VmHWM")
            say(f"{addresses} addresses, {out.strip()}; the relay's peak: {peak:.0f} MiB")
            check(peak < MOST_MIB, f"the relay took {peak:.0f} MiB")
            equal(relay.stop(), 0, "exit code of the relay")


main(test)
