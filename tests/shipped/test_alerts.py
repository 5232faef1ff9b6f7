"""The alerts that are shipped: unit tests in both directions, texts, runbooks, thresholds, and who is told."""

import json
import re
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from docs import alerting
from exporter.config import ABOUT
from tests.harness.documents import blocks as blocks_of
from tests.harness.mutants import Bench, Mutant, dump
from tests.harness.programs import ROOT, program
from tests.harness.promql import ALERTS, PLACE, TARGET, declared, depends, labels_of, made, undeclared
from tests.harness.rules import (
    BY_ALERT,
    EVERY_ALERT,
    FILES,
    LABELS,
    README,
    RULES,
    UNIT_TESTS,
    Rule,
    copy,
    load,
    promtool,
    reads,
    rules,
)
from tests.harness.targets import Case, between, labelled, samples

READS = reads()
THRESHOLDS = [rule for rule in RULES if rule.file == "thresholds.yml"]
UNIT_TEST_FILES = sorted(UNIT_TESTS.glob("*.test.yml"))
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
VARIABLES = {
    board["uid"]: {variable["name"] for variable in board["templating"]["list"]}
    for board in (
        json.loads(path.read_text(encoding="utf-8")) for path in (ALERTS.parent / "dashboards").glob("*.json")
    )
}
HELD = re.compile(
    r"(?P<condition>concurrency:\w+:condition)\s+or\s+"
    r"last_over_time\((?P=condition)\[5m\]\)\s+and on \((?P<labels>.*)\)\s+"
    r'ALERTS\{alertname="(?P<alert>\w+)", alertstate="firing"\}'
)
"""What a page is on: its condition, or that this held within five minutes while the page is being sent."""


@cache
def of_file(path: Path) -> list[dict[str, Any]]:
    """The cases of one file of unit tests."""
    cases: list[dict[str, Any]] = load(path)["tests"]
    return cases


def runbook(alert: Rule) -> str:
    return (ALERTS / "runbooks" / f"{alert.name}.md").read_text(encoding="utf-8")


def queries(text: str) -> list[str]:
    """The blocks of PromQL of a runbook, with the words that stand for somebody's names filled in."""
    return [re.sub(r"\b[A-Z]{4,}\b", "x", block) for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL)]


def in_texts(rule: Rule) -> list[str]:
    """The queries in the texts of an alert, with `x` in place of the labels' values."""
    text = " ".join(rule.annotations.values())
    filled = [
        words.replace('\\"', '"').replace("%q", '"x"') for words in re.findall(r'printf\s+"((?:[^"\\]|\\.)*)"', text)
    ]
    return [query.replace("%s", filled[0]) for query in filled if "{" in query]


# --- Rules: syntax, units, and what they select.


def test_promtool_finds_nothing_to_complain_about() -> None:
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", *(ALERTS / file for file in FILES)) == ""


@pytest.mark.parametrize("path", UNIT_TEST_FILES, ids=lambda path: path.name.removesuffix(".test.yml"))
def test_units(path: Path) -> None:
    assert promtool("test", "rules", path) == ""


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.slow
@pytest.mark.parametrize("path", UNIT_TEST_FILES, ids=lambda path: path.name.removesuffix(".test.yml"))
def test_units_whatever_labels_targets_have(path: Path, bench: Bench, tmp_path: Path) -> None:
    content = labelled(load(path))
    bench.write_rules(tmp_path, rules_of(content), texts=False)
    changed = tmp_path / "tests" / "alerts" / path.name
    dump(content, changed)
    assert promtool("test", "rules", changed) == ""


def rules_of(content: Case) -> set[str]:
    """The rules that a file of unit tests asks for."""
    checks = [check for case in content["tests"] for check in case.get("promql_expr_test") or ()]
    text = " ".join(check["expr"] for check in checks)
    alerts = {check["alertname"] for case in content["tests"] for check in case.get("alert_rule_test") or ()}
    return alerts | set(re.findall(r"concurrency:\w+:\w+", text)) | (set(BY_ALERT) if "ALERTS" in text else set())


def fires(case: Case) -> bool:
    """Whether an alert is expected at some time in a case."""
    return any(check.get("exp_alerts") for check in case["alert_rule_test"])


