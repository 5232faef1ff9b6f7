"""The rules that are shipped, and what promtool and amtool say of them."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from exporter.metrics.observed import OBSERVED
from exporter.metrics.own import OWN
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT, program
from tests.harness.promql import ALERTS, TARGET

UNIT_TESTS: Final = ROOT / "tests" / "alerts"
FILES: Final = ("recording-rules.yml", "thresholds.yml", "alerting-rules.yml")


@dataclass(frozen=True)
class Rule:
    """One rule: `name` is what it records, or its alert's."""

    file: str
    name: str
    expr: str
    kind: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    wait: str = ""
    """`for`, as it is written."""

    @property
    def uses(self) -> set[str]:
        """The recorded series that it reads, in its texts as well."""
        return set(re.findall(r"concurrency:\w+:\w+", " ".join((self.expr, *self.annotations.values()))))


def load(path: Path) -> Any:
    """A YAML file."""
    return YAML(typ="safe").load(path)


def rules(folder: Path = ALERTS) -> Iterator[Rule]:
    """Every rule, in the order of the files."""
    for file in FILES:
        for group in load(folder / file)["groups"]:
            for rule in group["rules"]:
                kind = "alert" if "alert" in rule else "record"
                yield Rule(
                    file,
                    rule[kind],
                    rule["expr"].strip(),
                    kind,
                    rule.get("labels", {}),
                    rule.get("annotations", {}),
                    rule.get("for", ""),
                )


def reads() -> dict[str, set[str]]:
    """For each name of a rule, the recorded series that it is made from, however indirectly."""
    direct: dict[str, set[str]] = {}
    for rule in rules():
        direct.setdefault(rule.name, set()).update(rule.uses)
    found = {name: set(used) for name, used in direct.items()}
    while True:
        more = {name: used.union(*(found[one] for one in used)) for name, used in found.items()}
        if more == found:
            return found
        found = more


def copy(folder: Path, **edits: Callable[[str], str]) -> Path:
    """The folder of a copy of the rules, beside one of their unit tests, in which a file (`thresholds`) is edited.

    Raises `ValueError` where an edit changes nothing.
    """
    shutil.copytree(UNIT_TESTS, folder / "tests" / "alerts")
    (folder / "alerts").mkdir()
    for file in FILES:
        text = (ALERTS / file).read_text(encoding="utf-8")
        if edit := edits.get(file.removesuffix(".yml").replace("-", "_")):
            edited = edit(text)
            if edited == text:
                raise ValueError(f"{file} is as it was")
            text = edited
        (folder / "alerts" / file).write_text(text, encoding="utf-8")
    return folder / "alerts"


def promtool(*arguments: str | Path) -> str:
    """What promtool complains about; empty if nothing."""
    return _complaints("promtool", arguments)


def amtool(*arguments: str | Path) -> str:
    """What amtool prints. Raises `AssertionError` with it where amtool fails."""
    done = _run("amtool", arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _complaints(name: str, arguments: Sequence[str | Path]) -> str:
    done = _run(name, arguments)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _run(name: str, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    command = [program(name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def in_seconds(rules: str) -> str:
    """The rules with their windows and waits shortened: minutes, hours and days to 6 seconds at most."""
    rules = re.sub(r"\[\d+[smhd]\]", "[6s]", rules)
    rules = re.sub(r"offset \d+[smhd]", "offset 1s", rules)
    rules = re.sub(r"(?m)^( +(?:for|interval):) \d+[smhd]$", r"\1 1s", rules)
    # Polls of what is down come ever later, so that seconds may have none.
    rules = re.sub(r"(poll_errors_total\{%s\})\[6s\]", r"\1[60s]", rules)
    assert not re.search(r"\b\d+[mhd]\b", re.sub(r"#.*", "", rules)), "a duration that was not shortened"
    return rules


RULES = list(rules())
BY_ALERT = {rule.name: rule for rule in RULES if rule.kind == "alert"}


EVERY_ALERT = pytest.mark.parametrize("alert", BY_ALERT.values(), ids=BY_ALERT)


LABELS = TARGET | {"resource", "cause", "alertname", "severity"}.union(*(family.labels for family in (*OBSERVED, *OWN)))


OF_TARGETS = ["cluster", "namespace", "job"]
"""Labels that Prometheus puts on what it scrapes, by which two sources of one name differ."""


README = (ALERTS / "README.md").read_text(encoding="utf-8")
