#!/usr/bin/env python3
"""Tells how many lines of the sources the tests reach, and fails where they are too few.

Reads the lcov file that `make coverage` writes. Tests are no sources: files of tests are left out, and
so is what follows `#[cfg(test)]` at the end of a file.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST_MODULE = re.compile(r"^#\[cfg\(test\)\]\nmod tests \{$", re.MULTILINE)


def is_test(path: Path) -> bool:
    return "tests" in (part.removesuffix(".rs") for part in path.parts)


def lines_of_code(path: Path) -> int:
    """The number of lines before the file's own tests."""
    text = (ROOT / path).read_text(encoding="utf-8")
    tests = TEST_MODULE.search(text)
    return text.count("\n", 0, tests.start() if tests else len(text))


def read(lcov: Path) -> dict[Path, dict[int, bool]]:
    """For each source, which of its lines are reached."""
    reached: dict[Path, dict[int, bool]] = {}
    lines: dict[int, bool] = {}
    for record in lcov.read_text(encoding="utf-8").splitlines():
        kind, _, value = record.partition(":")
        if kind == "SF":
            path = Path(value).resolve()
            path = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            is_source = path.parts[0] == "src" and not is_test(path)
            last = lines_of_code(path) if is_source else 0
            lines = reached.setdefault(path, {}) if is_source else {}
        elif kind == "DA":
            number, count = (int(part) for part in value.split(",")[:2])
            if number <= last:
                lines[number] = lines.get(number, False) or count > 0
    return reached


def share(reached: dict[Path, dict[int, bool]], under: str) -> float:
    lines = [hit for path, hits in reached.items() if path.is_relative_to(under) for hit in hits.values()]
    if not lines:
        sys.exit(f"no line of {under} is in the report")
    percent = 100 * sum(lines) / len(lines)
    print(f"{under:<16}{sum(lines):>7} of {len(lines):>6} lines{percent:>8.2f} %")
    return percent


def ranges(numbers: list[int]) -> str:
    """`[1, 2, 3, 7]` as `1-3, 7`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("lcov", type=Path)
    parser.add_argument("--missed", action="store_true", help="list the lines that are not reached")
    parser.add_argument("--least", action="append", default=[], metavar="FOLDER=PERCENT")
    arguments = parser.parse_args()
    reached = read(arguments.lcov)
    if arguments.missed:
        for path, hits in sorted(reached.items()):
            if missed := sorted(number for number, hit in hits.items() if not hit):
                print(f"{path}: {ranges(missed)}")
    short = []
    for bound in arguments.least:
        folder, _, least = bound.partition("=")
        if share(reached, folder) < float(least):
            short.append(f"{folder} is below {least} %")
    sys.exit("; ".join(short) if short else 0)


if __name__ == "__main__":
    main()
