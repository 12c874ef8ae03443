"""What scripts/sbom.py writes: held to CycloneDX's schema, to Cargo.lock, to cargo's own tree and to the pins."""

import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import urllib.parse

import jsonschema
import pytest
import referencing
import referencing.jsonschema

from conftest import PROJECT

sys.path.insert(0, str(PROJECT / "scripts"))
import fetch_onnxruntime  # noqa: E402

TOOL = os.environ.get("CARGO_CYCLONEDX", "")
TARGET = "x86_64-unknown-linux-gnu"
TIME = 1_700_000_000

LACKING = not TOOL and os.environ.get("CI") != "true"
pytestmark = pytest.mark.skipif(LACKING, reason="`make test-clients` names the tool")


def write(where, project=PROJECT, platform="linux-x86_64"):
    command = [sys.executable, "-B", project / "scripts/sbom.py", TOOL, where, "--platform", platform]
    subprocess.run(command, check=True, env=os.environ | {"SOURCE_DATE_EPOCH": str(TIME)})
    return where.read_text()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sbom") / "new/onward.cdx.json")


@pytest.fixture(scope="module")
def bom(text):
    return json.loads(text)


def crates(bom):
    return [it for it in bom["components"] if it["purl"].startswith("pkg:cargo/")]


def test_it_is_what_the_schema_of_cyclonedx_says(bom):
    (package,) = importlib.util.find_spec("cyclonedx").submodule_search_locations
    names = [f"{name}.SNAPSHOT.schema.json" for name in ("bom-1.5", "spdx", "jsf-0.82")]
    schemas = [json.loads((pathlib.Path(package) / "schema/_res" / name).read_text()) for name in names]
    # They refer to each other by the names of their files, beside the first.
    places = [urllib.parse.urljoin(schemas[0]["$id"], name) for name in names]
    resources = map(referencing.jsonschema.DRAFT7.create_resource, schemas)
    registry = referencing.Registry().with_resources(zip(places, resources))
    validator = jsonschema.Draft7Validator(schemas[0], registry=registry, format_checker=jsonschema.FormatChecker())
    assert [f"{it.json_path}: {it.message}" for it in validator.iter_errors(bom)] == []
    assert list(validator.iter_errors(bom | {"components": [{"name": "no type"}]}))


def test_it_is_the_same_of_every_checkout(text, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "build.rs"):
        shutil.copy(PROJECT / name, elsewhere)
    for name in ("scripts", "src"):
        shutil.copytree(PROJECT / name, elsewhere / name)
    assert write(tmp_path / "again.json", elsewhere) == text
    assert not list(elsewhere.glob("*.cdx.json"))


def test_it_tells_nothing_of_the_machine(text, bom):
    for place in (str(PROJECT), f"{pathlib.Path.home()}/", "file:", "registry+", "crates.io-index"):
        assert place not in text, place
    assert bom["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_crates_are_those_that_cargo_builds_by_the_hashes_of_the_lock(bom):
    lock = tomllib.loads((PROJECT / "Cargo.lock").read_text())["package"]
    locked = {(it["name"], it["version"]): it.get("checksum") for it in lock}
    told = {(it["name"], it["version"]): it["hashes"] for it in crates(bom)}
    assert len(told) == len(crates(bom))
    assert {key: [{"alg": "SHA-256", "content": locked[key]}] for key in told} == told
    command = ["cargo", "tree", "--locked", "--target", TARGET, "--edges", "normal,build", "--prefix", "none"]
    tree = subprocess.run([*command, "--format", "{p}"], cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    built = {tuple(line.split()[:2]) for line in tree.splitlines()}
    assert {(name, version.lstrip("v")) for name, version in built if name != "onward"} == set(told)


def test_everything_has_a_license_and_a_place_in_the_tree(bom):
    assert [it["name"] for it in bom["components"] if not it.get("licenses")] == []
    root = bom["metadata"]["component"]["bom-ref"]
    edges = {it["ref"]: it["dependsOn"] for it in bom["dependencies"]}
    assert edges.keys() == {root} | {it["bom-ref"] for it in bom["components"]}
    reached, ahead = set(), [root]
    while ahead:
        reference = ahead.pop()
        if reference not in reached:
            reached.add(reference)
            ahead += edges[reference]
    assert reached == edges.keys()


@pytest.mark.parametrize("platform", sorted(fetch_onnxruntime.WHEELS))
def test_onnx_runtime_is_the_pinned_one(platform, tmp_path):
    bom = json.loads(write(tmp_path / "onward.cdx.json", platform=platform))
    found = [it for it in bom["components"] if it["name"] == "onnxruntime"]
    wheel = fetch_onnxruntime.WHEELS[platform]
    if wheel is None:
        assert found == []
        return
    (component,) = found
    assert component["version"] == fetch_onnxruntime.VERSION
    assert component["hashes"] == [{"alg": "SHA-256", "content": wheel.sha256}]
    assert component["licenses"] == [{"license": {"id": "MIT"}}]
    assert wheel.tag in component["purl"]
    (of_root,) = [it for it in bom["dependencies"] if it["ref"] == bom["metadata"]["component"]["bom-ref"]]
    assert component["bom-ref"] in of_root["dependsOn"]
