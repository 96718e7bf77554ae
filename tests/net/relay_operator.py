#!/usr/bin/env python3
"""What the operator of a relay sees: a log to parse, addresses to use, SIGHUP, SIGTERM, a closed terminal."""
import base64
import pty
import re

from k2net import *

LINE = {"time", "level", "area", "message"}


def log_of(proc):
    """All complete lines on stderr, each a JSON object with the documented fields."""
    lines = [json.loads(line) for line in proc.stderr().splitlines(keepends=True) if line.endswith("\n")]
    for line in lines:
        equal(set(line), LINE, f"fields of {line}")
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"]), f"time of {line}")
    return lines


def wait_log(proc, *parts):
    """Waits for the first line that contains all the parts."""
    end = time.monotonic() + PATIENCE
    while True:
        for line in log_of(proc):
            if all(part in line["message"] for part in parts):
                return line
        check(time.monotonic() < end and proc.proc.poll() is None, f"no line with {parts} in {proc.stderr()[-2000:]}")
        time.sleep(0.02)


def certificate(world, name):
    if not shutil.which("openssl"):
        raise Skip("no openssl to make a certificate")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", world.path("key.pem"), "-out",
                    world.path("cert.pem")], check=True, capture_output=True)


def name_served(address):
    """The CN of the certificate that the server shows."""
    done = subprocess.run(["openssl", "s_client", "-connect", address], input=b"", capture_output=True)
    return re.search(rb"subject=CN = (\S+)", done.stdout)[1].decode()


