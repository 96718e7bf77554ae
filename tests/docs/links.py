#!/usr/bin/env python3
"""Relative links in Markdown files lead to files, and to headings in them, that exist. usage: links.py FOLDER"""

import os
import re
import sys


def prose_of(path):
    with open(path, encoding="utf-8") as file:
        return re.sub(r"```.*?```", "", file.read(), flags=re.S)


def anchors_of(path):
    headings = re.findall(r"^#+ (.*)$", prose_of(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(root, skip=()):
    """Returns each link of a document below `root` that leads nowhere. `skip`: prefixes of the names of folders to
    leave out."""
    broken, seen = [], 0
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(tuple(skip))]
        for name in sorted(names):
            if not name.endswith(".md"):
                continue
            path = os.path.join(folder, name)
            for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", prose_of(path)):
                seen += 1
                there = os.path.join(folder, target) if target else path
                if not os.path.exists(there):
                    broken.append(f"{os.path.relpath(path, root)}: link to {target}, which does not exist")
                elif anchor and there.endswith(".md") and anchor not in anchors_of(there):
                    broken.append(f"{os.path.relpath(path, root)}: link to {target}#{anchor}: no such heading")
    return broken if seen else [f"{root}: no link at all"]


if __name__ == "__main__":
    found = broken_links(sys.argv[1])
    print("\n".join(found) or "all links lead somewhere")
    sys.exit(1 if found else 0)
