#!/usr/bin/env python3
"""Permissions and links arrive as they were: never wider than the source, less the umask, no setuid; links that stay
inside are links, the others are reported in one line; folders that may not be written in are filled, also again, with
--overwrite and after a kill. Runs as an ordinary user, because root may write everywhere."""
import stat

from k2net import *


def as_user(umask=0o022):
    """Options of Popen that drop root."""
    out = {"umask": umask}
    if os.geteuid() == 0:
        out.update({"user": 65534, "group": 65534, "extra_groups": []})
    return out


def tree(root):
    """The contents of a folder: path -> (kind and mode, contents or target)."""
    out = {}
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(base, name)
            info = os.lstat(path)
            if stat.S_ISLNK(info.st_mode):
                what = ("link", os.readlink(path))
            elif stat.S_ISDIR(info.st_mode):
                what = ("folder", oct(stat.S_IMODE(info.st_mode)))
            else:
                with open(path, "rb") as file:
                    what = (oct(stat.S_IMODE(info.st_mode)), file.read())
            out[os.path.relpath(path, root)] = what
    return out


MODES = {"private": 0o600, "read only": 0o444, "tool": 0o755, "group": 0o640, "odd": 0o705, "plain": 0o644}
FOLDERS = {"locked/deep": 0o500, "locked": 0o555, "own": 0o700}


def make(source):
    rng = random.Random(1)
    os.makedirs(source + "/locked/deep")
    os.makedirs(source + "/own")
    for place in ("", "locked/", "locked/deep/", "own/"):
        for name, mode in MODES.items():
            path = os.path.join(source, place + name)
            with open(path, "wb") as file:
                file.write(rng.randbytes(rng.choice([0, 100, 400_000])))
            os.chmod(path, mode)
    os.chmod(source + "/own/tool", 0o4755)
    for place, target in {"to file": "plain", "to folder": "locked/deep", "through": "to folder/private", "dangling": "none",
                          "loop": "loop", "own/up": "../locked", "locked/deep/top": "../..", "out": "../outside",
                          "absolute": "/etc/passwd", "own/out": "../../outside", "winding": "own/../plain"}.items():
        os.symlink(target, os.path.join(source, place))


def lock(root, modes):
    for name, mode in modes.items():
        os.chmod(os.path.join(root, name), mode)


