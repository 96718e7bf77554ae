#!/usr/bin/env python3
"""Checks what the documents claim: usage: check_docs.py SOURCE_DIR BUILD_DIR

* all that needs no build: links, quotes and commands (check_text.py);
* every test named in docs/conformance.md, docs/security.md and in README's table exists.
"""

import json
import os
import re
import subprocess
import sys

from check_text import check

source, build = sys.argv[1:3]
problems = []


def read(path):
    with open(os.path.join(source, path), encoding="utf-8") as file:
        return file.read()


problems += check(source)

# Names of tests: `Suite.Case`, or `interop: function`, or `net: script`.
listed = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True, check=True)
names = {test["name"] for test in json.loads(listed.stdout)["tests"]}
plain = {re.sub(r"/[^/]*$", "", re.sub(r"^[^/.]*/", "", name)) for name in names} | names
interop = {name for file in ("interop.py", "gossip_flows.py", "iroh.py")
           for name in re.findall(r"^def (\w+)\(world", read("tests/interop/" + file), re.M)}
for document in ("docs/conformance.md", "docs/security.md", "README.md"):
    text = read(document)
    for name in re.findall(r"`([A-Z]\w+\.\w+)`", text):
        if name not in plain and not name.endswith((".md", ".json", ".txt", ".hpp")):
            problems.append(f"{document}: no test {name}")
    for name in re.findall(r"`interop: (\w+)`", text):
        if name not in interop:
            problems.append(f"{document}: no interop test {name}")
    for name in re.findall(r"`net: ([\w.]+)`", text):
        if not os.path.exists(os.path.join(source, "tests/net", name)):
            problems.append(f"{document}: no script tests/net/{name}")

for problem in problems:
    print(problem)
print("docs: all true" if not problems else f"docs: {len(problems)} false")
sys.exit(1 if problems else 0)
