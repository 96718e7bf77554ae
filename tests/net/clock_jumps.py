#!/usr/bin/env python3
"""Wall clocks that jump by a day, forward and back, during fetches and between them: everything goes on by itself."""
from faults import *

DAY = 86_400
# Own infos are checked every second instead of every minute.
CONFIG = {"coreSpace": {"reSignFreqMs": 1000}, "coreBootstrap": {"backoffMinMs": 1000, "backoffMaxMs": 2000}, **BY_RELAY}


class Case:
    """A relay and a sharer, each with a clock of its own, and fetchers."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.config = config_file(world, CONFIG)
        self.relay_clock, self.sharer_clock, self.fetcher_clock = Faults(world), Faults(world), Faults(world)
        self.relay = slow_relay(world, env=self.relay_clock.env)
        self.sharer = world.start("share", "--data", world.path(name + "-sharer"), "--relay", self.relay.url, "--config", self.config,
                                  world.path("from"), env=self.sharer_clock.env)
        self.link = self.sharer.wait_event("shared")["link"]
        self.sharer.wait_event("online")

    def fetch(self, name="fetcher"):
        return self.world.fetch(self.link, data=f"{self.name}-{name}", out=f"{self.name}-{name}-out", options=["--config", self.config],
                                env=self.fetcher_clock.env)

    def all_clocks(self, seconds):
        for clock in (self.relay_clock, self.sharer_clock, self.fetcher_clock):
            clock.set_clock(seconds)

    def finished(self, proc, name="fetcher"):
        equal(proc.wait(), 0, f"exit code of the fetch ({proc.stderr()})")
        same(self.world.path("from"), self.world.path(f"{self.name}-{name}-out"))

    def end(self):
        for proc in (self.sharer, self.relay):
            equal(proc.stop(), 0, "exit code")


def test(world):
    folder(world.path("from"), 40, 5 << 20)
    for sign in (1, -1):
        say(f"the fetcher's clock jumps by {sign} day on the way, and back")
        case = Case(world, f"fetcher{sign}")
        proc = case.fetch()
        under_way(proc)
        case.fetcher_clock.set_clock(sign * DAY)
        time.sleep(5)  # it may be waiting, or be through
        check(proc.proc.poll() in (None, 0), f"the fetch ended: {proc.stderr()}")
        case.fetcher_clock.set_clock(0)
        case.finished(proc)
        case.end()

        say(f"the sharer's clock jumps by {sign} day, and back; then it is to be found")
        case = Case(world, f"sharer{sign}")
        case.sharer_clock.set_clock(sign * DAY)
        time.sleep(4)
        case.sharer_clock.set_clock(0)
        case.finished(case.fetch())
        case.end()

        say(f"all clocks jump by {sign} day on the way; a second fetcher comes after it")
        case = Case(world, f"all{sign}")
        proc = case.fetch()
        under_way(proc)
        case.all_clocks(sign * DAY)
        case.finished(proc)
        case.finished(case.fetch("second"), "second")
        case.end()

    say("a sharer that starts with a wrong clock is found once the clock is right")
    case = Case(world, "late")
    case.sharer.stop()
    case.sharer_clock.set_clock(DAY)
    case.sharer = world.start("share", "--data", world.path("late-sharer"), "--relay", case.relay.url, "--config", case.config,
                              world.path("from"), env=case.sharer_clock.env)
    case.sharer.wait_event("online")
    proc = case.fetch()
    time.sleep(3)
    equal(max((e["live_sources"] for e in proc.all_events("progress")), default=0), 0, "sources that a node of tomorrow is")
    case.sharer_clock.set_clock(0)
    case.finished(proc)
    case.end()


main(test)
