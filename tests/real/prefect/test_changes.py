"""A server that changes while it is watched: what the first poll after a change publishes is what there is then.

Deployments and flows have no step of their own: Prefect can't rename them, so the names that the exporter remembers for
the limits of deployments stay true. One that is deleted and created again has a new id, and is asked for anew.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness.comparison import DURATIONS, REASONS, assert_equal_to_readings, config, expected, published
from tests.harness.exporter import Exporter, Series, exporter
from tests.harness.prefect import PrefectApi, PrefectServer, PrefectTemplates, StartPrefect
from tests.harness.reader import read

SOURCE = {"source": "prefect", "system": "prefect"}
TAKEN_AT = ("concurrency_exporter_last_success_timestamp_seconds", frozenset(SOURCE.items()))
PAGE_SIZE = 9
"""The queues of the PostgreSQL server fill more than one page, and `work` is on both."""
NAMES = (
    " two  words ",
    'say "so"',
    "back\\slash",
    "ends in \\",
    "new\nline",
    "not a new\\nline",
    "\tün1code 池 🚦",
    "{a=\"b\"}, 1 # x='y'",
)


@dataclass(frozen=True)
class Watched:
    """A server, and an exporter that polls it again and again."""

    server: PrefectServer
    api: PrefectApi
    exporter: Exporter
    pools: tuple[str, ...]
    """Those that are there before and after every test, each with a queue `work`."""

    def next_poll(self) -> Series:
        """What the first poll that begins from now on publishes: all that the server has, and nothing else."""
        now = time.time()
        found: Series = {}

        def has_begun() -> bool:
            found.clear()
            found.update(self.exporter.series())
            return found[TAKEN_AT] > now

        self.exporter.process.wait_until(has_begun, what="a poll that began after the change has ended")
        with closing(self.server.client()) as client:
            reading = read(client)
        observed = {key: value for key, value in found.items() if not key[0].startswith("concurrency_exporter_")}
        wait = "_waiting_duration_max_seconds"
        assert {
            key: value for key, value in observed.items() if not key[0].endswith((*DURATIONS, REASONS, wait))
        } == expected(reading)
        waiting = {queue.name for queue in reading.queues.values() if queue.oldest_due}
        assert {labels["queue"] for labels in labels_of(observed, f"concurrency_queue{wait}")} == waiting
        holding = {(queue.pool, queue.name, state) for queue in reading.queues.values() for state in queue.holders}
        assert {
            (labels["pool"], labels["queue"], labels["state"])
            for labels in labels_of(observed, "concurrency_queue_state_duration_max_seconds")
        } == holding
        self.assert_no_trouble(found)
        return observed

    def assert_no_trouble(self, found: Series) -> None:
        """Every poll so far was a success; one that is skipped on a slow machine is none that failed."""
        for (name, labels), value in found.items():
            if name == "concurrency_exporter_polls_total":
                assert value == 0 or dict(labels)["outcome"] in {"success", "skipped"}, self.exporter.process.log_text()
            elif name == "concurrency_exporter_poll_errors_total":
                assert value == 0, labels

    def requests(self) -> dict[str, float]:
        """How often each endpoint was asked so far."""
        found = self.exporter.series("concurrency_exporter_upstream_requests_total")
        return {dict(labels)["endpoint"]: count for (_, labels), count in found.items()}

    def change(self, path: str, **body: object) -> None:
        self.api.request("PATCH", path, body)

    def delete(self, path: str) -> None:
        self.api.request("DELETE", path)


@pytest.fixture(scope="module", params=["few-pools", "many-pools", "many-pools-postgres"])
def watched(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefect_templates: PrefectTemplates
) -> Iterator[Watched]:
    """One server for all tests here: few pools are listed one by one, many in one listing of all queues."""
    directory = tmp_path_factory.mktemp("changes")
    few, on_postgres = request.param == "few-pools", request.param.endswith("postgres")
    where: dict[str, Any] = {"template": prefect_templates.sqlite(None)}
    if on_postgres:
        where = {
            "database_url": prefect_templates.postgres(request.getfixturevalue("postgres"), None),
            "settings": {"PREFECT_SERVER_API_DEFAULT_LIMIT": str(PAGE_SIZE)},
        }
    pools = ("pool-0",) if few else tuple(f"pool-{number}" for number in range(6))
    with PrefectServer(directory / "server", **where) as server, closing(server.client()) as client:
        api = PrefectApi(client)
        for pool in pools:
            api.create_pool(pool)
            api.create_queue(pool, "work", limit=2)
        path = config(directory, server.api_url, "interval: 400ms", "timeout: 5m", "stale_after: 10m")
        with exporter(directory, f"--config.file={path}") as running:
            watched = Watched(server, api, running, pools)
            yield watched
            before = read(client)
            watched.next_poll()
            # In one scrape of its own, so that its ages lie between the two readings.
            found = published(running)
            assert_equal_to_readings(found, before, read(client))
            trouble = [line for line in running.process.log_text().splitlines() if "level=info" not in line]
            assert all('msg="poll skipped' in line for line in trouble), trouble
            assert ("/work_queues/filter" in watched.requests()) is not few


def labels_of(found: Series, name: str, **present: str) -> list[dict[str, str]]:
    """The labels of every series of this name that has the labels `present`."""
    return [dict(labels) for series, labels in found if series == name and present.items() <= dict(labels).items()]


def value(found: Series, name: str, **labels: str) -> float:
    return found[name, frozenset((SOURCE | labels).items())]


def mentions(found: Series, **present: str) -> set[str]:
    """Names of all the series that have these labels."""
    return {name for name, labels in found if present.items() <= dict(labels).items()}


def id_of(found: Series, pool: str, queue: str) -> str:
    """The id in `concurrency_queue_info`, of which there is one."""
    (info,) = labels_of(found, "concurrency_queue_info", pool=pool, queue=queue)
    return info["id"]


def test_while_nothing_changes_many_pools_are_listed_at_once(watched: Watched) -> None:
    watched.next_poll()
    before = watched.requests()
    watched.next_poll()
    after = watched.requests()
    all_at_once, one_by_one = "/work_queues/filter", "/work_pools/{name}/queues/filter"
    if len(watched.pools) == 1:
        assert all_at_once not in after
        assert after[one_by_one] > before[one_by_one]
    else:
        assert after[all_at_once] > before[all_at_once]
        assert after[one_by_one] == before[one_by_one]


def test_a_queue_is_created_renamed_changed_and_deleted(watched: Watched) -> None:
    pool = watched.pools[0]
    queue = watched.api.create_queue(pool, "reports", limit=3)
    found = watched.next_poll()
    assert value(found, "concurrency_queue_slot_limit", pool=pool, queue="reports") == 3
    assert value(found, "concurrency_queue_active_slots", pool=pool, queue="reports") == 0
    everything = mentions(found, queue="reports")

    watched.change(f"/work_queues/{queue}", name="accounts")
    found = watched.next_poll()
    assert not mentions(found, queue="reports")
    assert mentions(found, queue="accounts") == everything
    assert id_of(found, pool, "accounts") == queue

    watched.change(f"/work_queues/{queue}", concurrency_limit=5, is_paused=True, priority=1)
    watched.change(f"/work_pools/{pool}", concurrency_limit=7, is_paused=True)
    found = watched.next_poll()
    of_queue = {"pool": pool, "queue": "accounts"}
    assert value(found, "concurrency_queue_slot_limit", **of_queue) == 5
    assert value(found, "concurrency_queue_paused", **of_queue) == 1
    assert value(found, "concurrency_queue_info", **of_queue, id=queue, priority="1") == 1
    assert [labels["priority"] for labels in labels_of(found, "concurrency_queue_queued_tasks", **of_queue)] == ["1"]
    assert value(found, "concurrency_pool_slot_limit", pool=pool) == 7
    assert value(found, "concurrency_pool_paused", pool=pool) == 1
    assert value(found, "concurrency_pool_status", pool=pool, status="PAUSED") == 1

    watched.change(f"/work_pools/{pool}", concurrency_limit=None, is_paused=False)
    watched.delete(f"/work_queues/{queue}")
    found = watched.next_poll()
    assert not mentions(found, queue="accounts")
    assert not labels_of(found, "concurrency_pool_slot_limit", pool=pool), "it has none any more"


def test_a_queue_that_is_created_again_is_another_one(watched: Watched) -> None:
    """The runs of the old one know it by its name only now: the new one has their slots, and none that waits."""
    pool = watched.pools[0]
    old = watched.api.create_queue(pool, "again", limit=2)
    flow = watched.api.create_flow()
    states = ("RUNNING", "PENDING", "SCHEDULED")
    runs = [watched.api.create_run(flow, pool=pool, queue="again", state={"type": state}) for state in states]
    found = watched.next_poll()
    assert id_of(found, pool, "again") == old
    assert value(found, "concurrency_queue_active_slots", pool=pool, queue="again") == 2
    assert value(found, "concurrency_queue_waiting_tasks", pool=pool, queue="again", state="Scheduled") == 1

    watched.delete(f"/work_queues/{old}")
    new = watched.api.create_queue(pool, "again", limit=1)
    found = watched.next_poll()
    assert id_of(found, pool, "again") == new != old
    status = watched.api.request("POST", f"/work_queues/{new}/concurrency_status", {})
    assert value(found, "concurrency_queue_active_slots", pool=pool, queue="again") == status["active_slots"] == 2
    assert value(found, "concurrency_queue_slot_limit", pool=pool, queue="again") == 1
    for state in ("RUNNING", "PENDING"):
        assert value(found, "concurrency_queue_slot_holders", pool=pool, queue="again", state=state) == 1
    assert value(found, "concurrency_queue_waiting_tasks", pool=pool, queue="again", state="Scheduled") == 0

    for run in runs:
        watched.delete(f"/flow_runs/{run}")
    watched.delete(f"/work_queues/{new}")
    assert not mentions(watched.next_poll(), queue="again")


def test_one_of_many_queues_of_one_name_is_created_again(watched: Watched) -> None:
    """Their number stays, and a page of a listing that is ordered by their names need not have the new one."""
    for pool in watched.pools[::2]:
        (old,) = watched.api.request(
            "POST", f"/work_pools/{pool}/queues/filter", {"work_queues": {"name": {"any_": ["work"]}}}
        )
        watched.delete(f"/work_queues/{old['id']}")
        new = watched.api.create_queue(pool, "work", limit=2)
        assert id_of(watched.next_poll(), pool, "work") == new != old["id"]


def test_a_pool_is_created_and_deleted_with_its_queues(watched: Watched) -> None:
    """It has a queue of the name of another pool's, whose runs that one is left with."""
    pool, other = watched.pools[0], "twin"
    watched.api.create_pool(other, limit=4)
    for of_pool, limit in ((pool, 1), (other, 2)):
        watched.api.create_queue(of_pool, "shared", limit=limit)
    flow = watched.api.create_flow()
    run = watched.api.create_run(flow, pool=other, queue="shared", state={"type": "RUNNING"})
    found = watched.next_poll()
    for of_pool, limit, active in ((pool, 1, 0), (other, 2, 1)):
        assert value(found, "concurrency_queue_slot_limit", pool=of_pool, queue="shared") == limit
        assert value(found, "concurrency_queue_active_slots", pool=of_pool, queue="shared") == active
    assert value(found, "concurrency_pool_active_slots", pool=other) == 1

    watched.delete(f"/work_pools/{other}")
    found = watched.next_poll()
    assert not mentions(found, pool=other)
    assert value(found, "concurrency_queue_active_slots", pool=pool, queue="shared") == 1

    watched.delete(f"/flow_runs/{run}")
    watched.delete(f"/work_pools/{pool}/queues/shared")
    assert not mentions(watched.next_poll(), queue="shared")


