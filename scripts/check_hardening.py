#!/usr/bin/env python3
"""Reads ELF files and checks that they were built with the hardening flags of cmake/hardening.cmake.

usage: check_hardening.py [--cet] [--source DIR] FILE...

* position-independent, stack not executable, RELRO with all symbols bound at the start (-z relro -z now);
* stack protector and fortified functions are used (-fstack-protector-strong, -D_FORTIFY_SOURCE=2);
* with --cet: functions begin with marks for indirect branches (-fcf-protection). Whether the whole file is marked for
  the loader depends on the C library's start files, which Debian 12 does not mark;
* with --source: no path of that folder is in the file (-ffile-prefix-map), so that it does not tell where it was built
  and is the same built elsewhere.

Needs readelf (binutils).
"""
import argparse
import re
import subprocess
import sys


def readelf(*args):
    return subprocess.run(["readelf", "--wide", *args], capture_output=True, text=True, errors="replace", check=True).stdout


def faults(path, cet, source):
    header, segments, dynamic = readelf("--file-header", path), readelf("--program-headers", path), readelf("--dynamic", path)
    symbols = readelf("--dyn-syms", path)
    if not re.search(r"Type:\s+DYN", header):
        yield "is not position-independent"
    if "GNU_RELRO" not in segments:
        yield "has no RELRO"
    if not re.search(r"\((FLAGS|FLAGS_1)\).*\b(BIND_NOW|NOW)\b|\(BIND_NOW\)", dynamic):
        yield "binds symbols late (no BIND_NOW)"
    stack = re.search(r"GNU_STACK\s.*", segments)
    if not stack or "E" in re.findall(r"\b[RWE ]{2,3}\b", stack[0])[-1:]:
        yield "has an executable stack"
    if "__stack_chk_fail" not in symbols:
        yield "has no stack protector"
    if not re.search(r"\b__\w+_chk\b", symbols.replace("__stack_chk_fail", "")):
        yield "has no fortified function"
    with open(path, "rb") as file:
        data = file.read()
    if cet and data.count(b"\xf3\x0f\x1e\xfa") < 100:  # endbr64
        yield "has no marks for indirect branches"
    if source:
        # Not in the middle of a relative path, which ccache produces.
        found = re.search(rb"(?<![\w./-])" + re.escape(source.rstrip("/").encode()) + rb"/[\w./-]*", data)
        if found:
            yield f"has a path of the build in it, at byte {found.start()}: {found[0].decode(errors='replace')}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cet", action="store_true")
    parser.add_argument("--source")
    parser.add_argument("files", nargs="+")
    args = parser.parse_args()
    found = 0
    for path in args.files:
        for fault in faults(path, args.cet, args.source):
            print(f"{path}: {fault}")
            found += 1
    if found == 0:
        print(f"hardening: {len(args.files)} files are as they should be")
    sys.exit(found > 0)


main()
