#!/usr/bin/env python3
"""A fetch whose peers are drowned in believable agent infos: it ends, without more memory or disk."""
import urllib.request

from k2net import *

PEER = os.environ.get("K2_HOSTILE_PEER", os.path.join(ROOT, "build/release/tests/net/hostile_peer"))
FILES_HERE, SIZE = (400, 200 << 20) if FULL else (40, 16 << 20)
ATTACKERS = 64
# What the attack may cost the fetch: time as a multiple of the undisturbed fetch (judged in the whole run only), memory
# and disk beyond what the fetch itself takes.
SLOWER = 2.0 if FULL else None
MORE_RSS_MIB, MORE_DISK_MIB = 256, 96


def urls(relay, space):
    """Of the agents in a space, as anybody may ask the bootstrap server."""
    with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/bootstrap/{space}", timeout=30) as answer:
        infos = [json.loads(entry["agentInfo"]) for entry in json.loads(answer.read())]
    return [info["url"] for info in infos if info.get("url")]


def test(world):
    check(os.access(PEER, os.X_OK), f"no program at {PEER}; build it or set K2_HOSTILE_PEER")
    folder(world.path("data"), FILES_HERE, SIZE)
    relay = world.relay(slow=True, network="0.2")  # the attackers implement tx5
    share = world.share(relay, "sharer", world.path("data"))
    space = share.report["space"]
    sharer = share.wait_event("online")["url"]
    attackers = []

    def fetch(name, attacked):
        begin = time.monotonic()
        proc = world.fetch(share.link, data="data-" + name, out="out-" + name)
        peak = disk = 0
        while proc.proc.poll() is None:
            check(time.monotonic() - begin < PATIENCE, f"{name} does not end: {proc.seen[-2:]}")
            try:
                peak = max(peak, memory_mib(proc.proc.pid, "VmHWM"))
            except (AssertionError, FileNotFoundError, ProcessLookupError):
                pass  # it has just ended
            disk = max(disk, folder_mib(world.path("data-" + name)))
            if attacked and not attackers:
                # The fetcher is the one that is not the sharer.
                for url in [url for url in urls(relay, space) if url != sharer][:1]:
                    attackers.append(subprocess.Popen(
                        [PEER, "attack", "infos", relay.url, url, "1000", "1024", str(ATTACKERS), str(PATIENCE), "64", "1", space],
                        stdout=subprocess.DEVNULL, preexec_fn=lambda: os.nice(5)))
            time.sleep(0.05)
        code = proc.wait()
        done = proc.all_events("done")
        check(code == 0 and done and done[0]["complete"], f"{name}: exit {code}, {done}, {proc.stderr()}")
        same(world.path("data"), world.path("out-" + name))
        return time.monotonic() - begin, peak, disk

    try:
        quiet = fetch("quiet", False)
        say(f"undisturbed: {quiet[0]:.1f} s, {quiet[1]:.0f} MiB of memory, {quiet[2]:.0f} MiB on disk")
        loud = fetch("loud", True)
        check(attackers, "the fetch ended before the attack began: nothing was shown")
        say(f"under attack: {loud[0]:.1f} s, {loud[1]:.0f} MiB of memory, {loud[2]:.0f} MiB on disk")
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
    check(loud[1] <= quiet[1] + MORE_RSS_MIB, f"memory grew from {quiet[1]:.0f} to {loud[1]:.0f} MiB")
    check(loud[2] <= quiet[2] + MORE_DISK_MIB, f"disk grew from {quiet[2]:.0f} to {loud[2]:.0f} MiB")
    if SLOWER:
        check(loud[0] <= SLOWER * quiet[0], f"{loud[0]:.0f} s instead of {quiet[0]:.0f} s")


main(test)
