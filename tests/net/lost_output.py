#!/usr/bin/env python3
"""Lost output on stdout is reported, and the exit code is 1; a share ends whose link nobody could read."""
from k2net import *


def full(*args):
    with open("/dev/full", "w") as out:
        done = subprocess.run([K2, *args], stdout=out, stderr=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stderr


def test(world):
    write = world.path("from")
    os.mkdir(write)
    with open(write + "/file", "w") as file:
        file.write("x")
    said = "kitsune2: standard output cannot be written: "
    say("share: the link is lost")
    for json_too in ([], ["--json"]):
        code, err = full("share", "--data", world.path("d"), "--listen", "127.0.0.1:0", write, *json_too)
        equal(code, 1, "exit code of share")
        contains(err, said + "No space left on device\n")
        equal(err.count(said), 1, "how often it is said")
    say("the other commands")
    relay = world.relay()
    sharer = world.share(relay, "sharer", write)
    for args in (["--help"], ["--version"], ["config"], ["config", "--schema"], ["completion", "bash"],
                 ["status", "--data", world.path("sharer")], ["status", "--data", world.path("sharer"), "--json"],
                 ["fetch", sharer.link, "--data", world.path("f"), "--out", world.path("out")],
                 ["demo", "--files", "5", "--mib", "1"]):
        code, err = full(*args)
        equal((code, err.count(said)), (1, 1), f"exit code of {args[0]}, how often it is said ({err})")
    equal(open(world.path("out", "file")).read(), "x", "the fetch itself")


main(test)
