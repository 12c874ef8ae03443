"""What the manifests of deploy/kubernetes promise, tried on processes: the same settings, paths, user, and probes."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from conftest import BINARY, PROJECT
from manifests import KUBERNETES, environment, ours, pod
from replicas import LIBRARY, ObjectStore, Replica, Traffic, in_a_root_of_its_own, on_this_machine, until

DIGITS = PROJECT / "models/digits"
# What takes a quarter of a minute in a cluster.
QUICK = {"ONWARD_MODELS_POLL_INTERVAL": "200ms", "ONWARD_LIFECYCLE_PRE_STOP_DELAY": "5s"}


def policy(version):
    return f"version_policy: {{specific: [{version}]}}\n".encode()


@pytest.fixture
def store():
    """What the base names as its repository."""
    store = ObjectStore("models")
    store.upload(DIGITS, "onward/digits")
    yield store
    store.close()


@pytest.fixture
def replicas(store, tmp_path):
    """Starts replicas, one by one, and ends those that are left."""
    started = []

    def start():
        where = tmp_path / str(len(started))
        where.mkdir()
        started.append(on_this_machine("base", store.secret(), where, **QUICK))
        return started[-1]

    yield start
    for replica in started:
        if replica.process.poll() is None:
            replica.process.kill()
            replica.process.wait()


def ready(replica):
    until(lambda: replica.passes("/readyz"), replica)
    assert replica.passes("/livez") and replica.passes("/startupz")


def test_all_replicas_come_to_serve_what_the_repository_and_the_operator_say(store, replicas):
    both = [replicas(), replicas()]
    for replica in both:
        ready(replica)
        assert replica.infer() == "1"
    with Traffic(both) as traffic:
        store.put("onward/digits/model.yaml", policy(2))
        for replica in both:
            until(lambda: replica.infer() == "2", replica)
        # One that comes later has heard nothing of it but from the repository.
        late = replicas()
        ready(late)
        assert late.infer() == "2"
        for replica in both:
            command = [BINARY, "models", "swap", "digits", "--to", "1", "--url", f"http://{replica.address}"]
            subprocess.run(command, env=ours({}), check=True)
            assert replica.infer() == "1"
        for declared, version in (({}, "2"), ({"version": "1"}, "1")):
            for replica in both:
                body = json.dumps({"models": {"digits": declared}})
                answer = replica.ask("PUT", "/lifecycle/desired", body=body)
                assert answer.status == 200, answer.data
                assert replica.infer() == version
    assert traffic.failed == []
    assert {replica for replica, _ in traffic.answered} == set(both)
    assert {version for _, version in traffic.answered} == {"1", "2"}


def test_a_rollout_fails_no_request(replicas):
    old = [replicas(), replicas()]
    for replica in old:
        ready(replica)
    with Traffic(old) as traffic:
        # maxSurge 1, maxUnavailable 0: one more, and once it is ready one less.
        for replica in old:
            new = replicas()
            ready(new)
            traffic.replicas.append(new)
            until(lambda: new in traffic.ready, new)
            replica.process.terminate()
            until(lambda: replica not in traffic.ready, new)
            assert replica.process.poll() is None, "it serves on for those who have not noticed"
            assert replica.infer() == "1"
            assert replica.process.wait(pod("base")["terminationGracePeriodSeconds"]) == 0
            traffic.replicas.remove(replica)
    assert traffic.failed == []
    assert len({replica for replica, _ in traffic.answered}) == 4


@pytest.mark.skipif(
    platform.system() != "Linux" or os.geteuid() != 0,
    reason="takes Linux and its root; which folders are written to is checked by test_kubernetes.py too",
)
def test_nothing_is_written_but_to_the_volumes(store, tmp_path):
    replica = in_a_root_of_its_own("base", store.secret(), tmp_path, ONWARD_LIFECYCLE_PRE_STOP_DELAY="0s")
    try:
        ready(replica)
        assert replica.infer() == "1"
        status = Path(f"/proc/{replica.process.pid}/status").read_text()
        assert "\nUid:\t65532\t65532\t" in status and "\nCapBnd:\t0000000000000000\n" in status
        written = {it.name for it in tmp_path.iterdir() if it.name != "root" and any(it.iterdir())}
        assert written == {"config", "cache", "state"}
        assert not [line for line in replica.lines if json.loads(line)["level"] in ("WARN", "ERROR")]
    finally:
        code = replica.stop()
    assert code == 0, replica.log()


def mounted(layout, folder):
    """What KServe's storage initialiser makes of a `storageUri`, or of `storageUris`, for a service called digits."""
    if layout == "a repository":
        shutil.copytree(DIGITS, folder / "digits")
    elif layout == "a file":
        shutil.copy(DIGITS / "1/model.onnx", folder / "digits.onnx")
    elif layout == "a model by storageUris":
        # mountPath: /mnt/models/digits
        shutil.copytree(DIGITS / "1", folder / "digits/1")
    else:
        shutil.copy(DIGITS / "1/model.onnx", folder / "model.onnx")


def runtime(folder):
    """How KServe starts the runtime for a service called digits."""
    text = (KUBERNETES / "kserve/clusterservingruntime.yaml").read_text().replace("{{.Name}}", "digits")
    (container,) = yaml.safe_load(text)["spec"]["containers"]
    own = {
        "ONWARD_SERVER_LISTEN": "127.0.0.1:0", "ONWARD_MODELS_REPOSITORY": str(folder),
        "ONWARD_ONNXRUNTIME_LIBRARY": str(LIBRARY), "ONWARD_LIFECYCLE_PRE_STOP_DELAY": "0s",
    }
    return container, Replica([BINARY, *container["args"]], environment(container) | own)


@pytest.mark.parametrize("layout", ["a repository", "a file", "a model by storageUris"])
def test_what_kserve_mounts_is_served(layout, tmp_path):
    mounted(layout, tmp_path)
    container, replica = runtime(tmp_path)
    for probe in ("readinessProbe", "livenessProbe"):
        until(lambda: replica.passes(container[probe]["httpGet"]["path"]), replica)
    assert replica.passes("/v2/health/ready") and replica.passes("/v2/models/digits/ready")
    assert replica.infer() == "1"
    assert replica.stop() == 0


def test_what_kserve_mounts_under_another_name_fails_the_start(tmp_path):
    mounted("a file of another name", tmp_path)
    _, replica = runtime(tmp_path)
    assert replica.process.wait(60) == 1
    assert "digits" in replica.log()
