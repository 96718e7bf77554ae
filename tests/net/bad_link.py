#!/usr/bin/env python3
"""Delay, reordering, loss and blackouts between namespaces: every fetch ends, nothing is lost, and a link that works
again is used."""
from faults import *
from namespaces import ETHERNET_MTU, MTU, SMALLEST_MTU, TCP_MTU, UDP, VPN_MTU, BadLink

PORT = 4433
# delay and jitter one way in ms, loss of each packet. Reordered wherever there is jitter.
LINKS = [(20, 5, 0.0), (40, 20, 0.01), (100, 30, 0.02)] + ([(150, 50, 0.03), (300, 100, 0.1)] if FULL else [])


def test(world):
    if os.geteuid() != 0:
        raise Skip("network namespaces need root")
    on(world, MTU, through_the_relay)
    if NETWORKS[0] != "0.2":
        on(world, ETHERNET_MTU, directly)
        # The relay's device makes TCP take small packets, so that only datagrams are too large for the line.
        on(world, ETHERNET_MTU, over_a_vpn, mtus={"relay": TCP_MTU})


def on(world, mtu, run, mtus=None):
    link = BadLink(["relay", "sharer", "fetcher"], mtu=mtu, mtus=mtus)
    try:
        run(world, link)
    finally:
        for proc in world.procs:
            proc.kill()
        link.close()


def through_the_relay(world, link):
    size = 6 << 20
    folder(world.path("from"), 40, size)
    relay = slow_relay(world, PORT, link.address["relay"], prefix=link.inside("relay"))
    sharer = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, *world.by_relay, world.path("from"),
                         prefix=link.inside("sharer"))
    shared = sharer.wait_event("shared")
    sharer.wait_event("online")

    for number, (delay, jitter, loss) in enumerate(LINKS):
        link.set(delay, jitter, loss)
        carried, lost = link.carried, link.lost
        out = f"out{number}"
        done = world.fetch_all(shared["link"], data=f"fetcher{number}", out=out, prefix=link.inside("fetcher"))
        carried, lost = link.carried - carried, link.lost - lost
        say(f"{delay} + 0…{jitter} ms, {loss:.0%} lost: {done['seconds']:.1f} s, {carried} packets, {lost} lost")
        check(loss == 0 or lost > 0, "nothing was lost; the link did nothing")
        equal(done["fetched_ops"], shared["ops"], "ops fetched")
        same(world.path("from"), world.path(out))

    say("half way everything is lost for 20 s, and nobody is told: longer than the relay waits for a silent client")
    link.set(20, 5)
    fetcher = world.fetch(shared["link"], data="fetcher-dark", out="out-dark", prefix=link.inside("fetcher"))
    under_way(fetcher)
    link.set(loss=1)
    fetcher.wait_event("progress", lambda e: e["waiting"], seconds=60)
    waited = time.monotonic()
    time.sleep(20)
    check(fetcher.proc.poll() is None, f"the fetch ended: {fetcher.stderr()}")
    held = fetcher.all_events("progress")[-1]["ops_held"]
    check(held < shared["ops"], "it was done before; take a larger folder")
    link.set(20, 5)
    equal(fetcher.wait(), 0, "exit code of the fetch")
    done = fetcher.all_events("done")[0]
    say(f"{held} ops were held in the dark for {time.monotonic() - waited:.0f} s; {done['fetched_ops']} in all")
    equal(done["fetched_ops"], shared["ops"], "ops fetched")
    same(world.path("from"), world.path("out-dark"))

    say("the sharer alone is cut off for 15 s while another fetch runs")
    proc = world.fetch(shared["link"], data="fetcher-cut", out="out-cut", prefix=link.inside("fetcher"))
    under_way(proc)
    device = subprocess.run(["ip", "-n", link.namespace("sharer"), "-o", "link", "show", "type", "tun"], capture_output=True, text=True, check=True)
    device = device.stdout.split(":")[1].strip()
    subprocess.run(["ip", "-n", link.namespace("sharer"), "link", "set", device, "down"], check=True)
    proc.wait_event("progress", lambda e: e["waiting"], seconds=60)
    time.sleep(15)
    check(proc.proc.poll() is None, f"the fetch ended: {proc.stderr()}")
    subprocess.run(["ip", "-n", link.namespace("sharer"), "link", "set", device, "up"], check=True)
    equal(proc.wait(), 0, "exit code of the fetch")
    same(world.path("from"), world.path("out-cut"))


