"""Why runs wait: the one function that decides it, alone, against the order in which a server hands out runs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.model import blocked_by
from exporter.polling.store import SourceState
from exporter.sources.prefect import PrefectConfig
from exporter.sources.prefect.about import ABOUT
from exporter.sources.prefect.api import ConcurrencyLimit, WorkPool, WorkQueue
from exporter.sources.prefect.causes import Attribution, Cause, Facts, attribute
from exporter.sources.prefect.reading import Backlog, Slots, WaitingCounts, WaitingRun
from tests.harness import handing_out, reader
from tests.harness.inprocess import OneSource
from tests.harness.lookalike import ALL, BROKEN, COUNT, LIMITS, OF_BACKLOG, small, snapshot_of
from tests.harness.upstream import serve

NOW: Final = datetime(2026, 7, 1, 12, tzinfo=UTC)
HELD: Final = "AwaitingConcurrencySlot"


def ident(number: int) -> UUID:
    return UUID(int=number)


@dataclass
class World:
    """The rows of a server, which most tests change in one place. Queues are numbered within all pools."""

    pools: list[WorkPool] = field(default_factory=list)
    queues: list[WorkQueue] = field(default_factory=list)
    taken: dict[UUID, int] = field(default_factory=dict)
    runs: dict[UUID, list[WaitingRun]] = field(default_factory=dict)
    limits: list[ConcurrencyLimit] = field(default_factory=list)

    def pool(self, **changed: Any) -> WorkPool:
        row = {"id": ident(1000 + len(self.pools)), "name": f"p{len(self.pools)}", "type": "process"}
        pool = WorkPool.model_validate({**row, "is_paused": False, "concurrency_limit": None, **changed})
        self.pools.append(pool)
        return pool

    def queue(self, pool: WorkPool, *, taken: int = 0, **changed: Any) -> WorkQueue:
        number = len(self.queues)
        row = {"id": ident(2000 + number), "name": f"q{number}", "is_paused": False, "priority": number + 1}
        row |= {"concurrency_limit": None, "last_polled": NOW - timedelta(seconds=5), "work_pool_id": pool.id}
        queue = WorkQueue.model_validate({**row, **changed})
        self.queues.append(queue)
        self.taken[queue.id] = taken
        self.runs[queue.id] = []
        return queue

    def run(self, queue: WorkQueue, ago: float = 300, **changed: Any) -> WaitingRun:
        """A run that has been due for so many seconds."""
        number = sum(map(len, self.runs.values()))
        run = WaitingRun(ident(3000 + number), "Late", max(ago, 0), NOW - timedelta(seconds=ago))
        run = run._replace(**changed)
        self.runs[queue.id].append(run)
        return run

    def limit(self, deployment: UUID, slots: int, **changed: Any) -> None:
        row = {"id": ident(4000 + len(self.limits)), "name": f"deployment:{deployment}", "active": True}
        row |= {"limit": slots, "active_slots": 0, "slot_decay_per_second": 0.0}
        self.limits.append(ConcurrencyLimit.model_validate({**row, **changed}))

    @property
    def facts(self) -> Facts:
        """All that is known where everything was listed."""
        by_id = {queue.id: queue for queue in self.queues}
        slots = {key: Slots(taken, by_id[key].slot_limit, None, taken) for key, taken in self.taken.items()}
        pools = {pool.id: self._with_active_slots(pool) for pool in self.pools}
        return Facts(NOW, pools, self.queues, slots, Backlog(runs=self.runs), self.limits)

    def _with_active_slots(self, pool: WorkPool) -> WorkPool:
        active = sum(self.taken[queue.id] for queue in self.queues if queue.work_pool_id == pool.id)
        return pool.model_copy(update={"active_slots": None if pool.slot_limit is None else active})

    def causes(self, before: Mapping[UUID, Cause] | None = None, **changed: Any) -> Attribution:
        return attribute(replace(self.facts, **changed), before or {})

    @property
    def counted(self) -> Backlog:
        """What is known where the runs of each queue are only counted."""
        counts = {}
        for key, runs in self.runs.items():
            due = [run for run in runs if run.state_name != HELD]
            oldest = min(due, key=lambda run: run.due or NOW, default=None)
            by_state = Counter(run.state_name for run in runs)
            counts[key] = WaitingCounts(by_state, max((run.seconds for run in runs), default=None), oldest)
        return Backlog(counts=counts)

    @property
    def reading(self) -> reader.Reading:
        """The same as the tests' own reader has it."""
        names = {pool.id: pool.name for pool in self.pools}
        pools = {
            pool.name: reader.Pool(pool.name, "", "process", pool.is_paused, None, pool.slot_limit, 0, {})
            for pool in self.pools
        }
        queues = {
            (names[queue.work_pool_id], queue.name): reader.Queue(
                pool=names[queue.work_pool_id],
                name=queue.name,
                id=str(queue.id),
                priority=queue.priority,
                is_paused=queue.is_paused,
                status=None,
                last_polled=queue.last_polled,
                limit=queue.slot_limit,
                active_slots=0,
                holders={},
                ages={},
                waiting={},
                runs=[
                    reader.WaitingRun(
                        str(run.id), run.state_name, run.due or NOW, str(run.deployment_id), run.in_process
                    )
                    for run in self.runs[queue.id]
                ],
                taken=self.taken[queue.id],
            )
            for queue in self.queues
            if queue.work_pool_id
        }
        limits = {
            limit.name: reader.Limit(str(limit.id), limit.name, limit.slot_limit, 0, limit.active, 0.0, None)
            for limit in self.limits
        }
        return reader.Reading(NOW, pools, queues, limits)


