"""What the files of deploy/autoscaling ask a Prometheus or the exporter for: how many workers result from it."""

import json
import re
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from ruamel.yaml import YAML

from tests.harness.exporter import exporter
from tests.harness.kubernetes import problems
from tests.harness.prefect import PrefectServer
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT
from tests.harness.prometheus import StartPrometheus
from tests.harness.promql import ALERTS, undeclared
from tests.harness.reader import Pool, Queue, Reading, read

FOLDER = ROOT / "deploy" / "autoscaling"
EXAMPLE = {"source": "production", "pool": "docker"}
"""Which pool the files scale the workers of."""


def load(name: str) -> Any:
    return YAML(typ="safe").load(FOLDER / name)


def keda() -> str:
    """The query of the ScaledObject."""
    (trigger,) = load("keda.yaml")["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def adapter() -> str:
    """The query that prometheus-adapter makes of its rule, for what the HorizontalPodAutoscaler asks for."""
    (rule,) = load("prometheus-adapter.yaml")["rules"]["external"]
    (metric,) = load("hpa.yaml")["spec"]["metrics"]
    asked = metric["external"]["metric"]
    name = re.fullmatch(r'\{__name__="(.+)"\}', rule["seriesQuery"])
    assert name
    assert re.fullmatch(rule["name"]["matches"], name[1])
    assert rule["name"]["as"] == asked["name"]
    matchers = ",".join(f'{label}="{value}"' for label, value in asked["selector"]["matchLabels"].items())
    return str(rule["metricsQuery"]).replace("<<.Series>>", name[1]).replace("<<.LabelMatchers>>", matchers)


QUERIES = {"keda": keda(), "adapter": adapter()}


def of_pool(query: str, source: str, pool: str) -> str:
    """The query with another source and pool."""
    for label, value in (("source", source), ("pool", pool)):
        assert query.count(f'{label}="{EXAMPLE[label]}"') == 1
        query = query.replace(f'{label}="{EXAMPLE[label]}"', f"{label}={json.dumps(value, ensure_ascii=False)}")
    return query


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_the_queries_select_what_there_is(query: str) -> None:
    assert undeclared(query) == []
    assert "vector" not in query


@pytest.mark.parametrize("name", ["keda.yaml", "keda-without-prometheus.yaml", "hpa.yaml"])
def test_its_api_has_no_objections(name: str) -> None:
    assert problems(load(name)) == []


def test_nothing_is_not_taken_for_no_workers() -> None:
    scaled = load("keda.yaml")["spec"]
    assert scaled["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
    # A fallback is a number of its own.
    assert "fallback" not in scaled
    assert "fallback" not in load("keda-without-prometheus.yaml")["spec"]
    assert load("hpa.yaml")["spec"]["minReplicas"] == 1


def wanted(reading: Reading, pool: Pool) -> int:
    """The slots that workers of the pool could use, from what the server itself says."""
    queues = [queue for queue in reading.queues.values() if queue.pool == pool.name]
    startable = sum(_startable(queue, pool) for queue in queues)
    if pool.limit is not None:
        startable = min(startable, max(pool.limit - pool.active_slots, 0))
    return sum(queue.active_slots for queue in queues) + startable


def wanted_of_queue(queue: Queue, pool: Pool) -> int:
    """The slots that workers of this queue alone could use, likewise."""
    startable = _startable(queue, pool)
    if pool.limit is not None:
        startable = min(startable, max(pool.limit - pool.active_slots, 0))
    return queue.active_slots + startable


def _startable(queue: Queue, pool: Pool) -> int:
    if queue.is_paused or pool.is_paused or 0 in {queue.limit, pool.limit}:
        return 0
    waiting = sum(len(since) for state, since in queue.waiting.items() if state != "AwaitingConcurrencySlot")
    return waiting if queue.limit is None else min(waiting, max(queue.limit - queue.active_slots, 0))


def test_they_ask_for_as_many_workers_as_there_are_slots_for(
    prefect_server: PrefectServer, start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    with closing(prefect_server.client()) as client:
        reading = read(client)
    with (
        exporter(tmp_path / "real", env={"PREFECT_API_URL": prefect_server.api_url}) as real,
        exporter(tmp_path / "demo", "--demo") as demo,
    ):
        server = start_prometheus(
            [real.address, demo.address], config={"rule_files": [str(ALERTS / "recording-rules.yml")]}
        )
        server.wait_for("count by (source) (concurrency:wanted_slots:sum)", lambda found: len(found) == 3)
        expected = {pool.name: wanted(reading, pool) for pool in reading.pools.values()}
        assert len(expected) > 8
        assert {0} < set(expected.values())
        for query in QUERIES.values():
            for pool, workers in expected.items():
                ((_, value),) = server.wait_for(of_pool(query, "prefect", pool))
                assert ceil(value) == workers, pool
            # A pool has more workers at work than slots while some of its runs are being cancelled.
            for labels, _ in server.wait_for('concurrency_pool_slot_limit{source="prefect-demo"}'):
                ((_, value),) = server.wait_for(of_pool(query, "prefect-demo", labels["pool"]))
                assert value >= 0
            assert server.query(of_pool(query, "prefect", "no such pool")) == []

        # The exporter dies, and its data with it: there is no answer, which is not the answer 0.
        real.process.stop()
        for query in QUERIES.values():
            server.wait_for(of_pool(query, "prefect", "untouched"), lambda found: found == [])


def test_without_prometheus_the_exporter_is_asked(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """As KEDA's metrics-api scaler does: the value at a place of the JSON, and an error for any status but 200."""
    (trigger,) = load("keda-without-prometheus.yaml")["spec"]["triggers"]
    asked = urlsplit(trigger["metadata"]["url"])
    assert parse_qs(asked.query) == {"source": ["production"], "pool": ["docker"], "queue": ["default"]}
    with closing(prefect_server.client()) as client:
        reading = read(client)
    with exporter(tmp_path / "real", env={"PREFECT_API_URL": prefect_server.api_url}) as real:
        found, expected = {}, {}
        for queue in reading.queues.values():
            parameters = {"source": "prefect", "pool": queue.pool, "queue": queue.name}
            answer = httpx.get(f"{real.url}{asked.path}", params=parameters, timeout=PATIENCE)
            assert answer.status_code == 200, answer.text
            pool = next(pool for pool in reading.pools.values() if pool.name == queue.pool)
            expected[queue.pool, queue.name] = wanted_of_queue(queue, pool)
            found[queue.pool, queue.name] = answer.json()[trigger["metadata"]["valueLocation"]]
        assert found == expected
        assert {0, 1} < set(expected.values())
    with exporter(tmp_path / "down", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"}) as down:
        parameters = {"source": "prefect", "pool": "docker", "queue": "default"}
        assert httpx.get(f"{down.url}{asked.path}", params=parameters, timeout=PATIENCE).status_code == 503
