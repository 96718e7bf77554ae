"""Helpers of the scripts here: processes of the program, generated folders, exact checks. Standard library only.

K2 is the path of the program (default: build/release/apps/kitsune2/kitsune2). K2_NET_SIZE: "small" (default; seconds)
or "full" (1 GiB in 20,000 files). Each script prints what it does and exits with 0, 1, or 77 if the machine cannot run
the test.
"""
import filecmp
import http.server
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
K2 = os.path.abspath(os.environ.get("K2", os.path.join(ROOT, "build/release/apps/kitsune2/kitsune2")))
FULL = os.environ.get("K2_NET_SIZE", "small") == "full"
FILES, BYTES = (20_000, 1 << 30) if FULL else (400, 24 << 20)
PATIENCE = 1800 if FULL else 240
# Those that the program was built with; the first one is its default.
NETWORKS = os.environ.get("K2_NETWORKS", "0.5 0.4 0.2").split()
# What links of the default network end in.
QUERY = "" if NETWORKS[0] == "0.2" else f"?network={NETWORKS[0]}"
# For a configuration file: see World.by_relay.
BY_RELAY = {"irohTransport": {"directPaths": False}}
START = time.monotonic()


def relay_of(listening, network=NETWORKS[0]):
    """The url of a relay of ours, from its event "listening"."""
    return listening["relay" if network == "0.2" else "iroh_relay"]


def port_of(listening):
    return int(listening["addresses"][0].rsplit(":", 1)[1])


def with_root(link, root):
    """The link to another root in the same space."""
    head, _, rest = link.rpartition("/")
    return f"{head}/{root}{rest[43:]}"


class Skip(Exception):
    """This machine cannot run the test."""


def say(text):
    print(f"[{time.monotonic() - START:7.1f} s] {text}", flush=True)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(got, expected, what):
    check(got == expected, f"{what}: expected {expected!r}, got {got!r}")


def contains(text, part, what="output"):
    check(part in text, f"{what}: expected to find {part!r} in {text!r}")


def wait_until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        check(time.monotonic() < end, f"not in time: {what}")
        time.sleep(0.02)


class Proc:
    """A running program whose JSON lines are read by a thread."""

    is_slow = False  # of a relay

    def __init__(self, args, **popen):
        self.args = args
        self.events, self.seen = queue.Queue(), []
        self.errors = tempfile.TemporaryFile(mode="w+")
        popen.setdefault("stdout", subprocess.PIPE)
        prefix = popen.pop("prefix", [])
        self.proc = subprocess.Popen([*prefix, K2, *args, "--json"], stderr=self.errors, text=True, **popen)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.proc.stdout:
            event = json.loads(line)  # a line that is no JSON is a failure of its own
            self.seen.append(event)
            self.events.put(event)
        self.events.put(None)

    def wait_event(self, name, where=lambda event: True, seconds=int(os.environ.get("K2_WAIT", PATIENCE))):
        """Returns the next event `name` that fits; fails if the program ends first."""
        end = time.monotonic() + seconds
        while True:
            try:
                event = self.events.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.args[0]}: no {name!r} event in {seconds} s; last {self.seen[-1:]}") from None
            if event is None:
                raise AssertionError(f"{self.args[0]} ended ({self.proc.wait()}) before {name!r}: {self.stderr()}")
            if event.get("event") == name and where(event):
                return event

    def all_events(self, name):
        return [event for event in self.seen if event.get("event") == name]

    def stderr(self):
        self.errors.flush()
        with open(f"/proc/self/fd/{self.errors.fileno()}") as file:
            return file.read()

    def kill(self):
        if self.proc.poll() is None:
            self.proc.kill()
        return self._ended(None)

    def _ended(self, seconds):
        """Its exit code, once all its output has been read."""
        code = self.proc.wait(seconds)
        self.reader.join(60)
        return code

    def stop(self, number=signal.SIGTERM, seconds=60):
        self.proc.send_signal(number)
        return self._ended(seconds)

    def wait(self, seconds=PATIENCE):
        try:
            return self._ended(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.args[0]} does not end; last {self.seen[-2:]} {self.stderr()}") from None