def only(world: World, **changed: Any) -> dict[str, int]:
    """The causes of all runs of a world, by their number."""
    found: Counter[str] = Counter()
    for of_queue in world.causes(**changed).by_queue.values():
        found.update(of_queue)
    return dict(found)


def test_the_causes_are_the_reasons_that_the_system_declares() -> None:
    assert tuple(ABOUT.reasons) == get_args(Cause)


# --- One cause alone.


@dataclass(frozen=True)
class One:
    pool: dict[str, Any] = field(default_factory=dict)
    queue: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    deployment_limit: int | None = None


DEPLOYMENT: Final = ident(7)
OF_DEPLOYMENT: Final = {"deployment_id": DEPLOYMENT}
ONE: Final[dict[str, tuple[str, One]]] = {
    "retry": ("retry", One(run={"in_process": True, "state_name": "AwaitingRetry"})),
    "retry-by-a-worker": ("none", One(run={"state_name": "AwaitingRetry"})),
    "pool-paused": ("pool_paused", One(pool={"is_paused": True})),
    "queue-paused": ("queue_paused", One(queue={"is_paused": True})),
    "pool-zero": ("zero_limit", One(pool={"concurrency_limit": 0})),
    "queue-zero": ("zero_limit", One(queue={"concurrency_limit": 0})),
    "deployment-zero": ("zero_limit", One(run=OF_DEPLOYMENT, deployment_limit=0)),
    "deployment-one": ("none", One(run=OF_DEPLOYMENT, deployment_limit=1)),
    "never-polled": ("no_worker", One(queue={"last_polled": None})),
    "polled-61-s-ago": ("no_worker", One(queue={"last_polled": NOW - timedelta(seconds=61)})),
    "polled-60-s-ago": ("none", One(queue={"last_polled": NOW - timedelta(seconds=60)})),
    "push-pool-of-a-server": ("no_worker", One(pool={"type": "ecs:push"}, queue={"last_polled": None})),
    "held-back": ("deployment_limit", One(run={"state_name": HELD, "due": NOW + timedelta(seconds=25)})),
    "held-back-and-due": ("deployment_limit", One(run={"state_name": HELD})),
    "queue-full": ("queue_limit", One(queue={"concurrency_limit": 2, "taken": 2})),
    "queue-over-full": ("queue_limit", One(queue={"concurrency_limit": 2, "taken": 5})),
    "queue-with-a-slot": ("none", One(queue={"concurrency_limit": 2, "taken": 1})),
    "pool-full": ("pool_limit", One(pool={"concurrency_limit": 2}, queue={"taken": 2})),
    "pool-with-a-slot": ("none", One(pool={"concurrency_limit": 2}, queue={"taken": 1})),
    "due-since-the-queues-were-listed": ("just_now", One(run={"seconds": 0.0, "due": NOW + timedelta(seconds=2)})),
    "just-due": ("just_now", One(run={"seconds": 29.9})),
    "due-for-30-s": ("none", One(run={"seconds": 30.0})),
}


