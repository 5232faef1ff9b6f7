"""deploy/compose: what the specification says of it, that its parts name each other rightly, and most of it at work."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from compose_spec import PyCompose
from ruamel.yaml import YAML

from exporter.flags import DEFAULT_PORT, parser
from tests.harness.compose import COMPOSE, SERVICES, laid_out
from tests.harness.programs import ROOT, program
from tests.harness.rules import FILES


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
