#!/usr/bin/env python3
"""A relay with TLS inside the sharer: the link says so, and the certificate is checked."""
from k2net import *


def test(world):
    cert, key = certificate(world)
    folder(world.path("from"), 30, 2 << 20)
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    sharer = world.start("share", "--data", world.path("sharer"), "--listen", f"127.0.0.1:{number}", "--public", f"localhost:{number}",
                         "--tls-cert", cert, "--tls-key", key, "--tls-ca", cert,
                         world.path("from"))
    link = sharer.wait_event("shared")["link"]
    check(link.startswith(f"kitsune2://localhost:{number}/") and link.endswith("?tls=1"), f"link: {link}")
    sharer.wait_event("online")
    world.fetch_all(link, options=["--tls-ca", cert])
    same(world.path("from"), world.path("out"))
    say("without the certificate's trust nothing is fetched")
    fetcher = world.fetch(link, data="f2", out="o2", options=["--timeout", "3"])
    equal(fetcher.wait(), 3, "exit code")
    equal(os.listdir(world.path("o2")), [], "files")
    equal(sharer.stop(), 0, "exit code of the sharer")


main(test)
