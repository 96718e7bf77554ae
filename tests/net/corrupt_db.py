#!/usr/bin/env python3
"""A damaged database: the error names the file, the exit code is 7, and the file is left as it is."""
import hashlib

from k2net import *


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def test(world):
    folder(world.path("from"), 50, 4 << 20)
    relay = world.relay()
    sharer = world.share(relay, "sharer", world.path("from"))
    world.fetch_all(sharer.link)
    database = [name for name in os.listdir(world.path("fetcher")) if name.endswith(".db") and ".peers" not in name][0]
    path = world.path("fetcher", database)
    good = open(path, "rb").read()
    for name in os.listdir(world.path("fetcher")):
        if name.endswith(("-wal", "-shm")):
            os.remove(world.path("fetcher", name))

    say("not a database at all")
    with open(path, "wb") as file:
        file.write(b"this was a database once. " * 400)
    before = digest(path)
    proc = world.fetch(sharer.link)
    equal(proc.wait(), 7, "exit code of fetch")
    error = proc.all_events("error")[0]
    equal(error["code"], "corrupt", "error")
    contains(error["message"], database)
    equal(digest(path), before, "the damaged file")
    out, err = world.run("status", "--data", world.path("fetcher"), code=7)
    contains(err, database)
    equal(digest(path), before, "the damaged file")

    say("an op's bytes are damaged on disk: found by its hash before a file is written, and fetched again")
    victim = next(os.path.join(base, name) for base, _, names in os.walk(world.path("from")) for name in names
                  if 200_000 > os.path.getsize(os.path.join(base, name)) > 70_000)
    content = open(victim, "rb").read()
    with open(path, "wb") as file:
        file.write(good)
    with open(path + "-data", "r+b") as file:
        large = file.read()
        at = large.find(content[20_000:20_064])
        check(at > 0, "the op's bytes were not found beside the database")
        file.seek(at)
        file.write(bytes([large[at] ^ 1]))
    shutil.rmtree(world.path("out"))
    done = world.fetch_all(sharer.link)
    equal((done["damaged_ops"], done["fetched_ops"]), (1, 1), "ops")
    same(world.path("from"), world.path("out"))

    say("moved away: everything is fetched again")
    os.rename(path, path + ".damaged")  # its large ops are put aside by themselves
    shutil.rmtree(world.path("out"), ignore_errors=True)
    done = world.fetch_all(sharer.link)
    equal(done["held_before_ops"], 0, "held before")
    check(os.path.exists(path + "-data.old"), "its large ops are gone")
    same(world.path("from"), world.path("out"))


main(test)
