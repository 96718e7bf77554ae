#!/usr/bin/env python3
"""One SIGINT or SIGTERM ends every command in every phase, with the documented exit code; run again, it resumes.

Without a signal the commands would take a minute, an hour or for ever. BOUND is generous, so that it tests the program
and not the machine: nothing here comes near it.
"""
import glob

from k2net import *

BOUND = 10


def ends(proc, number, code, what, bound=BOUND):
    """`proc` (a Proc or a Popen) ends by one signal."""
    began = time.monotonic()
    process = getattr(proc, "proc", proc)
    process.send_signal(number)
    try:
        got = process.wait(60)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{what}: still there a minute after {number.name}") from None
    took = time.monotonic() - began
    say(f"{what}: {number.name}, exit code {got}, {took:.2f} s")
    equal(got, code, f"exit code, {what}")
    check(took < bound, f"{what}: took {took:.1f} s to end")


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


def name_server_that_hangs(world):
    """Resolving a name cannot be interrupted, so the program does not wait for a clean end then."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return say("a name server that hangs: needs root and unshare, left out")
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind(("127.0.0.77", 53))
    except OSError as error:
        return say(f"a name server that hangs: {error}, left out")
    with open(world.path("resolv.conf"), "w") as file:
        file.write("nameserver 127.0.0.77\noptions timeout:30 attempts:5\n")
    inside = ["unshare", "-m", "sh", "-c", f'mount --bind {world.path("resolv.conf")} /etc/resolv.conf && exec "$@"', "sh"]
    fetch = world.fetch("kitsune2://slow.example:1/Zg/" + "A" * 43 + QUERY, data="f-name", out="o-name", prefix=inside)
    event = fetch.wait_event("progress", lambda e: e["waiting"])
    equal(event["waiting_for"], "connecting", "what it waits for")
    server.recvfrom(4096)  # it has asked
    ends(fetch, signal.SIGINT, 130, "fetch that looks up a name")
    contains(fetch.stderr(), "could not shut down in time")
    equal(world.fetch("kitsune2://127.0.0.1:1/Zg/" + "A" * 43 + QUERY, data="f-name", out="o-name", options=["--timeout", "0.5"]).wait(), 3, "exit code after it")


def test(world):
    for name in ("huge", "zeros", "many", "small"):
        os.mkdir(world.path(name))
    sparse(world.path("huge", "file"), 1 << 38)
    sparse(world.path("zeros", "file"), 1 << 30)
    for i in range(20_000):
        with open(world.path("many", f"{i}"), "w") as file:
            file.write(str(i))
    with open(world.path("small", "file"), "w") as file:
        file.write("small")
    relay = world.relay()

    share = world.start("share", "--data", world.path("s-huge"), "--relay", relay.url, world.path("huge"))
    share.wait_event("progress")
    ends(share, signal.SIGTERM, 130, "share that reads one large file")
    equal(share.wait(), 130, "exit code")
    equal(share.all_events("error")[0]["code"], "cancelled", "error")

    for folder_name, number in (("zeros", signal.SIGINT), ("many", signal.SIGTERM)):
        sharer = world.share(relay, "s-" + folder_name, world.path(folder_name))
        fetch = world.fetch(sharer.link, data="f-" + folder_name, out="o-" + folder_name)
        fetch.wait_event("progress", lambda e: e["phase"] == "writing")
        ends(fetch, number, 130, f"fetch that writes {folder_name}, all ops held")
        fetch.wait()
        equal(fetch.all_events("done"), [], "it wrote to the end")
        if "could not shut down in time" not in fetch.stderr():  # it was flushing a very slow disk
            equal(leftovers(world.path("o-" + folder_name)), [], "unfinished files")
        sharer.stop()  # nobody is needed any more
        fetch = world.fetch(sharer.link, data="f-" + folder_name, out="o-" + folder_name)
        equal(fetch.wait(), 0, "exit code of the same command")
        equal(fetch.all_events("done")[0]["fetched_ops"], 0, "ops fetched again")
        same(world.path(folder_name), world.path("o-" + folder_name))

    sharer = world.share(relay, "sharer", world.path("small"))
    sharer.wait_event("online")
    ends(sharer, signal.SIGINT, 0, "share that serves")

    say("relays that refuse, are not known, or take connections and never answer")
    sharer = world.share(relay, "sharer", world.path("small"))
    space_and_root = sharer.link.split("/", 3)[3]
    deaf = socket.create_server(("127.0.0.1", 0), backlog=128)
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))  # and does not listen
    for i, (at, number) in enumerate((("127.0.0.1:%d" % dead.getsockname()[1], signal.SIGINT), ("no-such-host.invalid:1", signal.SIGTERM),
                                      ("127.0.0.1:%d" % deaf.getsockname()[1], signal.SIGINT))):
        fetch = world.fetch(f"kitsune2://{at}/{space_and_root}", data=f"f-relay{i}", out=f"o-relay{i}")
        fetch.wait_event("progress", lambda e: e["waiting"])
        ends(fetch, number, 130, f"fetch that waits for the relay {at}")
        share = world.start("share", "--data", world.path(f"s-relay{i}"), "--relay", at, world.path("small"))
        share.wait_event("shared")
        ends(share, number, 0, f"share that waits for the relay {at}")

    say("a source that hangs, then a relay that hangs")
    sharer.wait_event("online")
    sharer.proc.send_signal(signal.SIGSTOP)
    fetch = world.fetch(sharer.link, data="f-hangs", out="o-hangs")
    fetch.wait_event("progress", lambda e: e["waiting"] and e["waiting_for"] == "no_answer")
    ends(fetch, signal.SIGTERM, 130, "fetch that waits for an answer")
    status = subprocess.Popen([K2, "status", "--data", world.path("sharer")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        status.wait(1)  # it waits five seconds for the node
        raise AssertionError("status of a node that hangs has ended")
    except subprocess.TimeoutExpired:
        pass
    ends(status, signal.SIGINT, 130, "status of a node that hangs")
    sharer.proc.send_signal(signal.SIGCONT)
    relay.proc.send_signal(signal.SIGSTOP)
    ends(sharer, signal.SIGTERM, 0, "share whose relay hangs")
    relay.proc.send_signal(signal.SIGCONT)

    ends(relay, signal.SIGTERM, 0, "relay")
    name_server_that_hangs(world)

    for line, number in (("", signal.SIGINT), ("relay:", signal.SIGTERM), ("link:", signal.SIGINT), ("fetcher:", signal.SIGTERM)):
        temp = world.path("tmp-" + line.strip(":"))
        os.mkdir(temp)
        demo = subprocess.Popen([K2, "demo", "--files", "400", "--mib", "4000" if line == "" else "40"], text=True, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": temp}, start_new_session=True)
        if line == "":
            while not glob.glob(temp + "/*/from/*"):
                check(demo.poll() is None, "the demo has ended")
                time.sleep(0.01)
        for said in demo.stderr if line else ():
            if said.startswith(line):
                break
        # It removes its folder, which takes as long as the disk needs.
        ends(demo, number, 130, f"demo, after {line or 'its first file'}", bound=60)
        contains(demo.stderr.read(), "interrupted")
        equal(os.listdir(temp), [], "left by the demo")


main(test)
