"""Faults of the machine for one process: I/O errors, the clock, descriptors. With fault_shim.cpp (K2_FAULT_SHIM)."""
import mmap
import resource
import struct

from k2net import *

SHIM = os.environ.get("K2_FAULT_SHIM", os.path.join(ROOT, "build/release/tests/net/libk2_fault_shim.so"))
WRITE, SYNC, READ, OPEN = 1, 2, 4, 8


class Faults:
    """What the shim does in the processes that are started with `env`."""

    FIELDS = ["clock_us", "mask", "error", "skip", "count", "passed", "failed"]

    def __init__(self, world, path_part="-"):
        check(os.path.exists(SHIM), f"no shim at {SHIM}; build k2_fault_shim or set K2_FAULT_SHIM")
        name = world.path(f"fault-control-{len(os.listdir(world.dir))}")
        with open(name, "wb") as file:
            file.write(bytes(8 * len(self.FIELDS)))
        self.file = open(name, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 0)
        self.env = {**os.environ, "LD_PRELOAD": SHIM, "K2_FAULT_CONTROL": name, "K2_FAULT_PATH": path_part}

    def __getitem__(self, field):
        return struct.unpack_from("<q", self.map, 8 * self.FIELDS.index(field))[0]

    def __setitem__(self, field, value):
        struct.pack_into("<q", self.map, 8 * self.FIELDS.index(field), value)

    def fail(self, mask, error, skip=0, count=0):
        """From now on matching calls fail with `error`: after `skip` that pass, `count` of them (0: all)."""
        self["mask"] = 0
        for field, value in (("error", error), ("skip", skip), ("count", count), ("passed", 0), ("failed", 0), ("mask", mask)):
            self[field] = value

    def heal(self):
        self["mask"] = 0

    def set_clock(self, seconds):
        self["clock_us"] = int(seconds * 1_000_000)


def slow_relay(world, port=0, listen="127.0.0.1", kbps=16_000, **popen):
    """2 MB/s between nodes from the first byte on, so that there is a "half way" for small folders too."""
    proc = world.start("relay", "--listen", f"{listen}:{port}", "--sbd-limit-ip-kbps", str(kbps), "--sbd-limit-ip-byte-burst", "262144", **popen)
    listening = proc.wait_event("listening")
    proc.url, proc.port, proc.is_slow = relay_of(listening), port_of(listening), True
    return proc


def config_file(world, config):
    path = world.path(f"config-{len(os.listdir(world.dir))}.json")
    with open(path, "w") as file:
        json.dump(config, file)
    return path


def under_way(fetcher, ops=1):
    """Waits until some data ops have arrived."""
    fetcher.wait_event("progress", lambda e: e["ops_held"] >= ops)


def limit_fds(proc, soft):
    """Changes the soft limit of open files of a running process; returns the old one."""
    old, hard = resource.prlimit(proc.proc.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(proc.proc.pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))
    return old


def open_fds(proc):
    return len(os.listdir(f"/proc/{proc.proc.pid}/fd"))


def cpu_seconds(proc):
    with open(f"/proc/{proc.proc.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_store(path):
    """Runs integrity_check on a stopped node's op database; returns its number of ops."""
    import contextlib
    import sqlite3
    name = [n for n in os.listdir(path) if n.endswith(".db") and ".peers" not in n][0]
    with contextlib.closing(sqlite3.connect(os.path.join(path, name))) as db:
        equal(db.execute("PRAGMA integrity_check").fetchone()[0], "ok", f"integrity of {name}")
        return db.execute("SELECT count(*) FROM op").fetchone()[0]
