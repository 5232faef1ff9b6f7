"""The runbooks, as somebody on call uses them: every query has a result for every subject that the alert can have."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from docs import alerting
from tests.harness.documents import Block, blocks
from tests.harness.prefect import PrefectApi, StartPrefect
from tests.harness.process import PATIENCE
from tests.harness.programs import program
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import ALERTS
from tests.harness.rules import Rule, rules

Subject = dict[str, str]
RUNBOOKS = {path.stem: path for path in sorted((ALERTS / "runbooks").iterdir())}
THRESHOLDS = {rule.name: rule.expr for rule in rules() if rule.file == "thresholds.yml"}
ALERT_RULES: dict[str, Rule] = {rule.name: rule for rule in rules() if rule.kind == "alert"}
PLACEHOLDER = re.compile(r'(?<==")(SOURCE|POOL|QUEUE)(?=")')
PREFECT_ONLY = "Prefect only: "
"""How the paragraph above a query begins of which cloro reports nothing."""
LASTS_A_DAY = re.compile(r"\[(1d|7d):\d+m\]")
LOOKS_FOR_TROUBLE = re.compile(r" (==|>|<=) [01]\b")
"""A condition at the end of a query: the demo may be well."""
NOT_IN_THE_DEMO = re.compile(r"_upstream_(sunset|deprecation)_timestamp_seconds")
HOLDING = ("PENDING", "RUNNING", "CANCELLING")


def asked(runbook: Path) -> Iterator[tuple[Block, bool]]:
    """The queries of a runbook, each with whether it is about Prefect only."""
    lines = runbook.read_text(encoding="utf-8").splitlines()
    for block in blocks(runbook):
        if block.language == "promql":
            above = "\n".join(lines[: int(block.place.rpartition(":")[2]) - 2]).rstrip()
            yield block, above.rpartition("\n\n")[2].startswith(PREFECT_ONLY)


class Moment:
    """The demo at one moment: what one query finds is there for the next as well."""

    def __init__(self, prometheus: PrometheusServer) -> None:
        self._prometheus = prometheus
        # All rules have been evaluated by then.
        self._at = time.time() - 5

    def query(self, expression: str) -> list[Subject]:
        """The labels of each series of the result."""
        return [labels for labels, _ in self._prometheus.matrix(expression, self._at, self._at, 1)]


def subjects(moment: Moment, alert: str) -> list[Subject]:
    """The labels of every series of the demo that the alert compares with its threshold; of tasks, where some wait."""
    thresholds = {threshold.alert: threshold for threshold in alerting.thresholds()}
    if threshold := thresholds.get(alert):
        (first, *_) = re.findall(r"concurrency:\w+:\w+", threshold.query)
        (resources,) = re.findall(r"group(\{.*\})?", THRESHOLDS[threshold.name])
        # The demo may be well: then no task waits for what the alert is about. Any that waits could.
        first = re.sub(r":(blocked|stalled)_tasks:", ":waiting_tasks:", first)
        series = first + (resources or "") + (" > 0" if first.endswith("_tasks:sum") else "")
    elif "queue" in ALERT_RULES[alert].expr.partition("\n")[0]:
        series = "concurrency_queue_usage_known"
    else:
        series = "concurrency:sources:group"
    return moment.query(series)


def filled(query: str, subject: Mapping[str, str]) -> str:
    """The query as the runbook says to ask it: a label that the alert does not have is empty."""
    return PLACEHOLDER.sub(lambda word: subject.get(word[0].lower(), ""), query)


@pytest.mark.parametrize("alert", RUNBOOKS)
def test_every_query_has_a_result_for_every_subject(alert: str, demo_prometheus: PrometheusServer) -> None:
    moment = Moment(demo_prometheus)
    found = subjects(moment, alert)
    assert found
    without = []
    for block, prefect_only in asked(RUNBOOKS[alert]):
        query = LASTS_A_DAY.sub("[1h:5s]", LOOKS_FOR_TROUBLE.sub("", block.text))
        for subject in found:
            if NOT_IN_THE_DEMO.search(query) or (prefect_only and subject["system"] != "prefect"):
                continue
            if not moment.query(filled(query, subject)):
                without.append((block.place, subject))
    assert without == []


def test_the_demo_has_subjects_of_every_kind(demo_prometheus: PrometheusServer) -> None:
    """Otherwise the test above asks nothing of what somebody is paged for."""

    moment = Moment(demo_prometheus)

    def kinds(alert: str) -> set[tuple[str, str]]:
        return {(labels["system"], labels["resource"]) for labels in subjects(moment, alert)}

    queues_and_pools = {("prefect", "queue"), ("prefect", "pool"), ("cloro", "queue")}
    assert kinds("ConcurrencySlotsSaturated") == queues_and_pools
    assert kinds("ConcurrencyNearLimit") == {*queues_and_pools, ("prefect", "limit")}
    assert kinds("ConcurrencyQueueStalled") == {("prefect", "queue"), ("cloro", "queue")}
    assert kinds("ConcurrencyNoWorker") == {("prefect", "queue")}


# --- "Which runs are they?", asked of a real server.


def table(command: str, api_url: str) -> list[list[str]]:
    """What the command prints, cell by cell, without its heading."""
    program("jq")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        env={**os.environ, "PREFECT_API_URL": api_url},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    heading, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert heading == ["minutes", "state", "queue", "id", "name"]
    return rows


def request(alert: str) -> str:
    (command,) = [block.text for block in blocks(RUNBOOKS[alert]) if block.language == "sh"]
    return command


def test_both_runbooks_have_the_same_request() -> None:
    assert request("ConcurrencySlotHolderStuck") == request("ConcurrencySlotsSaturated")


def test_the_runs_that_hold_slots_are_listed(start_prefect: StartPrefect) -> None:
    """Of a queue, and of its pool: all that hold a slot and no others, the longest time in a state first."""
    server = start_prefect()
    with closing(server.client()) as client:
        api = PrefectApi(client)
        flow = api.create_flow()
        for pool in ("a", "b"):
            api.create_pool(pool)
            for queue in ("x", "y"):
                api.create_queue(pool, queue)
        expected: dict[tuple[str, str], set[str]] = {}
        for state in (*HOLDING, "SCHEDULED", "COMPLETED"):
            for place in (("a", "x"), ("a", "y"), ("b", "x")):
                run = api.create_run(flow, pool=place[0], queue=place[1], state={"type": state})
                if state in HOLDING:
                    expected.setdefault(place, set()).add(run)
        runs: dict[str, Any] = {run["id"]: run for run in api.request("POST", "/flow_runs/filter", {})}
        # The order in which they came into their states is not the order in which they were made.
        first = min(expected["a", "x"], key=lambda run: runs[run]["created"])
        api.set_state(first, {"type": "RUNNING", "name": "Again"})
        runs |= {first: api.request("GET", f"/flow_runs/{first}")}

    of_pool = request("ConcurrencySlotsSaturated").replace('"POOL"', '"a"')
    of_queue = of_pool.replace('"QUEUE"', '"x"')
    of_pool = "".join(line for line in of_pool.splitlines(keepends=True) if "work_pool_queues" not in line)
    for command, ids in ((of_queue, expected["a", "x"]), (of_pool, expected["a", "x"] | expected["a", "y"])):
        rows = table(command, server.api_url)
        assert {row[3] for row in rows} == ids
        assert rows[-1][3] == first
        for longer, shorter in pairwise(rows):
            assert runs[longer[3]]["state"]["timestamp"] <= runs[shorter[3]]["state"]["timestamp"]
            assert int(longer[0]) >= int(shorter[0]) >= 0
        for minutes, state, queue, run, name in rows:
            assert (state, queue, name) == (
                runs[run]["state"]["type"],
                runs[run]["work_queue_name"],
                runs[run]["name"],
            )
            assert int(minutes) < 60 * 24