def test(world):
    os.chmod(world.dir, 0o755)
    source = world.path("from")
    make(source)
    if os.geteuid() == 0:
        for base, dirs, files in os.walk(world.dir):
            for name in [base, *[os.path.join(base, n) for n in dirs + files]]:
                os.chown(name, 65534, 65534, follow_symlinks=False)
        os.chmod(source + "/own/tool", 0o4755)
    lock(source, FOLDERS)
    relay = world.relay()
    sharer = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, source, **as_user())
    report = sharer.wait_event("shared")
    equal((report["links"], report["links_left_out"], report["skipped"], report["failed"]), (7, 4, 4, 0), "links")
    equal(len(sharer.all_events("issue")), 4, "issues, each link by name with --json")
    sharer.wait_event("online")
    expected = tree(source)
    for name in ("out", "absolute", "own/out", "winding"):
        del expected[name]
    expected["own/tool"] = ("0o755", expected["own/tool"][1])

    say("as they were, with the usual umask")
    fetcher = world.fetch(report["link"], **as_user())
    equal(fetcher.wait(), 0, "exit code")
    equal(tree(world.path("out")), expected, "what arrived")
    done = fetcher.all_events("done")[0]
    equal((done["links"], done["links_written"], done["links_kept"], done["links_failed"]), (7, 7, 0, 0), "links")

    say("once more: nothing is written, folders that may not be entered are no obstacle")
    fetcher = world.fetch(report["link"], **as_user())
    equal(fetcher.wait(), 0, "exit code")
    equal(tree(world.path("out")), expected, "what is there")
    done = fetcher.all_events("done")[0]
    equal((done["files_written"], done["files_kept"], done["links_kept"]), (0, 24, 7), "written, kept")

    say("another umask takes more away")
    fetcher = world.fetch(report["link"], data="fetcher2", out="out2", **as_user(0o077))
    equal(fetcher.wait(), 0, "exit code")
    for name, (mode, what) in tree(world.path("out2")).items():
        if mode == "link":
            equal((mode, what), expected[name], name)
        elif mode == "folder":
            equal(int(what, 8), int(expected[name][1], 8) & 0o700, f"mode of {name}")
        else:
            equal(int(mode, 8), int(expected[name][0], 8) & 0o700, f"mode of {name}")

    say("what is there is in the way of links without --overwrite, and gets no more permissions")
    lock(world.path("out"), {"locked": 0o755})
    os.remove(world.path("out/to file"))
    with open(world.path("out/to file"), "w") as file:
        file.write("mine")
    os.remove(world.path("out/locked/plain"))
    os.chmod(world.path("out/plain"), 0o600)
    os.chmod(world.path("out/group"), 0o666)
    if os.geteuid() == 0:
        os.chown(world.path("out/to file"), 65534, 65534)
    fetcher = world.fetch(report["link"], **as_user())
    equal(fetcher.wait(), 5, "exit code")
    equal([(e["path"], e["kind"]) for e in fetcher.all_events("issue")], [("to file", "exists")], "issues")
    got = tree(world.path("out"))
    equal((got["plain"][0], got["group"][0], got["to file"][1]), ("0o600", "0o640", b"mine"), "plain, group, to file")
    equal((got["locked"], got["locked/plain"]), (expected["locked"], expected["locked/plain"]), "the locked folder")
    fetcher = world.fetch(report["link"], options=["--overwrite"], **as_user())
    equal(fetcher.wait(), 0, "exit code")
    equal(tree(world.path("out")), expected, "what is there with --overwrite")
    equal(sharer.stop(), 0, "exit code of the sharer")

    say("in plain text: one line for all links")
    for level, lines in (("warn", 0), ("debug", 4)):
        proc = subprocess.Popen([K2, "share", "--data", world.path("sharer"), "--relay", relay.url, "--log-level", level, source],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **as_user())
        equal(proc.stdout.readline(), report["link"] + "\n", "the link")
        proc.send_signal(signal.SIGTERM)
        _, err = proc.communicate(timeout=60)
        equal(err.count("kitsune2: skipped: "), lines, f"links by name with {level}: {err}")
        equal("kitsune2: 4 links that lead out of the folder, or that the format cannot keep, were left out" in err, lines == 0, f"the summary with {level}: {err}")

    say("--overwrite brings a new version into a folder that an earlier fetch made read-only")
    lock(source, {"locked": 0o755})
    for name in ("locked/plain", "locked/new"):
        with open(os.path.join(source, name), "w") as file:
            file.write("of the new version")
        os.chmod(os.path.join(source, name), 0o644)
    if os.geteuid() == 0:
        os.chown(os.path.join(source, "locked/new"), 65534, 65534)
    equal(tree(world.path("out"))["locked"], ("folder", "0o555"), "the folder before")
    new = world.start("share", "--data", world.path("sharer"), "--relay", relay.url, source, **as_user())
    link = new.wait_event("shared")["link"]
    new.wait_event("online")
    fetcher = world.fetch(link, options=["--overwrite"], **as_user())
    equal(fetcher.wait(), 0, "exit code")
    got = tree(world.path("out"))
    equal((got["locked"], got["locked/plain"], got["locked/new"]),
          (("folder", "0o755"), ("0o644", b"of the new version"), ("0o644", b"of the new version")), "the folder after")
    equal(new.stop(), 0, "exit code of the sharer")

    lock(source, {"locked": 0o755, "locked/deep": 0o755})
    for out in ("out", "out2"):
        lock(world.path(out), {"locked": 0o755, "locked/deep": 0o755})


main(test)
