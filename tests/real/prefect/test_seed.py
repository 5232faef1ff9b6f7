"""What a plan says is what the server says that was seeded with it, on each kind of server there is."""

from contextlib import closing
from datetime import UTC, datetime

import httpx
import pytest

from exporter.demo.states import STATE_TYPES
from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import StartPrefect
from tests.harness.reader import Reading, read
from tests.harness.seed import Plan, add_oddities, add_unreadable_run, fleet, seed


def small_fleet() -> Plan:
    """With every kind of row, and more runs than fit on a page."""
    plan = fleet(1, pools=3, queues=4, runs=250, limits=10)
    add_oddities(plan)
    return plan


def assert_equal(reading: Reading, plan: Plan) -> None:
    """All that was read is what the plan has."""
    pools = plan.pool_figures(reading.at)
    assert {
        pool.name: (pool.id, pool.type, pool.limit, pool.is_paused, pool.status, pool.active_slots)
        for pool in reading.pools.values()
    } == {
        pool.name: (str(pool.id), pool.kind, pool.limit, pool.paused, pool.status, pools[pool.name].active_slots)
        for pool in plan.pools
    }
    assert {
        (pool.name, worker.name): (worker.status, worker.last_heartbeat)
        for pool in reading.pools.values()
        for worker in pool.workers.values()
    } == {
        (worker.pool.name, worker.name): (
            "ONLINE" if pools[worker.pool.name].workers[worker.name] else "OFFLINE",
            worker.last_heartbeat,
        )
        for worker in plan.workers
    }

    assert {
        key: (queue.id, queue.limit, queue.is_paused, queue.status, queue.priority, queue.last_polled)
        for key, queue in reading.queues.items()
    } == {
        queue.key: (str(queue.id), queue.limit, queue.paused, queue.status, queue.priority, queue.last_polled)
        for queue in plan.queues
    }
    for key, figures in plan.queue_figures(reading.at).items():
        queue = reading.queues[key]
        assert queue.active_slots == sum(figures.holders.values()), key
        assert queue.holders == {state: number for state, number in figures.holders.items() if number}, key
        since = {state: [age.state_timestamp for age in ages] for state, ages in queue.ages.items()}
        assert {state: sorted(map(parsed, times)) for state, times in since.items()} == {
            state: [(time is not None, time) for time in times] for state, times in figures.since.items() if times
        }, key
        assert {state: len(times) for state, times in queue.waiting.items()} == figures.waiting, key
        assert queue.oldest_due == figures.oldest_due, key

    deployments = {str(deployment.id): deployment for deployment in plan.deployments if deployment.limit}
    found = {limit.name: limit for limit in reading.limits.values()}
    assert {limit.name: (limit.limit, limit.active, limit.slot_decay_per_second) for limit in found.values()} == {
        limit.name: (limit.limit, limit.active, limit.decay) for limit in plan.limits
    }
    for limit in plan.limits:
        given_back = limit.decay * (datetime.now(UTC) - plan.at).total_seconds()
        assert limit.active_slots - given_back <= found[limit.name].active_slots <= limit.active_slots
    assert {of.id: (of.name, of.flow) for limit in found.values() if (of := limit.deployment)} == {
        identity: (deployment.name, deployment.flow.name) for identity, deployment in deployments.items()
    }


def parsed(time: str | None) -> tuple[bool, datetime | None]:
    return time is not None, datetime.fromisoformat(time) if time else None


@pytest.mark.parametrize("version", [None, "3.6.23"])
def test_a_server_with_sqlite_says_what_the_plan_says(start_prefect: StartPrefect, version: str | None) -> None:
    server = start_prefect(version=version)
    plan = small_fleet()
    seed(server, plan)
    with closing(server.client()) as client:
        assert client.get("/admin/version").json() == version or version is None
        reading = read(client)
        since_the_plan = (datetime.now(UTC) - plan.at).total_seconds()
        assert_equal(reading, plan)
        ages = reading.queues["odd-a", "ages"].ages
        for age, planned in zip(
            sorted(age.time_in_current_state or 0 for age in ages["RUNNING"]), (-3600, 0, 4000 * 86_400), strict=True
        ):
            assert planned <= age <= planned + since_the_plan
        assert [age.time_in_current_state for age in ages["PENDING"]] == [None]
        assert_equal(read(client, by_runs=True), plan)


