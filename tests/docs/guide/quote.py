#!/usr/bin/env python3
"""Brings the regions of the sources in this folder into docs/guide.md, below `<!-- FILE: NAME -->`. No arguments."""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from check_text import read, regions_of  # noqa: E402

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def quoted(found):
    path, name = found.group(1), found.group(2)
    region = regions_of(read(SOURCE, os.path.join("tests/docs/guide", path)))[name]
    return f"<!-- {path}: {name} -->\n```cpp\n{region}```"


text = re.sub(r"<!-- (\S+): (.*?) -->\n```cpp\n.*?```", quoted, read(SOURCE, "docs/guide.md"), flags=re.S)
with open(os.path.join(SOURCE, "docs/guide.md"), "w", encoding="utf-8") as file:
    file.write(text)