def directly(world, link):
    """By default nodes that reach each other by UDP leave the relay, and come back to it."""
    folder(world.path("more"), 40, 48 << 20, seed=2)
    relay = world.start("relay", "--listen", f"{link.address['relay']}:{PORT}", prefix=link.inside("relay"))
    relay.url = relay_of(relay.wait_event("listening"))
    sharer = world.start("share", "--data", world.path("direct"), "--relay", relay.url, world.path("more"), prefix=link.inside("sharer"))
    shared = sharer.wait_event("shared")
    sharer.wait_event("online")

    def fetch(name):
        proc = world.fetch(shared["link"], data=name, out=f"out-{name}", prefix=link.inside("fetcher"))
        under_way(proc)
        while not all(peer["direct"] for peer in world.status(name)["spaces"][0]["peers"]):
            equal(proc.all_events("done"), [], "it was done before it was direct")
        return proc

    def ends(proc, name):
        equal(proc.wait(), 0, "exit code of the fetch")
        equal(proc.all_events("done")[0]["fetched_ops"], shared["ops"], "ops fetched")
        same(world.path("more"), world.path(f"out-{name}"))

    say("packets are late, out of order and lost on the direct path and on the way to the relay")
    link.set(40, 20, 0.01)
    ends(fetch("direct-lossy"), "direct-lossy")

    say("half way UDP is blocked, and nobody is told: the fetch goes on through the relay")
    link.set(2)
    proc = fetch("direct-blocked")
    lost = link.lost
    link.without.add(UDP)
    equal(proc.all_events("done"), [], "it was done before; take a larger folder")
    ends(proc, "direct-blocked")
    check(link.lost > lost, "there was no UDP to block")


def over_a_vpn(world, link):
    """Nodes between which large packets vanish have a direct path all the same, also if that gets smaller."""
    link.largest = VPN_MTU
    folder(world.path("vpn"), 40, 32 << 20, seed=3)
    relay = world.start("relay", "--listen", f"{link.address['relay']}:{PORT}", prefix=link.inside("relay"))
    relay.url = relay_of(relay.wait_event("listening"))
    sharer = world.start("share", "--data", world.path("vpn-sharer"), "--relay", relay.url, world.path("vpn"),
                         prefix=link.inside("sharer"))
    shared = sharer.wait_event("shared")
    sharer.wait_event("online")

    def is_direct(name):
        peers = world.status(name)["spaces"][0]["peers"]
        return bool(peers) and all(peer["direct"] for peer in peers)

    say(f"packets of more than {VPN_MTU} bytes vanish, and nobody is told: the fetch leaves the relay")
    link.set(10)
    proc = world.fetch(shared["link"], data="vpn-fetcher", out="out-vpn", prefix=link.inside("fetcher"))
    under_way(proc)
    while not is_direct("vpn-fetcher"):
        equal(proc.all_events("done"), [], "it was done before it was direct")
    say(f"half way it is {SMALLEST_MTU}")
    link.largest = SMALLEST_MTU
    equal(proc.wait(), 0, "exit code of the fetch")
    done = proc.all_events("done")[0]
    say(f"{done['seconds']:.1f} s, {link.carried} packets, {link.too_large} were too large")
    check(link.too_large > 0, "nothing was too large")
    equal(done["fetched_ops"], shared["ops"], "ops fetched")
    same(world.path("vpn"), world.path("out-vpn"))


main(test)
