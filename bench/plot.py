#!/usr/bin/env python3
"""Draws bars from the JSON lines of transfers.py: the medians of speed and CPU time of every side, by work.

usage: plot.py results.jsonl… > docs/benchmarks.svg
"""

import json
import statistics
import sys

WORKS = [("w1", "10,000 x 1 KiB", "items_per_s", "items/s"), ("w2", "100,000 x 80 B", "items_per_s", "items/s"), ("w3", "100 x 1 MiB", "mib_per_s", "MiB/s")]
COLOURS = {"ours": "#1f6f8b", "iroh-blobs": "#a0a7ad", "bitswap": "#b9bfc4", "libtorrent": "#d0d4d8"}
LABELS = {"ours": "kitsune2 C++", "libtorrent": "libtorrent (not encrypted)"}
BAR, GAP, LEFT, WIDTH, PANEL = 16, 4, 190, 300, 520


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    lines = [json.loads(line) for path in sys.argv[1:] for line in open(path, encoding="utf-8")]
    lines = [line for line in lines if line.get("part") == "B" and "failed" not in line]
    sides = [side for side in COLOURS if any(line["side"] == side for line in lines)]

    def median(work, side, key):
        values = [line[key] for line in lines if line["work"] == work and line["side"] == side]
        return statistics.median(values) if values else 0.0

    height = 40 + len(WORKS) * (len(sides) * (BAR + GAP) + 42)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + 2 * PANEL}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="100%" height="100%" fill="white"/>',
           f'<text x="{LEFT}" y="18" font-weight="bold">speed, more is better</text>',
           f'<text x="{LEFT + PANEL}" y="18" font-weight="bold">CPU seconds of both processes, less is better</text>']
    y = 40
    for work, title, key, unit in WORKS:
        out.append(f'<text x="8" y="{y + 4}" font-weight="bold">{title}</text>')
        y += 12
        for x, value_key, suffix, digits in ((LEFT, key, unit, 0), (LEFT + PANEL, "cpu_s", "s", 2)):
            most = max((median(work, side, value_key) for side in sides), default=0) or 1
            for i, side in enumerate(sides):
                value, top = median(work, side, value_key), y + i * (BAR + GAP)
                out.append(f'<rect x="{x}" y="{top}" width="{max(1.0, value / most * WIDTH):.1f}" height="{BAR}" fill="{COLOURS[side]}"/>')
                out.append(f'<text x="{x + value / most * WIDTH + 6:.1f}" y="{top + 12}">{value:,.{digits}f} {suffix}</text>')
                if x == LEFT:
                    out.append(f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{LABELS.get(side, side)}</text>')
        y += len(sides) * (BAR + GAP) + 30
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    main()
