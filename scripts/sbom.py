#!/usr/bin/env python3
"""Writes what the release binary is made of, and the ONNX Runtime it is shipped with, as CycloneDX in JSON.

usage: scripts/sbom.py CARGO_CYCLONEDX OUTPUT [--platform linux-x86_64]

The crates are as cargo-cyclonedx describes them, without what differs between machines and runs, and without those
of features that tests alone ask for. Those that the build alone needs are among them: what they make is in the
binary, such as the page at /docs. ONNX Runtime is the wheel that fetch_onnxruntime.py pins. The time is that of
SOURCE_DATE_EPOCH, and left out where that is not set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

import fetch_onnxruntime

PROJECT = Path(__file__).resolve().parent.parent
# Where cargo-cyclonedx puts it, for a binary of this name; it takes no other place.
TREE = PROJECT / "onward_bin.cdx.json"
TARGETS = {
    "linux-x86_64": "x86_64-unknown-linux-gnu",
    "linux-aarch64": "aarch64-unknown-linux-gnu",
    "macos-arm64": "aarch64-apple-darwin",
    "macos-x86_64": "x86_64-apple-darwin",
}


def tree(tool: Path, target: str) -> dict:
    """What cargo-cyclonedx makes of Cargo.lock for a target."""
    what = ["--describe", "binaries", "--all", "--target", target]
    how = ["--format", "json", "--spec-version", "1.5", "--quiet"]
    try:
        subprocess.run([tool.resolve(), "cyclonedx", *what, *how], cwd=PROJECT, check=True)
        return json.loads(TREE.read_text(encoding="utf-8"))
    finally:
        TREE.unlink(missing_ok=True)


def built(target: str) -> set[tuple[str, str]]:
    """Names and versions of what cargo builds for the binary."""
    command = ["cargo", "tree", "--locked", "--target", target, "--edges", "normal,build"]
    command += ["--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, lines)}


def without_tests(bom: dict, target: str) -> dict:
    """The same without what cargo does not build: the tool knows the features of all targets together."""
    wanted = built(target)
    bom["components"] = [it for it in bom["components"] if (it["name"], it["version"]) in wanted]
    kept = {bom["metadata"]["component"]["bom-ref"]} | {it["bom-ref"] for it in bom["components"]}
    bom["dependencies"] = [
        {"ref": it["ref"], "dependsOn": [other for other in it.get("dependsOn", []) if other in kept]}
        for it in bom["dependencies"]
        if it["ref"] in kept
    ]
    return bom


def without_places(bom: dict) -> dict:
    """The same, with a component's reference being its package URL: the tool's own tell where a source was found."""
    own = bom["metadata"]["component"]
    names = {it["bom-ref"]: it["purl"] for it in bom["components"]}
    own["purl"] = names[own["bom-ref"]] = f"pkg:generic/{own['name']}@{own['version']}"
    own.pop("components", None)
    for it in [own, *bom["components"]]:
        it["bom-ref"] = names[it["bom-ref"]]
    bom["components"].sort(key=lambda it: it["bom-ref"])
    dependencies = {
        names[it["ref"]]: sorted(names[other] for other in it["dependsOn"])
        for it in bom["dependencies"]
    }
    bom["dependencies"] = [{"ref": it, "dependsOn": dependencies[it]} for it in sorted(dependencies)]
    return bom


def onnxruntime(platform: str) -> dict | None:
    """The pinned wheel as a component, where there is one: elsewhere operators bring a library of their own."""
    try:
        wheel = fetch_onnxruntime.wheel_for(platform)
    except fetch_onnxruntime.FetchError as error:
        print(f"sbom: without ONNX Runtime: {error}", file=sys.stderr)
        return None
    version = fetch_onnxruntime.VERSION
    purl = f"pkg:pypi/onnxruntime@{version}?file_name={wheel.file_name}"
    return {
        "type": "library",
        "bom-ref": purl,
        "supplier": {"name": "Microsoft Corporation"},
        "name": "onnxruntime",
        "version": version,
        "description": f"ONNX Runtime, of which {wheel.library} is shipped, out of the wheel with this hash",
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": [{"license": {"id": "MIT"}}],
        "purl": purl,
        "externalReferences": [{"type": "vcs", "url": "https://github.com/microsoft/onnxruntime"}],
    }


def add(bom: dict, component: dict) -> None:
    """Adds what the binary loads when it starts."""
    bom["components"].append(component)
    root = bom["metadata"]["component"]["bom-ref"]
    (of_root,) = [it for it in bom["dependencies"] if it["ref"] == root]
    of_root["dependsOn"].append(component["bom-ref"])
    bom["dependencies"].append({"ref": component["bom-ref"], "dependsOn": []})


def stamp(bom: dict) -> None:
    """The time that is given, and a serial number that is the content's."""
    bom.pop("serialNumber", None)
    bom["metadata"].pop("timestamp", None)
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        time = datetime.fromtimestamp(int(epoch), timezone.utc)
        bom["metadata"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tool", metavar="CARGO_CYCLONEDX", type=Path)
    parser.add_argument("output", metavar="OUTPUT", type=Path)
    parser.add_argument("--platform", choices=TARGETS, default=fetch_onnxruntime.this_platform(), help="for what")
    arguments = parser.parse_args()
    target = TARGETS[arguments.platform]
    bom = without_places(without_tests(tree(arguments.tool, target), target))
    if library := onnxruntime(arguments.platform):
        add(bom, library)
    stamp(bom)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(bom, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