def one(case: One) -> World:
    world = World()
    world.run(world.queue(world.pool(**case.pool), **case.queue), **case.run)
    if case.deployment_limit is not None:
        world.limit(DEPLOYMENT, case.deployment_limit)
    return world


@pytest.mark.parametrize(("expected", "case"), ONE.values(), ids=ONE)
def test_a_cause_alone(expected: str, case: One) -> None:
    assert only(one(case)) == {expected: 1}
    assert only(one(case), backlog=one(case).counted).keys() <= {expected}, "or it is unknown, but not another one"


ORDER: Final = ("retry", "pool-paused", "queue-paused", "queue-zero", "never-polled", "held-back", "queue-full",
                "pool-full", "just-due")  # fmt: skip


@pytest.mark.parametrize("first", range(len(ORDER)), ids=ORDER)
def test_the_first_of_several_causes_counts(first: int) -> None:
    pool: dict[str, Any] = {}
    queue: dict[str, Any] = {}
    run: dict[str, Any] = {}
    for name in reversed(ORDER[first:]):
        pool |= ONE[name][1].pool
        queue |= ONE[name][1].queue
        run |= ONE[name][1].run
    assert only(one(One(pool, queue, run))) == {ONE[ORDER[first]][0]: 1}


def test_a_deployment_of_no_slots_comes_before_a_missing_worker_and_after_a_pause() -> None:
    never = {"last_polled": None}
    assert only(one(One({}, never, OF_DEPLOYMENT, 0))) == {"zero_limit": 1}
    assert only(one(One({}, never | {"is_paused": True}, OF_DEPLOYMENT, 0))) == {"queue_paused": 1}


@pytest.mark.parametrize(("kind", "cause"), [("ecs:push", "none"), ("prefect:managed", "none"), ("ecs", "no_worker")])
def test_prefect_cloud_serves_some_pools_itself(kind: str, cause: str) -> None:
    world = one(One(pool={"type": kind}, queue={"last_polled": None}))
    assert only(world, is_cloud=True) == {cause: 1}


def test_a_limit_that_is_not_enforced_or_of_another_kind_closes_no_deployment() -> None:
    world = one(One(run=OF_DEPLOYMENT))
    world.limit(DEPLOYMENT, 0, active=False)
    world.limit(DEPLOYMENT, 0, name=str(DEPLOYMENT))
    assert only(world) == {"none": 1}


# --- Several runs: who gets the slots.


def test_only_the_tasks_beyond_the_free_slots_wait_for_the_queue() -> None:
    world = World()
    queue = world.queue(world.pool(), concurrency_limit=3, taken=1)
    runs = [world.run(queue, due) for due in (10, 500, 400, 300, 200)]
    assert dict(world.causes().by_run) == {
        runs[1].id: "none",
        runs[2].id: "none",
        runs[3].id: "queue_limit",
        runs[4].id: "queue_limit",
        runs[0].id: "queue_limit",
    }


