"""The rows of scripts/bench's table, on the console and in docs/benchmarks.md."""

import dataclasses
import datetime
import os
import pathlib
import re

from harness import ROOT, fail

DOC = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclasses.dataclass
class Row:
    what: str
    target: str
    ours: str
    peer: str
    ratio: str
    met: bool | None

    def cells(self):
        met = {True: "yes", False: "no", None: ""}[self.met]
        return [self.what, self.target, self.ours, self.peer, self.ratio, met]


def fraction(value):
    """0.25 -> '1/4.0'"""
    return f"1/{1 / value:.1f}"


def at_most(what, target, ours, peer, unit, note=""):
    def text(value):
        return f"{value:.1f} {unit}" if value < 1000 else f"{value:,.0f} {unit}"
    return Row(what + note, f"at most 1/{target}", text(ours), text(peer), fraction(ours / peer),
               ours / peer <= 1 / target)


def at_least(what, target, ours, peer):
    return Row(what, f"at least {target}x", f"{ours:,.0f}", f"{peer:,.0f}", f"{ours / peer:.2f}x",
               ours / peer >= target)


HEADINGS = ["work", "target against Triton", "ours", "Triton 2.51", "ratio", "met"]


def plain_table(rows):
    table = [HEADINGS, *(r.cells() for r in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
             for line in table]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def machine():
    model = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return f"{os.cpu_count()} cores, {model[1].strip() if model else os.uname().machine}"


def write_doc(rows, notes, command):
    table = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    table += ["| " + " | ".join(r.cells()) + " |" for r in rows]
    block = "\n".join([BEGIN, f"`{command}`, {machine()}, {datetime.date.today().isoformat()}.", "",
                       *table, "", *(f"- {n}" for n in notes), END])
    if DOC.exists():
        text = DOC.read_text()
        if BEGIN not in text or END not in text:
            fail(f"{DOC.relative_to(ROOT)} has no markers {BEGIN} and {END}")
    else:
        DOC.parent.mkdir(exist_ok=True)
        text = ("# Benchmarks\n\nMeasured against NVIDIA Triton 2.51 with the same backend files, so "
                "both servers run the same engine\ncode. How: the head of `scripts/bench`. Only the "
                f"ratios mean anything on another machine.\n\n{BEGIN}\n{END}\n")
    before, _, rest = text.partition(BEGIN)
    DOC.write_text(before + block + rest.partition(END)[2])
