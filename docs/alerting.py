"""The alerts that are shipped, and the figures that they compare with, read from their own files."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

SHIPPED: Final = Path(__file__).parent.parent / "alerts"


@dataclass(frozen=True)
class Threshold:
    """One figure, or one for each state; `default` is for people, `meaning` and `advice` are its comment's.

    `query` is what its alert compares with it: 99 % of the last week were below.
    """

    name: str
    alert: str
    default: str
    meaning: str
    advice: str
    query: str


def alerts() -> list[dict[str, Any]]:
    """The rule of every alert, in the order of the file."""
    return [rule for rule in _rules("alerting-rules.yml") if "alert" in rule]


def thresholds() -> list[Threshold]:
    """Every threshold, in the order of the file. Raises `ValueError` for one that no comment or no alert names."""
    text = re.sub(r"\n +# ", " ", (SHIPPED / "thresholds.yml").read_text(encoding="utf-8"))
    comments = re.findall(r"(Concurrency\w+): ([^\n]*?)\.(?: ([^\n]*))?\n +- record: (\S+)", text)
    expressions = [rule["expr"].strip() for rule in _rules("alerting-rules.yml")]
    defaults: dict[str, list[str]] = {}
    for rule in _rules("thresholds.yml"):
        defaults.setdefault(rule["record"], []).append(" ".join([*rule.get("labels", {}).values(), _default(rule)]))
    if unexplained := defaults.keys() - {name for *_, name in comments}:
        raise ValueError(f"thresholds.yml has no comment on {', '.join(sorted(unexplained))}")
    return [
        Threshold(name, alert, ", ".join(defaults[name]), meaning, advice, _query(expressions, name))
        for alert, meaning, advice, name in comments
    ]


def _rules(file: str) -> Iterator[dict[str, Any]]:
    for group in YAML(typ="safe").load(SHIPPED / file)["groups"]:
        yield from group["rules"]


def _default(rule: dict[str, Any]) -> str:
    """`6 * 3600 * concurrency:resources:group` in seconds is 6h."""
    value = math.prod(float(factor) for factor in rule["expr"].split(" * ")[:-1])
    if rule["record"].endswith(":seconds"):
        return f"{value / 3600:g}h" if value >= 3600 else f"{value / 60:g}m"
    return f"{value:g}"


def _query(expressions: list[str], threshold: str) -> str:
    comparison = re.compile(rf" >=? {threshold}\b")
    compared = [comparison.sub("", expression) for expression in expressions if comparison.search(expression)]
    if len(compared) != 1:
        raise ValueError(f"{len(compared)} comparisons with {threshold} in alerting-rules.yml")
    lines = compared[0].splitlines()
    if len(lines) == 1:
        return f"quantile_over_time(0.99, ({compared[0]})[7d:5m])"
    return "\n".join(["quantile_over_time(0.99, (", *(f"  {line}" for line in lines), ")[7d:5m])"])