def test_a_server_without_concurrency_status_is_read_by_its_runs(start_prefect: StartPrefect) -> None:
    server = start_prefect(version="3.6.22")
    plan = small_fleet()
    seed(server, plan)
    with closing(server.client()) as client:
        assert client.get("/admin/version").json() == "3.6.22"
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            read(client)
        assert_equal(read(client, by_runs=True), plan)


def test_a_server_with_postgresql_says_what_the_plan_says(
    start_prefect: StartPrefect, postgres: PostgresCluster
) -> None:
    server, other = start_prefect(postgres=postgres), start_prefect(postgres=postgres)
    plan = small_fleet()
    seed(server, plan)
    with closing(server.client()) as client:
        assert_equal(read(client), plan)
        assert_equal(read(client, by_runs=True), plan)
    with closing(other.client()) as client:
        assert read(client).pools == {}, "databases of the same cluster are apart"


def test_one_unreadable_run_fails_its_listing_and_nothing_else(start_prefect: StartPrefect) -> None:
    server = start_prefect()
    plan = Plan()
    queue = plan.add_queue(plan.add_pool("pool"), "queue")
    plan.add_run("Running", queue)
    add_unreadable_run(plan, queue)
    seed(server, plan)
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}

    def status(path: str) -> int:
        # The server closes the connection after a 500.
        with closing(server.client()) as client:
            return client.post(path, json=running).status_code

    assert status("/flow_runs/filter") == 500
    assert status("/flow_runs/count") == 200
    assert status(f"/work_queues/{queue.id}/concurrency_status") == 200


def test_the_figures_in_plain_numbers() -> None:
    """The plan's rows and its figures could be wrong together."""
    plan = Plan()
    pool = plan.add_pool("pool")
    queue = plan.add_queue(pool, "queue", limit=2)
    states = ("Running", "Pending", "Cancelling", "Completed", "Late", "Scheduled", "AwaitingConcurrencySlot")
    for number, state in enumerate(states):
        plan.add_run(state, queue, late=100 + number)
    plan.add_run("Running", queue, age=None, by_name_only=True)
    plan.add_run("Late", queue, late=5000, by_name_only=True)
    plan.add_run("Scheduled", queue, late=-5000)
    figures = plan.queue_figures(plan.at)["pool", "queue"]
    assert figures.holders == {"PENDING": 1, "RUNNING": 2, "CANCELLING": 1}
    assert figures.own_holders == {"PENDING": 1, "RUNNING": 1, "CANCELLING": 1}
    assert figures.since["RUNNING"][0] is None
    assert figures.waiting == {"Late": 1, "Scheduled": 1, "AwaitingConcurrencySlot": 1}
    assert figures.oldest_due
    assert (plan.at - figures.oldest_due).total_seconds() == pytest.approx(106)
    assert plan.pool_figures(plan.at)["pool"].active_slots == 2


def test_a_fleet_is_the_same_for_the_same_seed_and_large_enough() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    plan = fleet(at=at)
    assert plan == fleet(at=at)
    assert plan != fleet(1, at=at)
    assert (len(plan.queues), len(plan.runs)) == (510, 5000)
    assert {run.state for run in plan.runs} >= STATE_TYPES.keys() - {"InfrastructurePending", "Suspended", "Crashed"}
    identities = [pool.id for pool in plan.pools] + [queue.id for queue in plan.queues] + [run.id for run in plan.runs]
    assert len(identities) == len(set(identities))
