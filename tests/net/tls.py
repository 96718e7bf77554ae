#!/usr/bin/env python3
"""A relay with TLS inside the sharer: the link says so, and the certificate is checked."""
import http.client
import ssl

from k2net import *


def one(world, network, cert, key):
    say(f"network {network}")
    sharer_data, fetcher_data, out = f"sharer-{network}", f"fetcher-{network}", f"out-{network}"
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    sharer = world.start("share", "--data", world.path(sharer_data), "--network", network, "--listen", f"127.0.0.1:{number}",
                         "--public", f"localhost:{number}", "--tls-cert", cert, "--tls-key", key, "--tls-ca", cert,
                         world.path("from"))
    link = sharer.wait_event("shared")["link"]
    end = "?tls=1" if network == "0.2" else f"?tls=1,network={network}"
    check(link.startswith(f"kitsune2://localhost:{number}/") and link.endswith(end), f"link: {link}")
    sharer.wait_event("online")
    world.fetch_all(link, fetcher_data, out, options=["--tls-ca", cert])
    same(world.path("from"), world.path(out))
    conn = http.client.HTTPSConnection("localhost", number, context=ssl.create_default_context(cafile=cert), timeout=PATIENCE)
    conn.request("GET", "/ping")
    headers = conn.getresponse().headers
    equal(headers["Strict-Transport-Security"], "max-age=63072000; includeSubDomains", "what browsers are told")
    contains(headers["Content-Security-Policy"], "default-src 'none'; ", "what browsers are told")
    conn.close()
    say("without the certificate's trust nothing is fetched")
    fetcher = world.fetch(link, data=f"f2-{network}", out=f"o2-{network}", options=["--timeout", "3"])
    equal(fetcher.wait(), 3, "exit code")
    equal(os.listdir(world.path(f"o2-{network}")), [], "files")
    equal(sharer.stop(), 0, "exit code of the sharer")


def test(world):
    cert, key = certificate(world)
    folder(world.path("from"), 30, 2 << 20)
    for network in NETWORKS:
        one(world, network, cert, key)


main(test)
