"""How many more tasks would start at once: compared with what happens when tasks start."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.headroom import Headroom, headroom
from exporter.model import Limit, Pool, Queue, Unreadable, Waiting
from exporter.shard import Shard
from exporter.views import NotFoundError, NotKnownError
from tests.harness.states import state

FREE = Queue("p", "q", usage_known=True, active_slots=4, slot_limit=9, queued={"1": 2}, paused=False)
POOL = Pool("p", paused=False, active_slots=4, slot_limit=None)
GPU = Limit("gpu", "tag", "1", 2, 3, 0.0, True)


def of(queue: Queue, *siblings: Queue, pool: Pool | None = POOL, limits: Sequence[Limit] = (), **more: Any) -> Headroom:
    """The headroom of a queue below these limits; `more` is of the snapshot."""
    pools = (pool,) if pool else ()
    states = [state("s", queue, *siblings, pools=pools, limits=tuple(limits), **more)]
    return headroom(states, "s", queue.pool, queue.name, [(one.kind, one.name) for one in limits])[1]


def test_the_example() -> None:
    pool = replace(POOL, slot_limit=9)
    assert of(replace(FREE, slot_limit=20), pool=pool) == Headroom(3, 5, 2, 6, "pool")


@pytest.mark.parametrize(
    ("queue", "found"),
    [
        (FREE, Headroom(3, 5, 2, 6, "queue")),
        (replace(FREE, slot_limit=None), Headroom(None, None, 2, 6, None)),
        (replace(FREE, slot_limit=None, active_slots=None), Headroom(None, None, 2, None, None)),
        (replace(FREE, slot_limit=4), Headroom(0, 0, 2, 4, "queue")),
        (replace(FREE, slot_limit=3), Headroom(0, 0, 2, 4, "queue")),
        (replace(FREE, slot_limit=5), Headroom(0, 1, 2, 5, "queue")),
        (replace(FREE, slot_limit=0, active_slots=0), Headroom(0, 0, 2, 0, "queue")),
        (replace(FREE, paused=True), Headroom(0, 0, 2, 4, "queue")),
        (replace(FREE, paused=True, slot_limit=None), Headroom(0, 0, 2, 4, "queue")),
        (replace(FREE, pool=""), Headroom(3, 5, 2, 6, "queue")),
        (replace(FREE, pool="", paused=None), Headroom(3, 5, 2, 6, "queue")),
        # Tasks that wait for another limit leave the slots of the queue alone.
        (
            replace(FREE, queued={"1": 7}, waiting={"Late": Waiting(1), "Held": Waiting(6, for_slot=False)}),
            Headroom(4, 5, 1, 5, "queue"),
        ),
    ],
)
def test_a_queue(queue: Queue, found: Headroom) -> None:
    assert of(queue) == found


@pytest.mark.parametrize(
    ("pool", "found"),
    [
        (replace(POOL, slot_limit=12), Headroom(3, 5, 2, 6, "queue")),
        (replace(POOL, slot_limit=8), Headroom(2, 4, 2, 6, "pool")),
        (replace(POOL, slot_limit=4), Headroom(0, 0, 2, 4, "pool")),
        (replace(POOL, paused=True), Headroom(0, 0, 2, 4, "pool")),
        # An older server does not say how many slots of the pool are in use.
        (replace(POOL, slot_limit=8, active_slots=None), Headroom(2, 4, 2, 6, "pool")),
    ],
)
def test_a_pool(pool: Pool, found: Headroom) -> None:
    assert of(FREE, pool=pool) == found


def test_what_waits_in_other_queues_of_the_pool() -> None:
    pool = replace(POOL, slot_limit=20, active_slots=10)
    others = (
        Queue("p", "unlimited", active_slots=0, queued={"1": 3}),
        Queue("p", "one of four can start", active_slots=1, slot_limit=2, queued={"1": 4}),
        Queue("p", "paused", active_slots=0, slot_limit=9, queued={"1": 5}, paused=True),
        Queue("other", "of another pool", active_slots=0, slot_limit=9, queued={"1": 9}),
    )
    assert of(replace(FREE, slot_limit=30), *others, pool=pool) == Headroom(4, 10, 6, 6, "pool")
    summed = replace(pool, active_slots=None)
    assert of(replace(FREE, slot_limit=30), *others, pool=summed) == Headroom(9, 15, 6, 6, "pool")


def test_other_limits() -> None:
    assert of(FREE, limits=[GPU]) == Headroom(0, 1, 2, 5, "tag:gpu")
    assert of(replace(FREE, queued={"1": 0}), limits=[GPU]) == Headroom(1, 1, 0, 4, "tag:gpu")
    assert of(FREE, limits=[replace(GPU, slot_limit=99)]) == Headroom(3, 5, 2, 6, "queue")
    assert of(FREE, limits=[replace(GPU, active=False)]) == Headroom(3, 5, 2, 6, "queue")
    assert of(FREE, limits=[replace(GPU, active_slots=5)]) == Headroom(0, 0, 2, 4, "tag:gpu")
    several = [replace(GPU, slot_limit=9), Limit("db", "global", "2", 0, 4, 0.0, True)]
    assert of(FREE, limits=several) == Headroom(2, 4, 2, 6, "global:db")
    unlimited = replace(FREE, slot_limit=None)
    assert of(unlimited, limits=[replace(GPU, slot_limit=9)]) == Headroom(5, 7, 2, 6, "tag:gpu")


LIMITED = replace(POOL, slot_limit=99)


@pytest.mark.parametrize(
    ("queue", "more", "why"),
    [
        (replace(FREE, active_slots=None, usage_known=False), {}, "the slots in use of queue 'q' are not known"),
        (replace(FREE, limit_known=False, slot_limit=None), {}, "the limit of queue 'q' is not known"),
        (replace(FREE, queued={}), {}, "the queued tasks of queue 'q' are not known"),
        (FREE, {"pool": None}, "the limit of pool 'p' is not known"),
        (FREE, {"pool": Pool("p")}, "the limit of pool 'p' is not known"),
        (
            FREE,
            {"pool": LIMITED, "unreadable": (Unreadable("queues", "timeout", "late", "p", "r"),)},
            "queue 'r' of pool 'p': timeout: late",
        ),
    ],
)
def test_what_is_not_known(queue: Queue, more: dict[str, Any], why: str) -> None:
    with pytest.raises(NotKnownError, match=f"the headroom is not known: .*{why}") as error:
        of(queue, **more)
    assert [one.name for one in error.value.states] == ["s"]


@pytest.mark.parametrize(
    "other",
    [
        Queue("p", "r", active_slots=1, slot_limit=9),
        Queue("p", "r", active_slots=None, slot_limit=9, queued={"1": 1}),
        Queue("p", "r", limit_known=False, queued={"1": 1}),
    ],
)
def test_a_queue_of_the_same_limited_pool_that_is_not_known(other: Queue) -> None:
    with pytest.raises(NotKnownError, match="of queue 'r'"):
        of(FREE, other, pool=LIMITED)
    assert of(FREE, other).headroom == 3


def test_one_of_several_exporters_does_not_know_what_shares_a_limited_pool() -> None:
    of_shard = replace(state("s", FREE, pools=(LIMITED,)), shard=Shard(0, 2))
    with pytest.raises(NotKnownError, match="shard 0/2"):
        headroom([of_shard], "s", "p", "q")
    unlimited = replace(state("s", FREE, pools=(POOL,)), shard=Shard(0, 2))
    assert headroom([unlimited], "s", "p", "q")[1].headroom == 3


def test_names_that_are_not_there() -> None:
    states = [state("s", FREE, pools=(POOL,))]
    for names in (("x", "p", "q"), ("s", "x", "q"), ("s", "p", "x"), ("s", "", "q")):
        with pytest.raises(NotFoundError):
            headroom(states, *names)
    with pytest.raises(NotFoundError, match="no 'tag' limit 'gpu'"):
        headroom(states, "s", "p", "q", [("tag", "gpu")])


COUNTS = st.integers(0, 6)
LIMITS = st.integers(0, 20)
QUEUES = st.builds(
    Queue,
    pool=st.just("p"),
    name=st.just("?"),
    active_slots=COUNTS,
    slot_limit=st.none() | LIMITS,
    queued=st.fixed_dictionaries({"1": COUNTS, "2": COUNTS}),
    paused=st.sampled_from([False, False, None, True]),
)


@dataclass
class Server:
    """Free slots of the queues of a pool, of the pool, and of a limit that each task of the first queue needs."""

    free: list[float]
    waiting: list[int]
    pool: float
    limit: float

    def can_start(self, at: int) -> bool:
        """Whether a task of the queue at this place could start."""
        return self.waiting[at] > 0 and min(self.free[at], self.pool, math.inf if at else self.limit) > 0

    def start(self, at: int) -> None:
        """Start one."""
        self.waiting[at] -= 1
        self.free[at] -= 1
        self.pool -= 1
        self.limit -= 0 if at else 1

    def startable(self) -> list[int]:
        """The queues of which a task could start."""
        return [at for at in range(len(self.free)) if self.can_start(at)]


def _free(of: Queue | Pool) -> float:
    if of.paused:
        return 0
    return math.inf if of.slot_limit is None else of.slot_limit - (of.active_slots or 0)


@given(
    queues=st.lists(QUEUES, min_size=1, max_size=4),
    pool=st.builds(Pool, st.just("p"), paused=st.sampled_from([False, False, True]), slot_limit=st.none() | LIMITS),
    limit=st.none() | COUNTS,
    dice=st.randoms(use_true_random=False),
)
def test_so_many_more_start_at_once_and_no_more(
    queues: list[Queue], pool: Pool, limit: int | None, dice: Random
) -> None:
    """Whatever the order in which those start that wait already."""
    queues = [replace(one, name=str(at)) for at, one in enumerate(queues)]
    pool = replace(pool, active_slots=sum(one.active_slots or 0 for one in queues))
    limits = [] if limit is None else [Limit("l", "global", "1", 3, 3 + limit, 0.0, True)]
    found = of(*queues, pool=pool, limits=limits)
    waiting = [sum(one.queued.values()) for one in queues]
    server = Server([_free(one) for one in queues], waiting, _free(pool), math.inf if limit is None else limit)
    assert found.wanted_slots == (queues[0].active_slots or 0) + min(
        waiting[0], max(0, server.free[0]), max(0, server.pool), server.limit
    )
    if found.headroom is None:
        assert {server.free[0], server.pool, server.limit} == {math.inf}
        return
    assert found.free_slots is not None
    assert found.headroom == max(0, found.free_slots - found.queued)
    while startable := server.startable():
        server.start(dice.choice(startable))
    # Of those that wait longer, none may be left: they would go first.
    assert found.headroom == 0 or not server.waiting[0]
    server.waiting[0] += found.headroom + 1
    started = 0
    while server.can_start(0):
        server.start(0)
        started += 1
    assert started == found.headroom
