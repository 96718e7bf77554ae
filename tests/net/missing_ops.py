#!/usr/bin/env python3
"""A sharer that lacks some ops: the fetch lists them and their files, and writes the others. Another completes it."""
import sqlite3

from k2net import *


def test(world):
    source = world.path("from")
    os.makedirs(source + "/small")
    rng = random.Random(3)
    for i in range(6):
        with open(f"{source}/large{i}", "wb") as file:
            file.write(rng.randbytes(600_000))  # three ops each
    for i in range(30):
        with open(f"{source}/small/{i}", "wb") as file:
            file.write(rng.randbytes(20_000))  # packed, several to an op
    relay = world.relay()
    sharer = world.share(relay, "sharer", source, options=["--space", "common"])
    equal(sharer.stop(), 0, "exit code of the sharer")

    import hashlib
    lost = []
    with open(source + "/large2", "rb") as file:
        lost.append(hashlib.sha256(file.read(262144)).digest())
    with open(source + "/large4", "rb") as file:
        data = file.read()
        lost += [hashlib.sha256(data[at:at + 262144]).digest() for at in (0, 262144, 524288)]
    say(f"removing {len(lost)} ops from the sharer's database")
    os.makedirs(world.path("whole"))
    for name in os.listdir(world.path("sharer")):
        if not name.endswith(".sock"):
            shutil.copy(world.path("sharer", name), world.path("whole", name))
    database = [name for name in os.listdir(world.path("sharer")) if name.endswith(".db") and ".peers" not in name]
    equal(len(database), 1, "databases")
    with sqlite3.connect(world.path("sharer", database[0])) as db:
        for op in lost:
            rows = db.execute("SELECT stored_at, size FROM op WHERE id=?", (op,)).fetchall()
            equal(len(rows), 1, "rows of a lost op")
            db.execute("DELETE FROM op_place WHERE stored_at=?", (rows[0][0],))
            db.execute("DELETE FROM op WHERE stored_at=?", (rows[0][0],))
            db.execute("UPDATE totals SET ops=ops-1, bytes=bytes-?", (rows[0][1],))
    os.mkdir(world.path("nothing"))
    link = sharer.link
    # It serves what it has: this time an empty folder is shared, and the old ops are still there.
    holed = world.share(relay, "sharer", world.path("nothing"), options=["--space", "common"])

    fetcher = world.fetch(link, options=["--missing-after", "4"])
    equal(fetcher.wait(), 4, "exit code")
    named = {event["op"] for event in fetcher.all_events("missing_op")}
    import base64
    expected = {base64.urlsafe_b64encode(op).decode().rstrip("=") for op in lost}
    equal(named, expected, "ops named as missing")
    issues = {os.path.basename(event["path"]): event["kind"] for event in fetcher.all_events("issue")}
    equal(issues, {"large2": "missing", "large4": "missing"}, "files named")
    done = fetcher.all_events("done")[0]
    equal((done["complete"], done["files_failed"], done["files_written"], done["missing_ops"]), (False, 2, 34, 4), "done")
    got = sorted(os.listdir(world.path("out")))
    equal(got, ["large0", "large1", "large3", "large5", "small"], "files in the output folder")
    for name in got[:-1]:
        check(filecmp.cmp(f"{source}/{name}", world.path("out", name), shallow=False), f"{name} differs")
    say("the fetch named the ops and files that are missing, and wrote the others")

    plain_out, plain_err = world.run("fetch", link, "--data", world.path("fetcher"), "--out", world.path("out"),
                                     "--missing-after", "3", code=4)
    equal(plain_out, "", "stdout")
    contains(plain_err, "missing: large2: op ")
    contains(plain_err, "incomplete: 2 of 36 files are not written")

    say("a second sharer that has all comes while the fetch waits")
    fetcher = world.fetch(link, options=["--missing-after", "60"])
    fetcher.wait_event("progress", lambda e: e["phase"] == "fetching" and e["live_sources"] == 1)
    whole = world.start("share", "--data", world.path("whole"), "--relay", relay.url, "--space", "common",
                        world.path("nothing"))
    # The copy has the first sharer's key, so its newer info would replace the other. With a key of its own it is
    # another agent.
    whole.kill()
    os.remove(world.path("whole", "agent.key"))
    whole = world.share(relay, "whole", world.path("nothing"), options=["--space", "common"])
    equal(fetcher.wait(), 0, "exit code")
    equal(fetcher.all_events("done")[0]["fetched_ops"], 4, "ops fetched: the missing ones only")
    same(source, world.path("out"))


main(test)