def test_a_run_that_its_deployment_refuses_has_a_place_when_it_is_due() -> None:
    world = World()
    queue = world.queue(world.pool(), concurrency_limit=1)
    other = world.run(queue, 100)
    refused = world.run(queue, 200, deployment_id=DEPLOYMENT)
    world.limit(DEPLOYMENT, 0)
    assert world.causes().by_run == {other.id: "queue_limit", refused.id: "zero_limit"}
    world.limits.clear()
    world.runs[queue.id][1] = refused._replace(state_name=HELD)
    assert world.causes().by_run == {other.id: "queue_limit", refused.id: "deployment_limit"}
    world.runs[queue.id][1] = refused._replace(state_name=HELD, due=NOW + timedelta(seconds=20))
    assert world.causes().by_run == {other.id: "none", refused.id: "deployment_limit"}


def test_a_better_queue_goes_first() -> None:
    world = World()
    pool = world.pool(concurrency_limit=2)
    worse = world.queue(pool, priority=9, taken=1)
    better = world.queue(pool, priority=2)
    late, first, second = world.run(worse, 900), world.run(better, 200), world.run(better, 100)
    assert world.causes().by_run == {first.id: "none", second.id: "pool_limit", late.id: "priority"}
    world.runs[better.id].clear()
    assert world.causes().by_run == {late.id: "none"}


@pytest.mark.parametrize("closed", [{"is_paused": True}, {"last_polled": None}, {"concurrency_limit": 0}])
def test_a_better_queue_that_hands_out_nothing_goes_not_first(closed: dict[str, Any]) -> None:
    world = World()
    pool = world.pool(concurrency_limit=1)
    world.run(world.queue(pool, priority=1, **closed))
    waiting = world.run(world.queue(pool, priority=2, taken=1))
    assert world.causes().by_run[waiting.id] == "pool_limit"


def test_queues_of_one_priority_take_turns_by_time() -> None:
    world = World()
    pool = world.pool(concurrency_limit=1)
    one_queue, other = world.queue(pool, priority=1), world.queue(pool, priority=1)
    younger, older = world.run(one_queue, 100), world.run(other, 200)
    assert world.causes().by_run == {older.id: "none", younger.id: "pool_limit"}


# --- The poll before.


@pytest.mark.parametrize("before", get_args(Cause))
def test_a_run_that_was_blocked_at_the_poll_before_waits_just_now(before: Cause) -> None:
    world = one(One())
    (run,) = next(iter(world.runs.values()))
    now = world.causes({run.id: before}).by_run[run.id]
    assert now == ("none" if before in {"none", "just_now"} else "just_now")
    assert world.causes({run.id: now}).by_run[run.id] == "none"


# --- What is not known.


def test_a_queue_whose_slots_are_not_known_blocks_nobody_for_certain() -> None:
    world = one(One(queue={"concurrency_limit": 1, "taken": 1}))
    assert only(world, slots={}) == {}
    assert only(one(One()), slots={}) == {"none": 1}, "it has no limit"
    world = one(One(queue={"concurrency_limit": 1}, run={"state_name": HELD}))
    assert only(world, slots={}, backlog=world.counted) == {"deployment_limit": 1}


def test_nobody_knows_who_is_next_behind_a_better_queue_that_was_not_read() -> None:
    world = World()
    pool = world.pool(concurrency_limit=2)
    better = world.queue(pool, priority=1, taken=1)
    run = world.run(world.queue(pool, priority=2))
    of_a_shard = Backlog(counts={key: one for key, one in (world.counted.counts or {}).items() if key != better.id})
    assert world.causes(backlog=of_a_shard).by_run == {}
    world.taken[better.id] = 2
    assert world.causes(backlog=of_a_shard).by_run == {run.id: "pool_limit"}, "there is no slot for either"


def test_a_queue_of_the_same_priority_that_was_not_read_may_be_next_or_not() -> None:
    world = World()
    pool = world.pool(concurrency_limit=1)
    other = world.queue(pool, priority=1, concurrency_limit=1)
    run = world.run(world.queue(pool, priority=1))
    world.run(other)
    slots = {key: one for key, one in world.facts.slots.items() if key != other.id}
    assert world.causes(slots=slots).by_run == {}
    world.runs[other.id].clear()
    assert world.causes(slots=slots).by_run == {run.id: "none"}


