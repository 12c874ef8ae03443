"""A real server over a folder of sample models, for as long as the tests run."""

import json
import os
import pathlib
import subprocess

import pytest

PROJECT = pathlib.Path(__file__).parents[2]
BINARY = os.environ.get("SERVER_BINARY", PROJECT / "target/debug/onward")


def start(*settings):
    """The process, with the addresses of REST and gRPC."""
    command = [
        BINARY, "serve", "--server.listen", "127.0.0.1:0", "--server.grpc_listen", "127.0.0.1:0",
        "--telemetry.log_format", "json", "--lifecycle.pre_stop_delay", "0s",
        "--models.repository", PROJECT / "models", *settings,
    ]
    # The server takes whatever begins like that for a setting.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ONWARD_")}
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True
    )
    addresses = {}
    for line in process.stderr:
        assert line.startswith("{"), line
        told = json.loads(line)
        if told.get("message", "").startswith("listening"):
            addresses[told["message"]] = told["address"]
        if told.get("message") == "health check passes" and told.get("kind") == "readiness":
            if told.get("check") == "application":
                break
    return process, addresses["listening"], addresses["listening for gRPC"]


@pytest.fixture(scope="session")
def server():
    process, rest, grpc = start()
    # What is logged further on has to go somewhere.
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    yield {"rest": rest, "grpc": grpc}
    process.terminate()
    assert process.wait(timeout=60) == 0
    drain.wait(timeout=60)
