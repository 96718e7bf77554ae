#!/usr/bin/env python3
"""Three sharers of the same folder in one space share the load; one is killed meanwhile; every op arrives once."""
from k2net import *


def test(world):
    folder(world.path("from"))
    relay = world.relay(slow=True)
    sharers = [world.share(relay, f"sharer{i}", world.path("from"), options=["--space", "common"]) for i in range(3)]
    equal(len({sharer.link for sharer in sharers}), 1, "links")
    for sharer in sharers:
        sharer.wait_event("online")
    fetcher = world.fetch(sharers[0].link)
    fetcher.wait_event("progress", lambda e: e["live_sources"] == 3)
    fetcher.wait_event("progress", lambda e: e["ops"] > 0 and e["ops_held"] * 3 > e["ops"])
    sharers[2].kill()
    say("one of three sharers killed")
    equal(fetcher.wait(), 0, "exit code")
    done = fetcher.all_events("done")[0]
    same(world.path("from"), world.path("out"))
    equal(done["fetched_ops"], sharers[0].report["new_ops"], "ops fetched")
    for sharer in sharers[:2]:
        equal(sharer.stop(), 0, "exit code of a sharer")
    served = [sharer.all_events("served")[-1]["ops"] if sharer.all_events("served") else 0 for sharer in sharers]
    say(f"ops served: {served}")
    check(min(served[:2]) > 0, "a sharer served nothing")


main(test)
