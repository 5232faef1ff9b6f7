import time
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from exporter.demo.pace import CATCH_UP
from exporter.demo.scenario import DEPLOYMENTS, DOCKER, K8S, LIMITS, ML, POOLS, QUEUES, WAREHOUSE, Queue
from exporter.demo.states import StateType
from exporter.demo.tasks import MAX_SLOTS, Tasks
from exporter.demo.world import MAX_WAITING, World
from tests.harness.demo import START

SATURATING = (
    (DOCKER, "reports"),
    (ML, "inference"),
    (K8S, "critical"),
    (K8S, "etl"),
    (K8S, "reports"),
    (WAREHOUSE, "dbt"),
)


def queue_named(pool: str, name: str) -> Queue:
    return next(queue for queue in QUEUES if (queue.pool, queue.name) == (pool, name))


def due(world: World, queue: Queue) -> int:
    return sum(run.queue is queue and run.due is not None and run.due <= world.now for run in world.runs())


def everything(world: World) -> list[Any]:
    return [(run.id, run.name, run.state, run.due, run.started, run.deployment.id) for run in world.runs()]


def test_the_cast() -> None:
    assert [queue for queue in QUEUES if queue.limit is None]
    assert [queue for queue in QUEUES if queue.limit == 0]
    assert [queue for queue in QUEUES if queue.paused]
    assert max(Counter(queue.name for queue in QUEUES).values()) > 1
    assert [pool.name for pool in POOLS] == sorted(pool.name for pool in POOLS)
    for pool in POOLS:
        assert "default" in {queue.name for queue in pool.queues}
        assert [queue.priority for queue in pool.queues] == list(range(1, len(pool.queues) + 1))
        assert {queue.pool for queue in pool.queues} == {pool.name}
    known = {(queue.pool, queue.name) for queue in QUEUES}
    assert {user for limit in LIMITS for user in limit.users} <= known


def test_the_same_moments_give_the_same_world_however_often_it_is_asked() -> None:
    one, other = World(START), World(START)
    for second in range(301):
        one.advance(START + timedelta(seconds=second))
    other.advance(START + timedelta(seconds=300))
    assert everything(one) == everything(other)
    other.advance(START + timedelta(seconds=301))
    assert everything(one) != everything(other)


def test_there_is_something_to_see_at_the_start() -> None:
    world = World(START)
    saturated = [
        queue
        for queue in QUEUES
        if queue.limit and not queue.paused and world.taken(queue) >= queue.limit and due(world, queue)
    ]
    assert len(saturated) >= 2
    assert {run.state.type for run in world.runs()} == {
        StateType.SCHEDULED,
        StateType.PENDING,
        StateType.RUNNING,
        StateType.CANCELLING,
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("pool", "name"), SATURATING)
def test_a_main_queue_saturates_while_work_waits_and_drains_within_five_minutes(
    pool: str, name: str, seed: int
) -> None:
    queue, world = queue_named(pool, name), World(START, seed)
    assert queue.limit
    saturated = drained = 0
    for second in range(300):
        world.advance(START + timedelta(seconds=second))
        saturated += world.taken(queue) == queue.limit and due(world, queue) >= 2
        drained += len(world.holders(queue)) <= queue.limit / 2 and due(world, queue) == 0
    assert saturated >= 30
    assert drained >= 15


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_queue_is_full_for_long_enough_to_page_and_drains_within_the_hour(seed: int) -> None:
    """`ConcurrencySlotsSaturated` looks back for 10 minutes, and then waits for 5."""
    queue, world = queue_named(ML, "training"), World(START, seed)
    full, most, longest, drained = 0, 0, 0, False
    for second in range(3600):
        world.advance(START + timedelta(seconds=second))
        waiting = due(world, queue)
        full = full + 1 if world.taken(queue) == queue.limit and waiting else 0
        most, longest = max(most, waiting), max(longest, full)
        drained = drained or (longest >= 20 * 60 and not waiting)
    assert longest >= 20 * 60
    assert drained
    assert most < MAX_WAITING, "a queue that loses runs would drain by losing them"


def test_the_queues_are_out_of_phase() -> None:
    world = World(START)
    full = []
    for second in range(0, 1800, 5):
        world.advance(START + timedelta(seconds=second))
        queues = [queue_named(*where) for where in SATURATING]
        full.append(sum(world.taken(queue) == queue.limit and due(world, queue) > 0 for queue in queues))
    assert full.count(0) < len(full) / 20
    assert full.count(len(SATURATING)) < len(full) / 20
    assert 2 < sum(full) / len(full) < 5


def test_limits_and_pauses_are_respected_and_work_is_handed_out_at_once() -> None:
    world = World(START)
    for second in range(1200):
        world.advance(START + timedelta(seconds=second))
        for pool in POOLS:
            assert pool.limit is None or world.taken_in_pool(pool) <= pool.limit
        for queue in QUEUES:
            assert queue.limit is None or world.taken(queue) <= queue.limit
            assert not queue.paused or not world.holders(queue)
        for deployment in DEPLOYMENTS:
            assert deployment.limit is None or world.taken_of_deployment(deployment) <= deployment.limit
        for limit in LIMITS:
            assert 0 <= world.taken_of_limit(limit) <= limit.limit
        first = queue_named(DOCKER, "default")
        # What arrived in this very second is handed out in the next one.
        assert due(world, first) == sum(run.queue is first and run.created == world.now for run in world.runs())


