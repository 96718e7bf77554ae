#!/usr/bin/env python3
"""The relay is killed during a fetch and restarted at the same port: both nodes reconnect and the fetch continues."""
from k2net import *


def test(world):
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
    equal(again.stop(), 0, "exit code of the relay")


main(test)
