#!/usr/bin/env python3
"""Damage on the disk below a node: nothing damaged is served or written, the rest arrives, both sides mend."""
import base64
import hashlib
import sqlite3

from k2net import *

FILES_IN = 80


def make(root):
    """Files of one to three ops, all different."""
    rng = random.Random(5)
    os.mkdir(root)
    for i in range(FILES_IN):
        with open(f"{root}/file{i:03}", "wb") as file:
            file.write(rng.randbytes(100_000 + i * 7_000))


def first_op(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(262144)).digest()


def text_of(op):
    return base64.urlsafe_b64encode(op).decode().rstrip("=")


def flip(database, *needles):
    """Turns one bit of each place in the database, or in the file of its large ops, where one of these bytes are: some
    are cut by the end of a page, and what was written last is in the WAL, too, while a node runs."""
    for needle in needles:
        found = False
        for part in [database, database + "-wal", database + "-data"]:
            if not os.path.exists(part):
                continue
            with open(part, "r+b") as file:
                data = file.read()
                at = data.find(needle)
                while at > 0:
                    file.seek(at)
                    file.write(bytes([data[at] ^ 1]))
                    found, at = True, data.find(needle, at + 1)
        if found:
            return
    raise AssertionError(f"the bytes were not found in {database}")


def flip_file(database, path):
    with open(path, "rb") as file:
        data = file.read(262144)
    flip(database, *(data[at:at + 64] for at in (20_000, 30_000, 40_000)))


def test(world):
    source = world.path("from")
    make(source)
    relay = world.relay()

    def share(options=()):
        return world.share(relay, "sharer", source, options=options)

    sharer = share()
    database = world.path("sharer", sharer.report["space"] + ".db")
    done = world.fetch_all(sharer.link)
    own = world.path("fetcher", sharer.report["space"] + ".db")
    sharer.stop()

    say("check of an intact store")
    out, _ = world.run("check", "--data", world.path("sharer"))
    contains(out, "intact")
    events = [json.loads(line) for line in world.run("check", "--data", world.path("sharer"), "--json")[0].splitlines()]
    equal(events[-1], {"event": "check", "spaces": 1, "damaged_spaces": 0, "exit": 0}, "last event")

    say("one bit of one op: check names it, and changes nothing")
    flip_file(database, f"{source}/file003")
    for _ in range(2):
        out, _ = world.run("check", "--data", world.path("sharer"), "--json", code=7)
        events = [json.loads(line) for line in out.splitlines()]
        named = [(event["op"], event["lost"]) for event in events if event["event"] == "fault"]
        equal(named, [(text_of(first_op(f"{source}/file003")), True)], "faults")
    out, err = world.run("check", "--data", world.path("sharer"), code=7)
    contains(out, "1 op damaged")
    contains(err, text_of(first_op(f"{source}/file003")))
    say("a share of the intact folder heals it")
    sharer = share()
    equal(sharer.report["repaired_ops"], 1, "repaired ops")
    world.run("check", "--data", world.path("sharer"))
    world.fetch_all(sharer.link, data="f1", out="o1")
    same(source, world.path("o1"))
    sharer.stop()

    say("a wrong size in an entry, and a bit in the list of files")
    with sqlite3.connect(database) as db:
        db.execute("UPDATE op SET size=size+1 WHERE id=?", (first_op(f"{source}/file010"),))
    world.run("check", "--data", world.path("sharer"), code=7)
    sharer = share()
    # No op is lost, so the share is ready at once. The store corrects the entry in a write of its own.
    wait_until(lambda: world.status("sharer")["spaces"][0]["mended_entries"] > 0, "the entry is corrected")
    world.run("check", "--data", world.path("sharer"))
    sharer.stop()
    flip(database, b"K2FM")
    sharer = share()
    equal(sharer.report["repaired_ops"], 1, "repaired ops")
    world.fetch_all(sharer.link, data="f2", out="o2")
    same(source, world.path("o2"))

    say("40 bits in 40 ops below the running sharer: found when they are asked for, not served, taken anew from the folder")
    for i in range(40):
        flip_file(database, f"{source}/file{i:03}")
    world.run("check", "--data", world.path("sharer"), code=7)
    fetcher = world.fetch(sharer.link, data="f3", out="o3", options=["--missing-after", "20"])
    equal(fetcher.wait(), 0, f"exit code of fetch ({fetcher.stderr()})")
    equal(fetcher.all_events("bad_source"), [], "the sharer was blamed")
    same(source, world.path("o3"))
    check(sharer.all_events("damaged") and sharer.all_events("repaired"), "the sharer said nothing")
    status = world.status("sharer")["spaces"][0]
    check(status["damaged_ops"] >= 40, f"damaged ops in status: {status}")
    world.run("check", "--data", world.path("sharer"))

    say("one op of the fetcher's own store: it is fetched again")
    flip_file(own, f"{source}/file007")
    shutil.rmtree(world.path("out"))
    healed = world.fetch_all(sharer.link)
    equal((healed["damaged_ops"], healed["fetched_ops"]), (1, 1), "ops")
    same(source, world.path("out"))
    say("the same for its list of files")
    flip(own, b"K2FM")
    shutil.rmtree(world.path("out"))
    healed = world.fetch_all(sharer.link)
    equal((healed["damaged_ops"], healed["fetched_ops"]), (1, 1), "ops")
    same(source, world.path("out"))

    say("the folder has changed: what is intact arrives, what is lost is named")
    flip_file(database, f"{source}/file050")
    flip_file(database, f"{source}/file051")
    shutil.copytree(source, world.path("as it was"))
    with open(f"{source}/file000", "ab") as file:
        file.write(b"more")
    fetcher = world.fetch(sharer.link, data="f4", out="o4", options=["--missing-after", "3"])
    equal(fetcher.wait(), 4, f"exit code of fetch ({fetcher.stderr()})")
    issues = {os.path.basename(event["path"]): event["kind"] for event in fetcher.all_events("issue")}
    equal(issues, {"file050": "missing", "file051": "missing"}, "files named")
    equal(len(os.listdir(world.path("o4"))), FILES_IN - 2, "files that arrived")
    contains(sharer.wait_event("not_repaired")["reason"], "has changed")
    sharer.stop()

    say("check at a set rate, and --repair")
    flip_file(database, f"{source}/file060")
    started = time.monotonic()
    out, _ = world.run("check", "--data", world.path("sharer"), "--rate", "10", code=7)
    took = time.monotonic() - started
    size = sum(os.path.getsize(f"{source}/{name}") for name in os.listdir(source))
    check(took > size / (10 << 20) * 0.8, f"{size} bytes in {took:.1f} s: faster than it may be")
    world.run("check", "--data", world.path("sharer"), "--repair", code=7)
    world.run("check", "--data", world.path("sharer"))


main(test)
