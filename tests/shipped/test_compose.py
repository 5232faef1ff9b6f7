"""deploy/compose: what the specification says of it, that its parts name each other rightly, and most of it at work."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from compose_spec import PyCompose
from ruamel.yaml import YAML

from exporter.flags import DEFAULT_PORT, parser
from tests.harness import programs
from tests.harness.process import running
from tests.harness.programs import ROOT, missing, program
from tests.harness.rules import FILES

COMPOSE = ROOT / "deploy/compose/compose.yaml"
SERVICES: dict[str, Any] = YAML(typ="safe").load(COMPOSE)["services"]


def mounts(service: str) -> dict[PurePosixPath, Path]:
    """What a service sees of the project: path in its container -> path here."""
    found = {}
    for volume in SERVICES[service].get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"]
            found[PurePosixPath(target)] = (COMPOSE.parent / source).resolve(strict=True)
    return found


def laid_out(service: str, folder: Path) -> Path:
    """A folder with these files where the container has them."""
    for target, source in mounts(service).items():
        path = folder / target.relative_to("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(source)
    return folder


def ports(service: str) -> set[int]:
    """The ports that a service publishes, under the same number, and to this machine only."""
    found = [re.fullmatch(r"127\.0\.0\.1:(\d+):(\d+)", port) for port in SERVICES[service]["ports"]]
    assert all(port and port[1] == port[2] for port in found)
    return {int(port[1]) for port in found if port}


def targets(configs: list[dict[str, Any]]) -> list[str]:
    return [target for config in configs for each in config["static_configs"] for target in each["targets"]]


def test_it_is_what_the_specification_says() -> None:
    PyCompose.from_yaml(COMPOSE.read_text())
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {name for name in named if not name.startswith(".")} == {*YAML(typ="safe").load(COMPOSE)["volumes"]}


@pytest.mark.parametrize(("what", "instead"), [("read_only:", "read-only:"), (":ro", ":rx"), ("256m", "256 parsecs")])
def test_a_mistake_would_be_found(what: str, instead: str) -> None:
    with pytest.raises(ValueError, match=instead.strip(":").split()[-1]):
        PyCompose.from_yaml(COMPOSE.read_text().replace(what, instead, 1))


def test_the_exporter_is_the_image_with_flags_of_its_own() -> None:
    exporter = SERVICES["exporter"]
    assert (COMPOSE.parent / exporter["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert exporter["image"] == f"concurrency-exporter:{version}"
    assert parser().parse_args(exporter["command"]).demo
    assert ports("exporter") == {DEFAULT_PORT}
    variables = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", parser().format_help()))
    assert set(exporter["environment"]) == variables
    assert exporter["read_only"]
    assert exporter["cap_drop"] == ["ALL"]


def test_prometheus_reads_its_configuration_and_the_rules(tmp_path: Path) -> None:
    config = laid_out("prometheus", tmp_path) / "etc/prometheus/prometheus.yml"
    done = subprocess.run([program("promtool"), "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = YAML(typ="safe").load(config)
    assert {Path(name).name for name in loaded["rule_files"]} == set(FILES)
    assert targets(loaded["scrape_configs"]) == [f"exporter:{DEFAULT_PORT}"]
    assert targets(loaded["alerting"]["alertmanagers"]) == ["alertmanager:9093"]


def test_alertmanager_reads_its_configuration(tmp_path: Path) -> None:
    config = laid_out("alertmanager", tmp_path) / "etc/alertmanager/alertmanager.yml"
    done = subprocess.run([program("amtool"), "check-config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ports("alertmanager") == {9093}


def test_grafana_finds_prometheus_and_the_dashboards(tmp_path: Path) -> None:
    root = laid_out("grafana", tmp_path)
    (source,) = YAML(typ="safe").load(root / "etc/grafana/provisioning/datasources/datasources.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert ports("prometheus") == {9090}
    interval = YAML(typ="safe").load(COMPOSE.with_name("prometheus.yml"))["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    (provider,) = YAML(typ="safe").load(root / "etc/grafana/provisioning/dashboards/dashboards.yml")["providers"]
    folder = root / Path(provider["options"]["path"]).relative_to("/")
    assert {path.name for path in folder.glob("*.json")} == {path.name for path in (ROOT / "dashboards").glob("*.json")}
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert json.loads((root / Path(home).relative_to("/")).read_text())["uid"] == "concurrency-overview"
    rendered = json.loads((ROOT / "tests/browser/package.json").read_text())["dependencies"]["@grafana/data"]
    assert SERVICES["grafana"]["image"] == f"grafana/grafana:{rendered}"


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[list[str | Path]]:
    """What to put before a command, so that it runs in a network where all names of services are those of loopback."""
    if os.getuid() or not shutil.which("ip"):
        raise missing("a network of its own takes root, and iproute2")
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *SERVICES)))
    script = 'ip link set lo up && mount --bind "$1" /etc/hosts && touch "$1.mounted" && exec sleep infinity'
    command: list[str | Path] = ["unshare", "--net", "--mount", "bash", "-c", script, "network", hosts]
    with running(command, log=tmp_path / "network.log") as network:
        network.wait_until(tmp_path.joinpath("hosts.mounted").exists, what="the network is up")
        yield ["nsenter", f"--target={network.pid}", "--net", "--mount"]


@pytest.mark.servers
def test_the_parts_find_each_other(inside: list[str | Path], tmp_path: Path) -> None:
    def ask(url: str) -> Any:
        code = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=60).read().decode())"
        done = subprocess.run([*inside, sys.executable, "-Ic", code], stdout=subprocess.PIPE, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {"data": {}}

    def has(url: str, predicate: Callable[[Any], object]) -> Callable[[], bool]:
        return lambda: bool(predicate(ask(url)["data"]))

    def healths(rules: Any) -> set[str]:
        often = [group for group in rules["data"]["groups"] if group["interval"] <= 60]
        return {rule["health"] for group in often for rule in group["rules"]}

    etc = tmp_path / "etc"
    laid_out("prometheus", tmp_path)
    laid_out("alertmanager", tmp_path)
    commands: dict[str, list[str | Path]] = {
        "exporter": [sys.executable, "-m", "exporter", *SERVICES["exporter"]["command"]],
        "alertmanager": [
            programs.alertmanager(),
            f"--config.file={etc}/alertmanager/alertmanager.yml",
            f"--storage.path={tmp_path}/alertmanager",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            program("prometheus"),
            f"--config.file={etc}/prometheus/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/prometheus",
        ],
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            process = stack.enter_context(running([*inside, *command], log=tmp_path / f"{name}.log"))
        api = "http://prometheus:9090/api/v1"
        process.wait_until(
            has(f"{api}/alertmanagers", lambda data: data.get("activeAlertmanagers")), what="Alertmanager is found"
        )
        process.wait_until(
            has(f"{api}/query?query=concurrency:slot_utilization:ratio", lambda data: data.get("result")),
            what="the rules record what was scraped",
        )
        process.wait_until(lambda: "unknown" not in healths(ask(f"{api}/rules")), what="all rules are evaluated")
        assert healths(ask(f"{api}/rules")) == {"ok"}
        (target,) = ask(f"{api}/targets")["data"]["activeTargets"]
        assert (target["scrapeUrl"], target["health"]) == (f"http://exporter:{DEFAULT_PORT}/metrics", "up")
