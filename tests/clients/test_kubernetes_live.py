"""What the manifests of deploy/kubernetes promise, tried on processes: the same settings, paths, user, and probes."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import tritonclient.grpc
import yaml
from tritonclient.utils import InferenceServerException

from conftest import BINARY, PROJECT
from manifests import KUBERNETES, environment, ours, pod
from replicas import LIBRARY, ObjectStore, Replica, Traffic, in_a_root_of_its_own, on_this_machine, until

DIGITS = PROJECT / "models/digits"
# What takes a quarter of a minute in a cluster.
QUICK = {"ONWARD_MODELS_POLL_INTERVAL": "200ms", "ONWARD_LIFECYCLE_PRE_STOP_DELAY": "5s"}


# What none but operators are to reach.
MANAGEMENT = [
    ("GET", "/metrics"), ("GET", "/docs/"), ("GET", "/v2/models/digits/stats"),
    ("GET", "/lifecycle"), ("POST", "/lifecycle/shutdown"), ("POST", "/lifecycle/models/digits/swap"),
    ("POST", "/v2/repository/index"), ("POST", "/v2/repository/models/digits/unload"),
    ("POST", "/v2/logging"), ("POST", "/v2/models/digits/trace/setting"),
]


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
            command = [BINARY, "models", "swap", "digits", "--to", "1"]
            subprocess.run(command, env=ours({"ONWARD_URL": f"http://{replica.management}"}), check=True)
            assert replica.infer() == "1"
        for declared, version in (({}, "2"), ({"version": "1"}, "1")):
            for replica in both:
                body = json.dumps({"models": {"digits": declared}})
                answer = replica.manage("PUT", "/lifecycle/desired", body=body)
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


def no_management(replica):
    """At the port that clients reach."""
    for method, path in MANAGEMENT:
        answer = replica.ask(method, path)
        assert answer.status == 404 and b"server.management_listen" in answer.data, path


def test_the_ports_of_clients_have_no_management(tmp_path):
    shutil.copytree(PROJECT / "models", tmp_path / "repository")
    quick = {"ONWARD_MODELS_REPOSITORY": str(tmp_path / "repository"), "ONWARD_LIFECYCLE_PRE_STOP_DELAY": "0s"}
    replica = on_this_machine("base", {}, tmp_path, **quick)
    ready(replica)
    assert replica.infer() == "1"
    no_management(replica)
    for path in ("/metrics", "/lifecycle", "/livez"):
        assert replica.manage("GET", path).status == 200, path
    with tritonclient.grpc.InferenceServerClient(replica.grpc) as client:
        assert client.is_server_ready() and client.is_model_ready("digits")
        with pytest.raises(InferenceServerException, match="management_listen"):
            client.unload_model("digits")
    assert replica.stop() == 0


def test_with_keys_prometheus_reads_and_changes_nothing(tmp_path):
    entries, keys = ["keys:"], {}
    for name, role in (("ci", "manage"), ("prometheus", "read")):
        made = subprocess.run([BINARY, "key", "--name", name, "--role", role], env=ours({}), check=True,
                              capture_output=True, text=True)
        keys[name], *entry = made.stdout.splitlines()
        entries += entry
    (tmp_path / "keys.yaml").write_text("\n".join(entries))
    shutil.copytree(PROJECT / "models", tmp_path / "repository")
    replica = on_this_machine(
        "overlays/keys", {}, tmp_path, ONWARD_MODELS_REPOSITORY=str(tmp_path / "repository"),
        ONWARD_AUTH_KEYS_FILE=str(tmp_path / "keys.yaml"), ONWARD_LIFECYCLE_PRE_STOP_DELAY="0s",
    )
    ready(replica)

    def status(method, path, key):
        return replica.manage(method, path, headers={"authorization": f"Bearer {keys[key]}"} if key else {}).status

    assert [status("GET", "/metrics", key) for key in (None, "prometheus", "ci")] == [401, 200, 200]
    drain = "/lifecycle/drain"
    assert [status("POST", drain, key) for key in (None, "prometheus")] == [401, 403]
    # As the guide has it, with the key at standard input.
    command = [BINARY, "models", "swap", "digits", "--to", "2", "--api-key-file", "/dev/stdin"]
    told = subprocess.run(
        command, env=ours({"ONWARD_URL": f"http://{replica.management}"}), input=keys["ci"], text=True,
        capture_output=True,
    )
    assert told.returncode == 0, told.stderr
    assert replica.stop() == 0


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
        "ONWARD_SERVER_LISTEN": "127.0.0.1:0", "ONWARD_SERVER_MANAGEMENT_LISTEN": "127.0.0.1:0",
        "ONWARD_MODELS_REPOSITORY": str(folder), "ONWARD_ONNXRUNTIME_LIBRARY": str(LIBRARY),
        "ONWARD_LIFECYCLE_PRE_STOP_DELAY": "0s",
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
    no_management(replica)
    assert replica.manage("GET", "/metrics").status == 200
    assert replica.stop() == 0


def test_what_kserve_mounts_under_another_name_fails_the_start(tmp_path):
    mounted("a file of another name", tmp_path)
    _, replica = runtime(tmp_path)
    assert replica.process.wait(60) == 1
    assert "digits" in replica.log()