def test_a_queue_offers_no_more_than_it_has_slots_however_many_are_taken() -> None:
    world = World()
    pool = world.pool(concurrency_limit=3)
    better = world.queue(pool, priority=1, concurrency_limit=1)
    run = world.run(world.queue(pool, priority=2))
    for _ in range(5):
        world.run(better)
    slots = {key: one for key, one in world.facts.slots.items() if key != better.id}
    assert world.causes(slots=slots).by_run == {run.id: "none"}


def test_counted_runs_that_are_put_off_may_be_first_or_not() -> None:
    world = World()
    pool = world.pool(concurrency_limit=1)
    better = world.queue(pool, concurrency_limit=1)
    worse = world.queue(pool)
    world.run(better, state_name=HELD)
    run = world.run(worse)
    found = world.causes(backlog=world.counted)
    assert found.by_run == {}
    assert found.by_queue[better.id] == {"deployment_limit": 1}
    oldest = world.run(better)
    assert world.causes(backlog=world.counted).by_run == {run.id: "priority"}
    world.queues[0] = better.model_copy(update={"slot_limit": 2})
    assert world.causes(backlog=world.counted).by_run == {run.id: "priority"}, "one of them is first"
    world.runs[worse.id].clear()
    world.pools[0] = pool.model_copy(update={"slot_limit": None})
    world.queues[0] = better
    assert world.causes(backlog=world.counted).by_run == {}, "the one that is put off may take the slot of its queue"
    world.queues[0] = better.model_copy(update={"slot_limit": None})
    world.pools[0] = pool.model_copy(update={"slot_limit": 2})
    assert world.causes(backlog=world.counted).by_run == {oldest.id: "none"}


def test_what_paused_queues_leave_of_the_pool_depends_on_the_database() -> None:
    world = World()
    pool = world.pool(concurrency_limit=3)
    world.queue(pool, is_paused=True, taken=1)
    queue = world.queue(pool, taken=1)
    runs = [world.run(queue, 300 - number) for number in range(3)]
    assert world.causes().by_run == {runs[0].id: "none", runs[2].id: "pool_limit"}


def test_without_the_limits_nobody_knows_that_nothing_blocks_a_run() -> None:
    assert only(one(One()), limits=None) == {}
    assert only(one(One(run={"seconds": 1.0})), limits=None) == {"just_now": 1}
    assert only(one(ONE["queue-full"][1]), limits=None) == {"queue_limit": 1}


def test_an_older_server_does_not_tell_the_slots_of_its_pools() -> None:
    world = World()
    pool = world.pool(concurrency_limit=2)
    queue = world.queue(pool, taken=2)
    other = world.queue(pool)
    run = world.run(queue)
    facts = replace(world.facts, pools={pool.id: pool})
    assert attribute(facts, {}).by_run == {run.id: "pool_limit"}
    unknown = {queue.id: facts.slots[queue.id]}
    assert other.id not in unknown
    assert attribute(replace(facts, slots=unknown), {}).by_run == {}


def test_what_numbers_tell_of_a_queue_that_was_only_counted() -> None:
    world = World()
    pool = world.pool(concurrency_limit=4)
    better = world.queue(pool, concurrency_limit=3, taken=1)
    worse = world.queue(pool, concurrency_limit=9, taken=1)
    for number in range(10):
        world.run(better, 100 - number)
        world.run(worse, 100 - number)
    found = world.causes(backlog=world.counted).by_queue
    # Of each, the oldest run is known by itself: the first goes next, the other has to wait for it.
    assert found[better.id] == {"none": 1, "queue_limit": 8}
    assert found[worse.id] == {"priority": 8, "queue_limit": 2}
    world.run(worse, 90, state_name=HELD)
    world.run(worse, 90, state_name="AwaitingRetry", in_process=True)
    found = world.causes(backlog=world.counted).by_queue
    assert found[worse.id] == {"priority": 6, "queue_limit": 2, "deployment_limit": 1}


