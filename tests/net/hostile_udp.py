#!/usr/bin/env python3
"""Floods of the UDP port that a node of dialect 0.5 has for direct paths, by somebody who knows its address and nothing
else, or who was told names by it: the attacks of hostile.py on it, while an honest peer has a direct path, and while it
has only the relay."""
import os
import runpy

os.environ["K2_HOSTILE_NETWORK"] = "0.5"
if os.environ.get("K2_NET_SIZE", "small") == "small":
    # All kinds at once that need no connection, and names of one that lives.
    os.environ.setdefault("K2_HOSTILE_PARTS", "direct")
    os.environ.setdefault("K2_HOSTILE_ONLY", "all of these|that lives")
os.environ.setdefault("K2_HOSTILE_PARTS", "direct beside")
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "hostile.py"), run_name="__main__")
