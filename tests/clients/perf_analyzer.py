"""Triton's perf_analyzer, for some seconds in each way; run by `make perf-analyzer`, and by no test run."""

import os
import pathlib
import re
import subprocess

import pytest

# Where pip has put what perf_analyzer.requirements.txt names.
TOOLS = pathlib.Path(os.environ["PERF_ANALYZER"])

LIBB64 = ["init_encodestate", "encode_block", "encode_blockend", "init_decodestate", "decode_block"]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    """Where the libraries are that perf_analyzer is linked to.

    No wheel has libb64, which is called only for files of models and for memory that is shared with a GPU; one
    stands in that ends the program when it is called.
    """
    folder = tmp_path_factory.mktemp("libraries")
    source = "".join(f"void base64_{name}(void) {{ __builtin_trap(); }}\n" for name in LIBB64)
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", folder / "libb64.so.0d"]
    subprocess.run(command, input=source, text=True, check=True)
    return f"{folder}:{TOOLS / 'nvidia/cuda_runtime/lib'}"


@pytest.mark.parametrize(("way", "flags"), [
    ("rest", ["-i", "http", "--input-tensor-format", "json", "--output-tensor-format", "json"]),
    ("rest", ["-i", "http"]),
    ("grpc", ["-i", "grpc"]),
], ids=["HTTP, JSON", "HTTP, binary", "gRPC"])
def test_throughput(request, server, libraries, summary, way, flags):
    # A look, and no benchmark: what comes out is stable enough.
    measured = ["--measurement-interval", "1000", "--stability-percentage", "999"]
    ended = subprocess.run(
        [TOOLS / "bin/perf_analyzer", "-m", "digits", "-u", server[way], *flags, *measured],
        env={**os.environ, "LD_LIBRARY_PATH": libraries}, capture_output=True, text=True, check=False,
    )
    told = re.search(r"^Concurrency: 1, throughput: (.*)$", ended.stdout, re.MULTILINE)
    assert ended.returncode == 0 and told, ended.stdout + ended.stderr
    # What the server's statistics say comes only where it has them, and it is to be there.
    assert "Inference count" in ended.stdout and "Failed" not in ended.stdout, ended.stdout
    summary.append(f"perf_analyzer: {told[1]} ({request.node.callspec.id})")
