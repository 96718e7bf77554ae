#!/usr/bin/env python3
"""The attacks of hostile.py on a node of dialect 0.5, over QUIC, and those that only QUIC knows."""
import os
import runpy

os.environ["K2_HOSTILE_NETWORK"] = "0.5"
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "hostile.py"), run_name="__main__")