@pytest.mark.slow
@EVERY_ALERT
def test_no_alert_changes_by_an_evaluation_that_is_late(alert: Rule, bench: Bench, tmp_path: Path) -> None:
    """Groups are evaluated side by side, so what one reads from another may be one evaluation old.

    What comes near an alert is in the same file as what it fires for. Of tests of days, which look every ten minutes,
    none could tell.
    """
    bench.write_rules(tmp_path, [alert.name], texts=False)
    for file, tests in bench.tests_of(alert.name):
        if tests["evaluation_interval"] != "1m" or not any(map(fires, tests["tests"])):
            continue
        said = []
        for reverse in (False, True):
            path = tmp_path / "tests" / "alerts" / file
            dump(between(tests, reverse=reverse), path)
            said.append(promtool("test", "rules", path))
        assert said[0] == said[1], file


def test_values_of_series_are_read_as_promtool_reads_them(tmp_path: Path) -> None:
    values = "1+0.5x3 7 _ _x2 stale 3x2 -2-1x1 1e2"
    found = samples(values)
    assert found == ["1", "1.5", "2", "2.5", "7", "_", "_", "_", "stale", "3", "3", "3", "-2", "-3", "100"]
    checks = [
        {"expr": name, "eval_time": f"{minute}m", "exp_samples": [{"labels": name, "value": float(value)}]}
        for name in ("short", "long")
        for minute, value in enumerate(found)
        if value not in {"_", "stale"}
    ]
    series = [{"series": "short", "values": values}, {"series": "long", "values": " ".join(found)}]
    dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": checks}]}, tmp_path / "x.test.yml")
    assert promtool("test", "rules", tmp_path / "x.test.yml") == ""


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule.name}-{number}" for number, rule in enumerate(RULES)])
def test_a_rule_selects_what_is_declared(rule: Rule) -> None:
    assert undeclared(rule.expr) == []
    assert set(rule.labels) <= LABELS
    text = " ".join(rule.annotations.values())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= LABELS
    for query in in_texts(rule):
        assert undeclared(query) == []


# --- Labels of targets: nothing but the exporter's own, and those that name a place.

OWN_LABELS = LABELS - TARGET
OF_PLACE = PLACE | {"source", "system"}
OF_EXPORTER = PLACE | {"instance"}
"""Of what is said of an exporter, and not of a source."""


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule.name}-{number}" for number, rule in enumerate(RULES)])
def test_a_rule_does_not_depend_on_other_labels_of_targets(rule: Rule) -> None:
    assert depends(rule.expr) == []
    for query in in_texts(rule):
        assert depends(query) == []
    labels = labels_of(rule.expr)
    assert labels is not None
    assert labels >= OF_PLACE or labels == OF_EXPORTER
    assert labels <= OWN_LABELS | (OF_EXPORTER if labels == OF_EXPORTER else PLACE)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("concurrency_queue_paused == 1", "the result has every label of the target"),
        ("max without (instance, pod) (concurrency_queue_paused)", "the result has every label of the target"),
        ("rate(concurrency_exporter_polls_total[5m])", "the result has every label of the target"),
        ("topk(3, up)", "the result has every label of the target"),
        (
            "max by (source) (concurrency_exporter_source_up unless ignoring (instance) concurrency_queue_paused)",
            "unless compares the labels of targets",
        ),
        (
            "max by (source) (concurrency_queue_paused * concurrency:paused:bool)",
            "* compares the labels of targets",
        ),
    ],
)
def test_what_depends_on_other_labels_of_targets_is_found(expression: str, problem: str) -> None:
    (found,) = depends(expression)
    assert found.startswith(problem)


def test_the_labels_of_what_is_recorded_are_known() -> None:
    queue = OF_PLACE | {"pool", "queue", "resource"}
    assert made("concurrency:worker_absence:seconds") == queue
    assert made("concurrency:state_duration:max") == queue | {"state"}
    assert made("concurrency:active_slots:max") == queue | {"limit", "kind"}
    assert made("ConcurrencyExporterAbsent") == OF_EXPORTER | {"severity"}


DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(path for folder in ("docs", "alerts", "dashboards", "deploy") for path in sorted((ROOT / folder).rglob("*.md"))),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_queries_of_a_document_do_not_depend_on_other_labels_of_targets(document: Path) -> None:
    for block in blocks_of(document):
        if block.language == "promql":
            assert depends(re.sub(r"\b[A-Z]{4,}\b", "x", block.text)) == [], block.place


# --- They load everywhere.


def test_no_group_has_more_rules_than_mimir_takes() -> None:
    groups = [group for file in FILES for group in load(ALERTS / file)["groups"]]
    assert len({group["name"] for group in groups}) == len(groups)
    assert {group["name"]: len(group["rules"]) for group in groups if len(group["rules"]) > 20} == {}


