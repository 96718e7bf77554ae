#!/usr/bin/env python3
"""Shows that the simulator finds bugs: applies each patch of tests/sim/mutations to a copy of the tree, builds the
simulator there and runs it until it fails. A patch that does not apply or build, and a mutant that survives, fail.
A patch whose second line is "seen by: TARGET FILTER" breaks a rule that a twin watches and the simulator does not
reach: it is caught when that test program fails with that gtest filter.

usage: mutate.py [--seeds N] [NAME...]     results: stdout, as a table for docs/simulation.md
"""
import argparse
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MUTATIONS = ROOT / "tests/sim/mutations"
WORK = ROOT / "build/mutants"
TREE = WORK / "tree"
BUILD = TREE / "build/release"  # as deep as the usual one, so that ccache knows the objects


def run(args, **more):
    return subprocess.run([str(a) for a in args], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)


def refresh_tree():
    """Copies the files of this checkout, except those that are unchanged, so that little is rebuilt."""
    files = run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT).stdout.split("\n")
    wanted = {name for name in files if name and (ROOT / name).is_file() and not name.startswith("interop/")}
    for path in TREE.rglob("*") if TREE.exists() else []:
        name = str(path.relative_to(TREE))
        if path.is_file() and not name.startswith("build/") and name not in wanted:
            path.unlink()
    for name in wanted:
        source, target = ROOT / name, TREE / name
        if target.exists() and target.read_bytes() == source.read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def build(target="sim"):
    if not (BUILD / "build.ninja").exists():
        done = run(["cmake", "--preset", "mutants", "-B", BUILD], cwd=TREE)
        if done.returncode != 0:
            return done
    return run(["cmake", "--build", BUILD, "-j", os.cpu_count(), "--target", target])


def first_failure(program, first, seeds, limit):
    """The first seed that fails, or None; and how it was seen."""
    environment = dict(os.environ, K2_SIM_SEEDS=str(seeds), K2_SIM_FIRST=str(first))
    for name in ("K2_SIM_SEED", "K2_SIM_KIND"):
        environment.pop(name, None)
    # Of processor time, so that no mutant survives because the machine is loaded.
    done = run([program, "--gtest_filter=Sim.SeedsEndWell"], env=environment,
               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1)))
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return None, f"no end within {limit} s of CPU"
    seed = re.search(r"K2_SIM_SEED=(\d+)", done.stdout)
    if done.returncode == 0 or not seed:
        return None, done.stdout[-2000:]
    kind = re.search(r"K2_SIM_SEED=\d+ \((\w+)\)", done.stdout)
    assertion = re.search(r"broken invariant[^\n]*|assert[^\n]*failed[^\n]*|does not end[^\n]*", done.stdout)
    if kind:
        what = re.search(r"Failure\n(?:.*\n)*?(?=Google Test trace)", done.stdout)
        lines = what.group(0).strip().split("\n") if what else [""]
        return int(seed.group(1)), lines[-1].strip()
    return int(seed.group(1)), assertion.group(0).strip() if assertion else "abort"


def seen_by(patch):
    """(target, filter) of a patch that a test program catches, or None."""
    lines = patch.read_text().split("\n")
    found = re.fullmatch(r"seen by: (\S+) (\S+)", lines[1].strip()) if len(lines) > 1 else None
    return found.groups() if found else None


def failed_test(target, pattern, limit):
    """The first test that fails, or None; and how it was seen."""
    try:
        done = run([BUILD / "tests" / target, f"--gtest_filter={pattern}"], timeout=2 * limit,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1)))
    except subprocess.TimeoutExpired:
        return None, f"waits for ever: no end within {2 * limit} s"
    if done.returncode == 0:
        return None, "all tests pass"
    failed = re.search(r"\[  FAILED  \] (\S+)", done.stdout)
    assertion = re.search(r"broken invariant[^\n]*", done.stdout)
    return target, failed.group(1) if failed else assertion.group(0) if assertion else "abort"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10000, help="the most seeds a mutant is given (10000)")
    parser.add_argument("--limit", type=int, default=900, help="the most seconds of CPU a mutant is given (900)")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    patches = sorted(MUTATIONS.glob("*.patch"))
    if options.names:
        patches = [p for p in patches if p.stem in options.names]
        if len(patches) != len(set(options.names)):
            sys.exit("mutate: no such mutation")
    refresh_tree()
    done = build()
    if done.returncode != 0:
        sys.exit("mutate: the tree does not build\n" + done.stdout[-3000:])
    clean = WORK / "sim"
    shutil.copy(BUILD / "tests/sim", clean)
    print("| mutation | what is broken | seeds until caught | seen as |\n|---|---|---|---|", flush=True)
    bad = 0
    for patch in patches:
        about = patch.read_text().split("\n", 1)[0].strip()
        applied = run(["patch", "-p1", "--no-backup-if-mismatch", "-F", "0", "-i", patch], cwd=TREE)
        if applied.returncode != 0:
            print(f"| {patch.stem} | {about} | **does not apply** | |", flush=True)
            sys.stderr.write(applied.stdout)
            bad += 1
            refresh_tree()
            continue
        watcher = seen_by(patch)
        done = build(watcher[0] if watcher else "sim")
        if done.returncode != 0:
            print(f"| {patch.stem} | {about} | **does not build** | |", flush=True)
            sys.stderr.write(done.stdout[-2000:])
            bad += 1
        else:
            if watcher:
                seed, how = failed_test(*watcher, options.limit)
            else:
                seed, how = first_failure(BUILD / "tests/sim", 1, options.seeds, options.limit)
            if not watcher and seed is not None and first_failure(clean, seed, 1, options.limit)[0] is not None:
                sys.exit(f"mutate: seed {seed} fails without any mutation")
            how = how.replace("|", "/").split("\n")[-1][:110]
            print(f"| {patch.stem} | {about} | {'**survives**' if seed is None else seed} | {how} |", flush=True)
            bad += seed is None
        refresh_tree()
    print(f"\n{len(patches) - bad} of {len(patches)} caught", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
