"""The image, built of the very Dockerfile on a stand-in for its base, and run as an ordinary user who can't write."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exporter.flags import DEFAULT_PORT
from tests.harness import locks
from tests.harness.image import Image, container, image
from tests.harness.programs import ROOT
from tests.harness.prometheus import promtool_check_metrics

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    with image(
        tmp_path_factory.mktemp("image"), REVISION="0123abc", SOURCE="https://git.example.com/exporter"
    ) as built:
        yield built


@pytest.mark.parametrize("lock", [locks.RUNTIME, locks.BUILD])
def test_the_locks_are_what_pyproject_asks_for(lock: str, tmp_path: Path) -> None:
    for name in (locks.RUNTIME, locks.BUILD):
        shutil.copy(ROOT / name, tmp_path)
    locks.write(tmp_path)
    assert (tmp_path / lock).read_text() == (ROOT / lock).read_text(), "run: make locks"


def test_the_dockerfile_has_no_complaints_of_hadolint() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_its_labels_tell_what_it_is(built: Image) -> None:
    prefix = "org.opencontainers.image."
    assert {key.removeprefix(prefix): value for key, value in built.config["Labels"].items() if prefix in key} == {
        "title": PROJECT["name"],
        "description": PROJECT["description"],
        "licenses": PROJECT["license"],
        "version": PROJECT["version"],
        "revision": "0123abc",
        "source": "https://git.example.com/exporter",
    }


def test_an_engine_needs_to_be_told_nothing(built: Image) -> None:
    user, group = built.user
    assert int(user) > 0, "Kubernetes' runAsNonRoot wants a number"
    assert int(group) > 0
    assert list(built.config["ExposedPorts"]) == [f"{DEFAULT_PORT}/tcp"]
    assert built.config["Entrypoint"] == ["env", "--block-signal=TERM,INT", PROJECT["name"]], "no shell between"
    assert not built.config["Cmd"], "flags of the user are added to the entry point"


def test_it_has_what_is_locked_and_no_other_package(built: Image) -> None:
    packages = {
        canonicalize_name(distribution.name): distribution.version
        for folder in ("opt/concurrency-exporter/lib", "usr/local/lib")
        for site in (built.root / folder).glob("python*/site-packages")
        for distribution in distributions(path=[str(site)])
    }
    assert packages.pop(PROJECT["name"]) == PROJECT["version"]
    pins = [
        Requirement(line) for line in re.findall(r"^\S+==.*(?= \\$)", (ROOT / locks.RUNTIME).read_text(), re.MULTILINE)
    ]
    assert packages == {
        pin.name: str(pin.specifier).removeprefix("==") for pin in pins if not pin.marker or pin.marker.evaluate()
    }


def test_it_has_nothing_to_build_or_to_test_with(built: Image) -> None:
    programs = {
        path.name
        for folder in ("opt/concurrency-exporter/bin", "usr/local/bin", "usr/bin")
        for path in (built.root / folder).iterdir()
    }
    assert {"python3", PROJECT["name"]} <= programs
    assert not {name for name in programs if re.fullmatch(r"pip.*|hatch.*|uv|g?cc.*|make|git|curl", name)}
    exporter = next((built.root / "opt/concurrency-exporter/lib").glob("python*/site-packages/exporter"))
    assert (exporter / "web/templates/board.html").exists()
    assert (exporter / "web/runbooks/ConcurrencySlotsSaturated.md").exists()
    assert not list(built.root.rglob("test_cli.py"))
    assert not (built.root / "build").exists()


def test_it_is_small(built: Image) -> None:
    """Of the 29 MB, 40 leave room for newer wheels, and none for a compiler or a second copy."""
    guide = (ROOT / "deploy" / "README.md").read_text()
    (megabytes,) = re.findall(r"^The exporter adds (\d+) MB to the base", guide, re.MULTILINE)
    assert built.added < 40e6
    assert built.added == pytest.approx(float(megabytes) * 1e6, rel=0.1), "deploy/README.md has another figure"


@pytest.mark.parametrize(("file", "times"), [("README.md", 2), ("compose/compose.yaml", 1)])
def test_its_tag_is_this_version(file: str, times: int) -> None:
    tags = re.findall(r"\bconcurrency-exporter:(\d[\w.]*)", (ROOT / "deploy" / file).read_text())
    assert tags == [PROJECT["version"]] * times


def test_its_user_owns_nothing_of_it(built: Image) -> None:
    owned = [
        path
        for path in (built.root / "opt").rglob("*")
        if (status := path.lstat()).st_uid or status.st_gid or (not path.is_symlink() and status.st_mode & 0o022)
    ]
    assert owned == []


def test_it_serves_as_an_ordinary_user_who_can_not_write(built: Image, tmp_path: Path) -> None:
    with container(built, tmp_path, "--demo") as running:
        running.process.wait_until(
            lambda: running.run(*_asks(DEFAULT_PORT, "/-/ready")).returncode == 0, what="both sources are polled"
        )
        metrics = running.get("/metrics", DEFAULT_PORT)
        assert 'concurrency_exporter_source_up{source="prefect-demo",system="prefect"} 1.0' in metrics
        assert promtool_check_metrics(metrics) == []
        assert "<title>" in running.get("/", DEFAULT_PORT)

        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{running.pid}/status").read_text().splitlines())
        assert status["NSpid"].split()[-1] == "1"
        assert set(status["Uid"].split()) == {built.user[0]}
        assert set(status["Gid"].split()) == {built.user[1]}
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert "Read-only file system" in running.run("touch", "/file").stderr


def _asks(port: int, path: str) -> list[str]:
    return ["python3", "-Ic", f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}{path}')"]


def test_all_that_it_imports_has_bytecode(built: Image, tmp_path: Path) -> None:
    # Who may not write would compile it at each start, for longer than all the rest takes.
    with container(built, tmp_path, "--demo") as running:
        told = running.run("python3", "-vIc", "import exporter.cli, exporter.demo").stderr
    assert re.findall(r"^# code object from '?/.*\.pyc'?$", told, re.MULTILINE)
    assert re.findall(r"^# code object from '?/.*\.py'?$", told, re.MULTILINE) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_pid_1_it_ends_at_a_signal(built: Image, tmp_path: Path, number: signal.Signals) -> None:
    with container(built, tmp_path, "--demo") as running:
        os.kill(running.pid, number)
        assert running.process.wait_for_exit() == 0
    assert "msg=stopped" in running.process.log_text()


def test_a_mistake_ends_it_with_1(built: Image, tmp_path: Path) -> None:
    with container(built, tmp_path, "--config.file=/none.yml", healthy=False) as running:
        assert running.process.wait_for_exit() == 1
    assert running.process.log_text() == "/none.yml: can't be read: No such file or directory\n"


def test_the_health_check_fails_where_nobody_answers(built: Image, tmp_path: Path) -> None:
    with container(built, tmp_path, "--demo", f"--web.listen-address=:{DEFAULT_PORT + 1}", healthy=False) as running:
        other = _asks(DEFAULT_PORT + 1, "/-/healthy")
        running.process.wait_until(running.is_entered, what="PID 1 is in the image")
        running.process.wait_until(lambda: running.run(*other).returncode == 0, what="it serves on the other port")
        assert not running.is_healthy()


def test_the_health_check_fails_where_the_answer_is_another(built: Image, tmp_path: Path) -> None:
    server = ["python3", "-m", "http.server", str(DEFAULT_PORT)]
    with container(replace(built, config={**built.config, "Entrypoint": server}), tmp_path, healthy=False) as running:
        running.process.wait_until(running.is_entered, what="PID 1 is in the image")
        asked = _asks(DEFAULT_PORT, "/etc/hostname")
        running.process.wait_until(lambda: running.run(*asked).returncode == 0, what="files are served")
        assert not running.is_healthy()


def test_the_health_check_fails_where_the_exporter_hangs(built: Image, tmp_path: Path) -> None:
    with container(built, tmp_path, "--demo") as running:
        os.kill(running.pid, signal.SIGSTOP)
        try:
            assert not running.is_healthy()
        finally:
            os.kill(running.pid, signal.SIGCONT)
