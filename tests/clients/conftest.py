"""A real server over a folder of sample models, for as long as the tests run."""

import contextlib
import json
import os
import pathlib
import subprocess

import pytest

PROJECT = pathlib.Path(__file__).parents[2]
SUMMARY = pytest.StashKey[list]()
BINARY = os.environ.get("SERVER_BINARY", PROJECT / "target/debug/onward")


def start(*settings, repository=PROJECT / "models"):
    """The process, with the addresses of REST and gRPC."""
    command = [
        BINARY, "serve", "--server.listen", "127.0.0.1:0", "--server.grpc_listen", "127.0.0.1:0",
        "--telemetry.log_format", "json", "--lifecycle.pre_stop_delay", "0s",
        "--models.repository", repository, *settings,
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


@contextlib.contextmanager
def serving(*settings, **where):
    """A server that ends with the block, and has to do so cleanly."""
    process, rest, grpc = start(*settings, **where)
    # What is logged further on has to go somewhere.
    drain = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
    try:
        yield {"rest": rest, "grpc": grpc}
    finally:
        process.terminate()
        code = process.wait(timeout=60)
        drain.wait(timeout=60)
    assert code == 0


@pytest.fixture(scope="session")
def server():
    with serving() as addresses:
        yield addresses


@pytest.fixture(scope="session")
def summary(request):
    """Lines that are shown once all tests have run."""
    return request.config.stash.setdefault(SUMMARY, [])


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(SUMMARY, []):
        terminalreporter.write_line(line)
