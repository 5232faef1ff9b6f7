"""Small faults put into the rules, to see whether their unit tests notice. `make mutants` tries all, and lists them.

Every expression is taken apart, and each of its numbers, durations, operators, clauses, matchers and labels is changed
once; so are the `for`, the labels and the texts of each rule.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
from ruamel.yaml import YAML

from tests.harness.promql import ALERTS
from tests.harness.rules import FILES, UNIT_TESTS, load, promtool, reads
from tests.harness.targets import without_texts

Changed = Iterator[tuple[str, str]]
"""What was changed, and the text that comes of it."""

_OTHER: Final = {
    ">": ("<=", ">="),
    ">=": ("<", ">"),
    "<": (">=", "<="),
    "<=": (">", "<"),
    "==": ("!=",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "and": ("unless",),
    "unless": ("and",),
    "or": ("and",),
    "max": ("min",),
    "min": ("max",),
    "sum": ("max",),
    "avg_over_time": ("max_over_time",),
    "max_over_time": ("min_over_time",),
    "=": ("!=",),
    "!=": ("=",),
    "=~": ("!~",),
    "!~": ("=~",),
}
# The parser's enumerations can be compared and printed, but are no keys.
_MATCH: Final = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
_SIDE: Final = {"VectorMatchCardinality.ManyToOne": "left", "VectorMatchCardinality.OneToMany": "right"}


EQUIVALENT: Final = {
    "concurrency:slots_saturated:condition: >= → >": "ten minutes have no share of exactly nine tenths",
    "concurrency:source_down:condition: > → >=": "nor has the share of three quarters, but at the very start",
    "concurrency:exporter_absent:condition: < → <=": "nor of a half, but at the very start",
    "concurrency:exporter_absent:condition: [300s] → [360s]": "where both kinds overlap, it is for less than the wait",
    "ConcurrencyPollsOverrun: > → >=": "nor is a ratio of two rates exactly a tenth",
    "ConcurrencyNearLimit: [3600s] → [4320s]": "how long a gap in the history does no harm: more is no fault",
    "concurrency:startable_tasks:sum: < → <=": "the lesser of two that are equal is either",
    "concurrency:wanted_slots:sum: concurrency:startable_tasks:sum without resource": "queues have a label more",
    "concurrency:startable_tasks:sum: concurrency:active_slots:max without resource": "a pool with its own has those",
    "concurrency:slot_demand:p75_1d: 1 → 1.25": "slots are whole",
    "concurrency:leading_reason:tasks: 1 → 1.25": "it is the number of series",
    "concurrency:leading_reason:tasks: 0.3 → 0.375": "the first one is still the first",
    "concurrency:saturated_waiting:bool: > → >=": "no sample is recorded of tasks that do not wait",
    "concurrency:limit_waiting_tasks:sum: concurrency:blocked_tasks:sum without resource": "a full pool has none free",
    "ConcurrencyDeploymentLimitZero: > → >=": "no sample is recorded of tasks that do not wait",
    "ConcurrencyDeploymentLimitZero: sum → max": "each sum is of one reason",
    "ConcurrencyDeploymentLimitZero: concurrency:blocked_tasks:sum without resource": "pools have no such threshold",
    "ConcurrencyRetryOrphaned: > → >=": "no sample is recorded of tasks that do not wait",
    "ConcurrencyRetryOrphaned: sum → max": "each sum is of one reason",
    "ConcurrencyRetryOrphaned: concurrency:blocked_tasks:sum without resource": "pools have no such threshold",
    "concurrency:queue_stalled:condition: > → >=": "no sample is recorded of tasks that do not wait",
    "concurrency:no_worker:condition: concurrency:blocked_tasks:sum without resource": "that of queues only",
    "concurrency:worker_absence:seconds: concurrency:blocked_tasks:sum without resource": "the same pools",
    "concurrency:worker_absence:seconds: concurrency:blocked_tasks:sum: resource!=": "the same pools",
    "ConcurrencyNearLimit: for: 30m → 1440s": "its tests are of days, and look every ten minutes",
}
"""Mutants that no test can catch, and why."""


@dataclass(frozen=True)
class Mutant:
    """A fault in one rule, by the positions of its group and itself in a file."""

    file: str
    group: int
    rule: int
    name: str
    what: str
    changed: dict[str, Any]
    caught_by: str = ""
    """The file of unit tests that fails for it."""

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


# --- Expressions.


def _duration(time: timedelta) -> str:
    return f"{time.total_seconds():g}s"


def _durations(time: timedelta) -> list[str]:
    """A fifth more and a fifth less, but a minute at least: tests look once a minute."""
    minutes = time.total_seconds() / 60
    step = max(1, round(minutes / 5))
    return [_duration(timedelta(minutes=minutes + step)), _duration(timedelta(minutes=max(minutes - step, 0)))]


def _number(value: float) -> str:
    return "Inf" if value == float("inf") else f"{value:.12g}"


def _pieces(node: Any) -> list[Any]:
    """The node as text and further nodes, in the order in which they are written."""
    pieces: list[Any]
    match node:
        case promql.NumberLiteral():
            pieces = [_number(node.val)]
        case promql.VectorSelector():
            pieces = [_selector(node), _offset(node)]
        case promql.MatrixSelector():
            vector = node.vector_selector
            pieces = [_selector(vector), f"[{_duration(node.range)}]", _offset(vector)]
        case promql.Call():
            arguments = [piece for argument in node.args for piece in (", ", argument)][1:]
            pieces = [f"{node.func.name}(", *arguments, ")"]
        case promql.StringLiteral():
            pieces = [f'"{node.val}"']
        case promql.AggregateExpr():
            first = [node.param, ", "] if node.param else []
            pieces = [str(node.op), _grouping(node.modifier), "(", *first, node.expr, ")"]
        case promql.BinaryExpr():
            pieces = [node.lhs, f" {node.op}", _matching(node.modifier), " ", node.rhs]
        case promql.ParenExpr():
            pieces = ["(", node.expr, ")"]
        case promql.UnaryExpr():
            pieces = ["-", node.expr]
        case _:
            raise TypeError(f"no rule has had a {type(node).__name__} so far")
    return pieces


def _offset(vector: Any) -> str:
    return f" offset {_duration(vector.offset)}" if vector.offset else ""


def _selector(vector: Any, without: int = -1, operator: str = "") -> str:
    matchers = [
        f'{matcher.name}{operator if operator and number == without else _MATCH[str(matcher.op)]}"{matcher.value}"'
        for number, matcher in enumerate(vector.matchers.matchers)
        if operator or number != without
    ]
    return f"{vector.name}{{{', '.join(matchers)}}}" if matchers else str(vector.name)


def _grouping(modifier: Any, leave_out: str = "") -> str:
    if modifier is None:
        return " "
    word = "without" if modifier.type == promql.AggModifierType.Without else "by"
    return f" {word} ({', '.join(label for label in modifier.labels if label != leave_out)}) "


def _matching(modifier: Any, leave_out: str | None = None) -> str:
    if modifier is None:
        return ""
    text = " bool" if modifier.return_bool else ""
    if modifier.matching is not None:
        word = "on" if modifier.matching.type == promql.LabelModifierType.Include else "ignoring"
        text += f" {word} ({', '.join(label for label in modifier.matching.labels if label != leave_out)})"
    if side := _SIDE.get(str(modifier.card)):
        text += f" group_{side} ({', '.join(modifier.group_labels or ())})"
    return text


def _text(node: Any) -> str:
    return str(node) if isinstance(node, str) else _text_of(_pieces(node))


def expressions(node: Any) -> Changed:
    """Every change of one place in a parsed expression."""
    yield from _own(node)
    pieces = _pieces(node)
    for number, piece in enumerate(pieces):
        if not isinstance(piece, str):
            for what, text in expressions(piece):
                yield what, "".join([*map(_text, pieces[:number]), text, *map(_text, pieces[number + 1 :])])


def _own(node: Any) -> Changed:
    match node:
        case promql.NumberLiteral():
            yield from _numbers(node.val)
        case promql.StringLiteral():
            yield f"another {node.val!r}", f'"{node.val}-"'
        case promql.VectorSelector():
            yield from _matchers(node, _offset(node))
        case promql.MatrixSelector():
            vector, time = node.vector_selector, _duration(node.range)
            yield from _matchers(vector, f"[{time}]{_offset(vector)}")
            for other in _durations(node.range):
                yield f"[{time}] → [{other}]", f"{_selector(vector)}[{other}]{_offset(vector)}"
            for other in _durations(vector.offset) if vector.offset else ():
                yield f"{_offset(vector)} → {other}".lstrip(), f"{_selector(vector)}[{time}] offset {other}"
        case promql.Call():
            for name in _OTHER.get(node.func.name, ()):
                yield f"{node.func.name} → {name}", _text_of([f"{name}(", *_pieces(node)[1:]])
        case promql.AggregateExpr():
            for name in _OTHER.get(str(node.op), ()):
                yield f"{node.op} → {name}", _text_of([name, *_pieces(node)[1:]])
            for label in node.modifier.labels if node.modifier else ():
                pieces = [str(node.op), _grouping(node.modifier, label), *_pieces(node)[2:]]
                yield f"{node.op} without the label {label}", _text_of(pieces)
        case promql.BinaryExpr():
            yield from _binary(node)


def _numbers(number: float) -> Changed:
    if number != float("inf"):
        for value in (number * 1.25, number * 0.8) if number else (1.0,):
            yield f"{_number(number)} → {_number(value)}", _number(value)


def _text_of(pieces: Sequence[Any]) -> str:
    return "".join(map(_text, pieces))


def _matchers(vector: Any, rest: str) -> Changed:
    for number, matcher in enumerate(vector.matchers.matchers):
        yield f"{vector.name} without {matcher.name}", _selector(vector, number) + rest
        for operator in _OTHER[_MATCH[str(matcher.op)]]:
            yield f"{vector.name}: {matcher.name}{operator}", _selector(vector, number, operator) + rest


def _binary(node: Any) -> Changed:
    operator = str(node.op)
    left, rest = _text(node.lhs), f"{_matching(node.modifier)} {_text(node.rhs)}"
    for other in _OTHER[operator]:
        if operator == "*" and str(getattr(node.rhs, "name", "")).endswith(":group"):
            continue  # which is 1, so that dividing by it is the same
        # `or` wants no `on` or `ignoring` to be put in its place, and `and` may bind tighter than what it joins.
        yield f"{operator} → {other}", f"({left} {other}{rest})"
    if operator in {"and", "or", "unless"}:
        yield f"without: {operator}{rest}"[:110], left
    if operator == "or":
        yield f"without: {left} or"[:110], _text(node.rhs)
    if operator in {">", ">=", "<", "=="} and not (node.modifier and node.modifier.return_bool):
        yield f"without: {operator}{rest}"[:110], left
    if node.modifier and node.modifier.matching is not None:
        for label in node.modifier.matching.labels:
            matching = _matching(node.modifier, label)
            yield f"{operator}: matching without {label}", f"{left} {operator}{matching} {_text(node.rhs)}"


# --- Rules.


def _changes(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for what, expr in expressions(promql.parse(rule["expr"])):
        yield what, {"expr": expr}
    if "for" in rule:
        minutes = timedelta(minutes=int(rule["for"].removesuffix("m")))
        for time in [*_durations(minutes), "0s"]:
            yield f"for: {rule['for']} → {time}", {"for": time}
    for key in ("labels", "annotations"):
        for name, value in rule.get(key, {}).items():
            yield f"another {name}", {key: {**rule[key], name: f"{value}-"}}
    yield "without the rule", {"expr": "vector(0) > 1"}


def mutants() -> list[Mutant]:
    """Every mutant, in the order of the rules."""
    return [
        Mutant(file, group, number, rule.get("alert") or rule["record"], what, changed)
        for file in FILES
        for group, content in enumerate(load(ALERTS / file)["groups"])
        for number, rule in enumerate(content["rules"])
        for what, changed in _changes(rule)
    ]


# --- Running the tests.


def _is_of_every_alert(expression: str) -> bool:
    return "ALERTS" in expression and 'alertname="' not in expression


class Bench:
    """Runs the tests, cut down to what concerns one rule: promtool then takes a tenth of a second."""

    def __init__(self) -> None:
        self._rules = {file: load(ALERTS / file) for file in FILES}
        # What is quick comes first.
        paths = sorted(UNIT_TESTS.glob("*.test.yml"), key=lambda path: path.name == "nobody-is-woken.test.yml")
        self._tests = {path.name: load(path) for path in paths}
        self._reads = reads()

    def catch(self, mutant: Mutant) -> str:
        """The file of tests that fails for the mutant; empty if none does."""
        for target in self._targets(mutant.name):
            for file, _ in self.failures(mutant, target):
                return file
        return ""

    def failures(
        self, mutant: Mutant, target: str, keep: Callable[[dict[str, Any]], object] = bool
    ) -> Iterator[tuple[str, str]]:
        """Each file of tests of the rule `target` that fails for the mutant, and what promtool says of it.

        `keep` chooses among the cases of a file.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.write_rules(folder, [target], mutant)
            for file, tests in self.tests_of(target, keep):
                path = folder / "tests" / "alerts" / file
                dump(tests, path)
                if complaint := promtool("test", "rules", path):
                    yield file, complaint

    def _targets(self, name: str) -> list[str]:
        """The rule itself, and the alerts that read it."""
        alerts = [
            rule["alert"]
            for group in self._rules["alerting-rules.yml"]["groups"]
            for rule in group["rules"]
            if "alert" in rule and name in self._reads[rule["alert"]]
        ]
        return list(dict.fromkeys([name, *alerts]))

    def tests_of(
        self, target: str, keep: Callable[[dict[str, Any]], object] = bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each file of tests, cut down to the rule `target`, and to the cases that are to be kept."""
        for file, content in self._tests.items():
            cases = []
            for case in content["tests"]:
                alerts = [test for test in case.get("alert_rule_test", ()) if test["alertname"] == target]
                expressions = [
                    test
                    for test in case.get("promql_expr_test", ())
                    if target in test["expr"] or (":" not in target and _is_of_every_alert(test["expr"]))
                ]
                cut = {**case, "alert_rule_test": alerts, "promql_expr_test": expressions}
                if (alerts or expressions) and keep(cut):
                    cases.append(cut)
            if cases:
                yield file, {**content, "tests": cases}

    def write_rules(
        self, folder: Path, targets: Iterable[str], mutant: Mutant | None = None, *, texts: bool = True
    ) -> None:
        """The rules `targets` and those that they read, one of them as it is in the mutant."""
        wanted = {name for target in targets for name in (target, *self._reads[target])}
        for file, content in self._rules.items():
            groups = []
            for group, of_group in enumerate(content["groups"]):
                kept = []
                for number, rule in enumerate(of_group["rules"]):
                    if (rule.get("alert") or rule["record"]) in wanted:
                        place = (file, group, number)
                        changed = mutant and (mutant.file, mutant.group, mutant.rule) == place
                        kept.append({**rule, **mutant.changed} if mutant and changed else rule)
                groups.append({**of_group, "rules": kept})
            rules = {"groups": groups}
            dump(rules if texts else without_texts(rules), folder / "alerts" / file)


def dump(content: Any, path: Path) -> None:
    """Write YAML that promtool reads, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    yaml = YAML(typ="safe")
    yaml.width = 10_000
    yaml.default_flow_style = False
    yaml.representer.ignore_aliases = lambda _: True
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def run(some: Sequence[Mutant]) -> Iterator[Mutant]:
    """The same mutants, each with what caught it."""
    bench = Bench()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, caught_by in zip(some, pool.map(bench.catch, some), strict=True):
            yield replace(mutant, caught_by=caught_by)


def main() -> int:
    """Try all mutants, or those of the rules that the arguments name; 1 if one is not caught that should be."""
    names = sys.argv[1:]
    found = [mutant for mutant in mutants() if not names or mutant.name in names]
    missed = []
    for mutant in run(found):
        reason = "" if mutant.caught_by else EQUIVALENT.get(str(mutant), "")
        print(f"{mutant.caught_by or reason or 'NOT CAUGHT':35} {mutant}", flush=True)
        if not mutant.caught_by and not reason:
            missed.append(mutant)
    print(f"{len(found)} mutants, {len(missed)} not caught")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
