"""Older servers: what they do not have costs that part only, and is asked for again when the server is a newer one.

And of each: what it never deletes costs nothing.
"""

from contextlib import closing
from pathlib import Path

import pytest

from tests.harness.comparison import (
    assert_equal_to_readings,
    assert_reasons_of_readings,
    config,
    expected,
    published,
    steady,
    successes,
)
from tests.harness.exporter import Series, exporter
from tests.harness.prefect import StartPrefect
from tests.harness.reader import read
from tests.harness.seed import Plan, add_oddities, fleet, seed

NEWEST = "3.9.1"
WORKERS = "/work_pools/{name}/workers/filter"


def add_dead_workers(plan: Plan, count: int) -> None:
    """Half of them no service of the server has found dead, as where none runs."""
    for number in range(count // 2):
        plan.add_worker(plan.pools[0], f"dead-{number}", heartbeat=7_000 + number)
        plan.add_worker(plan.pools[0], f"forgotten-{number}", heartbeat=90_000 + number, online=True)


def requests(own: Series, endpoint: str) -> float:
    return sum(count for (_, labels), count in own.items() if dict(labels).get("endpoint") == endpoint)


@pytest.mark.parametrize("version", ["3.6.22", "3.6.23", "3.8.8", "3.9.1"])
@pytest.mark.parametrize("queues", [1, 9], ids=["few-queues", "many-queues"])
def test_every_value_of_an_older_server(version: str, queues: int, start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect(version=None if version == NEWEST else version)
    plan = fleet(5, pools=1 if queues == 1 else 3, queues=queues, runs=20 * queues, limits=4)
    if queues > 1:
        add_oddities(plan)
    add_dead_workers(plan, 5_000)
    seed(server, plan)
    old = version == "3.6.22"
    path = config(tmp_path, server.api_url, "interval: 1s", "timeout: 5m", "stale_after: 10m")
    with closing(server.client()) as client:
        before = read(client, by_runs=old)
        with exporter(tmp_path, f"--config.file={path}") as running:
            running.process.wait_until(lambda: successes(running.series()) >= 2, what="two polls")
            found = published(running)
            info = running.series("concurrency_exporter_upstream_info")
            own = running.series("concurrency_exporter_upstream_requests_total")
            polls = requests(own, "/work_pools/filter")
            # On a busy machine a poll may take longer than this short interval, which is no fault.
            log = [line for line in running.process.log_text().splitlines() if 'msg="poll skipped' not in line]
        after = read(client, by_runs=old)
    if old:
        assert steady(found) == steady(expected(before)) == steady(expected(after))
        assert_reasons_of_readings(found, before, after)
        assert any(name == "concurrency_queue_state_duration_max_seconds" for name, _ in found)
        assert not any(name == "concurrency_pool_active_slots" for name, _ in found), "it does not tell them"
        refused = {
            dict(labels)["endpoint"]: count for (_, labels), count in own.items() if dict(labels)["code"] == "404"
        }
        assert refused.keys() <= {"/work_queues/{id}/concurrency_status"}
        assert sum(refused.values()) <= 2, "asked for once, and not at every poll"
    else:
        assert_equal_to_readings(found, before, after)
    assert [line for line in log if "level=info" not in line] == []
    # Two for a pool in which no worker is online: the second has its newest heartbeat.
    assert requests(own, WORKERS) <= 2 * len(plan.pools) * polls
    assert {dict(labels)["version"] for name, labels in info if name.endswith("_info")} == {version}
