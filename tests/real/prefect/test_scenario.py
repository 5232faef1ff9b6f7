from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import httpx
import pytest

from tests.harness.prefect import PrefectApi, PrefectServer, StartPrefect
from tests.harness.process import PATIENCE
from tests.harness.reader import Reading, read
from tests.harness.scenario import (
    DEPLOYMENT_LIMIT,
    LIMITS,
    PAGE_SIZE,
    PLANNED_STATES,
    POOLS,
    expected_holders,
    expected_pool_slots,
    expected_state_names,
    planned_queues,
)


@pytest.fixture(scope="module")
def reading(prefect_server: PrefectServer) -> Reading:
    with closing(prefect_server.client()) as client:
        return read(client)


def test_the_pools_are_those_of_the_plan(reading: Reading) -> None:
    found = {p.name: (p.type, p.limit, p.is_paused, p.active_slots) for p in reading.pools.values()}
    assert found == {p.name: (p.kind, p.limit, p.paused, expected_pool_slots(p)) for p in POOLS}
    assert len(POOLS) > PAGE_SIZE


def test_the_queues_are_those_of_the_plan(reading: Reading) -> None:
    found = {key: (q.limit, q.is_paused) for key, q in reading.queues.items()}
    assert found == {(pool.name, queue.name): (queue.limit, queue.paused) for pool, queue in planned_queues()}
    # Each new one is last.
    many = sorted((q.priority, q.name) for q in reading.queues.values() if q.pool == "many")
    assert many == [(1, "default"), *((number + 2, f"queue-{number:02}") for number in range(19))]


def test_the_holders_are_those_of_the_plan(reading: Reading) -> None:
    for pool, planned in planned_queues():
        queue = reading.queues[pool.name, planned.name]
        expected = expected_holders(planned)
        assert queue.holders == {state: number for state, number in expected.items() if number}, queue.name
        assert queue.active_slots == sum(expected.values()), queue.name


def test_the_figures_in_plain_numbers(reading: Reading) -> None:
    """The plan and what is expected of it could be wrong together."""
    states = reading.queues["limited", "states"]
    assert states.holders == {"PENDING": 6, "RUNNING": 4, "CANCELLING": 2}
    assert reading.queues["unlimited", "paged"].holders == {"RUNNING": 30, "PENDING": 10, "CANCELLING": 5}
    assert (
        reading.queues["limited", "overfull"].active_slots,
        reading.queues["limited", "overfull"].limit,
    ) == (5, 2)
    # One run of its own and two of its own, and the one that has only the name counts in both.
    assert reading.queues["twin-a", "shared"].active_slots == 2
    assert reading.queues["twin-b", "shared"].active_slots == 3
    assert reading.pools["twin-a"].active_slots == 1
    assert reading.pools["limited"].active_slots == 10 + 5 + 2


def test_the_runs_are_in_the_states_of_the_plan(prefect_server: PrefectServer) -> None:
    """Also those that hold no slot, and so are not in the reading."""
    found: Counter[str] = Counter()
    with closing(prefect_server.client()) as client:
        while page := client.post("/flow_runs/filter", json={"offset": found.total()}).json():
            found.update(run["state_name"] for run in page)
    assert found == expected_state_names()
    assert len(found) == len(PLANNED_STATES) - 1


def test_every_holder_has_an_age_since_the_seeding(reading: Reading, prefect_server: PrefectServer) -> None:
    since_the_start = (datetime.now(UTC) - prefect_server.started).total_seconds()
    for queue in reading.queues.values():
        for age in (age for ages in queue.ages.values() for age in ages):
            assert age.state_timestamp
            assert age.time_in_current_state is not None
            assert datetime.fromisoformat(age.state_timestamp) > prefect_server.started
            assert 0 < age.time_in_current_state < since_the_start


def test_the_limits_are_those_of_the_plan(reading: Reading) -> None:
    found = {(lim.name.split(":")[0], lim.limit, lim.active_slots, lim.active) for lim in reading.limits.values()}
    expected = {(lim.name.split(":")[0], lim.limit, lim.active_slots, lim.active) for lim in LIMITS}
    assert found == expected | {("deployment", DEPLOYMENT_LIMIT, 0, True)}
    assert {lim.name for lim in LIMITS} < reading.limits.keys()


def test_a_server_with_auth_and_csrf_lets_only_its_own_client_in(start_prefect: StartPrefect) -> None:
    server = start_prefect(auth_string="someone:pass:word", csrf=True)
    assert (
        httpx.post(f"{server.api_url}/work_pools/filter", json={}, trust_env=False, timeout=PATIENCE).status_code == 403
    )
    assert httpx.get(f"{server.api_url}/version", trust_env=False, timeout=PATIENCE).status_code == 401
    with closing(server.client()) as client:
        api = PrefectApi(client)
        flow = api.create_flow()
        api.create_pool("pool")
        api.create_queue("pool", "queue", limit=1, priority=1)
        run = api.create_run(flow, pool="pool", queue="queue", state={"type": "RUNNING"})
        found = read(client)
        assert found.queues["pool", "queue"].holders == {"RUNNING": 1}
        assert [found.queues["pool", name].priority for name in ("queue", "default")] == [1, 2]
        api.set_state(run, {"type": "COMPLETED"})
        assert read(client).queues["pool", "queue"].holders == {}
