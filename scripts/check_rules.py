#!/usr/bin/env python3
"""Checks the rules of docs/architecture.md that a compiler does not check.

usage: check_rules.py [--headers] [--graph]

* Direction: a library includes only what LIBRARIES lets it include. A public header belongs to a library too.
* The graph in docs/architecture.md is the one that is drawn from LIBRARIES. `--graph` prints it.
* Purity: src/core knows no clock, thread, socket or randomness; Asio and Beast are in src/net and src/server only.
* The library prints nothing: its messages go to the host by the log (include/kitsune2/log.hpp).
* No source file has more than 1,000 lines.
* Sources of which eight are compiled at a time (K2_UNITY) share no name at file level: those of a test program, except
  what `SEPARATE` names in tests/CMakeLists.txt, and those of a library and of the program, in unnamed namespaces.
* kitsune2.hpp includes every public header.
* With `--headers`: every public header compiles alone, and includes the check of abi.hpp.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Each library and the libraries that it may include besides itself, from the bottom up. Libraries reached through
# another one are listed too, so that each line is complete.
LIBRARIES = {
    "core": [],
    "log": ["core"],
    "wire": ["core"],
    "store": ["core", "log", "wire"],
    "transport": ["core", "log", "wire"],
    "net": ["core", "log", "transport"],
    "server": ["core", "log", "wire", "transport", "net"],
    "node": ["core", "log", "wire", "store", "transport", "net", "server"],
    "files": ["core", "log", "wire", "store", "transport", "node"],
    "testing": ["core", "wire", "store", "transport"],
}

# The library of each public header: the lowest one that may use it. It may include headers of the libraries below.
HEADERS = {
    "core": ["abi", "arc", "budget", "bytes", "config", "dialect", "error", "ids", "op_policy", "runtime", "time", "url", "version"],
    "log": ["log"],
    "wire": ["agent"],
    "store": ["op_store", "peer_store", "sqlite_store"],
    "transport": ["transport", "transport_iroh", "transport_memory", "transport_tx5"],
    "net": ["asio_runtime", "http"],
    "server": ["relay_server"],
    "node": ["bootstrap", "builder", "fetch", "gossip", "kitsune", "node", "publish", "report", "space"],
    "files": ["files"],
    "testing": ["testing/builders", "testing/fault_store", "testing/op_store_suite", "testing/sim_runtime",
                "testing/store_world", "testing/transport_suite", "testing/waiters"],
}
EVERYTHING = "kitsune2"  # includes all of them but testing's, and is included by applications only

# A port is an interface that a lower library declares and a higher one implements, or that a lower library must know in
# order to be called: (who includes, which header). Each needs a reason.
PORTS = {}

# Sources that may print: those that say why the process ends (a broken invariant, a misuse, no randomness), and the
# test kit.
PRINTERS = ("src/core/callback.cpp", "src/core/error.cpp", "src/net/asio_runtime.cpp", "src/testing/")
PRINTS = re.compile(r"spdlog|std::(cout|cerr|clog)|printf\((stdout|stderr)|\b(puts|printf)\(|, std(out|err)\)")
IMPURE = re.compile(r"boost/(asio|beast)|::now\(\)|random_device|std::(jthread|thread|mutex)"
                    r"|#include <(thread|mutex|sys/socket\.h|random)>|randombytes")
MAX_LINES = 1000

complaints = []


def complain(text):
    complaints.append(text)
    print(f"rules: {text}", file=sys.stderr)


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def sources(top):
    for folder, _, names in os.walk(os.path.join(ROOT, top)):
        for name in sorted(names):
            if name.endswith((".cpp", ".hpp")):
                yield os.path.relpath(os.path.join(folder, name), ROOT)


def may_include(library, other):
    return other == library or other in LIBRARIES[library]


def check_directions():
    library_of = {header: library for library, headers in HEADERS.items() for header in headers}
    for path in sources("include/kitsune2"):
        header = path.removeprefix("include/kitsune2/").removesuffix(".hpp")
        if header != EVERYTHING and header not in library_of:
            complain(f"{path}: belongs to no library; name it in HEADERS of scripts/check_rules.py")
    everything = set(re.findall(r'#include "kitsune2/(\w+)\.hpp"', read(f"include/kitsune2/{EVERYTHING}.hpp")))
    for header in sorted({header for header in library_of if "/" not in header} ^ everything):
        complain(f"include/kitsune2/{EVERYTHING}.hpp includes every public header, and only those: {header}.hpp")
    for top in ("include/kitsune2", "src"):
        for path in sources(top):
            if top == "src":
                library = path.split("/")[1]
            else:
                header = path.removeprefix("include/kitsune2/").removesuffix(".hpp")
                if header == EVERYTHING or header not in library_of:
                    continue
                library = library_of[header]
            if library not in LIBRARIES:
                complain(f"{path}: src/{library} is not a library of scripts/check_rules.py")
                continue
            for number, line in enumerate(read(path).splitlines(), 1):
                found = re.match(r'#include "([\w/]+)\.\w+"', line)
                if not found:
                    continue
                target = found.group(1)
                if target.startswith("kitsune2/"):
                    name = target.removeprefix("kitsune2/")
                    other = library_of.get(name)
                    if name == EVERYTHING:
                        complain(f"{path}:{number}: includes everything")
                        continue
                    if (library, name) in PORTS:
                        continue
                else:
                    other = target.split("/")[0]
                if other in LIBRARIES and not may_include(library, other):
                    complain(f"{path}:{number}: {library} must not include {other} ({target})")


def graph():
    """The arrows that are not implied by others, as a Mermaid flow chart."""
    def reach(library):
        return set(LIBRARIES[library]) | {far for near in LIBRARIES[library] for far in LIBRARIES[near]}

    lines = ["flowchart BT"]
    for library, allowed in LIBRARIES.items():
        direct = [other for other in allowed
                  if not any(other in reach(between) for between in allowed if between != other)]
        lines += [f"  {library} --> {other}" for other in direct] or [f"  {library}"]
    lines.append("  app[apps/kitsune2] --> files")
    return "\n".join(lines) + "\n"


def check_graph():
    if graph() not in read("docs/architecture.md"):
        complain("docs/architecture.md: the graph of the libraries is not the one of `scripts/check_rules.py --graph`")


def check_purity():
    for path in sources("src/core"):
        if path == "src/core/buffer.cpp":  # its allocator has a lock: any thread lets go of a message
            continue
        for number, line in enumerate(read(path).splitlines(), 1):
            if IMPURE.search(line):
                complain(f"{path}:{number}: src/core must stay pure: {line.strip()}")
    for top in ("src", "include"):
        for path in sources(top):
            if not path.startswith(("src/net/", "src/server/")) and re.search(r"boost/(asio|beast)", read(path)):
                complain(f"{path}: Asio and Beast only in src/net and src/server")
            if path.startswith(PRINTERS):
                continue
            for number, line in enumerate(read(path).splitlines(), 1):
                if PRINTS.search(line):
                    complain(f"{path}:{number}: the library prints nothing, it logs: {line.strip()}")


def check_sizes():
    listed = subprocess.run(["git", "ls-files", "*.cpp", "*.hpp", "*.py", "*.sh", "*.rs"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.split("\n")
    for path in filter(None, listed):
        if os.path.exists(os.path.join(ROOT, path)):
            lines = read(path).count("\n")
            if lines > MAX_LINES:
                complain(f"{path} has {lines} lines; split it (limit {MAX_LINES:,})")


# A line that begins a declaration at file level, and its name: a type, an alias, a function or a variable. clang-format
# leaves only these at the first column, inside of namespaces.
TYPE = re.compile(r"(?:struct|class|enum(?: class)?|union)\s+(\w+)(?!.*;$)|using\s+(\w+)\s*=")
OTHER = re.compile(r"(?!TEST|TYPED_TEST|INSTANTIATE|REGISTER|namespace|using|static_assert|template|return)"
                   r"[\w\[:][\w:<>,\s*&\[\]]*?[\s*&](\w+)\s*[(={\[;]")


# Sources of which a build has one or the other (CMakeLists.txt).
ALTERNATIVES = {"without_quic.cpp", "stream_state_libsodium.cpp"}


def check_test_names():
    for path in ("tests/CMakeLists.txt", "tests/unit/wire/CMakeLists.txt"):
        here = os.path.dirname(path)
        for call in re.findall(r"^k2_test\((.*?)\)$", read(path).replace("${CMAKE_CURRENT_SOURCE_DIR}", here),
                               re.MULTILINE | re.DOTALL):
            program, folder = call.split()[:2]
            separate = re.search(r"SEPARATE ((?:\S+\.cpp\s*)+)", call)
            separate = separate[1].split() if separate else []
            seen = {}
            for source in sources(folder):
                if source.endswith(".hpp") or os.path.relpath(source, folder) in separate:
                    continue
                for number, line in enumerate(read(source).splitlines(), 1):
                    found = TYPE.match(line) or OTHER.match(line)
                    if not found:
                        continue
                    name = next(filter(None, found.groups()))
                    first = seen.setdefault(name, source)
                    if first != source:
                        complain(f"{source}:{number}: {program} has a {name} in {os.path.basename(first)}, too: give it "
                                 f"another name, or have one header for both, or name one source as SEPARATE in {path}")


def check_product_names():
    for folder in [f"src/{library}" for library in LIBRARIES] + ["apps/kitsune2"]:
        seen = {}
        for source in sources(folder):
            if source.endswith(".hpp") or os.path.basename(source) in ALTERNATIVES:
                continue
            namespace, unnamed = "", False
            for number, line in enumerate(read(source).splitlines(), 1):
                if opened := re.match(r"namespace ([\w:]+) \{", line):
                    namespace = opened[1]
                elif line == "namespace {":
                    unnamed = True
                elif line == "}  // namespace":
                    unnamed = False
                found = unnamed and (TYPE.match(line) or OTHER.match(line))
                if not found:
                    continue
                name = next(filter(None, found.groups()))
                # Functions may have a name in common if not their parameters, and an alias may be repeated.
                called = line.partition(name)[2] if line.partition(name)[2].startswith("(") else ""
                alias = line if line.startswith("using ") else ""
                first, alias_before = seen.setdefault((namespace, name, called), (source, alias))
                if first != source and not (alias and alias == alias_before):
                    complain(f"{source}:{number}: {os.path.basename(first)} has a {name}, too: give it another name, or "
                             "have one header for both")


def check_headers():
    abi = "#ifndef KITSUNE2_ABI_CONTAINERS\n#error kitsune2/abi.hpp is not included\n#endif\n"
    for path in sources("include/kitsune2"):
        name = path.removeprefix("include/")
        done = subprocess.run(["g++", "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Iinclude", "-x", "c++",
                               "-"], cwd=ROOT, input=f'#include "{name}"\n{abi}', text=True)
        if done.returncode != 0:
            complain(f"{path} does not compile alone, or leaves the check of abi.hpp out")


if "--graph" in sys.argv:
    print(graph(), end="")
    sys.exit(0)
check_directions()
check_graph()
check_purity()
check_sizes()
check_test_names()
check_product_names()
if "--headers" in sys.argv:
    check_headers()
if not complaints:
    print("rules: all hold")
sys.exit(1 if complaints else 0)
