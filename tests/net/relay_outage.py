#!/usr/bin/env python3
"""The relay is away for a minute: killed, then hung (SIGSTOP). Three nodes notice, and all are back within ten seconds
of its return."""
from k2net import *

AWAY, BACK = 60, 10
NOTICED = 31  # ten seconds of quiet, twenty for the answer to a ping


def returns(nodes, seconds):
    """Returns after how long each node is online again; all must be within `seconds`."""
    start = time.monotonic()
    out = []
    for node in nodes:
        node.wait_event("online", seconds=max(0.1, start + seconds - time.monotonic()))
        out.append(time.monotonic() - start)
    return out


def test(world):
    relay = world.relay()
    nodes = []
    for i in range(3):
        with open(world.path(f"file{i}"), "w") as file:
            file.write(f"content {i}")
        node = world.share(relay, f"node{i}", world.path(f"file{i}"))
        node.wait_event("online")
        nodes.append(node)

    relay.kill()
    gone = time.monotonic()
    for node in nodes:
        node.wait_event("offline", seconds=5)
    time.sleep(gone + AWAY - time.monotonic())
    again = world.relay(relay.port)
    say(f"killed: back after {', '.join(f'{t:.1f}' for t in returns(nodes, BACK))} s")

    again.proc.send_signal(signal.SIGSTOP)
    gone = time.monotonic()
    for node in nodes:
        node.wait_event("offline", seconds=gone + NOTICED + 5 - time.monotonic())
    noticed = time.monotonic() - gone
    check(noticed > 15, f"a relay that answered {noticed:.1f} s ago was given up")
    say(f"stopped: all have noticed after {noticed:.1f} s")
    time.sleep(gone + AWAY - time.monotonic())
    again.proc.send_signal(signal.SIGCONT)
    say(f"continued: back after {', '.join(f'{t:.1f}' for t in returns(nodes, BACK))} s")
    for node in nodes:
        equal(node.stop(), 0, "exit code of a node")
    equal(again.stop(), 0, "exit code of the relay")


main(test)
