#!/usr/bin/env python3
"""Writes what benchmarks have found into docs/performance.md, or holds a new run to what is there.

A benchmark writes its figures with `--json FILE`. `write FILE` keeps them as docs/performance/<bench>.json,
puts their tables between the lines `<!-- <bench> -->` and `<!-- /<bench> -->` of the page, and draws its
plots. `guard FILE` compares the ratios of a run with those that are kept, and fails where one is smaller
by more than the tolerance: ratios of what was measured side by side, and never times or rates, which are
the machine's.
"""

import argparse
import json
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

import flames
import plot

DOCS = Path(__file__).resolve().parent.parent / "docs"


def section(run: dict) -> str:
    """What the page says of a run."""
    day = datetime.fromtimestamp(run["taken"], timezone.utc).strftime("%Y-%m-%d")
    head = f"Measured on {day} with {run['machine']}, by `{run['command']}`."
    notes = " ".join(run["notes"])
    images = [f"![{drawn['title']}](performance/{drawn['name']}.svg)" for drawn in run["plots"] + run.get("flames", [])]
    tables = [table(one) for one in run["tables"]]
    parts = [head, notes, *images, *tables, f"Failed requests: {run['failures']}."]
    return "\n\n".join(part for part in parts if part)


def table(one: dict) -> str:
    """A table of Markdown: the first column to the left, the others to the right."""
    line = lambda cells: f"| {' | '.join(cells)} |"
    rule = line([":--"] + ["--:"] * (len(one["columns"]) - 1))
    return "\n".join([f"**{one['title']}**", "", line(one["columns"]), rule, *map(line, one["rows"])])


def replaced(page: str, name: str, text: str) -> str:
    """The page with another text between the lines that name a section."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    found = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not found.search(page):
        sys.exit(f"the page has no lines {begin} and {end}")
    return found.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def write(docs: Path, run: dict) -> None:
    page, kept = docs / "performance.md", docs / "performance"
    kept.mkdir(exist_ok=True)
    text = replaced(page.read_text(encoding="utf-8"), run["bench"], section(run))
    page.write_text(text, encoding="utf-8")
    (kept / f"{run['bench']}.json").write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    images = [(drawn, plot.svg(drawn)) for drawn in run["plots"]]
    images += [(drawn, flames.svg(drawn)) for drawn in run.get("flames", [])]
    for drawn, image in images:
        (kept / f"{drawn['name']}.svg").write_text(image, encoding="utf-8")


def regressions(run: dict, kept: dict, tolerance: float) -> list[str]:
    """What is worse than it was, in words; what only one of them has is not compared."""
    shared = [name for name in kept["ratios"] if name in run["ratios"]]
    if not shared:
        sys.exit("the two runs have no ratio in common")
    print(f"{len(shared)} ratios compared, tolerance {tolerance:.0%}")
    pairs = [(name, run["ratios"][name], kept["ratios"][name]) for name in shared]
    worse = [pair for pair in pairs if pair[1] < pair[2] * (1 - tolerance)]
    return [f"{name}: {now:.4f}, and was {before:.4f}" for name, now, before in worse]


def guard(docs: Path, run: dict, tolerance: float) -> int:
    path = docs / "performance" / f"{run['bench']}.json"
    worse = regressions(run, json.loads(path.read_text(encoding="utf-8")), tolerance)
    for line in worse:
        print(f"regression: {line}")
    return 1 if worse or run["failures"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=["write", "guard"])
    parser.add_argument("runs", nargs="+", type=Path, help="what a benchmark wrote with --json")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder with performance.md")
    parser.add_argument("--tolerance", type=float, default=0.15, help="by how much a ratio may be smaller")
    arguments = parser.parse_args()
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.runs]
    if arguments.task == "guard":
        return max(guard(arguments.docs, run, arguments.tolerance) for run in runs)
    for run in runs:
        write(arguments.docs, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
