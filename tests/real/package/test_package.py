"""The package as users get it: what is in it, and that it runs where there is neither a checkout nor the tests."""

import os
import re
import ssl
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import httpx
import pytest
from packaging.requirements import Requirement

from exporter import __version__
from exporter.model import OUTCOMES
from tests.harness.certificates import authority, certificate
from tests.harness.exporter import troubles
from tests.harness.process import PATIENCE, accepts, free_port, running
from tests.harness.programs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNBOOKS = {path.name for path in (ROOT / "alerts/runbooks").iterdir()}
FILES = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "exporter").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = f"concurrency_exporter-{__version__}.dist-info"
    assert {"exporter/web/templates/board.html", "exporter/py.typed"} <= FILES
    assert names == FILES | {f"exporter/web/runbooks/{name}" for name in RUNBOOKS} | {
        f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }


def test_the_sdist_has_what_the_wheel_is_built_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    more = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO", ".gitignore"}
    assert names == FILES | more | {f"alerts/runbooks/{name}" for name in RUNBOOKS}


def test_the_version_comes_from_one_place(wheel: Path) -> None:
    assert PROJECT["version"] == __version__, "pyproject.toml has changed since it was installed here: make check"
    assert wheel.name == f"concurrency_exporter-{__version__}-py3-none-any.whl"
    newest = re.search(
        r"^## (\S+) / (unreleased|\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert newest
    assert newest[1] == __version__


@pytest.fixture(scope="module")
def pipx(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command that runs the wheel in an environment of its own; what follows are the exporter's arguments."""
    folder = tmp_path_factory.mktemp("pipx")
    with pytest.MonkeyPatch.context() as patch:
        # pipx keeps what it has run, and makes links in the home of the user.
        patch.setenv("PIPX_HOME", str(folder / "home"))
        # pip, as everywhere here: uv does not read where pip has been told to find its packages.
        patch.setenv("PIPX_DEFAULT_BACKEND", "pip")
        patch.setenv("PIPX_BIN_DIR", str(folder / "bin"))
        patch.setenv("PIPX_MAN_DIR", str(folder / "man"))
        patch.delenv("PYTHONPATH", raising=False)
        patch.chdir(folder)
        yield [sys.executable, "-m", "pipx", "run", "--quiet", "--spec", str(wheel), "concurrency-exporter"]


@pytest.fixture(scope="module")
def lowest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command in an environment that has the lowest version of each dependency that pyproject.toml allows."""
    folder = tmp_path_factory.mktemp("lowest")
    pins = {
        f"{requirement.name}=={specifier.version}"
        for requirement in map(Requirement, PROJECT["dependencies"])
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    assert len(pins) == len(PROJECT["dependencies"]), "a dependency without a lower bound"
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(sorted(pins)))
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=PATIENCE)
    pip = [sys.executable, "-m", "pip", "--python", str(environment)]
    done = subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", f"--constraint={constraints}", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [str(environment / "bin" / "concurrency-exporter")]


@pytest.mark.parametrize("installed", ["pipx", "lowest"])
def test_it_runs_without_the_checkout(installed: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    program: list[str] = request.getfixturevalue(installed)
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout.startswith(f"concurrency-exporter {__version__} "), done.stdout + done.stderr
    # With TLS and a password, each of its dependencies has something to do.
    trusted = ssl.create_default_context(cafile=authority(tmp_path))
    certificate(tmp_path, "server")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yml"
    web.write_text(
        f"tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{scraper: {hashed}}}\n"
    )
    port = free_port()
    command = [*program, "--demo", f"--web.listen-address=127.0.0.1:{port}", f"--web.config.file={web}"]
    with running(command, log=tmp_path / "log", env=dict(os.environ)) as process:
        process.wait_until(accepts(port), what="it listens", timeout=PATIENCE)
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}", trust_env=False, verify=trusted, auth=("scraper", "secret")
        ) as client:
            process.wait_until(lambda: client.get("/-/ready").is_success, what="it is ready", timeout=PATIENCE)
            status, metrics = client.get("/"), client.get("/metrics")
    assert status.status_code == metrics.status_code == 200
    assert "cloro-demo" in status.text
    assert 'concurrency_exporter_source_up{source="prefect-demo",system="prefect"} 1.0' in metrics.text
    assert all(f'outcome="{outcome}"' in metrics.text for outcome in OUTCOMES)
    assert troubles(process) == []
