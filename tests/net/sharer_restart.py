#!/usr/bin/env python3
"""The sharer is killed during a fetch and returns at another url: the fetch says so, waits, and goes on by itself."""
from k2net import *


def test(world):
    folder(world.path("from"))
    relay = world.relay(slow=True)
    sharer = world.share(relay, "sharer", world.path("from"))
    fetcher = world.fetch(sharer.link)
    fetcher.wait_event("progress", lambda e: e["fetched_ops"] > 0)
    sharer.kill()
    say("sharer killed")
    waiting = fetcher.wait_event("progress", lambda e: e["waiting"])
    check(waiting["ops_held"] < waiting["ops"], "it was done before the sharer was killed; take a larger folder")
    say(f"fetcher waits for a source at {waiting['ops_held']} of {waiting['ops']} ops")
    back = world.share(relay, "sharer", world.path("from"))
    equal(back.link, sharer.link, "link")
    equal(back.report["new_ops"], 0, "new ops")
    say("sharer is back")
    equal(fetcher.wait(), 0, "exit code of the fetcher")
    done = fetcher.all_events("done")[0]
    same(world.path("from"), world.path("out"))
    # Nothing twice: each op arrived once (with the share's own ops).
    check(done["fetched_bytes"] <= sharer.report["new_bytes"], f"fetched more than there is: {done}")


main(test)
