"""The dashboards that are shipped: as the code builds them, by the rules, and with data for every panel."""

import re
from collections.abc import Callable, Iterator
from math import prod

import pytest

from dashboards import panels
from dashboards.build import BUILDERS, FOLDER, rendered
from tests.harness import dashboards as harness
from tests.harness.dashboard_mutants import MUTANTS, broken_rule
from tests.harness.dashboards import (
    BOARDS,
    RULES,
    Board,
    Variables,
    charts,
    every_board,
    links_of_rows,
)
from tests.harness.pictures import SUMS, sums
from tests.harness.programs import ROOT
from tests.harness.promql import ALERTS, depends, labels_of
from tests.harness.rules import load

NOT_OF_THE_LINTER = {
    "answers_what_if",
    "has_places",
    "has_links",
    "means_its_colours",
    "says_when_to_act",
    "names_its_fields",
    "marks_the_same",
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_json_is_what_the_code_builds(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == rendered(BUILDERS[name]), "run make dashboards"


def test_the_pictures_are_of_these_dashboards() -> None:
    assert SUMS.read_text(encoding="utf-8") == sums(), "run make pictures"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(BUILDERS)


@every_board
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_holds(rule: Callable[[Board], Iterator[str]], board: Board) -> None:
    assert list(rule(board)) == []


@every_board
def test_no_query_depends_on_other_labels_of_targets(board: Board) -> None:
    """Nor keeps one, or compares by one; and legends are of labels that its results have."""
    for where, expression in harness.expressions(board):
        assert depends(Variables().fill(expression)) == [], where
    for panel in charts(board):
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= (labels_of(Variables().fill(target["expr"])) or set()), panel["title"]


def test_the_rules_notice_faults() -> None:
    """Of those that can be seen without a server; `make mutants` shows which layer notices each of all."""
    noticed = [str(mutant) for mutant in MUTANTS if broken_rule(mutant.made())]
    assert len(noticed) > 30


def test_the_rules_of_the_linter_are_named_where_they_are() -> None:
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"\| [^|]+ \| ([^|]+) \|", harness.__doc__ or "")))
    assert {rule.__name__ for rule in RULES} <= {*named, *NOT_OF_THE_LINTER}
    on_a_server = (ROOT / "tests/real/prometheus/test_dashboards.py").read_text(encoding="utf-8")
    tests = {name for name in named if name.startswith("test_")}
    assert all(f"def {name}(" in on_a_server for name in tests)
    assert all(hasattr(harness, name) or name == "ALERTS" for name in named if name not in tests)


def test_figures_turn_where_alerts_fire() -> None:
    """What is drawn as trouble is what the thresholds of the alerts are as they are shipped."""
    rules = [rule for group in load(ALERTS / "thresholds.yml")["groups"] for rule in group["rules"]]

    def shipped(name: str) -> dict[str, int]:
        """By the state that the threshold is of, if any."""
        found = {
            rule.get("labels", {}).get("state", ""): re.match(r"([\d *]+) \* concurrency:", rule["expr"])
            for rule in rules
            if rule["record"] == name
        }
        return {state: prod(int(factor) for factor in match[1].split("*")) for state, match in found.items() if match}

    assert shipped("concurrency:waiting_duration_threshold:seconds") == {"": panels.WAIT[-1][1]}
    assert shipped("concurrency:state_duration_threshold:seconds") == {
        state: steps[-1][1] for state, steps in panels.HELD.items()
    }


def test_each_state_of_a_holder_is_judged_by_its_own_threshold() -> None:
    """On the overview in a column of its own, and on the queue's dashboard in a figure of its own."""
    for name, title in (("overview", "Worst queues first"), ("queue", "Oldest holder")):
        panel = next(panel for panel in charts(BOARDS[name]) if panel["title"] == title)
        turns = {
            override["matcher"]["options"].upper(): prop["value"]["steps"][-1]
            for override in panel["fieldConfig"]["overrides"]
            for prop in override["properties"]
            if prop["id"] == "thresholds"
        }
        assert (
            panels.HELD.items()
            <= {state: ((panels.GOOD, None), (turn["color"], turn["value"])) for state, turn in turns.items()}.items()
        )


def test_what_goes_first_has_the_darkest_colour() -> None:
    panel = next(panel for panel in charts(BOARDS["queue"]) if panel["title"] == "Waiting tasks by priority")
    colors = {
        override["matcher"]["options"]: override["properties"][0]["value"]["fixedColor"]
        for override in panel["fieldConfig"]["overrides"]
    }
    for first_to_last in (
        [f"prefect {level:02}" for level in range(1, 21)],
        [f"cloro {level}" for level in range(10, 0, -1)],
    ):
        assert list(dict.fromkeys(colors[name] for name in first_to_last)) == list(panels.SHADES)


def test_the_worst_queues_lead_to_their_dashboard() -> None:
    assert len(list(links_of_rows(BOARDS["overview"]))) >= 2
    assert len(list(links_of_rows(BOARDS["capacity"]))) >= 2


# --- Every query, on a real Prometheus.


# --- Of the alerts.


# --- Of a real server.
