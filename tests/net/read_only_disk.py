#!/usr/bin/env python3
"""A read-only disk, from the start (a mount) or later (EROFS): the error names the path; work resumes later."""
import errno

from faults import *


def mount(world, name):
    path = world.path(name)
    os.makedirs(path)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    return path


def remount(path, how):
    subprocess.run(["mount", "-o", f"remount,{how}", path], check=True)


def refused(proc, path):
    code = proc.wait()
    error = proc.all_events("error")
    check(code == 1 and error, f"exit code {code}, {error}, {proc.stderr()}")
    equal(error[-1]["code"], "io", "error")
    contains(error[-1]["message"], path, "message")
    contains(error[-1]["message"].lower(), "read-only file system", "message")
    say(error[-1]["message"])


def test(world):
    if os.geteuid() != 0:
        raise Skip("mounting a tmpfs needs root")
    mounts = []
    try:
        run(world, mounts)
    finally:
        for proc in world.procs:
            proc.kill()
        for path in mounts:
            subprocess.run(["umount", "-l", path])


def run(world, mounts):
    folder(world.path("from"), 40, 8 << 20)
    relay = slow_relay(world)
    for name in ("a", "b", "c"):
        mounts.append(mount(world, name))
    shares, fetches, outs = mounts

    say("share: a data folder on a read-only disk, empty and full")
    remount(shares, "ro")
    refused(world.start("share", "--data", f"{shares}/data", "--relay", relay.url, world.path("from")), shares)
    remount(shares, "rw")
    sharer = world.share(relay, "a/data", world.path("from"))
    sharer.stop()
    remount(shares, "ro")
    refused(world.start("share", "--data", f"{shares}/data", "--relay", relay.url, world.path("from")), shares)
    equal(world.status("a/data")["spaces"][0]["ops"], sharer.report["ops"], "ops that status reads there")
    remount(shares, "rw")
    sharer = world.share(relay, "a/data", world.path("from"))
    equal(sharer.report["new_ops"], 0, "new ops")

    say("fetch: data and output folder")
    remount(fetches, "ro")
    refused(world.fetch(sharer.link, data="b/data"), fetches)
    remount(fetches, "rw")
    remount(outs, "ro")
    proc = world.fetch(sharer.link, data="b/data", out="c/out")
    refused(proc, outs)
    equal(proc.all_events("progress"), [], "progress before the output folder was looked at")
    remount(outs, "rw")

    say("the disk of a running fetch becomes read-only")
    bad = Faults(world, ".db-wal")
    proc = world.fetch(sharer.link, data="b/data", out="c/out", env=bad.env)
    under_way(proc)
    bad.fail(WRITE, errno.EROFS)
    equal(proc.wait(), 1, f"exit code; {proc.stderr()}")
    contains(proc.all_events("error")[0]["message"], ".db: ")
    said = max(e["fetched_ops"] for e in proc.all_events("progress"))
    held = check_store(world.path("b/data"))
    check(held >= said > 0, f"said {said} ops are stored, {held} are")
    bad = Faults(world, ".k2part-")
    proc = world.fetch(sharer.link, data="b/data", out="c/out", env=bad.env)
    bad.fail(OPEN, errno.EROFS)
    code = proc.wait()
    check(code in (1, 5), f"exit code {code}")
    check(bad["failed"] > 0, "the shim was not asked")
    reasons = {e["reason"] for e in proc.all_events("issue")}
    check(any("Read-only file system" in reason for reason in reasons), f"reasons given: {reasons}; {proc.stderr()}")
    equal(leftovers(world.path("c/out")), [], "unfinished files")
    done = world.fetch_all(sharer.link, data="b/data", out="c/out")
    equal(done["fetched_ops"], 0, "ops fetched again")
    same(world.path("from"), world.path("c/out"))


main(test)
