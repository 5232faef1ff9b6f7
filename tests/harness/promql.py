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
PLACE: Final = frozenset({"cluster", "namespace", "job"})
"""Labels of targets that tell one installation of the exporter from another."""
TARGET: Final = PLACE | {"instance", "pod"}
"""Labels that Prometheus puts on what it scrapes."""
FOREIGN: Final = "*"
"""Stands for any other label of a target, which nobody foresaw."""
_OF_PROMETHEUS: Final = {
    "up": frozenset[str](),
    "scrape_duration_seconds": frozenset[str](),
    "scrape_samples_scraped": frozenset[str](),
    "process_resident_memory_bytes": frozenset[str](),
    "process_cpu_seconds_total": frozenset[str](),
    "prometheus_rule_group_last_duration_seconds": frozenset({"rule_group"}),
}


@cache
def shipped() -> dict[str, list[tuple[str, frozenset[str]]]]:
    """The expressions of the rules that are shipped, each with the labels that its rule adds, by the rule's name."""
    found: dict[str, list[tuple[str, frozenset[str]]]] = {}
    for path in sorted(ALERTS.glob("*.yml")):
        for group in YAML(typ="safe").load(path).get("groups", ()):
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                found.setdefault(name, []).append((rule["expr"], frozenset(rule.get("labels", ()))))
    return found


@cache
def declared() -> dict[str, frozenset[str]]:
    """The labels of every series that there can be, by name: of the exporter, of the rules, of Prometheus itself."""
    return {name: labels - {FOREIGN} for name, labels in _series_labels().items()}


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
    joined = set(re.findall(r'label_(?:join|replace)\(.*?, "(\w+)"', expression, re.DOTALL))
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
    anywhere = frozenset().union(*known.values(), joined)
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


# --- Which labels a result has, and whether a label of the target that nobody foresaw can change anything.


Series = dict[str, frozenset[str]]
"""Labels by the name of a metric."""


def made(name: str) -> frozenset[str]:
    """The labels of what the rules of this name record, or of the alert; with `FOREIGN` it can be any."""
    return frozenset().union(*(added | (labels_of(expression) or frozenset()) for expression, added in shipped()[name]))


def depends(expression: str) -> list[str]:
    """How labels of targets that nobody foresaw can change the result: kept in it, or compared with those of others."""
    found: list[str] = []
    labels = _labels(promql_parser.parse(expression), _series_labels(), found)
    return [*found, *(["the result has every label of the target"] if labels and FOREIGN in labels else [])]


def labels_of(expression: str) -> frozenset[str] | None:
    """The labels that the result can have; None of a scalar."""
    return _labels(promql_parser.parse(expression), _series_labels(), [])


@cache
def _series_labels() -> Series:
    """As `declared`, with `FOREIGN` for the labels of targets. Rules read each other, so it takes some rounds."""
    series: Series = dict(_OF_PROMETHEUS)
    for family in (*OBSERVED, *OWN):
        for name, more in _series(family):
            series[name] = frozenset({*family.labels, *more})
    series = {name: labels | TARGET | {FOREIGN} for name, labels in series.items()}
    everything = frozenset().union(*(family.labels for family in OBSERVED), {"resource"})
    # Alerts have what their rules give them, which is looked at there.
    series["ALERTS"] = series["ALERTS_FOR_STATE"] = everything | TARGET | {"alertname", "alertstate", "severity"}
    recorded = {name: rules for name, rules in shipped().items() if ":" in name}
    series |= dict.fromkeys(recorded, frozenset())
    while True:
        again = dict(series)
        for name, rules in recorded.items():
            for expression, added in rules:
                labels = _labels(promql_parser.parse(expression), again, []) or frozenset()
                again[name] = again[name] | added | labels
        if again == series:
            return series
        series = again


def _labels(node: Any, series: Series, problems: list[str]) -> frozenset[str] | None:
    """The labels of a parsed expression; None of a scalar. `problems` gets the matchings of unlike targets."""
    labels: frozenset[str] | None
    match node:
        case promql_parser.VectorSelector():
            labels = series.get(node.name or "", TARGET | {FOREIGN})
        case promql_parser.MatrixSelector():
            labels = series.get(node.vector_selector.name or "", TARGET | {FOREIGN})
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            labels = None
        case promql_parser.AggregateExpr():
            labels = _aggregated(node, _labels(node.expr, series, problems) or frozenset())
        case promql_parser.Call():
            labels = _called(node, [_labels(argument, series, problems) for argument in node.args])
        case promql_parser.BinaryExpr():
            left, right = (_labels(side, series, problems) for side in (node.lhs, node.rhs))
            if left is None or right is None:
                labels = right if left is None else left
            else:
                labels = _joined(node, left, right, problems)
        case _:  # brackets, a sign, a subquery
            labels = _labels(node.expr, series, problems)
    return labels


def _aggregated(node: Any, labels: frozenset[str]) -> frozenset[str]:
    if str(node.op) in {"topk", "bottomk"}:
        return labels
    if node.modifier is None:
        return frozenset()
    if node.modifier.type == promql_parser.AggModifierType.Without:
        return labels - set(node.modifier.labels)
    return labels & set(node.modifier.labels)


def _called(node: Any, arguments: list[frozenset[str] | None]) -> frozenset[str] | None:
    name = node.func.name
    if name.startswith("absent"):
        selector = next(selectors(node))
        return frozenset(one.name for one in selector.matchers.matchers if str(one.op) == "MatchOp.Equal")
    if name in {"time", "scalar", "pi"}:
        return None
    vectors = [labels for labels in arguments if labels is not None]
    labels = vectors[0] if vectors else frozenset()
    if name in {"label_replace", "label_join"}:
        return labels | {node.args[1].val}
    return labels - {"le"} if name == "histogram_quantile" else labels


def _joined(node: Any, left: frozenset[str], right: frozenset[str], problems: list[str]) -> frozenset[str]:
    modifier, operator = node.modifier, str(node.op)
    matching = modifier.matching if modifier else None
    names = frozenset(matching.labels if matching else ())
    is_on = matching is not None and matching.type == promql_parser.LabelModifierType.Include
    compared = names if is_on else (left | right) - names
    # Where all labels of targets are compared, each series finds those of its own scrape: both come from one target.
    if FOREIGN in compared and not (FOREIGN in left & right and "instance" in compared):
        problems.append(f"{operator} compares the labels of targets: {node.prettify()}")
    if operator in {"and", "unless"}:
        return left
    if operator == "or":
        return left | right
    many = {"VectorMatchCardinality.ManyToOne": left, "VectorMatchCardinality.OneToMany": right}
    if modifier and str(modifier.card) in many:
        return many[str(modifier.card)] | set(modifier.group_labels or ())
    return left & names if is_on else left - names
