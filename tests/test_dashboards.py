"""The dashboards that are shipped: as the code builds them, by the rules, and with data for every panel."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dashboards.build import BUILDERS, FOLDER, rendered
from tests.harness.dashboard_mutants import MUTANTS, broken_rule
from tests.harness.dashboards import (
    RULES,
    Board,
    Variables,
    charts,
    links_of_rows,
    queries,
)
from tests.harness.documents import blocks
from tests.harness.exporter import exporter
from tests.harness.prefect import PrefectServer
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import ALERTS

BOARDS: dict[str, Board] = {
    name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in BUILDERS
}
TITLES = {panel["title"] for board in BOARDS.values() for panel in charts(board)}
every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_json_is_what_the_code_builds(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == rendered(BUILDERS[name]), "run make dashboards"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(BUILDERS)


@every_board
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_holds(rule: Callable[[Board], Iterator[str]], board: Board) -> None:
    assert list(rule(board)) == []


def test_the_rules_notice_faults() -> None:
    """Of those that can be seen without a server; `make mutants` shows which layer notices each of all."""
    noticed = [str(mutant) for mutant in MUTANTS if broken_rule(mutant.made())]
    assert len(noticed) > 30


def test_the_worst_queues_lead_to_their_dashboard() -> None:
    assert len(list(links_of_rows(BOARDS["overview"]))) >= 2
    assert len(list(links_of_rows(BOARDS["capacity"]))) >= 2


# --- Every query, on a real Prometheus.

NOT_IN_THE_DEMO = {
    "Failures by reason",  # nothing fails
    "Time to drain",  # only while a backlog shrinks
    "Firing alerts",  # they fire after minutes
    "Next limit reached",  # only where a trend rises
    "When the limit is reached",
    "Waiting tasks by priority",  # of a level, only while tasks of it wait
    "Arrivals against drain",  # not each of its parts at every moment
    "Why tasks wait",
}
ONLY_OF_CLORO = {"Rate limit left"}
ONLY_OF_PREFECT = {
    "Oldest wait",
    "Paused",
    "Pools",
    "Oldest holder",
    "Holders by state",
    "State durations",
    "Oldest holder by state",
    "Waiting tasks by state",
    "Pool",
    "Workers online",
    "Other limits",
}


def wrong(
    prometheus: PrometheusServer,
    chosen: Variables,
    may_be_empty: set[str],
    names: set[str],
    *,
    all_targets: bool = False,
) -> list[str]:
    return [
        problem
        for name in names
        for problem in queries(
            prometheus, BOARDS[name], chosen, may_be_empty | NOT_IN_THE_DEMO, all_targets=all_targets
        )
    ]


def test_every_query_has_data(demo_prometheus: PrometheusServer) -> None:
    assert wrong(demo_prometheus, Variables(), set(), set(BOARDS), all_targets=True) == []


@pytest.mark.parametrize(
    ("chosen", "may_be_empty"),
    [
        (Variables(system="prefect"), ONLY_OF_CLORO),
        (Variables(source="prefect-demo"), ONLY_OF_CLORO),
        (Variables(system="cloro", source="cloro-demo"), ONLY_OF_PREFECT),
        (Variables(source="cloro-demo", queue="async"), ONLY_OF_PREFECT),
        (Variables(source="cloro-demo", pool="", queue="async"), ONLY_OF_PREFECT),
    ],
    ids=lambda value: value.source if isinstance(value, Variables) else "",
)
def test_every_query_has_data_of_one_source(
    demo_prometheus: PrometheusServer, chosen: Variables, may_be_empty: set[str]
) -> None:
    assert wrong(demo_prometheus, chosen, may_be_empty, set(BOARDS)) == []


def test_every_query_has_data_of_each_queue(demo_prometheus: PrometheusServer) -> None:
    """Of a queue with a limit and holders there is everything; of any other there is no error and no wrong legend."""
    found = [labels for labels, _ in demo_prometheus.query('concurrency_queue_slot_limit{system="prefect"} > 0')]
    assert len(found) >= 5
    may_be_empty = TITLES - {"Slots", "Utilization", "Queues by need", "Worst queues first"}
    for labels in found:
        chosen = Variables(source=labels["source"], pool=labels["pool"], queue=labels["queue"])
        assert wrong(demo_prometheus, chosen, may_be_empty, {"overview", "queue", "capacity"}) == []


def test_nothing_is_wrong_where_nothing_is_chosen(demo_prometheus: PrometheusServer) -> None:
    assert wrong(demo_prometheus, Variables(source="nobody"), TITLES, set(BOARDS)) == []


@every_board
def test_every_variable_has_options(demo_prometheus: PrometheusServer, board: Board) -> None:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"], re.DOTALL)
            assert query
            assert demo_prometheus.label_values(query[2], Variables().fill(query[1])), variable["name"]


# --- Of the alerts.


def test_the_queries_of_runbooks_and_of_the_reference_of_alerts_have_data(demo_prometheus: PrometheusServer) -> None:
    """Asked for everything instead of for one queue. What looks for trouble may find none in the demo."""
    documents = [*sorted((ALERTS / "runbooks").iterdir()), ALERTS.parent / "docs" / "alerts.md"]
    asked = [block for document in documents for block in blocks(document) if block.language == "promql"]
    assert len(asked) > 60
    for block in asked:
        everything = re.sub(r'="[A-Z]{4,}"', '=~".*"', block.text)
        found = demo_prometheus.query(everything.replace("[7d:5m]", "[1h:5s]"))
        looks_for_trouble = re.search(r" (==|>) [01]\b|alertstate|:p75_1d", block.text)
        assert found or looks_for_trouble, f"{block.place}: {everything}"


def test_no_rule_fails(demo_prometheus: PrometheusServer) -> None:
    found = [rule for group in demo_prometheus.rule_groups() for rule in group["rules"]]
    assert len(found) > 70
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []
    assert demo_prometheus.log_problems() == []


# --- Of a real server.


def test_a_real_server_fills_the_panels(prefect_server: PrefectServer, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    source = {"name": "real", "system": "prefect", "url": prefect_server.api_url, "interval": "5s"}
    config.write_text(json.dumps({"sources": [source]}), encoding="utf-8")
    rules = [str(ALERTS / name) for name in ("recording-rules.yml", "thresholds.yml")]
    with (
        exporter(tmp_path, "--config.file", config) as command,
        PrometheusServer(tmp_path, [command.address], config={"rule_files": rules}) as server,
    ):
        server.wait_for("count_over_time(concurrency:slot_utilization:ratio[1m]) > 3", timeout=60)
        empty = TITLES - {
            "Worst queues first",
            "Tasks waiting",
            "Slots",
            "Holders by state",
            "State durations",
            "Sources",
        }
        assert wrong(server, Variables(source="real"), empty, {"overview", "queue", "exporter"}) == []