def test_the_queue_that_goes_first_gets_the_slots_that_the_pool_has_left() -> None:
    world = World(START)
    pool = next(pool for pool in POOLS if pool.name == K8S)
    first, last = pool.queues[0], pool.queues[-1]
    assert first.limit
    waited = 0
    for second in range(1, 3600):
        world.advance(START + timedelta(seconds=second))
        fresh = sum(run.queue is first and run.created == world.now for run in world.runs())
        if due(world, first) > fresh and world.taken(first) < first.limit:
            waited += 1
            assert world.taken_in_pool(pool) == pool.limit
            assert not [
                run
                for run in world.holders(last)
                if run.moves_on and run.state.timestamp == world.now and run.state.type is StateType.PENDING
            ]
    assert waited >= 5


def test_a_run_goes_through_its_states_in_order() -> None:
    world = World(START)
    seen: dict[str, list[str]] = {}
    for second in range(900):
        world.advance(START + timedelta(seconds=second))
        for run in world.runs():
            states = seen.setdefault(str(run.id), [])
            if states[-1:] != [run.state.name]:
                states.append(run.state.name)
            scheduled = run.state.type is StateType.SCHEDULED
            assert (run.due is not None) == scheduled
            assert scheduled or run.state.timestamp >= run.expected_start
            assert (run.started is not None) == (run.state.type in {StateType.RUNNING, StateType.CANCELLING})
            if run.state.name == "Scheduled":
                assert world.now <= run.expected_start + timedelta(seconds=20)
    ways = {tuple(states) for states in seen.values() if states[0] == "Scheduled"}
    assert ("Scheduled", "Late", "InfrastructurePending", "Running") in ways
    assert ("Scheduled", "Pending", "Running", "Cancelling") in ways
    assert any("AwaitingConcurrencySlot" in way and way[-1] == "Running" for way in ways)
    follows = {
        "Scheduled": {"Late", "AwaitingConcurrencySlot", "Pending", "Submitting", "InfrastructurePending"},
        "Late": {"AwaitingConcurrencySlot", "Pending", "Submitting", "InfrastructurePending"},
        "AwaitingConcurrencySlot": {"Submitting"},
        "Pending": {"Running"},
        "Submitting": {"Running"},
        "InfrastructurePending": {"Running"},
        "Running": {"Cancelling"},
        "Cancelling": set(),
    }
    for way in ways:
        for before, after in pairwise(way):
            assert after in follows[before], way


def test_two_runs_are_stuck_for_good() -> None:
    world = World(START)
    world.advance(START + timedelta(hours=3))
    old = {run.state.type: run for run in world.runs() if run.moves_on is None and run.due is None}
    assert set(old) == {StateType.RUNNING, StateType.PENDING}
    assert world.now - old[StateType.RUNNING].state.timestamp > timedelta(hours=10)
    assert world.now - old[StateType.PENDING].state.timestamp > timedelta(hours=3, minutes=40)


@pytest.mark.slow
def test_memory_is_bounded_over_a_week() -> None:
    world, tasks = World(START), Tasks(START)
    for hour in range(0, 7 * 24 + 1, 4):
        world.advance(START + timedelta(hours=hour))
        tasks.advance(START + timedelta(hours=hour))
    waiting = Counter(run.queue for run in world.runs() if run.state.type is StateType.SCHEDULED)
    assert max(waiting.values()) <= MAX_WAITING
    assert sum(waiting.values()) < len(QUEUES) * MAX_WAITING / 2
    assert len(list(world.runs())) < 500
    assert sum(tasks.queued.values()) < 2_000
    assert tasks.processing <= MAX_SLOTS


def test_a_laptop_that_slept_for_a_year_does_not_hang() -> None:
    world, other = World(START), World(START)
    began = time.process_time()
    other.advance(START + CATCH_UP)
    usual = time.process_time() - began
    world.advance(START + timedelta(days=365))
    assert time.process_time() - began < 50 * usual, "not all of the year is played"
    assert world.now == START + timedelta(days=365)
    assert any(run.created > world.now - timedelta(minutes=1) for run in world.runs())


def test_cloro_saturates_drains_and_serves_the_highest_priority_first() -> None:
    tasks = Tasks(START)
    saturated = drained = 0
    for second in range(300):
        tasks.advance(START + timedelta(seconds=second))
        assert tasks.processing <= MAX_SLOTS
        saturated += tasks.processing == MAX_SLOTS and sum(tasks.queued.values()) > 5
        drained += tasks.processing < MAX_SLOTS / 2 and not tasks.queued
        if sum(tasks.queued.values()) > 40:
            assert tasks.queued.get(10, 0) < tasks.queued[5]
    assert saturated >= 20
    assert drained >= 30


def test_cloro_rarely_cannot_tell_its_usage() -> None:
    tasks = Tasks(START)
    known = []
    for second in range(1800):
        tasks.advance(START + timedelta(seconds=second))
        known.append(tasks.usage_known)
    assert known[0]
    assert 0.9 < sum(known) / len(known) < 1