def test_the_pool_of_agents_has_no_status(watched: Watched) -> None:
    queue = watched.api.request("POST", "/work_queues/", {"name": "legacy", "concurrency_limit": 2})
    pool = queue["work_pool_name"]
    assert pool == "default-agent-pool"
    assert watched.api.request("GET", f"/work_pools/{pool}")["status"] is None
    found = watched.next_poll()
    assert id_of(found, pool, "legacy") == queue["id"]
    assert value(found, "concurrency_queue_slot_limit", pool=pool, queue="legacy") == 2
    assert value(found, "concurrency_pool_paused", pool=pool) == 0
    assert not labels_of(found, "concurrency_pool_status", pool=pool)

    watched.delete(f"/work_pools/{pool}")
    assert not mentions(watched.next_poll(), pool=pool)


def test_names_are_labels_as_they_are(watched: Watched) -> None:
    pool = "".join(NAMES).replace("\n", " ")
    watched.api.create_pool(pool)
    for name in NAMES:
        watched.api.create_queue(pool, name, limit=1)
    found = watched.next_poll()
    for name in ("concurrency_queue_active_slots", "concurrency_queue_slot_limit", "concurrency_queue_info"):
        queues = [labels["queue"] for labels in labels_of(found, name, pool=pool)]
        assert sorted(queues) == sorted((*NAMES, *(["default"] if name != "concurrency_queue_slot_limit" else [])))

    watched.delete(f"/work_pools/{quote(pool, safe='')}")
    assert not mentions(watched.next_poll(), pool=pool)


