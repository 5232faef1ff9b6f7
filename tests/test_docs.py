"""The documents say what the code does: references are current, examples work, and what they name exists."""

import re
import subprocess
from pathlib import Path

import pytest

from docs import generate
from exporter import config
from exporter.web import application
from tests.harness.programs import ROOT, program

README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_references_in_readme_are_current() -> None:
    assert generate.generated(README) == README, "run `make docs`"


def test_drift_is_seen() -> None:
    drifted = README.replace("| `max_series` | number |", "| `max_series` | string |")
    assert drifted != README
    assert generate.generated(drifted) == README


def test_the_first_commands_are_the_two() -> None:
    assert [line.split("  ")[0] for line in blocks("sh")[0].splitlines()] == ["make run", "make test"]


def test_every_command_of_make_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README + ARCHITECTURE, re.MULTILINE))
    assert {"run", "test", "check", "bench"} <= named <= targets


def test_the_example_configuration_is_good(tmp_path: Path) -> None:
    (example,) = [block for block in blocks("yaml") if block.startswith("sources:")]
    (tmp_path / "example.yml").write_text(example)
    for file in re.findall(r"_file: (\S+)", example):
        (tmp_path / file).write_text("secret\n")
    assert [source.name for source in config.load(tmp_path / "example.yml").sources] == ["production", "cloro"]


def test_the_example_for_prometheus_is_good(tmp_path: Path) -> None:
    (example,) = [block for block in blocks("yaml") if block.startswith("scrape_configs:")]
    (tmp_path / "prometheus.yml").write_text(example)
    command = [str(program("promtool")), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_metrics_are_declared() -> None:
    declared = {family.name for family in generate.families()}
    shown = re.findall(r"^(concurrency_\w+)\{", "\n".join(blocks("text")), re.MULTILINE)
    assert len(shown) == 6
    assert set(shown) <= declared
    for query in blocks("promql"):
        assert set(re.findall(r"concurrency_\w+", query)) <= declared


def test_every_route_is_in_readme() -> None:
    async def reload() -> str:
        return ""

    app = application(store=None, telemetry=None, clock=None, reload=reload)  # type: ignore[arg-type]
    assert {route.path for route in app.routes} == set(re.findall(r"^\| `(/\S*)` \|", README, re.MULTILINE))  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", sorted((ROOT / "exporter").glob("**/*.py")), ids=lambda path: path.stem)
def test_every_module_is_in_the_architecture(path: Path) -> None:
    if path.parent.name in {"demo", "prefect"}:
        assert f"{path.parent.name}/`" in ARCHITECTURE
    elif path.stem not in {"__init__", "__main__"}:
        assert path.name in ARCHITECTURE
