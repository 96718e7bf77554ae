#!/usr/bin/env python3
"""Out of file descriptors: relay and nodes keep what they have, report what they lack, do not spin, and recover."""
from faults import *


def flood(port, count):
    """Opens that many silent TCP connections."""
    out = []
    for _ in range(count):
        one = socket.socket()
        one.settimeout(5)
        try:
            one.connect(("127.0.0.1", port))
        except OSError:
            one.close()
            break
        out.append(one)
    return out


def test(world):
    folder(world.path("from"), 60, 8 << 20)
    relay = slow_relay(world, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60)))
    sharer = world.share(relay, "sharer", world.path("from"))
    sharer.wait_event("online")

    say("the relay has 60 descriptors, 300 silent connections want one each")
    idle = flood(relay.port, 300)
    end = time.monotonic() + 20
    while open_fds(relay) < 58:
        check(time.monotonic() < end, f"the relay holds {open_fds(relay)} descriptors only")
        time.sleep(0.05)
    fetcher = world.fetch(sharer.link)
    before, start = cpu_seconds(relay), time.monotonic()
    time.sleep(4)
    used = (cpu_seconds(relay) - before) / (time.monotonic() - start)
    say(f"full: {open_fds(relay)} descriptors, {used:.2f} cores")
    check(used < 0.5, f"the relay spins: {used:.2f} cores")
    check(relay.proc.poll() is None, "the relay ended")
    equal(sharer.all_events("offline"), [], "the sharer's connection, which was there before")
    for one in idle:
        one.close()
    say("they are gone: the fetch, started meanwhile, goes on by itself")
    equal(fetcher.wait(), 0, "exit code of the fetch")
    same(world.path("from"), world.path("out"))

    say("a sharer without a free descriptor loses its relay; with one it comes back")
    limit = limit_fds(sharer, 3)
    relay.kill()
    sharer.wait_event("offline")
    relay = slow_relay(world, relay.port)
    fetcher = world.fetch(sharer.link, data="fetcher2", out="out2")
    fetcher.wait_event("progress", lambda e: e["waiting"])
    before, start = cpu_seconds(sharer), time.monotonic()
    time.sleep(4)
    used = (cpu_seconds(sharer) - before) / (time.monotonic() - start)
    check(used < 0.5, f"the sharer spins: {used:.2f} cores")
    equal(len(sharer.all_events("online")), 1, "times it was online")
    limit_fds(sharer, limit)
    sharer.wait_event("online")
    under_way(fetcher)

    say("the fetcher may open nothing more")
    limit_fds(fetcher, 3)
    code = fetcher.wait()
    check(code in (1, 5), f"exit code {code}: {fetcher.stderr()}")
    contains(fetcher.stderr(), "Too many open files")
    world.fetch_all(sharer.link, data="fetcher2", out="out2")
    same(world.path("from"), world.path("out2"))

    say("too few to start with")
    for count in (4, 8, 12):
        proc = world.fetch(sharer.link, data="fetcher3", out="out3",
                           preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, 4096)))
        code = proc.wait(60)
        say(f"{count} descriptors: exit code {code}, {proc.stderr().strip()}")
        check(code in (1, 5), f"exit code {code}: {proc.stderr()}")
        check(proc.stderr().strip() != "", "it says nothing")
    world.fetch_all(sharer.link, data="fetcher3", out="out3")


main(test)