def test_a_run_that_none_of_the_counted_can_be_is_not_looked_at() -> None:
    world = one(One(queue={"last_polled": None}))
    ((key, (run,)),) = world.runs.items()
    counts = {key: WaitingCounts({"Scheduled": 3}, 300.0, run)}
    assert only(world, backlog=Backlog(counts=counts)) == {"no_worker": 3}


# --- Any server.


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World()
    rarely = st.integers(0, 5).map(lambda number: number == 0)
    for _ in range(draw(st.integers(1, 2))):
        pool = world.pool(concurrency_limit=draw(st.sampled_from([None, 0, 1, 2, 3, 5])), is_paused=draw(rarely))
        for _ in range(draw(st.integers(1, 3))):
            polled = draw(st.sampled_from([None, 61, 59, 5, 5, 5]))
            queue = world.queue(
                pool,
                taken=draw(st.integers(0, 3)),
                priority=draw(st.integers(1, 3)),
                concurrency_limit=draw(st.sampled_from([None, None, 0, 1, 2, 3])),
                is_paused=draw(rarely),
                last_polled=None if polled is None else NOW - timedelta(seconds=polled),
            )
            for _ in range(draw(st.integers(0, 5))):
                state = draw(st.sampled_from(["Late", "Late", "Scheduled", HELD, "AwaitingRetry"]))
                due = draw(st.sampled_from([1, 29, 31, 300, 301, 302, 303, -20 if state == HELD else 5]))
                world.run(
                    queue,
                    due,
                    state_name=state,
                    in_process=state == "AwaitingRetry" and draw(st.booleans()),
                    deployment_id=draw(st.sampled_from([None, ident(7), ident(8)])),
                )
    for deployment in (ident(7), ident(8)):
        if draw(rarely):
            world.limit(deployment, draw(st.integers(0, 1)), active=draw(st.booleans()))
    return world


def assert_none_is_wrong(world: World, found: Attribution) -> None:
    """Whatever is said of a run is so on both databases; and of each queue the numbers too."""
    for paused_queues_count in (True, False):
        true = handing_out.reasons_of_runs(world.reading, paused_queues_count=paused_queues_count)
        for run, cause in found.by_run.items():
            assert as_known(cause) == as_known(true[str(run)]), (run, cause, true[str(run)])
        for queue, by_cause in found.by_queue.items():
            most = Counter(as_known(true[str(run.id)]) for run in world.runs[queue])
            for reason, number in merged(by_cause).items():
                assert number <= most[reason], (queue, reason)


def as_known(cause: str) -> str:
    """Without what can't be known from everywhere: since when nothing blocks a run, and which queue goes first."""
    if cause in {"just_now", "none"}:
        return handing_out.FREE
    return "pool_limit" if cause == "priority" else cause


