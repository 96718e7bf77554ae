#!/usr/bin/env python3
"""The program itself: help, version, completions, man page, documents that name every option, status, signals, demo."""
import base64
import re

from k2net import *

COMMANDS = ["relay", "share", "fetch", "mirror", "status", "check", "demo", "config", "completion"]


def test(world):
    say("help and version")
    out, err = world.run("--version")
    check(re.fullmatch(r"kitsune2 \d+\.\d+\.\d+ \(wire: kitsune2 0\.2, 0\.4, 0\.5\)\n", out), f"version: {out!r}")
    equal(err, "", "stderr")
    out, _ = world.run("--help")
    contains(out, "Exit codes: 0 done")
    equal(world.run("help")[0], out, "help")
    equal(world.run("version"), world.run("--version"), "version")
    options = {"": set(re.findall(r"--[a-z][a-z-]*", out))}
    for command in COMMANDS:
        contains(out, f"  {command} ")
        text, err = world.run(command, "--help")
        equal(err, "", "stderr")
        check(len([line for line in text.splitlines() if "xit code" in line]) == 1, f"one line on exit codes: {text}")
        contains(text, "Exit codes: 0 is success; kitsune2 --help lists the others.")
        usage = text[:text.index("Exit codes:")]
        equal(world.run("help", command)[0], text, f"help {command}")
        options[command] = set(re.findall(r"^  (?:-\w,)?(--[a-z][a-z-]*)", usage, re.M))
        check(len(options[command]) >= 4, f"options of {command}: {options[command]}")

    say("every option is in the man page, in docs/cli.md and in the completions")
    with open(os.path.join(ROOT, "apps/kitsune2/kitsune2.1")) as file:
        man = file.read().replace("\\-", "-")
    with open(os.path.join(ROOT, "docs/cli.md")) as file:
        page = file.read()
    shells = {shell: world.run("completion", shell)[0] for shell in ["bash", "zsh", "fish"]}
    for command in COMMANDS:
        for option in options[command]:
            contains(man, option, "man page")
            contains(page, option, "docs/cli.md")
            if option == "--help":
                continue
            contains(shells["bash"], option, "bash completion")
            contains(shells["zsh"], option, "zsh completion")
            contains(shells["fish"], f"-l {option[2:]}", "fish completion")
    for option in set(re.findall(r"`(--[a-z][a-z-]*)", page)):
        check(any(option in known for known in options.values()), f"docs/cli.md names {option}, which is no option")
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130"]:
        check(re.search(rf"^\| {code} \|", page, re.M), f"docs/cli.md lacks exit code {code}")
    if shutil.which("bash"):
        script = world.path("completion")
        with open(script, "w") as file:
            file.write(shells["bash"])
        done = subprocess.run(["bash", "-c", f"source {script}; COMP_WORDS=(kitsune2 fe); COMP_CWORD=1; _kitsune2; echo ${{COMPREPLY[@]}}; "
                                             "COMP_WORDS=(kitsune2 fetch --ov); COMP_CWORD=2; _kitsune2; echo ${COMPREPLY[@]}"],
                              capture_output=True, text=True)
        equal((done.stdout, done.stderr), ("fetch\n--overwrite\n", ""), "what bash completes")
    if shutil.which("man"):
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", os.path.join(ROOT, "apps/kitsune2/kitsune2.1")],
                              capture_output=True, text=True)
        equal((done.returncode, done.stderr), (0, ""), "man")

    say("the relay prints the reference's lines")
    proc = subprocess.Popen([K2, "relay", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)
    lines = [proc.stdout.readline() for _ in range(3)]
    equal(lines[0], "#kitsune2_bootstrap_srv#running#\n", "first line")
    for line in lines[1:]:
        check(re.fullmatch(r"#kitsune2_bootstrap_srv#listening#127\.0\.0\.1:\d+#\n", line), f"line: {line!r}")
    proc.send_signal(signal.SIGTERM)
    equal(proc.wait(30), 0, "exit code")

    say("the flags of kitsune2-bootstrap-srv 0.2.2")
    proc = world.start("relay", "--listen", "127.0.0.1:0", "--worker-thread-count", "2", "--max-entries-per-space", "16",
                       "--request-listen-duration-ms", "10", "--prune-interval-ms", "500", "--sbd-limit-clients", "10",
                       "--sbd-trusted-ip-header", "X-Real-IP", "--sbd-disable-rate-limiting", "--admin", "127.0.0.1:0")
    listening = proc.wait_event("listening")
    metrics = http_get(listening["admin"], "/metrics")
    contains(metrics, "kitsune2_relay_connections ")
    contains(metrics, 'kitsune2_relay_rejects_total{reason="bad_signature"} 0')
    contains(http_get(listening["admin"], "/healthz"), "ok")
    equal(proc.stop(), 0, "exit code")

    say("status of a running and of a stopped node")
    folder(world.path("from"), 30, 2 << 20)
    relay = world.relay()
    sharer = world.share(relay, "sharer", world.path("from"))
    sharer.wait_event("online")
    status = world.status("sharer")
    equal((status["running"], status["role"], status["pid"], status["relay"].rstrip("/")), (True, "share", sharer.proc.pid, relay.url), "status")
    equal(status["spaces"][0]["ops"], sharer.report["new_ops"], "ops")
    equal(oct(os.stat(world.path("sharer", "node.sock")).st_mode & 0o777), "0o600", "mode of the socket")
    equal(oct(os.stat(world.path("sharer", "agent.key")).st_mode & 0o777), "0o600", "mode of the key")
    text, _ = world.run("status", "--data", world.path("sharer"))
    contains(text, f"running (share, process {sharer.proc.pid})")
    contains(text, f"holds     {sharer.report['new_ops']} ops")
    sharer.kill()
    text, _ = world.run("status", "--data", world.path("sharer"))
    contains(text, "not running")
    contains(text, f"holds     {sharer.report['new_ops']} ops")
    contains(text, "pending   nothing")

    say("status of a stopped node names spaces with ids of any length and beginning")
    for name in ["x" * 80, os.fsdecode(b"\xf8 has a dash first")]:
        named = world.share(relay, "named", world.path("from"), options=["--space", name])
        named.stop()
    spaces = {space["space"]: space["ops"] for space in world.status("named")["spaces"]}
    for name in ["x" * 80, os.fsdecode(b"\xf8 has a dash first")]:
        space = base64.urlsafe_b64encode(os.fsencode(name)).decode().rstrip("=")
        check(spaces.get(space, 0) > 0, f"status of {name!r}: {spaces}")

    say("a fetcher without a source: status, and what a signal does")
    fetcher = world.fetch(sharer.link)
    fetcher.wait_event("progress", lambda e: e["waiting"])
    status = world.status("fetcher")
    equal((status["running"], status["role"]), (True, "fetch"), "status")
    equal(fetcher.stop(signal.SIGINT), 130, "exit code")
    equal(fetcher.all_events("error")[0]["code"], "cancelled", "error")

    networks(world)

    say("demo")
    temp = world.path("temp")  # of its own: other tests run demos meanwhile
    os.mkdir(temp)
    out, err = world.run("demo", "--files", "40", "--mib", "3", env={**os.environ, "TMPDIR": temp})
    check(re.fullmatch(r"identical: 41 files, \d+ ops, \S+ MiB, \S+ s, \d+ ops/s, \S+ MiB/s\n", out), f"demo: {out!r}")
    equal(os.listdir(temp), [], "left in TMPDIR")


def networks(world):
    """The network of a folder: of a new one the default, or what its relay's url says; then it stays."""
    say("networks: a new folder is of the default, and every folder keeps its own")
    relay = world.relay()
    sbd = f"ws://127.0.0.1:{relay.port}"

    def link(data, *options):
        proc = world.start("share", "--data", world.path(data), *options, world.path("from"))
        link = proc.wait_event("shared")["link"]
        equal(proc.stop(), 0, "exit code")
        return link

    for options in (["--relay", relay.url], ["--relay", f"127.0.0.1:{relay.port}"], ["--listen", "127.0.0.1:0"]):
        data = f"new{len(os.listdir(world.dir))}"
        check(link(data, *options).endswith(QUERY), f"the default's link with {options}")
        check(link(data, *options).endswith(QUERY), "the same folder again")
    for number, options in enumerate((["--relay", sbd], ["--network", "0.2", "--listen", "127.0.0.1:0"])):
        check("?" not in link(f"old{number}", *options), f"a link of network 0.2 with {options}")
        check("?" not in link(f"old{number}", "--listen", "127.0.0.1:0"), "the folder's network, since nothing names another")
    if len(NETWORKS) == 1:
        return
    for command in (["share", "--network", "0.5", "--listen", "127.0.0.1:0", world.path("from")],
                    ["fetch", f"kitsune2://127.0.0.1:{relay.port}/Zg/{'A' * 43}?network=0.5", "--out", world.path("out-networks")]):
        _, err = world.run(*command, "--data", world.path("old0"), code=2)
        contains(err, "has data of dialect 0.2, but this node is to speak 0.5")
    _, err = world.run("share", "--data", world.path("new-ws"), "--network", "0.5", "--relay", sbd, world.path("from"), code=2)
    contains(err, "--relay: in dialect 0.5 it must be like https://HOST:PORT/relay")


def http_get(address, path):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as conn:
        conn.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while part := conn.recv(65536):
            data += part
    return data.decode()


main(test)
