#!/usr/bin/env python3
"""The reports of fetch and share while they wait: for a relay (and why), a space, a source; not for a slow line."""
import http.server

from faults import *


def test(world):
    root = "A" * 43
    os.mkdir(world.path("from"))
    with open(world.path("from", "file"), "w") as file:
        file.write("something")
    relay = world.relay()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        closed_port = closed.getsockname()[1]
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    web.RequestHandlerClass.log_message = lambda *args: None
    threading.Thread(target=web.serve_forever, daemon=True).start()
    cert, key = certificate(world, "DNS:localhost,IP:127.0.0.1")
    tls = world.start("relay", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
    tls_port = port_of(tls.wait_event("listening"))
    full = world.start("relay", "--listen", "127.0.0.1:0", "--sbd-limit-clients", "1")
    full.port = port_of(full.wait_event("listening"))

    for network in NETWORKS:
        relay_errors(world, network, root, closed_port, web.server_port, relay.port, tls_port, full.port)

    say("a wrong space: nobody is there; after a while it asks whether the link is right")
    sharer = world.share(relay, "sharer", world.path("from"))
    head, _, share_root = sharer.link.rsplit("/", 2)  # with what is behind its question mark
    fetch = world.fetch(f"{head}/Zg/{share_root}", data="f-space", out="o-space")
    event = fetch.wait_event("progress", lambda e: e["waiting"] and e["waiting_for"] == "empty_space")
    contains(event["reason"], "no other node is in the space")
    fetch.wait_event("progress", lambda e: "is the link right" in e.get("reason", ""), seconds=60)
    check(fetch.proc.poll() is None, "it goes on waiting")
    equal(fetch.stop(), 130, "exit code")
    _, err = world.run("fetch", f"{head}/Zg/{share_root}", "--data", world.path("f-space"), "--out", world.path("o-space"), "--timeout", "2", code=3)
    contains(err.strip().splitlines()[-1], "no other node is in the space; is the link right")

    say("links as they are pasted")
    for i, (before, behind) in enumerate([("", " "), ("", "\n"), ("", "."), ("", ","), ("", "/"), ('"', '"'), ("<", ">")]):
        world.fetch_all(before + sharer.link + behind, data="f-paste", out="o-paste")
    same(world.path("from"), world.path("o-paste"))

    say("a source that has gone without a word")
    with open(world.path("from", "more"), "w") as file:
        file.write("more")
    sharer.stop()
    sharer = world.share(relay, "sharer", world.path("from"))
    sharer.wait_event("online")
    sharer.kill()
    fetch = world.fetch(sharer.link, data="f-gone", out="o-gone")
    event = fetch.wait_event("progress", lambda e: e["waiting"] and e["waiting_for"] == "no_answer")
    contains(event["reason"], "1 source is known")
    equal(fetch.stop(), 130, "exit code")

    slow_line(world)
    damaged(world, relay)


def relay_errors(world, network, root, closed_port, web_port, plain_port, tls_port, full_port):
    """A fetch and a share that do not reach the relay say why, in each network."""
    plain, secure, path = ("ws", "wss", "") if network == "0.2" else ("http", "https", "/relay")
    first = world.start("share", "--data", world.path(f"first-{network}"), "--network", network, "--relay", f"127.0.0.1:{full_port}",
                        world.path("from"))
    first.wait_event("online")
    for i, (scheme, at, says) in enumerate([
        (plain, f"127.0.0.1:{closed_port}", "Connection refused"),
        (plain, "no-such-host.invalid:4433", "resolve no-such-host.invalid: "),
        (plain, f"127.0.0.1:{web_port}", "the server answered 404; is it a relay?"),
        (secure, f"127.0.0.1:{plain_port}", "does the server speak TLS there?"),
        (plain, f"127.0.0.1:{tls_port}", "does it expect TLS there?"),
        (secure, f"127.0.0.1:{tls_port}", "the certificate of 127.0.0.1"),
        (plain, f"127.0.0.1:{full_port}", "takes no more clients"),
    ]):
        say(f"{scheme}://{at}{path}")
        query = ",".join(["tls=1"] * (scheme == secure) + [f"network={network}"] * (network != "0.2"))
        link = f"kitsune2://{at}/Zg/{root}" + ("?" + query if query else "")
        fetcher, out, sharer = f"f{i}-{network}", f"o{i}-{network}", f"s{i}-{network}"
        fetch = world.fetch(link, data=fetcher, out=out)
        event = fetch.wait_event("progress", lambda e: e["waiting"] and e["waiting_for"] == "relay")
        contains(event["reason"], "the relay cannot be reached: ")
        contains(event["reason"], says)
        contains(world.status(fetcher)["relay_failure"], says)
        equal(fetch.stop(), 130, "exit code")
        share = world.start("share", "--data", world.path(sharer), "--network", network, "--relay", f"{scheme}://{at}{path}", world.path("from"))
        contains(share.wait_event("offline", lambda e: e["reason"] != "no answer yet")["reason"], says)
        equal(share.stop(), 0, "exit code")
        # For people: the same, in one line.
        _, err = world.run("fetch", link, "--data", world.path(fetcher), "--out", world.path(out), "--timeout", "2", code=3)
        contains(err, "waiting for a source: the relay cannot be reached: ")
        contains(err.strip().splitlines()[-1], "kitsune2: no source was found: the relay cannot be reached: ")
        contains(err.strip().splitlines()[-1], says)
    equal(first.stop(), 0, "exit code")


def slow_line(world):
    say("a slow line: an answer takes longer than a source may be silent, and it is neither absent nor late")
    size = 3 << 20
    folder(world.path("large"), 3, size)
    relay = slow_relay(world, kbps=2500)
    sharer = world.share(relay, "slow-sharer", world.path("large"))
    fetch = world.fetch(sharer.link, data="slow", out="slow-out", options=["--timeout", "5", "--missing-after", "3"])
    equal(fetch.wait(), 0, f"exit code ({fetch.stderr()})")
    same(world.path("large"), world.path("slow-out"))
    progress = [e for e in fetch.all_events("progress") if e["phase"] == "fetching"]
    check(len(progress) > 20, f"only {len(progress)} looks at it")
    equal([e for e in progress if e["waiting"] or e["live_sources"] == 0], [], "looks at which the source was said to be absent")
    received = [e["received_bytes"] for e in progress]
    equal(received, sorted(received), "bytes received")
    steps = len(set(received))
    check(steps > len(received) * 0.6, f"the figure stood still: {steps} values in {len(received)} looks")
    check(any(e["bytes_arriving"] > 0 for e in progress), "bytes of an answer under way")
    done = fetch.all_events("done")[0]
    check(received[-1] <= done["fetched_bytes"] * 1.01 + 65536, f"{received[-1]} received, {done['fetched_bytes']} stored")
    check(all("seconds_left" in e for e in progress[len(progress) // 2:]), "the time left is known from half way on")


def damaged(world, relay):
    say("one op of the sharer's store is damaged: it is not sent, and nobody is called bad for it")
    import sqlite3
    rng = random.Random(5)
    os.mkdir(world.path("good"))
    for i in range(4):
        with open(world.path("good", str(i)), "wb") as file:
            file.write(rng.randbytes(300_000))
    sharer = world.share(relay, "damaged", world.path("good"), options=["--space", "damaged"])
    link = sharer.link
    sharer.stop()
    name = [n for n in os.listdir(world.path("damaged")) if n.endswith(".db") and ".peers" not in n][0]
    with sqlite3.connect(world.path("damaged", name)) as db:
        (at,) = db.execute("SELECT stored_at FROM op WHERE size=262144 LIMIT 1").fetchone()
        (place,) = db.execute("SELECT at FROM op_place WHERE stored_at=?", (at,)).fetchone()
    with open(world.path("damaged", name + "-data"), "r+b") as file:
        file.seek(place + 100)
        byte = file.read(1)[0]
        file.seek(place + 100)
        file.write(bytes([byte ^ 1]))
    os.mkdir(world.path("empty"))
    sharer = world.start("share", "--data", world.path("damaged"), "--relay", relay.url, "--space", "damaged", world.path("empty"))
    sharer.wait_event("online")
    fetch = world.fetch(link, data="f-damaged", out="o-damaged", options=["--missing-after", "4"])
    equal(fetch.wait(), 4, f"exit code ({fetch.stderr()})")
    equal(fetch.all_events("bad_source"), [], "sources named")
    equal(fetch.all_events("done")[0]["missing_ops"], 1, "missing ops")


main(test)
