#!/usr/bin/env python3
"""A full disk under the database, and under the output folder: a clear error; once there is room, nothing is lost."""
from k2net import *

TMPFS = {"small": 8 << 20}


def mount(path, size):
    os.makedirs(path)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", path], capture_output=True, text=True)
    if done.returncode != 0:
        raise Skip(f"cannot mount a tmpfs: {done.stderr.strip()}")


def remount(path, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", path], check=True)


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
    folder(world.path("from"), 60, 24 << 20)
    relay = world.relay()

    say("the sharer's disk is full")
    mounts.append(world.path("small-share"))
    mount(mounts[-1], 8 << 20)
    full = world.start("share", "--data", world.path("small-share", "data"), "--relay", relay.url, world.path("from"))
    equal(full.wait(), 6, "exit code")
    equal(full.all_events("error")[0]["code"], "disk_full", "error")
    equal(full.all_events("shared"), [], "links printed")
    remount(mounts[-1], 256 << 20)
    sharer = world.start("share", "--data", world.path("small-share", "data"), "--relay", relay.url, world.path("from"))
    link = sharer.wait_event("shared")["link"]
    say("with room it goes on")

    say("the fetcher's database is on a full disk")
    mounts.append(world.path("small-db"))
    mount(mounts[-1], 8 << 20)
    full = world.fetch(link, data="small-db/data")
    equal(full.wait(), 6, "exit code")
    equal(full.all_events("error")[0]["code"], "disk_full", "error")
    check(full.stderr().strip().splitlines()[-1].startswith("kitsune2: "), full.stderr())
    for line in full.stderr().splitlines():  # lines of the log, which begin with a time, name the code
        check("disk_full" not in line or line[0].isdigit(), f"a code word for people: {line}")
    remount(mounts[-1], 256 << 20)
    held = world.status("small-db/data")["spaces"][0]["ops"]
    check(held > 0, "nothing was stored before the disk was full; make it larger")
    done = world.fetch_all(link, data="small-db/data")
    say(f"{held} ops were stored when the disk was full, {done['fetched_ops']} came after")
    equal(held + done["fetched_ops"], world.status("small-db/data")["spaces"][0]["ops"], "ops before + after")
    same(world.path("from"), world.path("out"))

    say("the output folder is on a full disk")
    mounts.append(world.path("small-out"))
    mount(mounts[-1], 8 << 20)
    full = world.fetch(link, data="fetcher2", out="small-out/out")
    equal(full.wait(), 6, "exit code")
    equal(full.all_events("error")[0]["code"], "disk_full", "error")
    equal(leftovers(world.path("small-out")), [], "unfinished files")
    remount(mounts[-1], 256 << 20)
    world.fetch_all(link, data="fetcher2", out="small-out/out")
    same(world.path("from"), world.path("small-out/out"))


main(test)
