#!/usr/bin/env python3
"""The order of system calls: what is reported as done has a durable name, too. Needs strace."""
import re

from k2net import *


def calls(world, name, *args):
    """(call, line) of the system calls that make names durable, in order."""
    log = world.path(name + ".strace")
    done = subprocess.run(["strace", "-f", "-y", "-o", log, "-e",
                           "trace=?mkdir,mkdirat,?rename,?renameat,renameat2,fsync,syncfs,exit_group", K2, *args],
                          capture_output=True, text=True, timeout=PATIENCE)
    if "ptrace" in done.stderr and done.returncode != 0:
        raise Skip(f"no ptrace: {done.stderr.strip()}")
    equal(done.returncode, 0, f"exit code ({done.stderr})")
    found = []
    with open(log) as lines:
        for line in lines:
            match = re.match(r"\d+ +([a-z_0-9]+)\(", line)
            if match and " = -1" not in line:
                found.append((match[1], line))
    return found


def position(found, what, where):
    """The position of the last such call."""
    at = [i for i, (call, line) in enumerate(found) if call in what and where in line]
    check(at, f"no {what} of {where}")
    return at[-1]


def test(world):
    if not shutil.which("strace"):
        raise Skip("no strace")
    folder(world.path("from"), 30, 2 << 20)
    os.chmod(world.path("from"), 0o755)
    relay = world.relay()
    sharer = world.share(relay, "sharer", world.path("from"))
    data, out = world.path("new", "fetcher", "data"), world.path("new", "out", "deep")
    found = calls(world, "fetch", "fetch", sharer.link, "--data", data, "--out", out)
    same(world.path("from"), out)
    renamed = position(found, ("renameat", "renameat2"), out)
    synced = position(found, ("syncfs",), out)
    check(synced > renamed, "files have their names, and nothing makes these durable before the end")
    for made in [world.path("new"), world.path("new", "fetcher"), data, world.path("new", "out"), out]:
        at = position(found, ("mkdir", "mkdirat"), f'"{made}"')
        above = os.path.dirname(made)
        check(any(call == "fsync" and f"<{above}>" in line for call, line in found[at:]), f"the name of {made} is not synced")
    say("the names of files and of both folders are durable before the end")


main(test)
