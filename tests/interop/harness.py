"""Processes that talk in lines, and a runner: what tests/interop builds on."""

import concurrent.futures
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback


class Failure(AssertionError):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Proc:
    """A child process whose stdout is kept as a list of lines that can be waited for."""

    def __init__(self, label, argv, env=None):
        self.label = label
        self.lines = []
        self.changed = threading.Condition()
        self.stderr = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True, bufsize=1,
            env={**os.environ, **(env or {})})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def send(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def mark(self):
        """A place in the output; wait(…, since=mark) looks only behind it."""
        with self.changed:
            return len(self.lines)

    def wait(self, pattern, timeout, since=0, what=None):
        """The first match of `pattern` in a line at or after `since`."""
        end = time.monotonic() + timeout
        regex = re.compile(pattern)
        at = since
        with self.changed:
            while True:
                while at < len(self.lines):
                    found = regex.search(self.lines[at])
                    if found:
                        return found
                    at += 1
                left = end - time.monotonic()
                if left <= 0:
                    raise Failure(f"{self.label}: no {what or pattern!r} within {timeout} s; last lines:\n    "
                                  + "\n    ".join(l[:200] for l in self.lines[-8:]))
                if self.process.poll() is not None and not self.reader.is_alive():
                    raise Failure(f"{self.label}: ended with {self.process.returncode} before {what or pattern!r}\n"
                                  + self.errors())
                self.changed.wait(min(left, 0.2))

    def count(self, pattern, since=0):
        regex = re.compile(pattern)
        with self.changed:
            return sum(1 for line in self.lines[since:] if regex.search(line))

    def errors(self):
        self.stderr.flush()
        self.stderr.seek(0)
        return "".join(self.stderr.readlines()[-int(os.environ.get("K2_INTEROP_LINES", "20")):])

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        if self.alive():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class World:
    """The processes and folders of one test; all gone at its end."""

    def __init__(self, build, rust):
        self.build, self.rust = build, rust
        self.procs = []
        self.dir = tempfile.mkdtemp(prefix="k2-interop-")

    def relay(self, kind, port=None, limits=False):
        """A relay and bootstrap server; returns (process, "host:port"). limits: with the stock rate limit."""
        port = port or free_port()
        addr = f"127.0.0.1:{port}"
        if kind == "rust":
            argv = [f"{self.rust}/rust-relay", "--listen", addr]
            if not limits:
                argv.append("--sbd-disable-rate-limiting")
        else:
            argv = [f"{self.build}/apps/kitsune2/kitsune2", "relay", "--listen", addr, "--json"]
            argv += ["--sbd-limit-ip-kbps", "1000"] if limits else ["--sbd-disable-rate-limiting"]
        relay = self.start(f"{kind}-relay", argv)
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return relay, addr
            except OSError:
                check(relay.alive(), f"{kind} relay ended: {relay.errors()}")
                check(time.monotonic() < end, f"{kind} relay does not listen")
                time.sleep(0.05)

    def peer(self, kind, name, addr, **options):
        binary = f"{self.rust}/rust-peer" if kind == "rust" else f"{self.build}/tests/interop/cpp-peer"
        argv = [binary, "--name", name, "--server", addr]
        for key, value in options.items():
            argv += ["--" + key.replace("_", "-"), str(value)]
        peer = self.start(f"{kind}-{name}", argv)
        peer.url = peer.wait(r" (?:URL|ONLINE) (ws://\S+)", 40).group(1)
        return peer

    def start(self, label, argv, env=None):
        proc = Proc(label, argv, env)
        self.procs.append(proc)
        return proc

    def close(self):
        for proc in self.procs:
            proc.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def digest_of(peer, space, count, timeout, since=0):
    """Waits until `peer` holds `count` ops in `space`; the digest over their ids."""
    return peer.wait(rf" HAVE {space} {count} (\w+)$", timeout, since, f"{count} ops in space {space}").group(1)


def run_one(name, test, build, rust):
    """Whether it passed; prints a line, after a failure more."""
    world = World(build, rust)
    start = time.monotonic()
    try:
        test(world)
        print(f"ok   {name} ({time.monotonic() - start:.1f} s)", flush=True)
        return True
    except Exception as error:  # a test's failure must not end the others
        text = str(error) if isinstance(error, Failure) else traceback.format_exc()
        said = f"FAIL {name} ({time.monotonic() - start:.1f} s)\n  {text}"
        logs = os.environ.get("K2_INTEROP_LOGS")
        for proc in world.procs:
            if logs:  # all that each process said, for whoever looks into it
                with open(os.path.join(logs, f"{name}.{proc.label}.log".replace(" ", "_")), "w") as file:
                    file.write("\n".join(proc.lines) + "\n--- stderr\n" + proc.errors())
            if proc.errors():
                said += f"\n  stderr of {proc.label}:\n    " + proc.errors().replace("\n", "\n    ")
        print(said, flush=True)
        return False
    finally:
        world.close()


def run(tests, build, rust, only):
    """Runs (name, function, waits) whose name holds one of `only`; prints a line each and the closing line. Those that
    mostly wait run beside the others."""
    chosen = [test for test in tests if not only or any(part in test[0] for part in only)]
    with concurrent.futures.ThreadPoolExecutor() as beside:
        waiting = [beside.submit(run_one, name, test, build, rust) for name, test, waits in chosen if waits]
        results = [run_one(name, test, build, rust) for name, test, waits in chosen if not waits]
        results += [future.result() for future in waiting]
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed")
    return 0 if results and passed == len(results) else 1


def die_with_parent():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
