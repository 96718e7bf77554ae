#!/usr/bin/env python3
"""Checks of the documents and of the text in sources that need no build, for each commit.

usage: check_text.py [SOURCE_DIR]

* Relative links lead to files and headings that exist (links.py).
* The C++ block of README.md is examples/readme.cpp, and each block that docs/guide.md quotes is what its source says.
* Commands exist: targets of make, presets, options of the program, environment variables, and paths of the tree.
* Prose has at most 120 columns: documents (tables and blocks of code aside), comments, and docstrings of scripts.
* Every patch of tests/sim/mutations applies to the sources as they are.
"""

import ast
import glob
import json
import os
import re
import subprocess
import sys

from links import broken_links

MAX_COLUMNS = 120
# Folders whose files a document may name in a code span.
TREE = ("apps", "bench", "cmake", "docs", "examples", "include", "interop", "proto", "scripts", "src", "tests", ".ci")


def documents_of(source):
    listed = subprocess.run(["git", "-C", source, "ls-files", "-co", "--exclude-standard", "*.md"], capture_output=True,
                            text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.split() if os.path.exists(os.path.join(source, name))]
    return [os.path.relpath(path, source) for pattern in ("*.md", "docs/**/*.md")
            for path in glob.glob(os.path.join(source, pattern), recursive=True)]


def read(source, path):
    with open(os.path.join(source, path), encoding="utf-8") as file:
        return file.read()


def regions_of(text):
    """What stands between `// guide: NAME` and `// guide: end`, by name."""
    return dict(re.findall(r"^// guide: (?!end$)([^\n]*)\n(.*?)^// guide: end$", text, re.M | re.S))


def check_quotes(source):
    problems = []
    readme = re.search(r"```cpp\n(.*?)```", read(source, "README.md"), re.S)
    example = "".join(line + "\n" for line in read(source, "examples/readme.cpp").splitlines() if not line.startswith("//"))
    if not readme:
        problems.append("README.md: no C++ example")
    elif readme.group(1) != example:
        problems.append("README.md: the C++ block differs from examples/readme.cpp")

    guide = read(source, "docs/guide.md")
    quoted = re.findall(r"<!-- (\S+): (.*?) -->\n```cpp\n(.*?)```", guide, re.S)
    if guide.count("```cpp") != len(quoted):
        problems.append("docs/guide.md: a C++ block without `<!-- FILE: NAME -->` above it")
    for path, name, block in quoted:
        file = os.path.join("tests/docs/guide", path)
        found = regions_of(read(source, file)).get(name) if os.path.exists(os.path.join(source, file)) else None
        if found is None:
            problems.append(f"docs/guide.md: {file} has no region \"{name}\"")
        elif found != block:
            problems.append(f"docs/guide.md: \"{name}\" differs from {file} (tests/docs/guide/quote.py brings it here)")
    return problems


def options_of_program(source):
    words = set()
    for name in os.listdir(os.path.join(source, "apps/kitsune2")):
        if name.endswith((".cpp", ".hpp")):
            words |= set(re.findall(r"--[a-z][a-z0-9-]*", read(source, os.path.join("apps/kitsune2", name))))
    return words | {"--help", "--version"}


