#!/usr/bin/env python3
"""Files that exist in the output folder: identical files stay, different ones are left alone without --overwrite, and
symbolic links never lead a fetch out of its folder."""
from k2net import *


def test(world):
    source = world.path("from")
    os.makedirs(source + "/dir/sub")
    big = random.Random(5).randbytes(700_000)
    for name, data in [("same", b"1"), ("other", b"new"), ("dir/sub/deep", b"x"), ("big", big), ("link", b"l"), ("trap", b"t")]:
        with open(os.path.join(source, name), "wb") as file:
            file.write(data)
    relay = world.relay()
    sharer = world.share(relay, "sharer", source)

    out = world.path("out")
    os.makedirs(out)
    os.mkdir(world.path("outside"))
    with open(world.path("outside", "victim"), "w") as file:
        file.write("must stay")
    with open(out + "/same", "w") as file:
        file.write("1")
    with open(out + "/other", "w") as file:
        file.write("old")
    with open(out + "/big", "wb") as file:
        file.write(big[:-1] + bytes([big[-1] ^ 1]))
    os.symlink(world.path("outside"), out + "/dir")
    os.symlink(world.path("outside", "victim"), out + "/link")
    os.mkdir(out + "/trap")
    inode = os.stat(out + "/same").st_ino

    fetcher = world.fetch(sharer.link)
    equal(fetcher.wait(), 5, "exit code")
    issues = {event["path"]: event["kind"] for event in fetcher.all_events("issue")}
    equal(issues, {"other": "exists", "big": "exists", "dir": "exists", "link": "exists", "trap": "exists"}, "issues")
    equal(os.stat(out + "/same").st_ino, inode, "the identical file was touched")
    equal(open(out + "/other").read(), "old", "the different file")
    equal(sorted(os.listdir(world.path("outside"))), ["victim"], "files outside")
    equal(open(world.path("outside", "victim")).read(), "must stay", "the link's target")
    done = fetcher.all_events("done")[0]
    equal((done["files_kept"], done["files_failed"], done["files_written"]), (1, 5, 0), "kept, failed, written")
    equal(done["dirs_failed"], 1, "folders that could not be made")

    say("--overwrite replaces files and links, never folders, and follows nothing")
    fetcher = world.fetch(sharer.link, options=["--overwrite"])
    equal(fetcher.wait(), 5, "exit code")
    issues = {event["path"]: event["kind"] for event in fetcher.all_events("issue")}
    equal(issues, {"dir": "exists", "trap": "exists"}, "issues")
    equal(open(out + "/other").read(), "new", "the replaced file")
    equal(open(out + "/big", "rb").read(), big, "the replaced large file")
    equal((os.path.islink(out + "/link"), open(out + "/link").read()), (False, "l"), "the replaced link")
    equal(open(world.path("outside", "victim")).read(), "must stay", "the link's target")
    equal(sorted(os.listdir(world.path("outside"))), ["victim"], "files outside")

    os.remove(out + "/dir")
    os.rmdir(out + "/trap")
    world.fetch_all(sharer.link)
    same(source, out)

    say("an empty folder that cannot be made leaves the fetch incomplete")
    os.makedirs(world.path("from2", "folder"))
    os.mkdir(world.path("out2"))
    open(world.path("out2", "folder"), "w").close()
    link = world.share(relay, "sharer2", world.path("from2")).link
    fetcher = world.fetch(link, data="fetcher2", out="out2")
    equal(fetcher.wait(), 5, "exit code")
    done = fetcher.all_events("done")[0]
    equal((done["complete"], done["dirs_failed"], done["files_failed"], done["exit"]), (False, 1, 0, 5), "done")
    _, err = world.run("fetch", link, "--data", world.path("fetcher2"), "--out", world.path("out2"), code=5)
    contains(err, "incomplete: 1 folder could not be made")


main(test)
