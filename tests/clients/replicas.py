"""Servers as a pod of deploy/kubernetes has them, with an object store, and what Kubernetes does with them."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import urllib3

from conftest import BINARY, PROJECT
from manifests import INSTALLED, configuration, container, environment, ours, pod, write

STORES = INSTALLED.parent / "stores"
LIBRARY = next((PROJECT / ".onnxruntime").glob("libonnxruntime.*"))
SAMPLE = (PROJECT / "models/digits/samples/digit-7.json").read_bytes()
PATIENCE = 60
ON_PORTS_OF_ITS_OWN = {
    "ONWARD_SERVER_LISTEN": "127.0.0.1:0", "ONWARD_SERVER_GRPC_LISTEN": "127.0.0.1:0",
    "ONWARD_SERVER_MANAGEMENT_LISTEN": "127.0.0.1:0",
}
HTTP = urllib3.PoolManager(retries=False, maxsize=16, timeout=30)


class ObjectStore:
    """An S3 of its own."""

    def __init__(self, bucket):
        assert (STORES / "installed").exists(), "run `make stores` first"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        self.process = subprocess.Popen(
            command, env=ours({"PYTHONPATH": str(STORES)}), stderr=subprocess.PIPE, text=True
        )
        told = next(line for line in self.process.stderr if "Running on" in line)
        self.endpoint = re.search(r"http://[\d.:]+", told).group()
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.bucket = f"{self.endpoint}/{bucket}"
        self._put(self.bucket, b"")

    def _put(self, url, content):
        # Nobody looks at the signature.
        signed = {"authorization": "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request"}
        answer = HTTP.request("PUT", url, body=content, headers=signed)
        assert answer.status == 200, answer.data

    def put(self, key, content):
        self._put(f"{self.bucket}/{key}", content)

    def upload(self, folder, key):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())

    def secret(self):
        """What is in the Secret onward-object-store."""
        return {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true",
        }

    def close(self):
        self.process.kill()
        self.process.wait()


class Replica:
    """A server that listens on ports of its own; everything else is what its environment says."""

    def __init__(self, command, environment):
        self.lines, self.bound = [], threading.Event()
        self.address = self.grpc = self.management = None
        self.process = subprocess.Popen(command, env=ours(environment), stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        assert self.bound.wait(PATIENCE) and self.address and self.management, self.log()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                match told.get("message"):
                    case "listening":
                        self.address = told["address"]
                    case "listening for gRPC":
                        self.grpc = told["address"]
                    case "listening for management":
                        self.management = told["address"]
            if self.address and self.management:
                self.bound.set()
        self.bound.set()

    def log(self):
        return "".join(self.lines)

    def ask(self, method, path, **more):
        return HTTP.request(method, f"http://{self.address}{path}", **more)

    def manage(self, method, path, **more):
        """The same, at the port for management."""
        return HTTP.request(method, f"http://{self.management}{path}", **more)

    def passes(self, probe):
        """As the kubelet sees it."""
        try:
            return self.ask("GET", probe, timeout=2).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def infer(self, model="digits"):
        """The version that answers."""
        answer = self.ask("POST", f"/v2/models/{model}/infer", body=SAMPLE)
        assert answer.status == 200, answer.data
        assert json.loads(answer.data)["outputs"][0]["data"] == [7]
        return answer.headers["x-onward-version"]

    def stop(self):
        """The exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def until(holds, replica):
    """Waits until it holds, while the replica lives."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert replica.process.poll() is None and time.monotonic() < deadline, replica.log()
        time.sleep(0.02)


def on_this_machine(folder, secret, where, **more):
    """A replica whose volumes are folders in `where`; `more` are settings, by their variables."""
    write(configuration(folder), where)
    arguments = [it.replace("/etc/onward", str(where)) for it in container(folder)["args"]]
    own = {
        **ON_PORTS_OF_ITS_OWN,
        "ONWARD_ONNXRUNTIME_LIBRARY": str(LIBRARY), "ONWARD_MODELS_CACHE": str(where / "models"),
        "ONWARD_ONNXRUNTIME_CACHE": str(where / "graphs"), "ONWARD_MODELS_STATE": str(where / "state"),
    }
    return Replica([BINARY, *arguments], environment(container(folder)) | secret | own | more)


def in_a_root_of_its_own(folder, secret, where, **more):
    """A replica with the pod's own paths, user and capabilities, in a root that is read-only but for its volumes."""
    root = where / "root"
    program, library = Path("/opt/onward"), Path("/opt/libonnxruntime.so")
    system = [Path(path) for path in ("/usr", "/lib", "/lib64", "/etc/ssl", "/proc", "/sys", "/dev")]
    shown = {path: path for path in system if path.exists()} | {program: Path(BINARY), library: LIBRARY}
    steps = ["set -e", f"mount --bind {root} {root}"]

    def mount(source, target, mode):
        inside = root / target.relative_to("/")
        if source.is_dir():
            inside.mkdir(parents=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        steps.extend([f"mount --rbind {source} {inside}", f"mount -o remount,bind,{mode} {inside}"])

    for target, source in shown.items():
        mount(source, target, "ro")
    emptied = {volume["name"] for volume in pod(folder)["volumes"] if "emptyDir" in volume}
    for volume in container(folder)["volumeMounts"]:
        source = where / volume["name"]
        source.mkdir()
        if volume["name"] in emptied:
            source.chmod(0o777)
        else:
            write(configuration(folder), source)
        mount(source, Path(volume["mountPath"]), "rw" if volume["name"] in emptied else "ro")
    user = pod(folder)["securityContext"]["runAsUser"]
    held = f"--reuid {user} --regid {user} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
    arguments = " ".join(container(folder)["args"])
    steps.append(f"mount -o remount,bind,ro {root}")
    # The image's own PATH is that of the steps.
    steps.append(f"exec {shutil.which('chroot')} {root} setpriv {held} {program} {arguments}")
    own = {
        **ON_PORTS_OF_ITS_OWN,
        "ONWARD_ONNXRUNTIME_LIBRARY": str(library),
    }
    command = ["unshare", "--mount", "sh", "-c", "\n".join(steps)]
    return Replica(command, environment(container(folder)) | secret | own | more)


class Traffic:
    """Clients that ask whichever replicas are ready, by what their probes answer, for the length of a block."""

    def __init__(self, replicas):
        self.replicas, self.ready = list(replicas), list(replicas)
        self.answered, self.failed = [], []
        self.threshold = container("base")["readinessProbe"]["failureThreshold"]
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(4)]
        self.threads.append(threading.Thread(target=self._probe))

    def _probe(self):
        failures = {}
        while not self.over.wait(0.1):
            for replica in list(self.replicas):
                failures[replica] = 0 if replica.passes("/readyz") else failures.get(replica, 0) + 1
            self.ready = [replica for replica in self.replicas if failures.get(replica, 0) < self.threshold]

    def _ask(self):
        asked = 0
        while not self.over.is_set():
            ready, asked = self.ready, asked + 1
            try:
                replica = ready[asked % len(ready)]
                self.answered.append((replica, replica.infer()))
            except Exception as error:
                self.failed.append(repr(error))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
