#!/usr/bin/env python3
"""A folder of many files goes from process to process through a relay in a third, and arrives unchanged (diff -r)."""
from k2net import *


def test(world):
    folder(world.path("from"))
    relay = world.relay()
    sharer = world.share(relay, "sharer", world.path("from"))
    report = sharer.report
    say(f"shared {report['files']} files, {report['bytes'] >> 20} MiB as {report['ops']} ops in {report['seconds']:.1f} s")
    equal((report["failed"], report["skipped"]), (0, 0), "left out")
    done = world.fetch_all(sharer.link)
    say(f"fetched {done['fetched_ops']} ops, {done['fetched_bytes'] >> 20} MiB in {done['seconds']:.1f} s")
    same(world.path("from"), world.path("out"))
    equal(done["files_written"], report["files"], "files written")
    equal(done["held_before_ops"], 0, "held before")
    equal(leftovers(world.path("out")), [], "unfinished files")

    say("once more into the same folder: nothing is asked for, nothing is written")
    again = world.fetch_all(sharer.link)
    equal((again["fetched_ops"], again["fetched_bytes"], again["files_written"]), (0, 0, 0), "done again")
    equal(again["files_kept"], report["files"], "files kept")
    equal(again["held_before_ops"], again["ops"], "held before")

    say("sharing the same folder again stores nothing new and gives the same link")
    equal(sharer.stop(), 0, "exit code of the sharer")
    sharer = world.share(relay, "sharer", world.path("from"))
    equal((sharer.report["new_ops"], sharer.report["new_bytes"]), (0, 0), "new")
    equal(sharer.report["link"], report["link"], "link")
    equal(sharer.stop(signal.SIGINT), 0, "exit code of the sharer")
    equal(relay.stop(), 0, "exit code of the relay")


main(test)