def test_a_pool_with_a_newline_in_its_name_costs_itself_only(start_prefect: StartPrefect, tmp_path: Path) -> None:
    """Prefect lets it be created, and finds it by no path then."""
    server = start_prefect()
    with closing(server.client()) as client:
        api = PrefectApi(client)
        for pool in ("plain", "new\nline"):
            api.create_pool(pool)
    path = config(tmp_path, server.api_url, "interval: 1s", "timeout: 5m", "stale_after: 10m")
    with exporter(tmp_path, f"--config.file={path}") as running:
        partial = ("concurrency_exporter_polls_total", frozenset((SOURCE | {"outcome": "partial"}).items()))
        running.process.wait_until(lambda: running.series()[partial] >= 2, what="two polls")
        found = running.series()
    assert value(found, "concurrency_pool_workers", pool="plain", status="ONLINE") == 0
    assert value(found, "concurrency_queue_active_slots", pool="plain", queue="default") == 0
    assert value(found, "concurrency_pool_paused", pool="new\nline") == 0
    assert not labels_of(found, "concurrency_pool_workers", pool="new\nline")
    assert value(found, "concurrency_exporter_queues_unreadable") == 1


def test_limits_are_created_changed_and_deleted(watched: Watched) -> None:
    api = watched.api
    limits = "/v2/concurrency_limits/"
    database = api.request("POST", limits, {"name": "database", "limit": 3, "active_slots": 2})["id"]
    gpu = api.request("POST", limits, {"name": "tag:gpu", "limit": 1})["id"]
    deployed = {"name": "nightly", "flow_id": api.create_flow("report"), "concurrency_limit": 4}
    old = api.request("POST", "/deployments/", deployed)["id"]
    found = watched.next_poll()
    assert value(found, "concurrency_limit_slots", kind="global", limit="database") == 3
    assert value(found, "concurrency_limit_active_slots", kind="global", limit="database") == 2
    assert value(found, "concurrency_limit_slots", kind="tag", limit="gpu") == 1
    assert value(found, "concurrency_limit_slots", kind="deployment", limit="report/nightly") == 4
    (before,) = labels_of(found, "concurrency_limit_info", kind="deployment")

    watched.change(f"{limits}{database}", name="warehouse", limit=9, active=False)
    watched.delete(f"{limits}{gpu}")
    watched.delete(f"/deployments/{old}")
    new = api.request("POST", "/deployments/", deployed | {"concurrency_limit": 5})["id"]
    assert new != old
    found = watched.next_poll()
    assert not mentions(found, limit="database")
    assert not mentions(found, kind="tag")
    assert value(found, "concurrency_limit_slots", kind="global", limit="warehouse") == 9
    assert value(found, "concurrency_limit_active", kind="global", limit="warehouse") == 0
    assert value(found, "concurrency_limit_slots", kind="deployment", limit="report/nightly") == 5
    (after,) = labels_of(found, "concurrency_limit_info", kind="deployment")
    assert after["id"] != before["id"]

    watched.change(f"/deployments/{new}", concurrency_limit=None)
    watched.delete(f"{limits}{database}")
    found = watched.next_poll()
    assert not any(name.startswith("concurrency_limit_") for name, _ in found)
