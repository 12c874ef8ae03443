"""Requests made up from `openapi.yaml`: whatever is asked, the answer is one that is described."""

import os
import pathlib
import shutil
import subprocess
import sys

from conftest import PROJECT, serving


def test_answers_are_those_described(tmp_path, summary):
    # Models are loaded, swapped and unloaded, by a server that no other test asks.
    repository = shutil.copytree(PROJECT / "models", tmp_path / "models")
    settings = pathlib.Path(__file__).with_name("schemathesis.toml")
    with serving(repository=repository) as addresses:
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", settings, "run", "--no-color",
            "--url", f"http://{addresses['rest']}", PROJECT / "openapi.yaml",
        ]
        # Elsewhere, for the files that it leaves; so what it needs has to be told by whole paths.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    told = [line.strip() for line in ended.stdout.splitlines()]
    summary += [f"openapi.yaml: {line}" for line in told if "generated," in line]
    assert ended.returncode == 0, ended.stdout + ended.stderr
