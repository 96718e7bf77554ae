#!/usr/bin/env python3
"""One link gives access to one share: with the link to one share of a data folder nobody gets anything of another,
neither ops nor the way to them. Earlier shares are still served beside the new one, including those in the space that
all shares once had."""
import base64

from k2net import *

EMBED = os.environ.get("K2_EMBED", os.path.join(os.path.dirname(K2), "../../examples/embed"))


def text_of(space):
    return base64.urlsafe_b64decode(space + "=" * (-len(space) % 4)).decode()


def stranger(world, relay, space, enough, seconds=120):
    """A plain node that joins a space and fetches every op it learns of. Returns what it holds once that is `enough`,
    and later."""
    proc = subprocess.Popen([EMBED, relay.url, text_of(space), str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        after = 0
        for line in proc.stdout:
            held = int(line.split()[1])
            check(held <= enough, f"a node in the space of one share holds {held} ops, which are more than its {enough}")
            after += held == enough
            if after == 5:
                return
        raise AssertionError(f"the stranger never had all {enough} ops of the share; last {line!r}")
    finally:
        proc.kill()
        proc.wait()


def spaces(world):
    return {space["space"]: space for space in world.status("sharer")["spaces"]}


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def test(world):
    rng = random.Random(1)
    common = rng.randbytes(300_000)
    for name in "ab":
        write(world.path(name, "common"), common)
        for i in range(20):
            write(world.path(name, f"{i}"), rng.randbytes(100_000))
    relay = world.relay()
    first = world.share(relay, "sharer", world.path("a"))
    equal(first.stop(), 0, "exit code")
    second = world.share(relay, "sharer", world.path("b"))
    a, b = first.report, second.report
    check(a["space"] != b["space"], "two shares in one space")
    earlier = second.all_events("earlier")
    equal([(e["root"], e["space"], e["ops"], e["files"], e["own_space"]) for e in earlier],
          [(a["root"], a["space"], a["new_ops"], a["files"], True)], "what is still served")
    equal((b["twice_ops"], b["twice_bytes"]), (2, len(common)), "what is stored twice")
    second.wait_event("online")

    say("a stranger with the link to the second share takes all that it can")
    stranger(world, relay, b["space"], b["new_ops"])
    mine = spaces(world)
    equal(set(mine), {a["space"], b["space"]}, "spaces")
    check(mine[b["space"]]["served"]["ops"] >= b["new_ops"], "the stranger was not served")
    equal((mine[a["space"]]["served"]["ops"], mine[a["space"]]["peers"]), (0, []), "served and seen in the space of the first share")
    check(mine[a["space"]]["agent"] != mine[b["space"]]["agent"], "the agents say that both are one node's")

    say("the first link works while the second share is served")
    world.fetch_all(first.link)
    same(world.path("a"), world.path("out"))
    world.fetch_all(second.link, out="out-b")
    same(world.path("b"), world.path("out-b"))
    equal(second.stop(), 0, "exit code")

    say("the same again: the same link, nothing new, and the order does not matter")
    again = world.share(relay, "sharer", world.path("a"))
    equal((again.link, again.report["new_ops"], again.report["twice_ops"]), (first.link, 0, 0), "link, new ops")
    again.wait_event("online")
    world.fetch_all(second.link, data="fetcher2", out="out-b2")
    equal(again.stop(), 0, "exit code")

    say("a newer version is a share of its own; the older link still gives the older version")
    write(world.path("a", "0"), b"changed")
    newer = world.share(relay, "sharer", world.path("a"))
    check(newer.report["space"] not in (a["space"], b["space"]), "two versions in one space")
    equal(len(newer.all_events("earlier")), 2, "earlier shares")
    newer.wait_event("online")
    stranger(world, relay, newer.report["space"], newer.report["new_ops"])
    world.fetch_all(first.link, data="fetcher3", out="out-a3")
    check(os.path.getsize(world.path("out-a3", "0")) == 100_000, "the older version")
    equal(newer.stop(), 0, "exit code")

    say("a link from before shares had spaces of their own")
    running = world.share(relay, "old", world.path("b"))
    agent = world.status("old")["agent"]
    equal(running.stop(), 0, "exit code")
    old = world.share(relay, "old", world.path("b"), options=["--space", "files-" + agent[:16]])
    equal(old.stop(), 0, "exit code")
    now = world.share(relay, "old", world.path("a"))
    kinds = sorted((e["own_space"], e["space"] == old.report["space"]) for e in now.all_events("earlier"))
    equal(kinds, [(False, True), (True, False)], "what is still served")
    now.wait_event("online")
    world.fetch_all(old.link, data="fetcher4", out="out-b4")
    same(world.path("b"), world.path("out-b4"))
    equal(now.stop(), 0, "exit code")

    say("an earlier share whose database is damaged is named, and is no obstacle")
    path = next(os.path.join(world.path("sharer"), name) for name in os.listdir(world.path("sharer"))
                if name.startswith(b["space"]) and name.endswith(".db") and ".peers" not in name)
    for end in ("-wal", "-shm"):
        if os.path.exists(path + end):
            os.remove(path + end)
    write(path, b"this was a database once. " * 400)
    last = world.share(relay, "sharer", world.path("a"))
    equal(len(last.all_events("earlier")), 2, "earlier shares")
    equal([set(e) for e in last.all_events("not_served")], [{"event", "reason"}], "the damaged one")
    equal(last.stop(), 0, "exit code")

    say("plain text says what is still served")
    proc = subprocess.Popen([K2, "share", "--data", world.path("sharer"), "--relay", relay.url, world.path("a")],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    proc.stdout.readline()
    proc.send_signal(signal.SIGTERM)
    _, err = proc.communicate(timeout=60)
    contains(err, f"still serving {a['root']} of ")
    contains(err, "kitsune2: an earlier share is not served: ")


main(test)
