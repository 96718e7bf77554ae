#!/usr/bin/env python3
"""A mirror is told of the ops of a share by gossip alone. It gives them to a fetcher when the sharer is gone, also
after a restart, and `status` says what is in sync with whom. A sharer takes in nothing of what others share."""
from k2net import *

# In place of two minutes.
CONFIG = {"k2Gossip": {"initiateIntervalMs": 1000, "initiateJitterMs": 500, "minInitiateIntervalMs": 500}}


def test(world):
    with open(world.path("config"), "w") as file:
        json.dump(CONFIG, file)
    config = ["--config", world.path("config")]
    for name, files in [("shared", 40), ("other", 3)]:
        folder(world.path(name), files, 2 << 20, seed=files)
    relay = world.relay()
    sharer = world.share(relay, "sharer", world.path("shared"), options=config)
    sharer.wait_event("online")
    ops = sharer.report["new_ops"]

    def mirror(data, *options):
        return world.start("mirror", sharer.link, "--data", world.path(data), *config, *options)

    say("a mirror holds what is in the space of the link")
    first = mirror("mirror")
    equal(first.wait_event("held")["ops"], 0, "ops at the start")
    held = first.wait_event("held", lambda e: e["storage_sectors"] == 512)
    equal((held["ops"], held["bytes"], held["target_sectors"]), (ops, sharer.report["new_bytes"], 512), "held")

    say("status says what is in sync with whom")
    in_sync = {}
    end = time.monotonic() + PATIENCE
    for data in ["mirror", "sharer"]:
        while data not in in_sync:
            space = world.status(data)["spaces"][0]
            peers = [p for p in space["gossip"]["peers"] if p.get("in_sync_sectors") == 512]
            if len(peers) == 1 and space["gossip"]["in_sync_sectors"] == 512:
                in_sync[data] = (space, peers[0])
            check(time.monotonic() < end, f"{data} is not in sync: {space}")
            time.sleep(0.1)
    space, peer = in_sync["mirror"]
    equal(peer["peer"], in_sync["sharer"][0]["url"], "in sync with")
    check(peer["completed_rounds"] > 0, f"no round with the sharer: {peer}")
    gossip = space["gossip"]
    equal((gossip["target_sectors"], gossip["storage_sectors"]), (512, 512), "sectors")
    equal((space["ops"], space["fetched"]["ops"], space["pending"]), (ops, ops, []), "ops held, fetched, pending")
    text = world.run("status", "--data", world.path("mirror"))[0]
    contains(text, "running (mirror, ", "status")
    contains(text, "claims 512 of 512 sectors, 512 found in sync", "status")
    contains(text, f"in sync   512 sectors with {peer['peer']} at {peer['in_sync_at'][:10]}", "status")

    say("the sharer leaves; a fetcher gets the share from the mirror")
    equal(sharer.stop(), 0, "exit code of the sharer")
    world.fetch_all(sharer.link)
    same(world.path("shared"), world.path("out"))
    equal(world.status("mirror")["spaces"][0]["served"]["ops"], ops, "ops that the mirror served")
    equal(first.stop(), 0, "exit code of the mirror")

    say("a fetcher waits before the mirror is back, so it is not alone; it serves what it held")
    fetcher = world.fetch(sharer.link, "second fetcher", "second out")
    fetcher.wait_event("progress", lambda e: e["waiting"])
    again = mirror("mirror")
    equal(again.wait_event("held")["ops"], ops, "ops after the restart")
    equal(fetcher.wait(), 0, "exit code of the fetcher")
    same(world.path("shared"), world.path("second out"))

    equal(again.stop(), 0, "exit code of the mirror")

    say("a sharer takes in nothing of what is shared beside it in a named space")
    named = [*config, "--space", "common"]
    sharers = {name: world.share(relay, f"{name} node", world.path(name), options=named) for name in ["shared", "other"]}

    def after_rounds(data):
        """The node's only space, after three more rounds with each of the others."""
        end = time.monotonic() + PATIENCE
        before = {}
        others = len(sharers) - (data in [f"{name} node" for name in sharers])
        while True:
            space = world.status(data)["spaces"][0]
            rounds = {p["peer"]: p.get("completed_rounds", 0) for p in space["gossip"]["peers"] if p["storage_arc"] != "empty"}
            for peer, count in rounds.items():
                before.setdefault(peer, count)
            if len(rounds) == others and all(count >= before[peer] + 3 for peer, count in rounds.items()):
                return space
            check(time.monotonic() < end, f"no rounds: {space}")
            time.sleep(0.1)

    for name, node in sharers.items():
        space = after_rounds(f"{name} node")
        equal((space["ops"], space["fetched"]["ops"]), (node.report["new_ops"], 0), f"ops held and fetched by {name}")

    say("a mirror whose limit is reached takes in nothing more, one without a limit all of both")
    world.fetch_all(sharers["shared"].link, "both", "third out")
    limited = world.start("mirror", sharers["shared"].link, "--data", world.path("both"), *config, "--limit", "1")
    limited.wait_event("limit_reached")
    equal(after_rounds("both")["ops"], sharers["shared"].report["new_ops"], "ops of the limited mirror")
    equal(limited.stop(), 0, "exit code of the limited mirror")
    unlimited = world.start("mirror", sharers["shared"].link, "--data", world.path("both"), *config)
    unlimited.wait_event("held", lambda e: e["ops"] == sum(node.report["new_ops"] for node in sharers.values()))
    equal(unlimited.stop(), 0, "exit code of the unlimited mirror")


main(test)
