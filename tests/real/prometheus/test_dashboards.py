"""The queries of the dashboards on a real Prometheus: each panel has data, of what is chosen and of nothing else."""

import json
import re
from pathlib import Path

import pytest

from tests.harness.dashboards import BOARDS, TITLES, Board, Variables, charts, every_board, queries, series
from tests.harness.documents import blocks
from tests.harness.exporter import exporter
from tests.harness.prefect import PrefectServer
from tests.harness.prometheus import PrometheusServer, StartPrometheus
from tests.harness.promql import ALERTS

NOT_IN_THE_DEMO = {
    "Failures by reason",  # nothing fails
    "Time to drain",  # only while a backlog shrinks
    "Firing alerts",  # they fire after minutes
    "Next limit reached",  # only where a trend rises
    "When the limit is reached",
}


PARTLY_IN_THE_DEMO = {
    "Worst queues first",  # not in every state there is a holder at every moment
    "Waiting tasks by priority",  # of a level, only while tasks of it wait
    "Arrivals against drain",
    "Why tasks wait",
    "Oldest holder by state",  # what alerts compare with, only once half of it is reached
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
            prometheus,
            BOARDS[name],
            chosen,
            may_be_empty | NOT_IN_THE_DEMO,
            all_targets=all_targets,
            partly_empty=PARTLY_IN_THE_DEMO,
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


def several(*values: str) -> str:
    """As Grafana fills in what is chosen, within a string of PromQL."""
    escaped = [re.escape(value).replace("\\-", "-").replace("\\", "\\\\") for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def test_every_query_has_data_of_what_is_chosen_together(demo_prometheus: PrometheusServer) -> None:
    """Two values of a variable, and the exporter by its job and instance: nothing is left out by either."""
    up = "concurrency_exporter_source_up"
    (job,) = demo_prometheus.label_values("job", up)
    (instance,) = demo_prometheus.label_values("instance", up)
    for chosen in (
        Variables(source=several("prefect-demo", "cloro-demo")),
        Variables(system=several("prefect", "cloro"), job=several(job)),
        Variables(instance=several(instance)),
        Variables(job=several(job, "another"), instance=several(instance, "another:10099")),
    ):
        assert wrong(demo_prometheus, chosen, set(), set(BOARDS), all_targets=True) == []
    two = Variables(source="prefect-demo", pool=several("kubernetes-prod", "ecs-ml"), queue=several("default", "etl"))
    assert wrong(demo_prometheus, two, ONLY_OF_CLORO, set(BOARDS)) == []


def test_what_is_not_chosen_is_not_shown(demo_prometheus: PrometheusServer) -> None:
    """Of another job, or of another instance, there is nothing: no query forgets it, but what counts alerts."""
    for chosen in (Variables(job="another"), Variables(instance="another:10099")):
        for name, board in BOARDS.items():
            for panel in charts(board):
                for target in panel["targets"]:
                    # What rules recorded has no instance.
                    by_rules = "concurrency:" in target["expr"] and chosen.job != "another"
                    if "$instance" in target["expr"] and not by_rules:
                        assert series(demo_prometheus, target, chosen) == [], f"{name}: {panel['title']}"


def test_every_query_has_data_of_each_queue(demo_prometheus: PrometheusServer) -> None:
    """Of a queue with a limit and holders there is everything; of any other there is no error and no wrong legend."""
    found = [labels for labels, _ in demo_prometheus.query('concurrency_queue_slot_limit{system="prefect"} > 0')]
    assert len(found) >= 5
    may_be_empty = TITLES - {"Slots", "Utilization", "Queues by need", "Worst queues first"}
    for labels in found:
        chosen = Variables(source=labels["source"], pool=labels["pool"], queue=labels["queue"])
        assert wrong(demo_prometheus, chosen, may_be_empty, {"overview", "queue", "capacity"}) == []


def test_an_alert_of_nothing_that_can_be_chosen_is_always_listed(
    start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    """No exporter has neither source nor pool nor queue, and is what somebody has to see most of all."""
    rules = tmp_path / "absent.yml"
    rule = {"alert": "ConcurrencyExporterAbsent", "expr": "absent(nothing)", "labels": {"severity": "page"}}
    rules.write_text(json.dumps({"groups": [{"name": "absent", "rules": [rule]}]}), encoding="utf-8")
    prometheus = start_prometheus(config={"rule_files": [str(rules)]})
    prometheus.wait_for('ALERTS{alertstate="firing"}')
    panel = next(panel for panel in charts(BOARDS["overview"]) if panel["title"] == "Firing alerts")
    for chosen in (Variables(), Variables(job="j", system="prefect", source="s", pool=several("p", "q"), queue="q")):
        assert [labels["alertname"] for labels in series(prometheus, panel["targets"][0], chosen)] == [rule["alert"]]


def test_nothing_is_wrong_where_nothing_is_chosen(demo_prometheus: PrometheusServer) -> None:
    assert wrong(demo_prometheus, Variables(source="nobody"), TITLES, set(BOARDS)) == []


@every_board
def test_every_variable_has_options(demo_prometheus: PrometheusServer, board: Board) -> None:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"], re.DOTALL)
            assert query
            assert demo_prometheus.label_values(query[2], Variables().fill(query[1])), variable["name"]


LOOKS_FOR_TROUBLE = re.compile(
    r" (==|>) [01]\b|alertstate|:p75_1d|_(sunset|deprecation)_"
    r'|:stalled_tasks|reason=~?"(zero_limit|retry|no_worker)'
)


def test_the_queries_of_runbooks_and_of_the_reference_of_alerts_have_data(demo_prometheus: PrometheusServer) -> None:
    """Asked for everything instead of for one queue. What looks for trouble may find none in the demo."""
    documents = [*sorted((ALERTS / "runbooks").iterdir()), ALERTS.parent / "docs" / "alerts.md"]
    asked = [block for document in documents for block in blocks(document) if block.language == "promql"]
    assert len(asked) > 60
    for block in asked:
        everything = re.sub(r'="[A-Z]{4,}"', '=~".*"', block.text)
        found = demo_prometheus.query(re.sub(r"\[(1d|7d):\d+m\]", "[1h:5s]", everything))
        assert found or LOOKS_FOR_TROUBLE.search(block.text), f"{block.place}: {everything}"


def test_no_rule_fails(demo_prometheus: PrometheusServer) -> None:
    found = [rule for group in demo_prometheus.rule_groups() for rule in group["rules"]]
    assert len(found) > 70
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []
    assert demo_prometheus.log_problems() == []


EMPTY_AT_FIRST = {
    "Firing alerts",  # after minutes
    "Time to drain",  # nothing is worked off
    "Busy hours by day",  # what is recorded of a day is recorded every two minutes
    "Next limit reached",  # after a day
    "When the limit is reached",
    "Failures by reason",  # nothing fails
    "Rate limit left",  # of cloro
}


def test_a_real_server_fills_the_panels(prefect_server: PrefectServer, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    source = {"name": "real", "system": "prefect", "url": prefect_server.api_url, "interval": "5s"}
    config.write_text(json.dumps({"sources": [source]}), encoding="utf-8")
    rules = [str(ALERTS / name) for name in ("recording-rules.yml", "thresholds.yml")]
    with (
        exporter(tmp_path, "--config.file", config) as command,
        PrometheusServer(tmp_path, [command.address], config={"rule_files": rules}) as server,
    ):
        # Longer than a step: what looks back in steps begins with the first one that is over.
        server.wait_for("min(count_over_time(concurrency:slot_utilization:ratio[1m])) > 8")
        chosen = Variables(source="real")
        found = [problem for board in BOARDS.values() for problem in queries(server, board, chosen, EMPTY_AT_FIRST)]
        assert found == []
