#!/usr/bin/env python3
"""A relay whose hook server decides who may use it: accepted, pending, refused, a hook server that is away or answers
nothing. No secret reaches the log."""
import http.client
import re

from k2net import *

MATERIAL, TOKEN = "material-of-alice", "token-of-alice"


def decide(material):
    """Accepts alice, lets others wait, refuses mallory."""
    return {MATERIAL: (200, json.dumps({"authToken": TOKEN})), "mallory": (401, "no")}.get(material, (202, "later"))


def ask(address, method, path, body=None, token=None):
    conn = http.client.HTTPConnection(*address.split(":"), timeout=PATIENCE)
    conn.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
    answer = conn.getresponse()
    out = answer.status, answer.read().decode()
    conn.close()
    return out


def test(world):
    hook = Hook(decide)

    say("who passes the hook server gets a token, with which everything is open")
    relay = world.start("relay", "--listen", "127.0.0.1:0", "--authentication-hook-server", hook.url, "--admin", "127.0.0.1:0",
                        "--log-level", "debug")
    listening = relay.wait_event("listening")
    address, admin = listening["addresses"][0], listening["admin"]
    equal(ask(address, "GET", "/bootstrap/AAAA"), (401, "Unauthorized"), "a list without a token")
    equal(ask(address, "GET", "/health")[0], 200, "health needs no token")
    equal(ask(address, "PUT", "/authenticate", "bob"), (202, ""), "pending")
    equal(ask(address, "PUT", "/authenticate", "mallory"), (401, "Unauthorized"), "refused")
    equal(ask(address, "PUT", "/authenticate", MATERIAL), (200, json.dumps({"authToken": TOKEN}, separators=(",", ":"))), "accepted")
    equal(ask(address, "GET", "/bootstrap/AAAA", token=TOKEN), (200, "[]"), "a list with a token")
    equal(ask(address, "GET", "/bootstrap/AAAA", token="another")[0], 401, "a list with a wrong token")

    say("a hook server that answers nothing holds up nobody who has a token")
    stuck = [threading.Thread(target=ask, args=(address, "PUT", "/authenticate", "hang"), daemon=True) for _ in range(12)]
    for thread in stuck:
        thread.start()

    def metric(name):
        body = ask(admin, "GET", "/metrics")[1]
        return float(re.search(rf"^{re.escape(name)} (\S+)$", body, re.M)[1])

    # How many is for the unit tests: on a slow machine the first have timed out when the last come.
    wait_until(lambda: metric("kitsune2_relay_auth_hook_calls") >= 1, "a call that hangs")
    equal(ask(address, "GET", "/bootstrap/AAAA", token=TOKEN)[0], 200, "a list meanwhile")
    hook.release.set()
    for thread in stuck:
        thread.join(PATIENCE)
    wait_until(lambda: metric("kitsune2_relay_auth_hook_calls") == 0, "no call is left")
    equal(metric('kitsune2_relay_auth_requests_total{outcome="accepted"}'), 1, "accepted")
    pending = metric('kitsune2_relay_auth_requests_total{outcome="pending"}')
    check(1 <= pending <= 13, f"{pending} were told to wait")

    say("a hook server that is away: those with a token go on, newcomers are told")
    hook.close()
    equal(ask(address, "PUT", "/authenticate", MATERIAL)[0], 502, "bad gateway")
    equal(ask(address, "GET", "/bootstrap/AAAA", token=TOKEN)[0], 200, "a list")
    check(metric("bootstrap_auth_failures_total") >= 2, "failures are counted")

    say("no secret is in the log")
    relay.proc.send_signal(signal.SIGTERM)
    equal(relay.wait(), 0, "exit code")
    log = relay.stderr()
    contains(log, "127.0.0.1: authentication: accepted", "the log")
    contains(log, "127.0.0.1: authentication: refused", "the log")
    contains(log, "the authentication hook server fails: ", "the log")
    for secret in (MATERIAL, TOKEN, "mallory"):
        check(secret not in log, f"{secret} is in the log")

    say("a url that is none, and a flag of the stock server that has no counterpart")
    _, err = world.run("relay", "--authentication-hook-server", "hook.example", "--otlp-endpoint", "http://127.0.0.1:1", code=2)
    contains(err, "--authentication-hook-server: ", "the error")
    contains(err, "--otlp-endpoint: metrics are not pushed; scrape /metrics of --admin instead", "the warning")


main(test)
