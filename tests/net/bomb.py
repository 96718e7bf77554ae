#!/usr/bin/env python3
"""Shares of nine ops that refer to one of them many times: refused with little memory, and nothing is left behind."""
import base64
import hashlib
import struct

from k2net import *

CHUNK = 1024
FANOUT = 4096


class Ops:
    def __init__(self):
        self.ops = {}

    def put(self, data):
        op = hashlib.sha256(data).digest()
        self.ops[op] = data
        return op

    def list(self, level, total, children):
        return self.put(b"K2FL" + bytes([1, level, 10, 0]) + struct.pack("<Q", total) + b"".join(children))


def bomb(lists):
    """(ops, root): a file whose list has `lists` list ops of 4096 chunks, all alike except the first and the last."""
    ops = Ops()
    data = ops.put(b"\x5a" * CHUNK)
    total = lists * FANOUT * CHUNK
    count = (total - 64) // 32  # ids
    size = count * CHUNK
    varint = b""
    left = size
    while True:
        varint += bytes([left & 0x7f | (0x80 if left > 0x7f else 0)])
        left >>= 7
        if left == 0:
            break
    name = b"n" * (64 - 1 - 5 - 3 - len(varint))  # "K2FM" and version; kind, length, flags; the end
    head = b"K2FM\x01\x02" + bytes([len(name)]) + name + b"\x00" + varint
    equal(len(head) + 1 + 32 * count, total, "bytes of the list")
    offset = len(head) % 32
    turn = data[-offset:] + data[:-offset] if offset else data
    first = ops.put(head + (data * 40)[:CHUNK - len(head)])
    middle = ops.put(turn * 32)
    last = ops.put((turn * 32)[:CHUNK - 1] + b"\x00")
    under = FANOUT * CHUNK
    left_list = ops.list(1, under, [first] + [middle] * (FANOUT - 1))
    middle_list = ops.list(1, under, [middle] * FANOUT)
    right_list = ops.list(1, under, [middle] * (FANOUT - 1) + [last])
    top = ops.list(2, total, [left_list] + [middle_list] * (lists - 2) + [right_list])
    root = ops.put(b"K2FR\x01\x0a\x00\x00" + struct.pack("<QQQQQ", total, 1, 0, size, count) + top)
    return ops.ops, root, size


def run(world, link, name):
    """Returns (exit code, stderr, peak memory in MiB)."""
    errors = open(world.path(name + ".err"), "w+")
    proc = subprocess.Popen([K2, "fetch", link, "--data", world.path(name), "--out", world.path(name + ".out"), "--timeout", "60"],
                            stdout=subprocess.DEVNULL, stderr=errors)
    world.procs.append(Running(proc))
    _, status, usage = os.wait4(proc.pid, 0)
    proc.returncode = os.waitstatus_to_exitcode(status)
    errors.seek(0)
    return proc.returncode, errors.read(), usage.ru_maxrss >> 10


class Running:
    def __init__(self, proc):
        self.proc, self.args = proc, ["fetch"]

    def stderr(self):
        return ""

    def kill(self):
        if self.proc.returncode is None:
            self.proc.kill()


def test(world):
    relay = world.relay()
    small, root, size = bomb(64)
    large, large_root, large_size = bomb(FANOUT)
    ops = {**small, **large}
    say(f"sharing {len(ops)} ops, {sum(map(len, ops.values()))} bytes, each as the only file of a folder")
    sharer = None
    for number, data in enumerate(ops.values()):
        # A single file that is packed, or has one chunk: the op consists of its bytes.
        os.mkdir(world.path(f"from{number}"))
        with open(world.path(f"from{number}", "op"), "wb") as file:
            file.write(data)
        if sharer:
            sharer.stop()
        sharer = world.share(relay, "sharer", world.path(f"from{number}"), options=["--space", "common"])

    def link(op):
        return with_root(sharer.link, base64.urlsafe_b64encode(op).decode().rstrip("="))

    def room():
        return os.statvfs(world.dir).f_bavail * os.statvfs(world.dir).f_frsize

    free = room()
    say(f"a list of 256 MiB, a file of {size >> 30} GiB, room for {free >> 30} GiB")
    code, error, mib = run(world, link(root), "small")
    say(f"exit code {code}, {mib} MiB of memory: {error.strip().splitlines()[-1]}")
    equal(code, 6 if free < size else 7, f"exit code ({error})")
    contains(error, "room for" if free < size else "repeats its parts")
    check(mib < 160, f"{mib} MiB of memory")
    equal(os.listdir(world.path("small.out")), [], "left in the output folder")

    free = room()
    say(f"a list of 16 GiB, a file of {large_size >> 30} GiB, room for {free >> 30} GiB")
    code, error, mib = run(world, link(large_root), "large")
    say(f"exit code {code}, {mib} MiB of memory: {error.strip().splitlines()[-1]}")
    equal(code, 6 if free < large_size else 7, f"exit code ({error})")
    if free < large_size:
        contains(error, "room for")
    check(mib < 160, f"{mib} MiB of memory")
    equal(os.listdir(world.path("large.out")), [], "left in the output folder")


main(test)
