#!/usr/bin/env python3
"""Bad links, bad options, a port in use, a data folder in use: one clear line, the right exit code, nothing created."""
from k2net import *


def one_line(text):
    equal(text.count("\n"), 1, f"lines of {text!r}")
    check(text.startswith("kitsune2: "), f"begins with the program's name: {text!r}")
    return text


def test(world):
    root = "A" * 43
    say("bad links")
    for link, says in [
        ("http://127.0.0.1:1/Zg/" + root, "link: does not begin with kitsune2://"),
        ("kitsune2://127.0.0.1:1/Zg", "link: the root is missing, expected HOST:PORT/SPACE/ROOT"),
        ("kitsune2://127.0.0.1:1/Zg/" + root[:40], "link: the root is not base64 (URL-safe, no padding) of 32 bytes; is the link cut off?"),
        ("kitsune2://127.0.0.1:99999/Zg/" + root, "the port is not a number from 0 to 65535"),
        ("kitsune2://127.0.0.1/Zg/" + root, "the port is missing, expected HOST:PORT"),
        ("kitsune2://127.0.0.1:1/Zg/" + root + "?tls=2", "only tls=1, relay=PATH and network=0.4 or 0.5 are known, in this order"),
        ("kitsune2://127.0.0.1:1/Z=/" + root, "link: the space is not base64"),
    ]:
        out, err = world.run("fetch", link, "--data", world.path("never"), "--out", world.path("never-out"), code=2)
        contains(one_line(err), says)
        equal(out, "", "stdout")
        check(not os.path.exists(world.path("never")) and not os.path.exists(world.path("never-out")), "something was made")

    say("a link whose root nobody has")
    os.mkdir(world.path("from"))
    open(world.path("from", "x"), "w").close()
    relay = world.relay()
    sharer = world.share(relay, "sharer", world.path("from"))
    wrong = with_root(sharer.link, root)
    _, err = world.run("fetch", wrong, "--data", world.path("f1"), "--out", world.path("o1"), "--missing-after", "1", "--quiet", code=4)
    contains(one_line(err), "no source has the root of this share")

    say("a link to an op that is no root")
    import hashlib, base64
    with open(world.path("from", "plain"), "w") as file:
        file.write("I am no root of anything")
    sharer.stop()
    sharer = world.share(relay, "sharer", world.path("from"))
    op = base64.urlsafe_b64encode(hashlib.sha256(b"I am no root of anything").digest()).decode().rstrip("=")
    _, err = world.run("fetch", with_root(sharer.link, op), "--data", world.path("f2"), "--out", world.path("o2"), "--quiet", code=7)
    contains(one_line(err), "the link's op is not the root of a share")

    say("no source: --timeout ends it")
    dead = world.relay()
    dead.stop()
    started = time.monotonic()
    _, err = world.run("fetch", f"kitsune2://127.0.0.1:{dead.port}/Zg/{root}{QUERY}", "--data", world.path("f3"), "--out",
                       world.path("o3"), "--timeout", "1", "--quiet", code=3)
    contains(one_line(err), "kitsune2: no source was found: the relay cannot be reached: connect 127.0.0.1")
    contains(err, "Connection refused")
    check(time.monotonic() - started >= 1, "gave up too early")

    say("a port in use")
    address = f"127.0.0.1:{relay.port}"
    _, err = world.run("relay", "--listen", address, code=8)
    contains(one_line(err), address)
    contains(err, "in use")
    _, err = world.run("share", "--data", world.path("s2"), "--listen", address, world.path("from"), code=8)
    contains(one_line(err), address)
    _, err = world.run("share", "--data", world.path("s2"), "--relay", relay.url, "--admin", address, world.path("from"), code=8)
    contains(one_line(err), address)

    say("a data folder in use")
    _, err = world.run("share", "--data", world.path("sharer"), "--relay", relay.url, world.path("from"), code=8)
    contains(one_line(err), f"in use by process {sharer.proc.pid}")
    _, err = world.run("fetch", sharer.link, "--data", world.path("sharer"), "--out", world.path("o4"), code=8)
    contains(one_line(err), "in use by process")
    equal(sharer.proc.poll(), None, "the sharer still runs")

    say("what cannot be shared, addresses that are none, files that are not there")
    old, late = world.path("old"), world.path("late")
    for folder in (old, late):
        os.mkdir(folder)
        with open(os.path.join(folder, "agent.key"), "w") as file:
            file.write("x")
    with open(os.path.join(late, "dialect"), "w") as file:
        file.write("0.5\n")
    for args, code, says in [
        (["share", "--data", world.path("s3"), "--relay", relay.url, world.path("nothing")], 2, "No such file or directory"),
        (["share", "--data", world.path("s3"), world.path("from")], 2, "share needs --relay URL or --listen HOST:PORT"),
        (["share", "--data", world.path("s3"), "--listen", "0.0.0.0:0", world.path("from")], 2, "--public HOST:PORT"),
        (["share", "--data", world.path("s3"), "--listen", "127.0.0.1", world.path("from")], 2, "the port is missing"),
        (["share", "--data", world.path("s3"), "--relay", "ftp://x:1", world.path("from")], 2, "--relay: "),
        (["share", "--data", world.path("s3"), "--network", "0.5", "--relay", "ws://x:1", world.path("from")], 2,
         "--relay: in dialect 0.5 it must be like https://HOST:PORT/relay"),
        (["share", "--data", old, "--relay", "https://x:1/relay", world.path("from")], 2,
         f"--relay: in dialect 0.2 it must be like wss://HOST:PORT, ws://HOST:PORT or HOST:PORT, got https://x:1/relay; "
         f"the node speaks 0.2 because {old} has data of dialect 0.2"),
        (["share", "--data", late, "--relay", "ws://x:1", world.path("from")], 2,
         f"; the node speaks 0.5 because {late} has data of dialect 0.5"),
        (["share", "--data", world.path("s3"), "--network", "0.2", "--relay", "ws://x:1/path", world.path("from")], 2,
         "--relay: in dialect 0.2 a relay has no path, got ws://x:1/path"),
        (["share", "--data", world.path("s4"), "--network", "0.5", "--relay", "http://127.0.0.1:1/a%20b", world.path("from")], 2,
         "the relay's path cannot be written in a link: http://127.0.0.1:1/a%20b"),
        (["share", "--data", world.path("from", "x"), "--relay", relay.url, world.path("from")], 1, world.path("from", "x")),
        (["fetch", sharer.link, "--data", world.path("f5"), "--out", world.path("from", "x")], 1, "Not a directory"),
        (["relay", "--listen", "127.0.0.1:0", "--tls-cert", world.path("none")], 2, "--tls-cert and --tls-key must be given together"),
        (["relay", "--listen", "127.0.0.1:0", "--tls-cert", world.path("none"), "--tls-key", world.path("none")], 1, world.path("none")),
        (["status", "--data", world.path("none")], 2, "no such folder"),
    ]:
        out, err = world.run(*args, code=code)
        contains(one_line(err), says)
        equal(out, "", "stdout")

    equal([name for name in os.listdir(world.path("s4")) if name.endswith(".db")], [], "stored for a link that cannot be")

    say("an output folder that overlaps the data folder, a share of the data folder: by any spelling, nothing is made")
    os.makedirs(world.path("apart", "data", "below"))
    os.chmod(world.path("apart", "data"), 0o700)
    os.symlink(world.path("apart", "data"), world.path("to-data"))
    os.symlink(world.path("apart"), world.path("to-apart"))
    for data, out in [("apart/data", "apart/data"), ("apart/data", "apart"), ("apart/data", "apart/data/below/x"),
                      ("apart/data", "to-data"), ("to-data", "apart/data"), ("apart/data", "to-apart"),
                      ("apart/data", "to-apart/data/below"), ("new", "new/out"), ("new/data", "new")]:
        _, err = world.run("fetch", sharer.link, "--data", world.path(data), "--out", world.path(out), code=2)
        contains(one_line(err), "overlap")
    equal(os.listdir(world.path("apart", "data")), ["below"], "made in the data folder")
    check(not os.path.exists(world.path("new")), "the data folder was made")
    open(world.path("apart", "data", "below", "file"), "w").close()
    for path in ["apart/data", "to-data", "to-data/below", "apart/data/below/file"]:
        _, err = world.run("share", "--data", world.path("apart", "data"), "--relay", relay.url, world.path(path), code=2)
        contains(one_line(err), "the node's own data directory")

    say("command lines that are wrong")
    for args, says in [
        (["--dta"], "unknown option --dta; see kitsune2 --help"),
        (["nonsense"], "nonsense: is not a command; see kitsune2 --help"),
        (["sahre"], "sahre: is not a command; did you mean share? See kitsune2 --help"),
        (["help", "sahre"], "sahre: is not a command; did you mean share? See kitsune2 --help"),
        (["-x"], "unknown option -x; see kitsune2 --help"),
        (["share", "-x", "a"], "unknown option -x; see kitsune2 share --help"),
        (["share", "--dta", "x", "."], "unknown option --dta; did you mean --data? See kitsune2 share --help"),
        (["share", "--dta=x", "."], "unknown option --dta; did you mean --data?"),
        (["relay", "--prometheus", "http://x"], "unknown option --prometheus; see kitsune2 relay --help"),
        (["fetch", sharer.link, "two", "three", "--data", "d", "--out", "o"], "unexpected argument: two; see kitsune2 fetch --help"),
        (["relay", "--sbd-limit-ip-kbps", "0"], "--sbd-limit-ip-kbps: must be 1..8000000"),
        (["relay", "--sbd-limit-ip-byte-burst", "1"], "--sbd-limit-ip-byte-burst: must be at least"),
        (["relay", "--prune-interval-ms", "0"], "--prune-interval-ms: must be at least 1"),
        (["fetch"], "LINK is required; see kitsune2 fetch --help"),
        (["share", "--data"], "--data"), (["relay", "--listen"], "--listen"),
        (["relay", "--sbd-limit-clients", "x"], "--sbd-limit-clients"),
        (["fetch", sharer.link, "--data", "d", "--out", "o", "--timeout", "-1"], "--timeout"),
        (["demo", "--files", "0"], "--files"), (["config", "--nonsense"], "--nonsense"),
        (["completion", "tcsh"], "tcsh"), (["status", "--data", "x", "--log-level", "loud"], "--log-level"),
    ]:
        out, err = world.run(*args, code=2)
        equal(out, "", f"stdout of {args}")
        contains(one_line(err), says)
        check("invalid_argument" not in err, f"a code word for people: {err}")
    out, err = world.run(code=2)
    equal(out, "", "stdout")
    for command in ["relay", "share", "fetch", "status", "demo"]:
        contains(err, f"  {command} ", "help of kitsune2 alone")
    out, err = world.run("fetch", "--json", code=2)
    error = json.loads(out)
    equal((error["event"], error["code"], error["exit"]), ("error", "invalid_argument", 2), "error")
    contains(one_line(err), error["message"])

    say("configuration files")
    for text, says in [
        ('{"coreFetch":{"parallelRequestCount":0}}', "coreFetch.parallelRequestCount"),
        ('{"coreFetch":{"nonsense":1}}', "coreFetch.nonsense"),
        ('{"coreFetch":{"parallelRequestCount":"two"}}', "coreFetch.parallelRequestCount"),
        ("{", ""),
    ]:
        with open(world.path("config.json"), "w") as file:
            file.write(text)
        _, err = world.run("config", "--check", world.path("config.json"), code=2)
        contains(one_line(err), says)
        _, err = world.run("share", "--data", world.path("s4"), "--relay", relay.url, "--config", world.path("config.json"),
                           world.path("from"), code=2)
        contains(one_line(err), says)
    for path in [world.path("none"), world.path("from")]:
        _, err = world.run("config", "--check", path, code=2)
        equal(one_line(err).count(path), 1, f"the path is named once in {err!r}")
    defaults, _ = world.run("config")
    with open(world.path("config.json"), "w") as file:
        file.write(defaults)
    out, _ = world.run("config", "--check", world.path("config.json"))
    equal(out, world.path("config.json") + ": valid\n", "stdout")
    check("$schema" in json.loads(world.run("config", "--schema")[0]), "the schema is a schema")


main(test)
