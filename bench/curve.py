#!/usr/bin/env python3
"""Draws docs/pictures/batching-curve.svg: latency over throughput of a model with and without batching.

    third_party/fetched/venv/bin/python bench/curve.py [--build DIR]

Requests come at a fixed rate (bench/open_loop.c), from low to more than the server can do. A point is one
run of two seconds.
"""
import argparse
import math
import pathlib
import tempfile

from harness import ROOT, Bench, Server, say
from scheduling import mlp

PICTURE = ROOT / "docs" / "pictures" / "batching-curve.svg"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 860, 420, 70, 30, 30, 60
LATENCY_MS = (0.1, 1000)
CURVES = (("without batching", "#c53030", ""), ("dynamic_batching { }", "#2b6cb0", "dynamic_batching { }"))


def measure(bench, batching, rates):
    """[(rate, p50 ms, p99 ms)] up to the first rate that the server cannot keep."""
    points = []
    work = mlp("mlp-curve-" + ("batched" if batching else "single"), batching)
    for rate in rates:
        with Server(bench, "ours", work, 2) as server:
            server.open_loop(min(rate, 2000), 0.5)
            p50, p99, _ = (us / 1000 for us in server.open_loop(rate, bench.seconds))
        say(f"  {work.name} {rate}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        points.append((rate, p50, p99))
        if p50 > 100:
            break
    return points


def draw(curves, rate_max):
    low, high = map(math.log10, LATENCY_MS)

    def x(rate):
        return LEFT + rate / rate_max * (WIDTH - LEFT - RIGHT)

    def y(ms):
        at = (math.log10(min(max(ms, LATENCY_MS[0]), LATENCY_MS[1])) - low) / (high - low)
        return HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
           'font-family="sans-serif" font-size="13">',
           "<title>Latency over throughput with and without batching</title>",
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for power in range(int(low), int(high) + 1):
        at = y(10 ** power)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#555">'
                   f'{10 ** power:g}</text>')
    step = 5000
    for rate in range(0, int(rate_max) + 1, step):
        out.append(f'<line x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
                   f'stroke="#eee"/><text x="{x(rate):.1f}" y="{HEIGHT - BOTTOM + 20}" '
                   f'text-anchor="middle" fill="#555">{rate:,}</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 12}" text-anchor="middle" fill="#222">'
               "requests per second</text>")
    out.append(f'<text x="18" y="{HEIGHT / 2}" transform="rotate(-90 18 {HEIGHT / 2})" '
               'text-anchor="middle" fill="#222">latency, ms (log)</text>')
    for row, (name, color, points) in enumerate(curves):
        for quantile, dash in ((1, ""), (2, ' stroke-dasharray="6 4"')):
            path = " ".join(f"{x(p[0]):.1f},{y(p[quantile]):.1f}" for p in points)
            out.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        out.append(f'<text x="{LEFT + 16}" y="{TOP + 18 + 18 * row}" fill="{color}">{name}: p50 line, '
                   "p99 dashed</text>")
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    options = parser.parse_args()
    options.quick, options.seconds = True, 2
    rates = [500, 2000, *range(4000, 40001, 3000)]
    with tempfile.TemporaryDirectory(prefix="tis-curve-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        curves = [(name, color, measure(bench, batching, rates)) for name, color, batching in CURVES]
    rate_max = max(p[0] for _, _, points in curves for p in points)
    PICTURE.write_text(draw(curves, rate_max))
    say(f"written: {PICTURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