def merged(by_cause: Mapping[str, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for cause, number in by_cause.items():
        found[as_known(cause)] += number
    return found


def assert_the_sum_is_what_is_queued(world: World, found: Attribution) -> None:
    for queue, runs in world.runs.items():
        blocked = blocked_by(found.by_queue[queue], ABOUT.reasons, len(runs))
        assert sum(blocked.values()) == len(runs)
        assert list(blocked) == [*ABOUT.reasons, "unknown"]


ANY: Final = settings(max_examples=400, deadline=None, derandomize=True, database=None)


@ANY
@given(world=worlds())
def test_what_is_listed_has_the_reason_that_the_order_of_handing_out_has(world: World) -> None:
    found = world.causes()
    assert_the_sum_is_what_is_queued(world, found)
    assert_none_is_wrong(world, found)
    true = handing_out.reasons_of_runs(world.reading)
    dues = [(queue.priority, run.due) for queue in world.queues for run in world.runs[queue.id]]
    if len(set(dues)) == len(dues) and not any(queue.is_paused for queue in world.queues):
        assert {str(run): cause for run, cause in found.by_run.items()} == {
            run: cause if cause != handing_out.FREE else just_now_or_none(world, run) for run, cause in true.items()
        }


def just_now_or_none(world: World, wanted: str) -> str:
    (run,) = [run for runs in world.runs.values() for run in runs if str(run.id) == wanted]
    return "just_now" if run.seconds < 30 else "none"


@ANY
@given(world=worlds(), data=st.data())
def test_what_is_said_with_less_to_know_is_not_wrong(world: World, data: st.DataObject) -> None:
    whole = world.facts
    known = {queue.id for queue in world.queues if data.draw(st.booleans())}
    slots = {key: one for key, one in whole.slots.items() if key in known or data.draw(st.booleans())}
    counts = {key: one for key, one in (world.counted.counts or {}).items() if key in known}
    backlog = data.draw(st.sampled_from([whole.backlog, world.counted, Backlog(counts=counts)]))
    pools = data.draw(st.sampled_from([whole.pools, {pool.id: pool for pool in world.pools}]))
    limits = data.draw(st.sampled_from([whole.limits, None]))
    found = attribute(replace(whole, slots=slots, backlog=backlog, pools=pools), {})
    assert_the_sum_is_what_is_queued(world, found)
    assert_none_is_wrong(world, found)
    if limits is None and not world.limits:
        blind = attribute(replace(whole, slots=slots, backlog=backlog, pools=pools, limits=None), {})
        assert_none_is_wrong(world, blind)
        assert "none" not in blind.by_run.values()


@ANY
@given(world=worlds(), causes=st.lists(st.sampled_from(get_args(Cause)), min_size=30, max_size=30))
def test_the_poll_before_changes_only_since_when_nothing_blocks(world: World, causes: list[Cause]) -> None:
    runs = [run.id for of_queue in world.runs.values() for run in of_queue]
    before = dict(zip(runs, causes, strict=False))
    found, first = world.causes(before), world.causes()
    assert found.by_run.keys() == first.by_run.keys()
    for one_run, cause in found.by_run.items():
        assert as_known(cause) == as_known(first.by_run[one_run])
        if as_known(cause) == handing_out.FREE:
            was_blocked = before.get(one_run, "none") not in {"none", "just_now"}
            assert cause == ("just_now" if was_blocked else first.by_run[one_run])
    assert_the_sum_is_what_is_queued(world, found)


# --- Over several polls of a source.


def blocked(state: SourceState) -> dict[str, int]:
    """The reasons in the queue of the small server in which runs wait, apart from those with a 0."""
    (queue,) = (queue for queue in snapshot_of(state).queues if queue.name == "q1")
    return {reason: runs for reason, runs in queue.blocked.items() if runs}


async def test_the_poll_before_is_the_last_one_that_has_read_what_waits() -> None:
    fake = small()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        assert blocked(await exporter.poll()) == {"no_worker": 2}
        fake.faults = {COUNT + OF_BACKLOG: BROKEN}
        state = await exporter.poll()
        assert state.outcome == "partial"
        assert all(queue.blocked == {} for queue in snapshot_of(state).queues)
        fake.faults = {}
        fake.last_polled = datetime.now(UTC) + timedelta(hours=1)
        assert blocked(await exporter.poll()) == {"just_now": 1, "deployment_limit": 1}
        assert blocked(await exporter.poll()) == {"none": 1, "deployment_limit": 1}
        fake.faults = {LIMITS: BROKEN}
        assert blocked(await exporter.poll()) == {"unknown": 1, "deployment_limit": 1}


@pytest.mark.parametrize(
    ("url", "cloud"),
    [
        ("https://api.prefect.cloud/api/accounts/a/workspaces/w", True),
        ("https://gateway.example.org/prefect/api/accounts/a/workspaces/w", True),
        ("https://prefect.example.org/api", False),
        ("https://prefect.example.org/accounts/api", False),
    ],
)
def test_a_workspace_is_one_of_prefect_cloud(url: str, cloud: bool) -> None:
    config = PrefectConfig.model_validate({"name": "p", "system": "prefect", "url": url})
    assert config.is_cloud is cloud
