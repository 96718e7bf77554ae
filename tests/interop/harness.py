"""Processes that communicate by lines, and a runner: the basis of tests/interop.

Every bound here is a bound of work, not of time: seconds in which a process of the test was ready to run and had to
wait for a processor count for little (Clock), and where many things are expected, each one that arrives renews the
patience. So a test on a loaded machine takes longer with the same result; one that waits for something that never
arrives still ends.
"""

import argparse
import asyncio
import base64
import collections.abc
import concurrent.futures
import dataclasses
import glob
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
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


def delays(pid):
    """For each thread of a process: for how many seconds it has been ready to run without a processor."""
    found = {}
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path) as file:
                found[path] = int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):  # the thread has ended
            pass
    return found


class Clock:
    """Seconds that the processes of a test have had. What the thread that waited longest for a processor waited is
    taken off; a tenth of the time counts in any case, so that a process that spins for ever ends too."""

    def __init__(self):
        self.pids = [os.getpid()]
        self.seconds = 0.0
        self.at = time.monotonic()
        self.seen = delays(os.getpid())

    def now(self):
        passed = time.monotonic() - self.at
        if passed >= 0.05:
            self.at += passed
            seen = {path: delay for pid in self.pids for path, delay in delays(pid).items()}
            longest = max((delay - self.seen.get(path, 0) for path, delay in seen.items()), default=0)
            self.seen = seen
            self.seconds += max(0.1 * passed, passed - longest)
        return self.seconds


class Proc:
    """A child process whose stdout is kept as a list of lines that can be waited for."""

    def __init__(self, label, argv, env=None, clock=None):
        self.label = label
        self.clock = clock or Clock()
        self.lines = []
        self.changed = threading.Condition()
        self.stderr = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True, bufsize=1,
            env={**os.environ, **(env or {})})
        self.clock.pids.append(self.process.pid)
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
        """A position in the output; wait(…, since=mark) looks only behind it."""
        with self.changed:
            return len(self.lines)

    def wait(self, pattern, patience, since=0, what=None, progress=None):
        """The first match of `pattern` in a line at or after `since`. `patience`: seconds of the test's clock, anew
        from each line that matches `progress`."""
        end = self.clock.now() + patience
        regex, progress = re.compile(pattern), progress and re.compile(progress)
        at = since
        with self.changed:
            while True:
                while at < len(self.lines):
                    found = regex.search(self.lines[at])
                    if found:
                        return found
                    if progress and progress.search(self.lines[at]):
                        end = self.clock.now() + patience
                    at += 1
                if self.clock.now() >= end:
                    raise Failure(f"{self.label}: no {what or pattern!r} within {patience} s; last lines:\n    "
                                  + "\n    ".join(l[:200] for l in self.lines[-8:]))
                if self.process.poll() is not None and not self.reader.is_alive():
                    raise Failure(f"{self.label}: ended with {self.process.returncode} before {what or pattern!r}\n"
                                  + self.errors())
                self.changed.wait(0.2)

    def count(self, pattern, since=0):
        regex = re.compile(pattern)
        with self.changed:
            return sum(1 for line in self.lines[since:] if regex.search(line))

    def last(self, pattern):
        """The groups of the last line that matches, or None."""
        regex = re.compile(pattern)
        with self.changed:
            return next((found.groups() for line in reversed(self.lines) if (found := regex.search(line))), None)

    def errors(self):
        self.stderr.flush()
        self.stderr.seek(0)
        return "".join(self.stderr.readlines()[-int(os.environ.get("K2_INTEROP_LINES", "20")):])

    def log(self):
        """The lines of stderr so far."""
        with open(f"/proc/self/fd/{self.stderr.fileno()}", errors="replace") as file:  # with a position of its own
            return file.read().splitlines()

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


class HookServer:
    """Decides who may use a server. `verdicts`: the status for each material (bytes); others are refused."""

    def __init__(self, **verdicts):
        self.verdicts = {material.encode(): status for material, status in verdicts.items()}
        self.asked = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                material = self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked.append(material)
                status = hook.verdicts.get(material, 401) if self.path == "/authenticate" else 404
                token = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
                body = json.dumps({"authToken": token}) if status == 200 else ""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Proxy:
    """Passes connections on to a server, from a thread of its own."""

    def __init__(self, target, tls=None):
        self.host, self.port = target.rsplit(":", 1)
        self.loop = asyncio.new_event_loop()
        server = asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=tls)
        port = self.loop.run_until_complete(server).sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    async def _pass_on(self, reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection(self.host, self.port)
        await self._join(reader, writer, inner_reader, inner_writer)

    @staticmethod
    async def _join(reader, writer, inner_reader, inner_writer):
        async def pump(source, sink):
            try:
                while part := await source.read(65536):
                    sink.write(part)
                    await sink.drain()
            except OSError:
                pass
            sink.close()

        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)


