#!/usr/bin/env python3
"""Files and folders that cannot be read are listed with the system's reason and left out; the rest is shared; --strict
shares nothing. Files that cannot be written are listed too. Runs as an ordinary user, because root may read
everything."""
from k2net import *


def as_user():
    """Options of Popen that drop root."""
    if os.geteuid() != 0:
        return {}
    return {"user": 65534, "group": 65534, "extra_groups": []}


def test(world):
    user = as_user()
    source = world.path("from")
    os.makedirs(source + "/locked/inside")
    for name in ["good", "secret", "locked/inside/x", "z-last"]:
        with open(os.path.join(source, name), "w") as file:
            file.write(name)
    if user:
        for base, dirs, files in os.walk(world.dir):
            for name in [base, *[os.path.join(base, n) for n in dirs + files]]:
                os.chown(name, 65534, 65534)
    os.chmod(source + "/secret", 0)
    os.chmod(source + "/locked", 0)
    relay = world.relay()
    sharer = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, source, **user)
    report = sharer.wait_event("shared")
    equal((report["files"], report["failed"]), (2, 2), "shared, failed")
    issues = {event["path"]: (event["kind"], event["reason"]) for event in sharer.all_events("issue")}
    denied = ("unreadable", "Permission denied")
    equal(issues, {source + "/secret": denied, source + "/locked": denied}, "issues")
    sharer.wait_event("online")
    fetcher = world.fetch(report["link"], **user)
    equal(fetcher.wait(), 0, "exit code of the fetch")
    equal(sorted(os.listdir(world.path("out"))), ["good", "z-last"], "fetched")
    equal(sharer.stop(), 5, "exit code of a sharer that left files out")

    say("in plain text: path and reason on stderr, the link alone on stdout")
    proc = subprocess.Popen([K2, "share", "--data", world.path("sharer"), "--relay", relay.url, source],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **user)
    equal(proc.stdout.readline(), report["link"] + "\n", "stdout")
    proc.send_signal(signal.SIGINT)
    out, err = proc.communicate(timeout=60)
    equal((proc.returncode, out), (5, ""), "exit code, rest of stdout")
    contains(err, f"kitsune2: unreadable: {source}/secret: Permission denied\n")
    contains(err, f"kitsune2: unreadable: {source}/locked: Permission denied\n")

    say("--strict")
    strict = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, "--strict", source, **user)
    equal(strict.wait(), 5, "exit code with --strict")
    equal(strict.all_events("error")[0]["exit"], 5, "exit code in the event")
    equal(strict.all_events("shared"), [], "links printed")

    say("a folder that cannot be written to")
    os.chmod(source + "/secret", 0o600)
    os.chmod(source + "/locked", 0o700)
    sharer = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, source, **user)
    link = sharer.wait_event("shared")["link"]
    os.makedirs(world.path("out2/locked"))
    if user:
        os.chown(world.path("out2"), 65534, 65534)
        os.chown(world.path("out2/locked"), 65534, 65534)
    os.chmod(world.path("out2/locked"), 0o500)
    fetcher = world.fetch(link, out="out2", **user)
    equal(fetcher.wait(), 5, "exit code of the fetch")
    issues = [(event["path"], event["kind"], event["reason"]) for event in fetcher.all_events("issue")]
    equal(issues, [("locked/inside", "unwritable", "Permission denied")], "issues")
    equal(sorted(os.listdir(world.path("out2"))), ["good", "locked", "secret", "z-last"], "fetched")
    os.chmod(world.path("out2/locked"), 0o700)
    again = world.fetch(link, out="out2", **user)
    equal(again.wait(), 0, "exit code once it can be written to")
    done = again.all_events("done")[0]
    equal((done["files_written"], done["files_kept"], done["fetched_ops"]), (1, 3, 0), "written, kept, fetched")
    same(source, world.path("out2"))


main(test)
