#!/usr/bin/env python3
"""A sharer that was told to stop is restarted at once, with the same data and port, before and after it has ended."""
from k2net import *


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test(world):
    os.makedirs(world.path("from"))
    with open(world.path("from", "file"), "w") as file:
        file.write("again\n" * 1000)
    port = free_port()

    def share():
        return world.start("share", "--data", world.path("sharer"), "--listen", f"127.0.0.1:{port}", world.path("from"))

    sharer = share()
    link = sharer.wait_event("shared")["link"]
    # A peer that dies: a node that leaves tells it, and waits for a while.
    fetcher = world.fetch(link)
    equal(fetcher.wait(), 0, "exit code of the fetcher")
    ghost = world.start("share", "--data", world.path("ghost"), "--relay", f"127.0.0.1:{port}", world.path("from"))
    ghost.wait_event("online")
    sharer.wait_event("online")
    ghost.kill()
    for round in range(3):
        say(f"round {round}: the next one starts while this one stops")
        sharer.proc.send_signal(signal.SIGTERM)
        after = share()
        equal(after.wait_event("shared")["link"], link, "link")
        equal(sharer.wait(), 0, "exit code of the one that was stopped")
        after.wait_event("online")
        sharer = after
    say("and after its end")
    equal(sharer.stop(), 0, "exit code")
    sharer = share()
    equal(sharer.wait_event("shared")["link"], link, "link")
    sharer.wait_event("online")
    # A node that does not stop keeps its folder.
    other = share()
    equal(other.wait(), 8, "exit code of a second one")
    contains(other.stderr(), "in use by process", "stderr of the second one")


main(test)
