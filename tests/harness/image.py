"""The image: built of the Dockerfile by buildah, and run as an engine would run it, by what Linux has for that."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.harness.process import PATIENCE, Process
from tests.harness.programs import ROOT, missing

BASE = ROOT / ".cache/image"
"""Where `tests/base-image` puts the image that the Dockerfile starts from."""

_TAG = "localhost/concurrency-exporter:test"

# How pip reaches its index from here, which a build does not inherit.
_PIP_SETTINGS = {"cert", "client-cert", "index-url", "proxy", "timeout", "trusted-host"}

# A file system that nobody can write to, and a network that has nothing but loopback. The user has no capabilities, and
# gets none: the `securityContext` of deploy/kubernetes.
_CONTAINER = """
root=$1 user=$2 group=$3
shift 3
ip link set lo up
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups \
  --no-new-privs --bounding-set=-all --inh-caps=-all env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image whose file system is mounted at `root`; `config` is the part of it that an engine reads."""

    root: Path
    config: Mapping[str, Any]
    added: int
    """Bytes of the layers that lie on those of the base, not compressed."""

    @property
    def user(self) -> tuple[str, str]:
        """User and group, as the image has them."""
        user, _, group = self.config["User"].partition(":")
        return user, group


@contextmanager
def image(directory: Path, **build_args: str) -> Iterator[Image]:
    """Build the Dockerfile as it is; skips the test where that can't be done."""
    if not (BASE / "installed").exists() or not shutil.which("buildah") or os.getuid():
        raise missing("no image to start from in .cache/image: make test, as root")
    pip = _pip_configuration()
    configuration = directory / "pip.conf"
    configuration.write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in pip.items())]))
    volumes = [f"{configuration}:/etc/pip.conf:ro"]
    volumes += [f"{path}:{path}:ro" for key, path in pip.items() if key in {"cert", "client-cert"}]
    with TemporaryDirectory(dir=directory) as store:

        def buildah(*arguments: str) -> str:
            places = (f"--root={store}/images", f"--runroot={store}/run", f"--storage-opt=vfs.imagestore={BASE}/images")
            return _output("buildah", *places, "--storage-driver=vfs", *arguments)

        buildah(
            *("build", "--isolation=chroot", "--format=docker", "--pull-never", f"--tag={_TAG}"),
            *(f"--volume={volume}" for volume in volumes),
            *(f"--build-arg={name}={value}" for name, value in build_args.items()),
            str(ROOT),
        )
        (base,) = re.findall(r"^FROM (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        built, below = (json.loads(buildah("inspect", "--type=image", name)) for name in (_TAG, base))
        own = {layer["digest"]: layer["size"] for layer in json.loads(built["Manifest"])["layers"]}
        for layer in json.loads(below["Manifest"])["layers"]:
            del own[layer["digest"]]
        root = Path(buildah("mount", buildah("from", "--pull-never", _TAG))).resolve()
        yield Image(root, built["Docker"]["config"], sum(own.values()))


def _pip_configuration() -> dict[str, str]:
    listed = _output(sys.executable, "-m", "pip", "config", "list")
    found = re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listed, re.MULTILINE)
    return {key: value for key, value in found if key in _PIP_SETTINGS}


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr}")
    return done.stdout.strip()


class Container:
    """An image that runs, its command as PID 1; `flags` are added to its entry point."""

    def __init__(self, image: Image, log: Path, *flags: str) -> None:
        self.image = image
        self.process = Process(
            [
                *("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
                *("bash", "-euc", _CONTAINER, "container", image.root, *image.user),
                *(*image.config["Env"], *image.config["Entrypoint"], *flags),
            ],
            log=log,
        )

    @property
    def pid(self) -> int:
        """What is PID 1 inside, as it is called outside; 0 before there is one, and when it has ended."""
        unshare = self.process.pid
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        return int(children[0]) if children else 0

    def is_entered(self) -> bool:
        """Whether PID 1 sees the image's file system, and no other."""
        try:
            return Path(f"/proc/{self.pid}/root").readlink() == self.image.root
        except FileNotFoundError:
            return False

    def run(self, *command: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as an engine runs a health check. Raises `subprocess.TimeoutExpired`."""
        user, group = self.image.user
        return subprocess.run(
            [
                *("nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--root", "--wd"),
                *(f"--setuid={user}", f"--setgid={group}", "env", "-i", *self.image.config["Env"], *command),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def get(self, path: str, port: int) -> str:
        """The body of an answer with status 200, asked for inside. Raises `AssertionError` for any other."""
        code = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}{path}').read().decode(), end='')"
        done = self.run("python3", "-Ic", code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_healthy(self) -> bool:
        """Whether the image's health check succeeds in the time that it has."""
        check = self.image.config["Healthcheck"]
        kind, *command = check["Test"]
        assert kind == "CMD"
        try:
            return self.run(*command, timeout=check["Timeout"] / 1e9).returncode == 0
        except subprocess.TimeoutExpired:
            return False


@contextmanager
def container(image: Image, directory: Path, *flags: str, healthy: bool = True) -> Iterator[Container]:
    """A `Container` from when its health check succeeds, if it is to, to the end of the block."""
    running = Container(image, directory / "container.log", *flags)
    try:
        if healthy:
            running.process.wait_until(running.is_entered, what="PID 1 is in the image")
            running.process.wait_until(running.is_healthy, what="the container is healthy")
        yield running
    finally:
        # The parent of PID 1 hears of no signal but SIGKILL.
        running.process.stop(grace=0)
