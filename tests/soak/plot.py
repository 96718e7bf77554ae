"""Line charts as SVG, one below the other over the same time."""

COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888"]
WIDTH, HEIGHT, LEFT, TOP, GAP = 860, 130, 70, 30, 38
MIB = 1 << 20


def ticks(top):
    """Three or four round steps up to at least `top`."""
    step = 1.0
    while step * 4 < top:
        step *= 10
    while step * 4 >= top * 2 and step > 1e-9:
        step /= 2
    out = [0.0]
    while out[-1] < top:
        out.append(out[-1] + step)
    return out


def series(rows, value):
    """{who: [[(t, v)…] for each life]}: a gap where it was down."""
    out = {}
    for row in rows:
        v = value(row)
        if v is not None:
            out.setdefault(row["who"], {}).setdefault(row["life"], []).append((row["t"], v))
    return {who: list(lives.values()) for who, lives in sorted(out.items())}


def thin(points, most=400):
    """Fewer points with the same shape: the largest of each few."""
    step = max(1, len(points) // most)
    return [max(points[i:i + step], key=lambda p: p[1]) for i in range(0, len(points), step)]


def panel(y, title, lines, t_end, colour_of):
    top = max((v for lives in lines.values() for life in lives for _, v in life), default=1.0) or 1.0
    marks = ticks(top)
    out = [f'<text x="{LEFT}" y="{y - 8}" font-weight="bold">{title}</text>']
    for mark in marks:
        at = y + HEIGHT - mark / marks[-1] * HEIGHT
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for who, lives in lines.items():
        for life in lives:
            points = " ".join(f"{LEFT + t / t_end * WIDTH:.1f},{y + HEIGHT - v / marks[-1] * HEIGHT:.1f}" for t, v in thin(life))
            out.append(f'<polyline fill="none" stroke="{colour_of[who]}" stroke-width="1.2" points="{points}"/>')
    return out


def draw(rows):
    names = sorted({row["who"] for row in rows})
    colour_of = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    t_end = max(row["t"] for row in rows)
    charts = [
        ("RSS, MiB", lambda r: r["rss_kib"] / 1024),
        ("heap in use without SQLite's caches, MiB", lambda r: (r["heap"] - r["sqlite"]) / MIB if r["heap"] is not None else None),
        ("open fds", lambda r: r["fds"]),
        ("database, MiB", lambda r: r["db"] / MIB if r["db"] is not None else None),
        ("database bytes an op", lambda r: r["db"] / r["ops"] if r["ops"] and r["ops"] >= 500 else None),
        ("ops lacking of those that were published", lambda r: max(0.0, r["acked"] - r["ops"]) if r["ops"] is not None else None),
    ]
    total = TOP + len(charts) * (HEIGHT + GAP) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {total}" font-family="sans-serif" font-size="12">',
           f'<rect width="{LEFT + WIDTH + 20}" height="{total}" fill="white"/>']
    for i, (title, value) in enumerate(charts):
        out += panel(TOP + 20 + i * (HEIGHT + GAP), title, series(rows, value), t_end, colour_of)
    unit, per = ("h", 3600.0) if t_end > 5400 else ("min", 60.0)
    for mark in ticks(t_end / per):
        if mark * per <= t_end:
            out.append(f'<text x="{LEFT + mark * per / t_end * WIDTH:.1f}" y="{total - 22}" text-anchor="middle">{mark:g} {unit}</text>')
    for i, name in enumerate(names):
        out.append(f'<text x="{LEFT + i * 70}" y="16" fill="{colour_of[name]}" font-weight="bold">{name}</text>')
    return "\n".join(out) + "\n</svg>\n"
