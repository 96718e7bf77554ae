#!/usr/bin/env python3
"""The fetcher is killed ten times during a fetch (SIGKILL). It resumes each time, and requests nothing it holds."""
from k2net import *


def test(world):
    folder(world.path("from"))
    relay = world.relay(slow=True)
    sharer = world.share(relay, "sharer", world.path("from"))
    kills = 0
    last_held = 0
    in_store = 0
    while kills < 10:
        fetcher = world.fetch(sharer.link)
        # A part more each time, and at the end enough is left that the fetcher still says something before it is done.
        goal = (kills + 1) / 13
        fetcher.wait_event("progress", lambda e: e["ops"] > 0 and (e["ops_held"] >= goal * e["ops"] or e["phase"] == "writing"))
        fetcher.kill()
        kills += 1
        seen = fetcher.all_events("progress")[-1]
        check(seen["ops_held"] >= last_held, f"held less than before the kill: {seen}")
        last_held = seen["ops_held"]
        before, in_store = in_store, world.status("fetcher")["spaces"][0]["ops"]
        check(in_store >= max(before, last_held), f"the store has {in_store} ops, had {before}, said {last_held}")
        check(fetcher.all_events("done") == [], "it was done before it was killed; take a larger folder")
        say(f"killed {kills} times; at {seen['ops_held']} of {seen['ops']} ops, {in_store} in the store")
    done = world.fetch_all(sharer.link)
    same(world.path("from"), world.path("out"))
    equal(leftovers(world.path("out")), [], "unfinished files")
    check(done["held_before_ops"] >= last_held, f"the store lost ops: {done}, held {last_held}")
    # Exact: the last run fetched what was not in the store, and not one op more.
    equal(done["fetched_ops"], sharer.report["new_ops"] - in_store, "ops fetched by the last run")
    equal(world.status("fetcher")["spaces"][0]["ops"], sharer.report["new_ops"], "ops in the store")


main(test)