class TlsEnd(Proxy):
    """A proxy that ends TLS, and passes what is inside it on to a server that has none."""

    def __init__(self, certificate, key, target):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        super().__init__(target, context)


class Line(Proxy):
    """A proxy that can be cut."""

    def __init__(self, target):
        self.writers = set()
        self.is_cut = False
        super().__init__(target)

    async def _pass_on(self, reader, writer):
        if self.is_cut:
            writer.close()
            return
        try:
            inner_reader, inner_writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            writer.close()
            return
        self.writers |= {writer, inner_writer}
        await self._join(reader, writer, inner_reader, inner_writer)
        self.writers -= {writer, inner_writer}

    def cut(self, is_cut):
        """All connections end, and new ones end at once, until it is told otherwise."""
        self.is_cut = is_cut

        def end():
            for writer in self.writers if is_cut else ():
                writer.transport.abort()

        self.loop.call_soon_threadsafe(end)


class World:
    """The processes and folders of one test, all removed at its end."""

    def __init__(self, build, rust):
        self.build, self.rust = build, rust
        version = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", os.path.basename(rust.rstrip("/")))  # as run.sh lays them out
        self.stock = tuple(map(int, version.groups())) if version else (0, 2, 2)
        self.procs = []
        self.hooks = []
        self.clock = Clock()
        self.dir = tempfile.mkdtemp(prefix="k2-interop-")

    def over_iroh(self):
        """Whether the stock nodes speak dialect 0.4 or 0.5, so that ours must, too."""
        return self.stock >= (0, 4, 0)

    def network(self):
        """The dialect of the stock nodes."""
        return "0.5" if self.stock >= (0, 5, 0) else "0.4" if self.over_iroh() else "0.2"

    def hook(self, **verdicts):
        self.hooks.append(HookServer(**verdicts))
        return self.hooks[-1]

    def certificate(self):
        """A certificate for 127.0.0.1 and its key (PEM), and the certificate in DER. It is its own root."""
        cert, key, der = (os.path.join(self.dir, name) for name in ("cert.pem", "key.pem", "cert.der"))
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", "/CN=k2-tests", "-addext", "subjectAltName=IP:127.0.0.1",
                "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert]
        for argv in (make, ["openssl", "x509", "-in", cert, "-outform", "der", "-out", der]):
            done = subprocess.run(argv, capture_output=True, text=True)
            check(done.returncode == 0, done.stderr)
        return cert, key, der

    def tls_end(self, certificate, key, target):
        self.hooks.append(TlsEnd(certificate, key, target))
        return self.hooks[-1]

    def line(self, target):
        self.hooks.append(Line(target))
        return self.hooks[-1]

    def relay(self, kind, port=None, limits=False, hook=None, tls=None, options=None):
        """A relay and bootstrap server; returns (process, "host:port"). kind: "rust-0.5" is that of 0.5.3 for nodes of
        0.4.1. limits: with the stock rate limit; over iroh,
        where it has none, one for each client, of ours. hook: who decides who may use it. tls: (certificate, key), of
        ours. options: further ones; then the rate limits are those of the program."""
        port = port or free_port()
        addr = f"127.0.0.1:{port}"
        if kind.startswith("rust"):
            argv = [f"{self.rust}/rust-relay{kind.removeprefix('rust')}", "--listen", addr]
            if not limits and not self.over_iroh():
                argv.append("--sbd-disable-rate-limiting")
        else:
            argv = [f"{self.build}/apps/kitsune2/kitsune2", "relay", "--listen", addr, "--json"]
            if limits and self.over_iroh():
                argv += ["--relay-client-rx-bytes-per-second", "500000"]
            elif limits:
                argv += ["--sbd-limit-ip-kbps", "1000"]
            elif options is None:
                argv.append("--sbd-disable-rate-limiting")
            if self.over_iroh():
                argv += ["--quic-bind-addr", "127.0.0.1:7842"]
        if tls:
            argv += ["--tls-cert", tls[0], "--tls-key", tls[1]]
        if hook:
            argv += ["--authentication-hook-server", hook.url]
        relay = self.start(f"{kind}-relay", argv + (options or []))

        def listens():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                check(relay.alive(), f"{kind} relay ended: {relay.errors()}")
                return False

        self.until(listens, 20, f"{kind} relay does not listen", every=0.05)
        return relay, addr

    def until(self, condition, patience, otherwise, every=0.2):
        """Calls `condition()` repeatedly until it holds."""
        end = self.clock.now() + patience
        while not condition():
            check(self.clock.now() < end, otherwise)
            time.sleep(every)

    def meet(self, *peers):
        """Connects each peer with the others, one after the other. From 0.2.17 on, a stock node that dials a peer in
        the moment in which that one dials it calls the peer's url unresponsive: until its agent info expires, it
        neither publishes to it nor fetches from it. So the tests let such nodes meet before all publish at once; older
        ones have to stand it."""
        if not any(peer.label.startswith("rust-") for peer in peers) or self.stock < (0, 2, 17):
            return
        for size, teller in enumerate(peers, 1):  # a size each, so that a late repeat of one does not count for another
            others = [(peer, peer.mark()) for peer in peers if peer is not teller]

            def told():
                if all(peer.count(rf" NOTIFY 0 {size} ", mark) for peer, mark in others):
                    return True
                teller.send(f"notify {size}")
                return False

            self.until(told, 60, f"{teller.label} does not reach all others", every=1)

    def peer(self, kind, name, addr, material=None, online=True, env=None, **options):
        """material: what the node authenticates itself with. online: wait until it has a url. env: more variables of
        its environment."""
        binary = f"{self.rust}/rust-peer" if kind == "rust" else f"{self.build}/tests/interop/cpp-peer"
        argv = [binary, "--name", name, "--server", addr]
        if kind == "cpp" and self.over_iroh():
            argv += ["--dialect", self.network()]
        if material:
            argv += (["--auth-material", material] if kind == "rust" else
                     ["--auth-material-base64", base64.b64encode(material.encode()).decode()])
        for key, value in options.items():
            argv += ["--" + key.replace("_", "-"), str(value)]
        peer = self.start(f"{kind}-{name}", argv, env)
        peer.server = addr
        peer.url = peer.wait(r" (?:URL|ONLINE) ((?:ws|http)://\S+)", 40).group(1) if online else None
        return peer

    def start(self, label, argv, env=None):
        proc = Proc(label, argv, env, self.clock)
        self.procs.append(proc)
        return proc

    def close(self):
        for proc in self.procs:
            proc.kill()
        for hook in self.hooks:
            hook.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def digest_of(peer, space, count, patience, since=0):
    """Waits until `peer` holds `count` ops in `space`, as long as more arrive. Returns the digest over their ids."""
    return peer.wait(rf" HAVE {space} {count} (\w+)$", patience, since, f"{count} ops in space {space}",
                     progress=rf" HAVE {space} \d+ ").group(1)