def web_socket(address):
    """Opens a silent WebSocket connection. Returns the status of the answer, and the socket."""
    host, port = address.rsplit(":", 1)
    conn = socket.create_connection((host, int(port)), 60)
    key = base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    conn.sendall(f"GET /{key} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = conn.recv(4096)
        if not part:
            break
        answer += part
    return int(answer[9:12] or 0), conn


def rest_of(conn):
    data = b""
    while part := conn.recv(65536):
        data += part
    return data


def test(world):
    say("a relay's log as JSON: who came, who went, who was refused and why")
    config = world.path("relay.json")

    def configure(**options):
        with open(config, "w") as file:
            json.dump({key.replace("_", "-"): value for key, value in options.items()}, file)

    configure(listen=["127.0.0.1:0"], sbd_limit_clients=3, no_sbd=False)
    relay = world.start("relay", "--config", config, "--log-level", "debug", "--log-format", "json", "--admin", "127.0.0.1:0")
    listening = relay.wait_event("listening")
    address = listening["addresses"][0]
    equal(listening["reached_at"], [address], "reached_at")
    folder(world.path("from"), 5, 100_000)
    sharer = world.start("share", "--data", world.path("sharer"), "--network", "0.2", "--relay", listening["relay"], "--log-format", "json",
                         world.path("from"))
    link = sharer.wait_event("shared")["link"]
    url = sharer.wait_event("online")["url"]
    node = url.rsplit("/", 1)[1]
    wait_log(relay, f"client {node} of 127.0.0.1:", " connected")
    wait_log(relay, "the info of agent ", " is taken")
    status, conn = web_socket(address)
    equal(status, 101, "status")
    conn.close()
    wait_log(relay, " disconnected before it had proved its key")
    broken = socket.create_connection(tuple(address.split(":")), 60)
    broken.sendall(b"\x1b[31mnonsense\r\n\r\n")
    rest_of(broken)
    wait_log(relay, "bad_request")
    check("\x1b" not in relay.stderr(), "an escape sequence of a client reached the log")

    say("SIGHUP reads limits from --config")
    configure(listen=["127.0.0.1:0"], sbd_limit_clients=1, sbd_limit_idle_millis=20000)
    relay.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: limits and certificate reloaded")
    status, conn = web_socket(address)
    equal(status, 503, "status of a client over the new limit")
    equal(wait_log(relay, "limit_clients 1 is reached")["level"], "warn", "level")
    configure(listen=["127.0.0.1:0"], sbd_limit_clients=0)
    relay.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: nothing is changed: ", "--sbd-limit-clients: must be at least 1")
    with open(config, "w") as file:
        file.write('{"listne": 1}')
    relay.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: nothing is changed: ", config, "listne: is not an option of relay")
    configure(listen=["127.0.0.1:0"], tls_cert="only")
    relay.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: nothing is changed: --tls-cert and --tls-key must be given together")
    equal([line for line in log_of(relay) if "SIGHUP" in line["message"] and "invalid_" in line["message"]], [], "code words for people")
    configure(listen=["127.0.0.1:1"], no_sbd=True)
    relay.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: these need a restart: --listen, --no-sbd")
    equal(sharer.proc.poll(), None, "the sharer lives")

    say("SIGTERM of a relay with clients: a good-bye, and newcomers are refused")
    status, conn = web_socket(address)
    equal(status, 101, "status")
    relay.proc.send_signal(signal.SIGTERM)
    contains(rest_of(conn).decode("latin1"), "\x88\x12\x03\xe9the server stops", "the last frame")
    try:
        socket.create_connection(tuple(address.split(":")), 60).close()
        check(False, "a newcomer was let in")
    except ConnectionRefusedError:
        pass
    conn.close()
    equal(relay.wait(), 0, "exit code")
    log_of(relay)

    say("a client that does not answer the good-bye holds the stop up for a second at most")
    relay = world.start("relay", "--listen", "127.0.0.1:0")
    status, conn = web_socket(relay.wait_event("listening")["addresses"][0])
    relay.proc.send_signal(signal.SIGTERM)
    contains(rest_of(conn).decode("latin1"), "the server stops", "the last frame")
    equal(relay.wait(60), 0, "exit code")
    conn.close()

    say("SIGHUP of a sharer and of a fetcher: they go on")
    fetcher = world.start("fetch", link, "--data", world.path("fetcher"), "--out", world.path("out"), "--log-format", "json",
                          "--log-level", "info")
    fetcher.wait_event("progress")
    for proc in (sharer, fetcher):
        proc.proc.send_signal(signal.SIGHUP)
    wait_log(fetcher, "SIGHUP: certificates reloaded")
    equal((sharer.proc.poll(), fetcher.proc.poll()), (None, None), "both live")
    equal(fetcher.stop(signal.SIGINT), 130, "exit code of the fetcher")
    said = [line["message"] for line in log_of(fetcher) if (line["level"], line["area"]) == ("error", "kitsune2")]
    equal([line.split(";")[0] for line in said], ["interrupted"], "errors, as lines of the log")
    equal(sharer.stop(), 0, "exit code of the sharer")
    log_of(sharer)

    say("SIGHUP takes up a new certificate: relay, and the relay inside a sharer")
    certificate(world, "first")
    tls = ["--tls-cert", world.path("cert.pem"), "--tls-key", world.path("key.pem")]
    relay = world.start("relay", "--listen", "127.0.0.1:0", *tls, "--log-format", "json", "--log-level", "info")
    address = relay.wait_event("listening")["addresses"][0]
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    sharer = world.start("share", "--data", world.path("inside"), "--listen", f"127.0.0.1:{number}", *tls, "--tls-ca", world.path("cert.pem"),
                         "--log-format", "json", "--log-level", "info", world.path("from"))
    sharer.wait_event("online")
    equal((name_served(address), name_served(f"127.0.0.1:{number}")), ("first", "first"), "certificates")
    certificate(world, "second")
    for proc in (relay, sharer):
        proc.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: limits and certificate reloaded")
    wait_log(sharer, "SIGHUP: certificates reloaded")
    equal((name_served(address), name_served(f"127.0.0.1:{number}")), ("second", "second"), "certificates")
    with open(world.path("cert.pem"), "w") as file:
        file.write("damaged")
    for proc in (relay, sharer):
        proc.proc.send_signal(signal.SIGHUP)
    wait_log(relay, "SIGHUP: nothing is changed: ", world.path("cert.pem"))
    wait_log(sharer, "SIGHUP: keeping the old certificates: ", world.path("cert.pem"))
    equal((name_served(address), name_served(f"127.0.0.1:{number}")), ("second", "second"), "certificates of a damaged file")
    equal((relay.stop(), sharer.stop()), (0, 0), "exit codes")

    say("a terminal that is closed ends the program, as before")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(K2, [K2, "relay", "--listen", "127.0.0.1:0"])
    seen = b""
    while b"bootstrap http://" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "exit code")

    say("with nohup it goes on, and the signal of the terminal only reloads")
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        said = os.open(world.path("nohup.out"), os.O_WRONLY | os.O_CREAT, 0o600)
        for number in (1, 2):
            os.dup2(said, number)
        os.execv(K2, [K2, "relay", "--listen", "127.0.0.1:0", "--log-level", "info"])
    for part in ("bootstrap http://", "SIGHUP: "):
        end = time.monotonic() + PATIENCE
        while not os.path.exists(world.path("nohup.out")) or part not in open(world.path("nohup.out")).read():
            equal(os.waitpid(pid, os.WNOHANG), (0, 0), f"it lives, before {part!r}")
            check(time.monotonic() < end, f"no {part!r}")
            time.sleep(0.02)
        if part.startswith("bootstrap"):
            os.close(terminal)
    equal(os.waitpid(pid, os.WNOHANG), (0, 0), "it lives")
    os.kill(pid, signal.SIGTERM)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "exit code")

    say("addresses that can be used")
    for args, has, lacks in [
        (["--listen", "127.0.0.1:0"], ["relay ws://127.0.0.1:", ", bootstrap http://127.0.0.1:"], []),
        (["--listen", "127.0.0.1:0", "--no-sbd"], ["bootstrap http://127.0.0.1:"], ["ws://"]),
        (["--listen", "0.0.0.0:0"], ["listening at 0.0.0.0:", " (all addresses of this machine)", "from this machine only: relay ws://127.0.0.1:"], []),
    ]:
        proc = subprocess.Popen([K2, "relay", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        proc.stdout.readline()
        proc.stdout.readline()
        text = proc.stderr.readline()
        proc.send_signal(signal.SIGTERM)
        text += proc.stderr.read()
        equal(proc.wait(60), 0, "exit code")
        for part in has:
            contains(text, part)
        for part in lacks:
            check(part not in text, f"{part} in {text}")
    relay = world.start("relay", "--listen", "127.0.0.1:0", "--no-sbd")
    equal(relay.wait_event("listening")["relay"], "", "relay url of a bootstrap server")
    equal(relay.stop(), 0, "exit code")

    say("errors name the flag that was typed")
    for args, says in [
        (["--sbd-limit-clients", "0"], "--sbd-limit-clients: must be at least 1"),
        (["--sbd-limit-ip-kbps", "0"], "--sbd-limit-ip-kbps: must be 1..8000000"),
        (["--sbd-limit-ip-kbps", "-1"], "--sbd-limit-ip-kbps"),
        (["--sbd-limit-ip-byte-burst", "1"], "--sbd-limit-ip-byte-burst: must be at least 20000"),
        (["--sbd-limit-idle-millis", "0"], "--sbd-limit-idle-millis: must be 1..2^31-1"),
        (["--auth-token-idle-millis", "0"], "--auth-token-idle-millis: must be at least 1"),
        (["--max-entries-per-space", "0"], "--max-entries-per-space: must be at least 1"),
        (["--prune-interval-ms", "0"], "--prune-interval-ms: must be at least 1"),
        (["--listen", "nonsense"], "--listen: \"nonsense\" is not host:port"),
        (["--config", world.path("none")], world.path("none") + ": No such file or directory"),
    ]:
        listen = [] if "--listen" in args else ["--listen", "127.0.0.1:0"]
        _, err = world.run("relay", *listen, *args, code=2)
        contains(err, says)
        equal(err.count("\n"), 1, f"lines of {err!r}")
    for text, says in [
        ("[]", "not a JSON object"), ("{", "not a JSON object"), ('{"listen": {}}', "listen: must be a string, an integer, a boolean or an array of these"), ('{"json": true}', "json: cannot be set in a file"),
        ('{"sbd-limit-clients": "x"}', "sbd-limit-clients: "), ('{"sbd-limit-clients": 1.5}', "sbd-limit-clients: "),
        ('{"no-sbd": true, "no-sbd": false}', "no-sbd: given twice"), ('{"sbd-limit-clients": 0}', "--sbd-limit-clients: must be at least 1"),
        ("[" * 100_000, "not a JSON object"),
    ]:
        with open(config, "w") as file:
            file.write(text)
        _, err = world.run("relay", "--listen", "127.0.0.1:0", "--config", config, code=2)
        contains(err, says)
        equal(err.count("\n"), 1, f"lines of {err!r}")
    out, err = world.run("relay", "--log-format", "json", "--nonsense", code=2)
    equal((out, set(json.loads(err))), ("", LINE), "a wrong command line, as a line of the log")


main(test)