def test_a_rule_comes_after_those_that_it_reads() -> None:
    """In its group; and of groups, those that are read come first, as in the tests of the rules."""
    groups = [group for file in FILES for group in load(ALERTS / file)["groups"]]
    order = [(group["name"], rule) for group in groups for rule in group["rules"]]
    names = [rule.get("record") for _, rule in order]
    in_tests = {tuple(load(path)["group_eval_order"]) for path in UNIT_TEST_FILES}
    (evaluated,) = in_tests
    assert set(evaluated) == {group["name"] for group in groups}
    for number, (group, rule) in enumerate(order):
        for name in set(re.findall(r"concurrency:\w+:\w+", rule["expr"])):
            for other, recorded in enumerate(names):
                if recorded == name and order[other][0] == group and name != rule.get("record"):
                    assert other < number, f"{rule} is evaluated before {name}"
                elif recorded == name:
                    assert evaluated.index(order[other][0]) <= evaluated.index(group), f"{group} before {name}"


def test_vmalert_loads_them() -> None:
    flags = [f"-rule={ALERTS / file}" for file in FILES]
    done = subprocess.run(
        [program("vmalert"), "-dryRun", *flags], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_not_declared_is_found() -> None:
    assert undeclared("concurrency_queue_active_slot > 0") == ["no metric concurrency_queue_active_slot"]
    assert undeclared('concurrency_pool_paused{queue="q"}') == ["concurrency_pool_paused has no label queue"]
    assert undeclared("sum by (queu) (concurrency_queue_paused)") == ["nothing has a label queu"]


def test_recorded_names_have_level_metric_and_operations() -> None:
    recorded = {rule.name for rule in RULES if rule.kind == "record"}
    for name in recorded:
        assert re.fullmatch(r"concurrency:[a-z_]+:[a-z0-9_]+", name)
    used = set().union(*(rule.uses for rule in RULES))
    assert used <= recorded


def test_every_reason_has_words_in_the_texts_of_alerts() -> None:
    (rule,) = [rule for rule in RULES if rule.name == "concurrency:leading_reason:tasks"]
    causes = re.findall(r'\{reason="(\w+)"\} \+ 0\.\d\d,\s+"cause", "([\w ]+)"', rule.expr)
    assert {reason for reason, _ in causes} == {reason for about in ABOUT.values() for reason in about.reasons}
    assert len({text for _, text in causes}) == len(causes)


# --- Alerts: complete, each tested in both directions, each with a runbook.


@EVERY_ALERT
def test_an_alert_says_what_a_person_needs(alert: Rule) -> None:
    assert alert.name.startswith("Concurrency")
    assert alert.labels.keys() == {"severity"}
    assert alert.labels["severity"] in {"page", "ticket"}
    assert alert.wait
    holds = HELD.fullmatch(alert.expr)
    assert bool(holds) == (alert.labels["severity"] == "page"), "a page is not sent again for a dip"
    if holds:
        assert holds["alert"] == alert.name
        assert set(holds["labels"].split(", ")) == declared()[holds["condition"]] - {"resource", "limit", "kind"}
    assert alert.annotations.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
    texts = alert.annotations
    assert re.fullmatch(r"[A-Z][^{}]+\.", texts["summary"]), "a summary is the same for all of an alert's labels"
    assert "$labels." in texts["description"]
    assert texts["description"].endswith(".")
    assert urlsplit(texts["runbook_url"]).path.endswith(f"/{alert.name}.md")
    dashboard = re.match(
        r"https://grafana\.example\.com/d/(concurrency-\w+)\?", texts["dashboard_url"].replace("{", "?")
    )
    assert dashboard
    chosen = re.findall(r"var-(\w+)=\{\{ (?:\$labels\.)?(?:\w+|\.) \| urlquery", texts["dashboard_url"])
    assert chosen
    assert set(chosen) <= VARIABLES[dashboard[1]]
    assert re.findall(r"\$labels\.(\w+)", texts["dashboard_url"]) == chosen
    for query in in_texts(alert):
        assert re.search(r"\{cluster=.*, namespace=.*, job=.*, source=", query), "figures of somebody else"


@EVERY_ALERT
def test_an_alert_is_tested_in_both_directions(alert: Rule) -> None:
    cases = [
        [check.get("exp_alerts", ()) for check in case.get("alert_rule_test", ()) if check["alertname"] == alert.name]
        for path in UNIT_TEST_FILES
        for case in of_file(path)
    ]
    firing = [fired for case in cases for check in case for fired in check]
    for fired in firing:
        assert fired["exp_labels"]["severity"] == alert.labels["severity"]
        assert fired["exp_annotations"].keys() == alert.annotations.keys()
        assert not re.search(r"<error|no value|\{\{ |%!", str(fired["exp_annotations"]))
    # `exp_alerts: []` would do as well, but a whole list of tests that is empty asserts nothing.
    assert any(before and not after for case in cases for before, after in pairwise(case)), "it never ends"
    assert any(case and not any(case) for case in cases), "nothing comes near it"


def test_a_unit_test_asserts_something() -> None:
    for path in UNIT_TEST_FILES:
        for case in of_file(path):
            assert case.get("alert_rule_test") or case.get("promql_expr_test"), f"{path.name}: {case['name']}"


@EVERY_ALERT
def test_a_runbook_is_complete(alert: Rule) -> None:
    title, *parts = re.split(r"^#+ (.*)\n", runbook(alert), flags=re.MULTILINE)[1:]
    assert title == alert.name
    assert parts[1::2] == SECTIONS
    for section, text in zip(SECTIONS, parts[2::2], strict=True):
        assert len(text.split()) >= 5, f"{section} says nothing"
        assert not re.search(r"TODO|TBD|FIXME|\.\.\.", text)
    assert queries(parts[6]), "a diagnosis begins with queries"
    for query in queries(runbook(alert)):
        assert undeclared(query) == []  # `tests/shipped/test_dashboards.py` asks them
    for link in re.findall(r"\]\((\w+\.md)\)", runbook(alert)):
        assert (ALERTS / "runbooks" / link).exists()


def test_no_runbook_is_left_over() -> None:
    assert {path.stem for path in (ALERTS / "runbooks").iterdir()} == set(BY_ALERT)


# --- Thresholds: each in one place, and an exception is one line.


def test_every_threshold_is_that_of_the_alert_that_its_comment_names() -> None:
    text = (ALERTS / "thresholds.yml").read_text(encoding="utf-8")
    conditions = {rule.name: rule.uses for rule in RULES if rule.name.endswith(":condition")}
    of_alert = dict.fromkeys(rule.name for rule in THRESHOLDS)
    for name in of_alert:
        users = []
        for alert in BY_ALERT.values():
            held = HELD.fullmatch(alert.expr)
            if name in (conditions[held["condition"]] if held else alert.uses):
                users.append(alert.name)
        assert len(users) == 1, name
        comment = re.search(rf"(Concurrency\w+):[^\n]*\n(?: +#[^\n]*\n)* +- record: {name}\n", text)
        assert comment, name
        assert comment[1] == users[0]
    for rule in THRESHOLDS:
        assert re.fullmatch(r"[\d.]+( \* [\d.]+)* \* concurrency:(resources|sources):group(\{.*\})?", rule.expr)


def excepted(name: str, line: str) -> dict[str, Any]:
    """An edit of thresholds.yml: a line before the general one of every rule that records `name`."""
    rule = rf"(- record: {name}\n(?: +labels:.*\n)? +expr: \|\n)( +)"
    return {"thresholds": lambda text: re.sub(rule, rf"\g<1>\g<2>{line}\n\g<2>  or\n\g<2>", text)}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(THRESHOLDS)), ids=[rule.name for rule in THRESHOLDS])
