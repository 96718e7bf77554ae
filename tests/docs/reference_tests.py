#!/usr/bin/env python3
"""Whether docs/conformance.md names every test of the reference's kitsune2_dht and kitsune2_gossip, and no other.

usage: reference_tests.py SOURCE_DIR [REGISTRY_DIR]     REGISTRY_DIR: where cargo keeps the sources of crates

In the sections of these crates the first column has, behind the words "of 0.5.3: " if 0.2.2 does not have it yet, the
module and its tests: "dht/tests: from_store_empty, take_minimal_snapshot; time: new".
"""

import glob
import os
import re
import sys

VERSIONS = ("0.2.2", "0.5.3")
CRATES = ("kitsune2_dht", "kitsune2_gossip")


def tests_of(folder):
    """The tests of a crate, as (module, name)."""
    found = set()
    for path in glob.glob(os.path.join(folder, "**/*.rs"), recursive=True):
        module = os.path.relpath(path, folder)[:-3].removeprefix("src/")
        with open(path, encoding="utf-8") as file:
            names = re.findall(r"#\[(?:tokio::)?test(?:\(.*?\))?\]\s*(?:#\[.*?\]\s*)*(?:async )?fn (\w+)", file.read(), re.S)
        found |= {(module, name) for name in names}
    return found


def named_in(text, crate):
    """What the document names of a crate, as two sets: of 0.2.2, and what only 0.5.3 has."""
    section = re.search(rf"^## [^\n]*\({crate}\)\n(.*?)(?=^## |^Beyond the reference)", text, re.M | re.S)[1]
    old, new = set(), set()
    for cell in re.findall(r"^\| (.*?) \|", section, re.M):
        is_new = cell.startswith("of 0.5.3: ")
        for part in cell.removeprefix("of 0.5.3: ").split("; "):
            module, colon, names = part.partition(": ")
            if colon:
                (new if is_new else old).update((module, name) for name in names.split(", "))
    return old, new


def problems_of(source, registry):
    with open(os.path.join(source, "docs/conformance.md"), encoding="utf-8") as file:
        text = file.read()
    for crate in CRATES:
        theirs = []
        for version in VERSIONS:
            folders = glob.glob(os.path.join(registry, f"*/{crate}-{version}"))
            if not folders:
                yield f"no sources of {crate} {version} in {registry}"
                return
            theirs.append(tests_of(folders[0]))
        old, new = named_in(text, crate)
        # A new name may stand for a test that 0.2.2 has, too, but not the other way round.
        for module, name in sorted((theirs[0] - old) | (theirs[1] - old - new)):
            yield f"docs/conformance.md: {crate} has a test {module}: {name}"
        for module, name in sorted((old - theirs[0]) | (new - theirs[1])):
            yield f"docs/conformance.md: {crate} has no test {module}: {name}"


def main():
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    registry = sys.argv[2] if len(sys.argv) > 2 else os.path.join(home, "registry/src")
    found = list(problems_of(sys.argv[1], registry))
    print("\n".join(found) or "docs/conformance.md names the reference's tests of DHT and gossip")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
