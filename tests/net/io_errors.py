#!/usr/bin/env python3
"""The disk fails (EIO): each error names its file, nothing is lost or counted too early, and work resumes later."""
import errno

from faults import *


def refused(proc, part, code=1, name="io"):
    equal(proc.wait(), code, f"exit code ({proc.stderr().strip()})")
    error = proc.all_events("error")[-1]
    equal(error["code"], name, f"error {error}")
    contains(error["message"], part, "message")
    return error["message"]


def test(world):
    folder(world.path("from"), 60, 12 << 20)
    relay = slow_relay(world)

    say("share: writes of its large ops fail")
    bad = Faults(world, ".db-data")
    bad.fail(WRITE, errno.EIO, skip=40)
    proc = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, world.path("from"), env=bad.env)
    say(refused(proc, ".db"))
    equal(proc.all_events("shared"), [], "links printed")
    sharer = world.share(relay, "sharer", world.path("from"))
    say(f"with a good disk it goes on; {sharer.report['new_ops']} of {sharer.report['ops']} ops were not stored yet")

    held = 0
    for what, mask, part in (("writes of the WAL", WRITE, ".db-wal"), ("syncs of the WAL", SYNC, ".db-wal"),
                             ("writes of large ops", WRITE, ".db-data"), ("syncs of large ops", SYNC, ".db-data")):
        say(f"fetch: {what} fail")
        bad = Faults(world, part)
        proc = world.fetch(sharer.link, env=bad.env)
        proc.wait_event("progress", lambda e: e["ops"] > 0 and e["fetched_ops"] > 0)
        bad.fail(mask, errno.EIO)
        say(refused(proc, ".db"))
        check(bad["failed"] > 0, "the shim was not asked")
        said = max(e["fetched_ops"] for e in proc.all_events("progress"))
        now = check_store(world.path("fetcher"))
        check(now >= held + said, f"the store has {now} ops; {held} before, {said} more were said to be stored")
        held = now
    done = world.fetch_all(sharer.link)
    equal(done["fetched_ops"], sharer.report["ops"] - held, "ops fetched with a good disk")
    same(world.path("from"), world.path("out"))

    say("fetch: three writes of the output folder fail")
    shutil.rmtree(world.path("out"))
    bad = Faults(world, "/out/")
    bad.fail(WRITE, errno.EIO, skip=20, count=3)
    proc = world.fetch(sharer.link, env=bad.env)
    code = proc.wait()
    check(code in (1, 5), f"exit code {code}")
    check(bad["failed"] > 0, "the shim was not asked")
    words = " ".join(e["path"] + ": " + e["reason"] for e in proc.all_events("issue")) + proc.stderr()
    contains(words, "Input/output error")
    equal(leftovers(world.path("out")), [], "unfinished files")
    equal(world.fetch_all(sharer.link)["fetched_ops"], 0, "ops fetched again")
    same(world.path("from"), world.path("out"))

    say("share: its database cannot be read while it serves; it serves again by itself when it can")
    equal(sharer.stop(), 0, "exit code of the sharer")
    bad = Faults(world, ".db")
    sharer = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, world.path("from"), env=bad.env)
    link = sharer.wait_event("shared")["link"]
    bad.fail(READ, errno.EIO)
    fetcher = world.fetch(link, data="fetcher2", out="out2")
    end = time.monotonic() + 60
    while bad["failed"] == 0:
        check(time.monotonic() < end and fetcher.proc.poll() is None, f"nothing was read; {fetcher.seen[-1:]}")
        time.sleep(0.1)
    time.sleep(1)
    check(fetcher.proc.poll() is None, f"the fetch ended: {fetcher.seen[-2:]}")
    bad.heal()
    equal(fetcher.wait(), 0, "exit code of the fetch")
    # For SQLite, a file system that cannot read a page means a damaged file.
    contains(sharer.stderr(), "cannot read ops for", "what the sharer logged")
    contains(sharer.stderr(), ".db: ", "what the sharer logged")
    same(world.path("from"), world.path("out2"))


main(test)
