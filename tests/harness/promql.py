"""What a PromQL expression selects, and what there is to select."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import promql_parser
from ruamel.yaml import YAML

from exporter.metrics.family import Family
from exporter.metrics.observed import OBSERVED
from exporter.metrics.own import OWN

ALERTS: Final = Path(__file__).parents[2] / "alerts"
TARGET: Final = frozenset({"cluster", "namespace", "job", "instance", "pod"})
"""Labels that Prometheus puts on what it scrapes."""
_OF_PROMETHEUS: Final = {
    "up": frozenset[str](),
    "scrape_duration_seconds": frozenset[str](),
    "scrape_samples_scraped": frozenset[str](),
    "process_resident_memory_bytes": frozenset[str](),
    "process_cpu_seconds_total": frozenset[str](),
    "prometheus_rule_group_last_duration_seconds": frozenset({"rule_group"}),
}


def expressions(files: Path = ALERTS) -> Iterator[tuple[str, str]]:
    """Name and expression of every rule that is shipped."""
    for path in sorted(files.glob("*.yml")):
        for group in YAML(typ="safe").load(path).get("groups", ()):
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]


@cache
def declared() -> dict[str, frozenset[str]]:
    """The labels of every series that there can be, by name: of the exporter, of the rules, of Prometheus itself."""
    names: dict[str, frozenset[str]] = dict(_OF_PROMETHEUS)
    for family in (*OBSERVED, *OWN):
        for name, more in _series(family):
            names[name] = frozenset({*family.labels, *more})
    everything = frozenset().union(*(family.labels for family in OBSERVED), {"resource"})
    for name, _ in expressions():
        if ":" in name:
            names[name] = everything
    names["ALERTS"] = names["ALERTS_FOR_STATE"] = everything | {"alertname", "alertstate", "severity"}
    return {name: labels | TARGET for name, labels in names.items()}


def _series(family: Family) -> Iterator[tuple[str, tuple[str, ...]]]:
    match family.kind:
        case "histogram":
            yield from ((f"{family.name}_bucket", ("le",)), (f"{family.name}_count", ()), (f"{family.name}_sum", ()))
        case "gaugehistogram":
            yield from ((f"{family.name}_bucket", ("le",)), (f"{family.name}_gcount", ()), (f"{family.name}_gsum", ()))
        case _:
            yield family.name, ()


def undeclared(expression: str) -> list[str]:
    """What the expression selects or groups by that there is not. Raises `ValueError` where it can't be parsed."""
    known = declared()
    made = set(re.findall(r'label_(?:join|replace)\(.*?, "(\w+)"', expression, re.DOTALL))
    found = []
    for selector in selectors(promql_parser.parse(expression)):
        if selector.name is None:
            pattern = next((one.value for one in selector.matchers.matchers if one.name == "__name__"), "")
            if not any(re.fullmatch(pattern, name) for name in known):
                found.append(f"no name matches {pattern!r}")
            continue
        if selector.name not in known:
            found.append(f"no metric {selector.name}")
            continue
        labels = {matcher.name for matcher in selector.matchers.matchers}
        found += [f"{selector.name} has no label {label}" for label in sorted(labels - known[selector.name])]
    anywhere = frozenset().union(*known.values(), made)
    grouped = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([\w\s,]*)\)", expression)
    for label in sorted({label.strip() for group in grouped for label in group.split(",") if label.strip()} - anywhere):
        found.append(f"nothing has a label {label}")
    return found


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    if isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
        return
    for attribute in ("lhs", "rhs", "expr", "param"):
        child = getattr(node, attribute, None)
        if child is not None and not isinstance(child, str):
            yield from selectors(child)
    for child in getattr(node, "args", None) or ():
        yield from selectors(child)