def run_one(test, build, rust):
    """Runs one test and returns whether it passed. Prints a line, with what the test returns; more after a failure."""
    world = World(build, rust)
    start = time.monotonic()
    try:
        told = test.function(world)
        print(f"ok   {test.name} ({time.monotonic() - start:.1f} s){': ' + told if told else ''}", flush=True)
        return True
    except Exception as error:  # a test's failure must not end the others
        text = str(error) if isinstance(error, Failure) else traceback.format_exc()
        said = f"FAIL {test.name} ({time.monotonic() - start:.1f} s)\n  {text}"
        logs = os.environ.get("K2_INTEROP_LOGS")
        for proc in world.procs:
            if logs:  # all that each process said, for whoever looks into it
                with open(os.path.join(logs, f"{test.name}.{proc.label}.log".replace(" ", "_")), "w") as file:
                    file.write("\n".join(proc.lines) + "\n--- stderr\n" + proc.errors())
            if proc.errors():
                said += f"\n  stderr of {proc.label}:\n    " + proc.errors().replace("\n", "\n    ")
        print(said, flush=True)
        return False
    finally:
        world.close()


@dataclasses.dataclass
class Test:
    name: str
    function: collections.abc.Callable
    waits: bool = False  # it needs minutes and hardly any processor
    stands_for_its_kind: bool = True


class Tests(list):
    """What the decorator `register` has collected."""

    def register(self, *params, one=None, waits=False, rare=False):
        """Registers a function once for each tuple of parameters, with the parameters in its name. `one`: the tuple
        that is run when each kind of test is run with one pairing; the first one unless said. `rare`: it takes
        minutes, so none is run then. `waits`: as in Test."""
        params = params or [()]
        one = params[0] if one is None else one
        assert one in params, f"{one} is none of {params}"

        def decorator(function):
            for args in params:
                name = function.__name__ + "".join(f" {a}" for a in args)
                self.append(Test(name, lambda world, a=args: function(world, *a), waits, args == one and not rare))
            return function
        return decorator


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--rust", required=True)
    parser.add_argument("--one-of-each", action="store_true", help="of each kind of test one pairing")
    parser.add_argument("only", nargs="*")
    return parser.parse_args()


def run(tests, args):
    """Runs the tests that `args` choose; prints a line each and the closing line. Those that mostly wait run beside the
    others."""
    chosen = [test for test in tests if not args.one_of_each or test.stands_for_its_kind]
    chosen = [test for test in chosen if not args.only or any(part in test.name for part in args.only)]
    with concurrent.futures.ThreadPoolExecutor() as beside:
        waiting = [beside.submit(run_one, test, args.build, args.rust) for test in chosen if test.waits]
        results = [run_one(test, args.build, args.rust) for test in chosen if not test.waits]
        results += [future.result() for future in waiting]
    passed = sum(results)
    print(f"{passed} passed, {len(results) - passed} failed")
    return 0 if results and passed == len(results) else 1


def die_with_parent():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
