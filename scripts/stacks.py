#!/usr/bin/env python3
"""Adds to what the benchmark `profile` has found where the time went, by the stacks that perf has seen.

    scripts/stacks.py target/bench/profile.json

reads profile.stacks beside that file. A sample belongs to the part whose function is the innermost on its
stack; what is called by all parts, such as copying, belongs to whoever called it.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

# The part of a frame, by its name or its library; the first that fits.
PARTS = [
    ("kernel: the network, waking up", r"\[kernel|\[guest\.kernel"),
    ("allocator", r"^(_int_|__libc_)?(malloc|free|cfree|calloc|realloc|unlink_chunk|sysmalloc|arena_get)"),
    ("ONNX Runtime: the run", r"libonnxruntime"),
    ("bindings of ONNX Runtime", r"^ort::|onward::onnx"),
    ("JSON of the request", r"onward::(json_tensors|http::infer::request|http::body|http::parts)"),
    ("JSON of the answer", r"onward::http::infer::response"),
    (
        "counting, for metrics",
        r"onward::(tally|model::usage|model::handle::Ending|inference::runs|http::(finish::count|counts)|grpc::counts)",
    ),
    ("checks, routing to a version", r"onward::(model|oip|inference|metrics|lifecycle|telemetry)"),
    ("around the handler", r"onward::http|^(axum|axum_core|tower|tower_http|matchit|tracing)\b"),
    ("HTTP: the connection", r"^(hyper|hyper_util|httparse|http|http_body|bytes)\b"),
    ("runtime: tasks, timers", r"^(tokio|futures_util|mio|parking_lot)\b"),
]
LEAST = 0.004  # of all samples, below which a stack is cut off


def tidy(name: str) -> str:
    """A function's name without its types, its closures and its place."""
    name = re.sub(r"\+0x[0-9a-f]+$", "", name).replace("::{{closure}}", "").replace("{{vtable.shim}}", "")
    of_trait = re.match(r"<(?:.*\bas )?([\w:]+)(?:<.*>)?>::(\w+)", name)
    name = f"{of_trait[1]}::{of_trait[2]}" if of_trait else name
    while "<" in name and re.search(r"(::)?<[^<>]*>", name):
        name = re.sub(r"(::)?<[^<>]*>", "", name)
    return name.strip()


def part(stack: list[tuple[str, str]]) -> str:
    """Of a stack with its innermost frame first, as names and libraries."""
    for name, library in stack:
        for kind, pattern in PARTS:
            if re.search(pattern, name) or re.search(pattern, library):
                return kind
    return "other"


def is_known(frame: re.Match) -> bool:
    """Of a library without names, the library is known."""
    return frame[1] != "[unknown]" or "lib" in frame[2]


def stacks(text: str) -> list[list[tuple[str, str]]]:
    """Each sample's frames, the innermost first."""
    frame = re.compile(r"^\s+[0-9a-f]+ (.*) \((.*)\)$")
    samples = []
    for sample in text.split("\n\n"):
        found = [frame.match(line) for line in sample.splitlines()]
        frames = [(tidy(one[1]), Path(one[2]).name) for one in found if one and is_known(one)]
        if frames:
            samples.append(frames)
    return samples


def shown(frames: list[tuple[str, str]]) -> str:
    """As flames have it: the outermost first, and each function in a row once."""
    names = [library if name == "[unknown]" else name for name, library in reversed(frames)]
    apart = [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]
    return ";".join(name.replace(";", ",") for name in apart)


def cut(counts: Counter) -> dict[str, int]:
    """Without the inner ends of stacks that are rare."""
    all_samples, below, kept = sum(counts.values()), Counter(), Counter()
    for stack, samples in counts.items():
        frames = stack.split(";")
        for length in range(1, len(frames) + 1):
            below[";".join(frames[:length])] += samples
    for stack, samples in counts.items():
        frames = stack.split(";")
        while len(frames) > 1 and below[";".join(frames)] < all_samples * LEAST:
            frames.pop()
        kept[";".join(frames)] += samples
    return dict(sorted(kept.items()))


def main() -> None:
    path = Path(sys.argv[1])
    run = json.loads(path.read_text(encoding="utf-8"))
    samples = stacks(path.with_suffix(".stacks").read_text(encoding="utf-8", errors="replace"))
    parts = Counter(part(frames) for frames in samples)
    whole = sum(float(row[1]) for row in run["tables"][0]["rows"])
    shares = [(kind, count / len(samples)) for kind, count in parts.most_common()]
    rows = [[kind, f"{share:.1%}", f"{whole * share:.1f}"] for kind, share in shares]
    title = f"Where it goes, by {len(samples)} samples"
    run["tables"] = [run["tables"][0], {"title": title, "columns": ["", "share", "us"], "rows": rows}]
    title = "A request for the tiny model over JSON: who calls whom"
    run["flames"] = [{"name": "profile-flames", "title": title, "stacks": cut(Counter(map(shown, samples)))}]
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row[0]:<42}{row[1]:>8}{row[2]:>8} us")


if __name__ == "__main__":
    main()
