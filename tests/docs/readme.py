#!/usr/bin/env python3
"""Follows README.md word for word: each of its blocks is run. usage: readme.py SOURCE_DIR BUILD_DIR

* ```sh with `make TARGET`: each must be a target that CI runs.
* any other ```sh: pasted into a shell that stops at the first failure, in an empty home, in a folder that has the build
  as build/release. It must succeed and leave no process behind.
* a block that begins with `$ make run` is what the demo prints, but for its figures.
* ```cpp is examples/readme.cpp, which is run as readme_example.py says.

A block of any other kind fails: nobody would run it.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE = 120  # a bound for what hangs; nothing here is judged by its speed


class Wrong(Exception):
    pass


def blocks_of(text):
    """(language, lines, number of the first line) of each fenced block."""
    found = []
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M):
        found.append((match[1], match[2].splitlines(), text[:match.start()].count("\n") + 2))
    return found


def make_targets(lines, makefile, ci):
    """`make TARGET` takes too long to be run here again: it must be a target, and CI must run it."""
    for line in lines:
        if not line.startswith("make "):
            raise Wrong(f"make and other commands in one block: {line}")
        target = line.split()[1]
        if not re.search(rf"^{target}:", makefile, re.M):
            raise Wrong(f"no such target: {line}")
        if not re.search(rf"^step \w+ make {target}( [A-Z_]+=\S+)*$", ci, re.M):
            raise Wrong(f"CI does not run it: {line}")


def processes_of(group):
    return subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True).stdout.split()


def paste(lines, build):
    """Runs the block as it is, like a user who has just run `make run`: in that folder, with an empty home."""
    with tempfile.TemporaryDirectory(prefix="k2-readme-") as folder:
        home, tree = os.path.join(folder, "home"), os.path.join(folder, "tree")
        os.mkdir(home)
        os.makedirs(os.path.join(tree, "build"))
        os.symlink(build, os.path.join(tree, "build", "release"))
        env = {"HOME": home, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": folder}
        with tempfile.TemporaryFile(mode="w+") as output:
            shell = subprocess.Popen(["bash", "-ec", "\n".join(lines)], env=env, cwd=tree, stdin=subprocess.DEVNULL,
                                     stdout=output, stderr=output, start_new_session=True)
            try:
                shell.wait(PATIENCE)
                said = "" if shell.returncode == 0 else f"exit code {shell.returncode}"
                end = time.monotonic() + PATIENCE
                while not said and (left := processes_of(shell.pid)):
                    if time.monotonic() > end:
                        said = f"leaves processes behind: {left}"
                    time.sleep(0.1)
            except subprocess.TimeoutExpired:
                said = f"does not end within {PATIENCE} s"
            finally:
                try:
                    os.killpg(shell.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if said:
                output.seek(0)
                raise Wrong(f"{said}\n{output.read()}")


def shape(lines):
    """The kinds of lines in the demo's output, in order: the text before a colon, without figures."""
    kinds = [re.sub(r"\[[#.]*\].*", "progress", line.strip()) for line in lines]
    kinds = [re.sub(r"\d+(\.\d+)?", "N", kind) if kind.startswith("identical") else kind.split(":")[0] for kind in kinds]
    return [kind for i, kind in enumerate(kinds) if kind and kind != kinds[i - 1]]


def compare_demo(lines, program):
    done = subprocess.run([program, "demo", "--files", "400", "--mib", "8"], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        raise Wrong(f"the demo fails: {done.stdout}{done.stderr}")
    told, real = shape(lines[1:]), shape((done.stderr + done.stdout).splitlines())
    real = [kind for kind in real if kind != "progress"]
    told = [kind for kind in told if kind != "progress"]  # a fast machine shows none
    if sorted(told) != sorted(real):
        raise Wrong(f"the demo prints {real}, README says {told}")


def run_example(lines, source, examples):
    with open(os.path.join(source, "examples/readme.cpp"), encoding="utf-8") as file:
        example = [line for line in file.read().splitlines() if line.strip()][1:]  # all but its heading
    if example != lines:
        raise Wrong("not the text of examples/readme.cpp, so it is not compiled")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "readme_example.py")
    done = subprocess.run([sys.executable, script, os.path.join(examples, "readme")], capture_output=True, text=True)
    if done.returncode != 0:
        raise Wrong(f"examples/readme.cpp: {done.stdout}{done.stderr}")


def follow(source, build):
    def read(path):
        with open(os.path.join(source, path), encoding="utf-8") as file:
            return file.read()

    failed = ran = 0
    for language, lines, number in blocks_of(read("README.md")):
        lines = [line for line in lines if line.strip()]
        try:
            if language == "sh" and lines[0].startswith("make "):
                make_targets(lines, read("Makefile"), read(".ci/run"))
            elif language == "sh":
                paste(lines, build)
            elif language == "cpp":
                run_example(lines, source, os.path.join(build, "examples"))
            elif language == "" and lines[0] == "$ make run":
                compare_demo(lines, os.path.join(build, "apps/kitsune2/kitsune2"))
            else:
                raise Wrong("nothing here knows how to run it")
            ran += 1
            print(f"ok   README.md:{number}: {lines[0]}")
        except Wrong as wrong:
            failed += 1
            print(f"FAIL README.md:{number}: {wrong}")
    print(f"{ran} passed, {failed} failed")
    return 0 if ran and not failed else 1


sys.exit(follow(*(os.path.abspath(argument) for argument in sys.argv[1:3])))
