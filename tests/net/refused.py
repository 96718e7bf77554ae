#!/usr/bin/env python3
"""A bootstrap server that is full or refuses: share reports it at the default log level, and also when it is over."""
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from k2net import *


class Bootstrap(BaseHTTPRequestHandler):
    full = True

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b"[]")

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(*((503, b'{"error":"too many spaces"}') if Bootstrap.full else (200, b"{}")))

    def log_message(self, *_):
        pass


def test(world):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bootstrap)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(world.path("config.json"), "w") as file:
        json.dump({"coreBootstrap": {"serverUrl": f"http://127.0.0.1:{server.server_port}", "backoffMinMs": 200,
                                     "backoffMaxMs": 400}}, file)
    os.mkdir(world.path("from"))
    open(world.path("from", "x"), "w").close()
    relay = world.relay()
    say("it refuses: told as an event, with the server's words")
    sharer = world.share(relay, "sharer", world.path("from"), options=["--config", world.path("config.json")])
    event = sharer.wait_event("not_listed")
    contains(event["reason"], "503")
    contains(event["reason"], "too many spaces")
    say("it takes infos again")
    Bootstrap.full = False
    sharer.wait_event("listed")
    equal(len(sharer.all_events("not_listed")), 1, "told once")
    equal(sharer.stop(), 0, "exit code")

    say("without --json a line on stderr, with no option for the log")
    Bootstrap.full = True
    plain = subprocess.Popen([K2, "share", "--data", world.path("sharer"), "--relay", relay.url, "--config",
                              world.path("config.json"), world.path("from")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        for line in plain.stderr:
            if "does not list this node" in line:
                contains(line, "kitsune2: the bootstrap server")
                contains(line, "503")
                break
        else:
            raise AssertionError("share ended and said nothing")
    finally:
        plain.kill()
        plain.wait()


main(test)