def test_an_exception_silences_one_and_no_other(number: int, bench: Bench) -> None:
    rule = THRESHOLDS[number]
    alert = next(alert for alert in BY_ALERT if rule.name in READS[alert])
    group = re.findall(r"concurrency:\w+:group", rule.expr)[0]

    def failures(source: str) -> list[tuple[str, str]]:
        expr = f'+Inf * {group}{{source="{source}"}} or {rule.expr}'
        return list(bench.failures(Mutant(rule.file, 0, number, rule.name, "", {"expr": expr}), alert, fires))

    assert failures("another") == []
    said = failures("s")
    assert said
    # All that fails is that its alerts fire no more; holders have a threshold for each state.
    silenced = [f'{name}="{value}"' for name, value in {"source": "s", **rule.labels}.items()]
    for _, complaint in said:
        for check in complaint.split("exp:[")[1:]:
            expected, got = (set(re.findall(r"Labels:\{(.*)\}", part)) for part in check.split("got:["))
            assert got == {labels for labels in expected if not all(label in labels for label in silenced)}


EXCEPTION = """
rule_files: [alerts/*rules.yml, alerts/thresholds.yml]
evaluation_interval: 1m
group_eval_order: ORDER
tests:
  - interval: 1m
    input_series:
      - {series: 'concurrency_queue_queued_tasks{source="s",queue="nightly",priority="1"}', values: '1x400'}
      - {series: 'concurrency_queue_waiting_duration_max_seconds{source="s",queue="nightly"}', values: '0+60x400'}
      - {series: 'concurrency_queue_queued_tasks{source="s",queue="other",priority="1"}', values: '1x400'}
      - {series: 'concurrency_queue_waiting_duration_max_seconds{source="s",queue="other"}', values: '0+60x400'}
    promql_expr_test:
"""


