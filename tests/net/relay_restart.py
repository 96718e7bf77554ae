#!/usr/bin/env python3
"""The relay is killed during a fetch and restarted at the same port: both nodes reconnect and the fetch continues. On a
direct path it goes on meanwhile."""
from k2net import *


def through_the_relay(world):
    folder(world.path("from"))
    relay = world.relay(slow=True)
    sharer = world.share(relay, "sharer", world.path("from"))
    fetcher = world.fetch(sharer.link)
    fetcher.wait_event("progress", lambda e: e["fetched_ops"] > 0)
    relay.kill()
    say("relay killed")
    sharer.wait_event("offline")
    waiting = fetcher.wait_event("progress", lambda e: e["waiting"])
    check(waiting["ops_held"] < waiting["ops"], "it was done before the relay was killed; take a larger folder")
    again = world.relay(relay.port, slow=True)
    say("relay is back")
    sharer.wait_event("online")
    equal(fetcher.wait(), 0, "exit code of the fetcher")
    same(world.path("from"), world.path("out"))
    check(fetcher.all_events("done")[0]["fetched_bytes"] <= sharer.report["new_bytes"], "fetched more than there is")
    equal(sharer.stop(), 0, "exit code of the sharer")
    equal(again.stop(), 0, "exit code of the relay")


def directly(world):
    """By default. The sharer is held up while the relay is killed, so that the fetch is not done before."""
    folder(world.path("large"), 60, 192 << 20, seed=2)
    relay = world.relay()
    sharer = world.share(relay, "direct-sharer", world.path("large"))
    sharer.wait_event("online")
    fetcher = world.fetch(sharer.link, data="direct-fetcher", out="direct-out")
    fetcher.wait_event("progress", lambda e: e["fetched_ops"] > 0)
    while not all(peer["direct"] for peer in world.status("direct-fetcher")["spaces"][0]["peers"]):
        equal(fetcher.all_events("done"), [], "it was done before it was direct")
    sharer.proc.send_signal(signal.SIGSTOP)
    relay.kill()
    sharer.proc.send_signal(signal.SIGCONT)
    equal(fetcher.all_events("done"), [], "it was done before the relay was killed; take a larger folder")
    say("relay killed: it does not come back, and the fetch goes on")
    equal(fetcher.wait(), 0, "exit code of the fetcher")
    same(world.path("large"), world.path("direct-out"))
    done = fetcher.all_events("done")[0]
    equal(done["fetched_ops"], sharer.report["new_ops"], "ops fetched")
    equal(sharer.stop(), 0, "exit code of the sharer")


def test(world):
    through_the_relay(world)
    if NETWORKS[0] != "0.2":
        directly(world)


main(test)
