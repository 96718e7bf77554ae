#!/usr/bin/env python3
"""Starts relays for sbd's compliance suite, one after the other. usage: sbd_server.py RELAY_COMMAND…

The command's relay listens on a free port and says so in a JSON line ({"event": "listening", "addresses": […]}).
"""

import json
import subprocess
import sys


def main():
    print("CMD/READY", flush=True)
    relay = None
    try:
        for line in sys.stdin:
            if line.strip() != "CMD/START":
                sys.exit(f"not a command of the suite: {line!r}")
            if relay:
                relay.kill()
                relay.wait()
            relay = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
            events = map(json.loads, relay.stdout)
            addresses = next((event["addresses"] for event in events if event["event"] == "listening"), None)
            if not addresses:
                sys.exit("the relay does not listen")
            print("/".join(["CMD/START", *addresses]), flush=True)
    finally:
        if relay:
            relay.kill()


main()