@pytest.mark.parametrize(
    ("edit", "after"),
    [
        pytest.param(None, {"nightly": 36, "other": 36}, id="as-shipped"),
        pytest.param(("1800 *", "600 *"), {"nightly": 16, "other": 16}, id="another-threshold"),
        pytest.param(
            '4 * 3600 * concurrency:resources:group{queue="nightly"}', {"nightly": 246, "other": 36}, id="later"
        ),
        pytest.param('+Inf * concurrency:resources:group{queue="nightly"}', {"other": 36}, id="never"),
    ],
)
def test_a_threshold_is_changed_in_one_place(edit: Any, after: dict[str, int], tmp_path: Path) -> None:
    name = "concurrency:waiting_duration_threshold:seconds"
    match edit:
        case None:
            copy(tmp_path)
        case str():
            copy(tmp_path, **excepted(name, edit))
        case (old, new):
            copy(tmp_path, thresholds=lambda text: re.sub(rf"({name}\n.*\n +){re.escape(old)}", rf"\g<1>{new}", text))
    firing = 'count by (queue) (ALERTS{alertname="ConcurrencyOldestTaskWaitsTooLong", alertstate="firing"})'
    test = EXCEPTION.replace("ORDER", json.dumps(load(UNIT_TEST_FILES[0])["group_eval_order"]))
    for minute in {1, *after.values(), *(minute - 1 for minute in after.values())}:
        test += f"      - expr: '{firing}'\n        eval_time: {minute}m\n        exp_samples:\n"
        test += "".join(
            f"          - {{labels: '{{queue=\"{queue}\"}}', value: 1}}\n"
            for queue, at in after.items()
            if minute >= at
        )
    (tmp_path / "exception.test.yml").write_text(test, encoding="utf-8")
    assert promtool("test", "rules", tmp_path / "exception.test.yml") == ""


# --- What the documents say.


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_every_threshold_can_be_chosen() -> None:
    explained = alerting.thresholds()
    assert {threshold.name for threshold in explained} == {rule.name for rule in THRESHOLDS}
    for threshold in explained:
        assert len(threshold.meaning.split()) >= 4
        assert len(threshold.advice.split()) >= 4
        assert "threshold" not in threshold.query
        assert undeclared(threshold.query) == []
    of = {threshold.alert: threshold for threshold in explained}
    assert of["ConcurrencySlotHolderStuck"].default == "PENDING 15m, CANCELLING 10m, RUNNING 6h"
    assert of["ConcurrencyNearLimit"].default == "0.9"
    assert of["ConcurrencyNoWorker"].query.splitlines()[1:3] == [
        "  concurrency:worker_absence:seconds",
        '    and ignoring (reason) concurrency:blocked_tasks:sum{resource="queue", reason=~"no_worker|unknown"}',
    ]


def test_they_are_installed_as_readme_says(tmp_path: Path) -> None:
    folder = tmp_path / "concurrency"
    folder.mkdir()
    for file in FILES:
        shutil.copy(ALERTS / file, folder)
    (tmp_path / "prometheus.yml").write_text(blocks("yaml")[0], encoding="utf-8")
    assert promtool("check", "config", tmp_path / "prometheus.yml") == ""
    subprocess.run(["sh", "-c", blocks("sh")[0]], cwd=folder, check=True)
    replaced = (folder / "alerting-rules.yml").read_text(encoding="utf-8")
    assert "example.com" not in replaced
    assert promtool("check", "rules", folder / "alerting-rules.yml") == ""
    for rule in rules(folder):
        if rule.kind == "alert":
            assert rule.annotations["runbook_url"] == f"https://wiki.internal/runbooks/{rule.name}.md"
            assert rule.annotations["dashboard_url"].startswith("https://grafana.internal/d/concurrency-")


def test_the_examples_of_readme_are_right() -> None:
    for query in blocks("promql"):
        assert undeclared(query) == []
    (exception,) = YAML(typ="safe").load(blocks("yaml")[1])
    (general,) = [rule for rule in THRESHOLDS if rule.name == exception["record"]]
    assert undeclared(exception["expr"]) == []
    assert exception["expr"].strip().splitlines()[-1].strip() == general.expr
    for file in re.findall(r"^\| `(.*?)` \|", README, re.MULTILINE):
        assert (ALERTS / file).exists()