class World:
    """The folder and the processes of one test, all removed at its end."""

    def __init__(self):
        check(os.access(K2, os.X_OK), f"no program at {K2}; build it or set K2")
        self.dir = tempfile.mkdtemp(prefix="k2-net-")
        self.procs = []
        # Options of a node whose datagrams all go through the relay, where that is slow, away or counted on purpose.
        # Of two nodes one that has them is enough.
        self.by_relay = ["--config", self.path("by-relay.json")]
        with open(self.by_relay[1], "w") as file:
            json.dump(BY_RELAY, file)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def start(self, *args, **popen):
        proc = Proc(list(args), **popen)
        self.procs.append(proc)
        return proc

    def run(self, *args, code=0, **popen):
        """Runs to the end and checks the exit code. Returns (stdout, stderr)."""
        done = subprocess.run([K2, *args], capture_output=True, text=True, timeout=PATIENCE, **popen)
        equal(done.returncode, code, f"exit code of {list(args)} ({done.stderr.strip()})")
        return done.stdout, done.stderr

    def relay(self, port=0, slow=False, network=NETWORKS[0]):
        """`slow`: 2.5 MB/s between nodes (0.2: 5), so that there is a "half way" on every machine; those who `share`
        there have no direct paths. `network`: of its url."""
        limit = []
        if slow and not FULL:
            limit = ["--sbd-limit-ip-kbps", "40000"]
            if network != "0.2":
                limit = ["--relay-client-rx-bytes-per-second", "2500000", "--relay-client-rx-burst-bytes", "500000"]
        proc = self.start("relay", "--listen", f"127.0.0.1:{port}", *limit)
        listening = proc.wait_event("listening")
        proc.url, proc.port, proc.is_slow = relay_of(listening, network), port_of(listening), slow
        return proc

    def share(self, relay, data, *paths, options=()):
        if relay.is_slow and "--config" not in options:
            options = [*options, *self.by_relay]
        proc = self.start("share", "--data", self.path(data), "--relay", relay.url, *options, *paths)
        proc.report = proc.wait_event("shared")
        proc.link = proc.report["link"]
        return proc

    def fetch(self, link, data="fetcher", out="out", options=(), **popen):
        return self.start("fetch", link, "--data", self.path(data), "--out", self.path(out), *options, **popen)

    def fetch_all(self, link, *args, **kwargs):
        """Fetches to the end. Returns the "done" event of a complete fetch."""
        proc = self.fetch(link, *args, **kwargs)
        code = proc.wait()
        done = proc.all_events("done")
        check(code == 0 and done, f"fetch: exit {code}, {done}, {proc.stderr()}")
        check(done[0]["complete"], f"not complete: {done[0]}")
        return done[0]

    def status(self, data):
        return json.loads(self.run("status", "--data", self.path(data), "--json")[0])

    def close(self):
        for proc in self.procs:
            proc.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def folder(root, files=FILES, size=BYTES, seed=1):
    """Creates files of mixed sizes (a few have most of the bytes) in nested folders, with names in several scripts,
    some empty."""
    say(f"making {files} files, {size >> 20} MiB, in {root}")
    rng = random.Random(seed)
    shares = [min(rng.paretovariate(0.9), 3000.0) for _ in range(files)]
    total = sum(shares)
    words = ["data", "brücke", "Гора", "日本", "🦊", "two words", "déjà vu", "-rf", "σίγμα", "a'b\"c"]
    folders = [root]
    os.makedirs(root)
    for i in range(max(3, files // 40)):
        path = os.path.join(rng.choice(folders[-20:] + [root]), f"{rng.choice(words)} {i}")
        os.mkdir(path)
        folders.append(path)
    for i, share in enumerate(shares):
        path = os.path.join(rng.choice(folders), f"{rng.choice(words)}.{i}")
        left = int(share / total * size)
        with open(path, "wb") as file:
            while left > 0:
                part = min(left, 1 << 20)
                file.write(rng.randbytes(part))
                left -= part
        if i % 10 == 0:
            os.chmod(path, 0o755)
    open(os.path.join(root, "empty"), "w").close()
    os.mkdir(os.path.join(root, "empty folder"))


def same(one, two):
    """Compares by diff -r, and the executable bits."""
    say("comparing every byte (diff -r)")
    done = subprocess.run(["diff", "-r", "--no-dereference", one, two], capture_output=True, text=True)
    equal((done.returncode, done.stdout), (0, ""), "diff -r")
    for base, _, names in os.walk(one):
        for name in names:
            left = os.path.join(base, name)
            right = os.path.join(two, os.path.relpath(left, one))
            equal(bool(os.stat(right).st_mode & 0o100), bool(os.stat(left).st_mode & 0o100), f"executable bit of {left}")


def certificate(world, names="DNS:localhost"):
    """Creates files with a new certificate for `names` and its key."""
    if not shutil.which("openssl"):
        raise Skip("no openssl to make a certificate")
    cert, key = world.path("cert.pem"), world.path("key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key


def memory_mib(pid, field):
    """`field` of /proc/PID/status: VmRSS, VmHWM, …"""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    raise AssertionError(f"no {field}")


def folder_mib(path):
    """The space that all files in it take on the disk."""
    total = 0
    for base, _, names in os.walk(path):
        for name in names:
            try:
                total += os.stat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total / (1 << 20)


def leftovers(out):
    return [os.path.join(base, name) for base, _, names in os.walk(out) for name in names if name.startswith(".k2part-")]


class Hook:
    """An authentication hook server: `decide` gives the status and the body of an answer to some material. It never
    answers "hang" before `release` is set."""

    def __init__(self, decide):
        hook = self
        self.release = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                material = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if material == "hang":
                    hook.release.wait()
                status, answer = decide(material)
                if self.path != "/authenticate" or self.headers["Content-Type"] != "application/octet-stream":
                    status = 404
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128  # with the usual 5, calls that come at once wait for repeated packets, up to 10 s

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # the relay has given up the call
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def ops_in(path, copied_from=None):
    """(id, bytes) of each op in the database at `path`. Large ops are in a file beside it, or beside `copied_from`."""
    import contextlib
    import sqlite3
    with contextlib.closing(sqlite3.connect(path)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        if "op_data" not in tables:
            return  # killed before it had a schema
        yield from db.execute("SELECT id, coalesce(op.data, op_data.data) AS bytes FROM op LEFT JOIN op_data USING (stored_at)"
                              " WHERE bytes NOT NULL")
        if "op_place" in tables:
            with open((copied_from or path) + "-data", "rb") as large:
                for op, at, size in db.execute("SELECT id, at, bytes FROM op JOIN op_place USING (stored_at)"):
                    large.seek(at)
                    yield op, large.read(size)


def main(test):
    """Runs `test(world)`."""
    world = None
    try:
        world = World()
        test(world)
        say("passed")
        code = 0
    except Skip as reason:
        say(f"skipped: {reason}")
        code = 77
    except Exception as error:  # whatever went wrong: it failed
        if not isinstance(error, AssertionError):
            traceback.print_exc()
        say(f"FAILED: {error}")
        if world:
            for proc in world.procs:
                text = proc.stderr().strip()
                if text:
                    print(f"--- stderr of {proc.args[0]}:\n{text[-3000:]}")
        code = 1
    finally:
        if world:
            world.close()
    sys.stdout.flush()
    os._exit(code)