def check_commands(source):
    problems = []
    targets = set(re.findall(r"^([a-z0-9.-]+):", read(source, "Makefile"), re.M))
    presets = {preset["name"] for preset in json.loads(read(source, "CMakePresets.json"))["configurePresets"]}
    options = options_of_program(source)
    variables = set()
    for path in subprocess.run(["grep", "-rhoE", r"\b(K2|FUZZ)_[A-Z_]+\b", source, "--include=*.cpp", "--include=*.hpp",
                                "--include=*.py", "--include=*.sh", "--include=CMakeLists.txt", "--include=*.cmake",
                                "--include=Makefile", "--include=*.rs", "--exclude-dir=build", "--exclude-dir=.git"],
                               capture_output=True, text=True).stdout.split():
        variables.add(path)
    for document in documents_of(source):
        text = read(source, document)
        is_history = document == "CHANGELOG.md" or "/decisions/" in document
        fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
        blocks = [block for language, block in fences if language in ("", "sh", "bash")]
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
        commands = [line.split("#")[0] for block in blocks for line in block.splitlines()] + spans
        for command in commands:
            for target in re.findall(r"(?:^|[;&|$] ?)make ((?:[a-z0-9.-]+ ?)+)(?![a-z-]*=)", command):
                for name in target.split():
                    if name not in targets:
                        problems.append(f"{document}: `make {name}`: no such target")
            for preset in re.findall(r"--preset[ =]([a-z-]+)", command):
                if preset not in presets:
                    problems.append(f"{document}: no preset {preset}")
            if re.match(r"(build/release/apps/kitsune2/)?kitsune2 [a-z]+ .*--", command):
                for option in re.findall(r"(?<=[ (\[|])--[a-z][a-z0-9-]*", command):
                    if option not in options:
                        problems.append(f"{document}: `{command.strip()}`: the program has no {option}")
            for variable in re.findall(r"\b(?:K2|FUZZ)_[A-Z_]+\b", command):
                if variable not in variables:
                    problems.append(f"{document}: nothing in the tree knows {variable}")
        if is_history:
            continue  # they speak of the tree as it was
        for span in spans + [word for line in commands for word in line.split() if line not in spans]:
            if not re.fullmatch(r"[\w./*{},+-]+", span) or not span.startswith(tuple(top + "/" for top in TREE)):
                continue
            for path in expand_braces(span):
                if not glob.glob(os.path.join(source, path)) and not glob.glob(os.path.join(source, path + ".*")):
                    problems.append(f"{document}: {path}: no such file")
    return sorted(set(problems))


def expand_braces(path):
    found = re.match(r"(.*)\{(.*?)\}(.*)", path)
    return [found.group(1) + part + found.group(3) for part in found.group(2).split(",")] if found else [path]


def docstring_lines(text):
    """The numbers of the lines of all docstrings of a Python source."""
    lines = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def prose_of(path, text):
    """Yields (number, line) for the lines of a file that are prose."""
    docstrings = docstring_lines(text) if path.endswith(".py") else set()
    comment = r"\s*//|.*///<" if path.endswith((".cpp", ".hpp", ".rs", ".go", ".proto")) else r"\s*#"
    is_code = False  # inside a block of a document
    for number, line in enumerate(text.splitlines(), 1):
        if path.endswith(".md"):
            is_code ^= line.lstrip().startswith("```")
            if not is_code and not line.lstrip().startswith("|"):
                yield number, line
        elif number in docstrings or re.match(comment, line):
            yield number, line


def check_columns(source):
    listed = subprocess.run(["git", "-C", source, "ls-files", "*.md", "*.cpp", "*.hpp", "*.proto", "*.rs", "*.go", "*.py", "*.sh",
                             "*.cmake", "*CMakeLists.txt", "Makefile", ".ci/*"], capture_output=True, text=True)
    return [f"{path}:{number}: prose of more than {MAX_COLUMNS} columns" for path in listed.stdout.split()
            if os.path.exists(os.path.join(source, path))
            for number, line in prose_of(path, read(source, path)) if len(line) > MAX_COLUMNS]


def check_mutations(source):
    problems = []
    for path in sorted(glob.glob(os.path.join(source, "tests/sim/mutations/*.patch"))):
        done = subprocess.run(["patch", "-p1", "--dry-run", "-F0", "-s", "-i", path], cwd=source, capture_output=True)
        if done.returncode != 0:
            problems.append(f"{os.path.relpath(path, source)}: does not apply")
    return problems


def check(source):
    return (check_quotes(source) + broken_links(source, skip=("build", "target", ".git", ".cache"))
            + check_commands(source) + check_columns(source) + check_mutations(source))


if __name__ == "__main__":
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found_problems = check(sys.argv[1] if len(sys.argv) > 1 else here)
    print("\n".join(found_problems) or "texts: links, quotes and commands are true, prose fits, mutations apply")
    sys.exit(1 if found_problems else 0)
