"""Why each queued run waits: one pure function, which follows the order in which a server hands out runs to a worker.

A worker asks its pool for runs. The server leaves out paused pools and queues. Of each queue it takes the runs that are
due, the oldest first, as many as the queue has free slots; of these, by the priority of the queues, as many as the pool
has free slots. A run that retries in its own process is never handed out. The limit of a deployment is looked at last,
when the worker starts the run: a run that it refuses has taken a place until then.
"""

import uuid
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from math import inf
from typing import Final, Literal

from exporter.sources.prefect.api import ConcurrencyLimit, WorkPool, WorkQueue
from exporter.sources.prefect.reading import Backlog, Slots, WaitingRun

Cause = Literal[
    "retry",
    "pool_paused",
    "queue_paused",
    "zero_limit",
    "no_worker",
    "deployment_limit",
    "queue_limit",
    "pool_limit",
    "priority",
    "just_now",
    "none",
]
"""Why a run waits; of two causes that both hold it back, the first one counts."""

HELD_BACK: Final = "AwaitingConcurrencySlot"
"""The state of a run that the limit of its deployment has put off."""
RETRYING: Final = "AwaitingRetry"
"""The state of a run that waits to be tried again, by its own process or by a worker."""
_UNPOLLED: Final = timedelta(seconds=60)
"""After this time without a poll the server itself calls a queue NOT_READY; workers poll each 10 to 15 s."""
_JUST_NOW: Final = 30.0
"""Seconds for which a run may wait though nothing blocks it: two polls of a worker."""
_SERVED_BY_PREFECT: Final = (":push", ":managed")
"""How the types of pools end that need no worker in Prefect Cloud."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a server at one moment. `now` is its time when the pools and queues were listed.

    `queues` are all the queues of these pools. `slots` and `backlog` may lack some of them, which are not known then;
    so are the limits if they are None.
    """

    now: datetime
    pools: Mapping[uuid.UUID, WorkPool]
    queues: Sequence[WorkQueue]
    slots: Mapping[uuid.UUID, Slots]
    backlog: Backlog
    limits: Sequence[ConcurrencyLimit] | None
    is_cloud: bool = False


@dataclass(frozen=True, slots=True)
class Attribution:
    """How many runs of each queue wait for each cause, and the cause of each run that is known by its id.

    A run without a cause is one of which too little is known.
    """

    by_queue: Mapping[uuid.UUID, Mapping[str, int]]
    by_run: Mapping[uuid.UUID, Cause]


@dataclass(slots=True)
class _Line:
    """The runs of one queue, as they would be handed out if the pool had room for all of them.

    Places are counted in two ways where not everything is known: `least` and `most` are the runs that the queue offers.
    """

    queue: WorkQueue
    causes: dict[uuid.UUID, Cause] = field(default_factory=dict)
    """Of the listed runs, those whose cause is found."""
    counted: Counter[str] = field(default_factory=Counter)
    """The same of the runs that were only counted."""
    offered: list[WaitingRun] = field(default_factory=list)
    """The listed runs that fit into the free slots of the queue, the oldest first."""
    put_off: int = 0
    """The counted runs that may be older than these: those that wait for their deployment."""
    unlisted: int = 0
    """The counted runs that certainly fit into these slots too, after those that are listed."""
    least: float = 0
    most: float = 0

    @property
    def due(self) -> list[datetime]:
        """When the offered runs were due, in order."""
        return [run.due for run in self.offered if run.due]

    def before(self, due: datetime) -> tuple[float, float]:
        """Return how many runs the queue offers that are older: at least, and at most."""
        if self.least == self.most == len(self.offered):
            return bisect_left(self.due, due), bisect_right(self.due, due)
        return 0, self.most


def attribute(facts: Facts, before: Mapping[uuid.UUID, Cause]) -> Attribution:
    """Return the cause of each queued run. `before` is `by_run` of the poll before.

    Where a queue's runs were only counted, where the slots of a queue are not known, or where two databases would hand
    out different runs, a run has a cause only if it is the same in each case.
    """
    of_pools: defaultdict[uuid.UUID, list[WorkQueue]] = defaultdict(list)
    for queue in facts.queues:
        if queue.work_pool_id and queue.work_pool_id in facts.pools:
            of_pools[queue.work_pool_id].append(queue)
    zero = {limit.name for limit in facts.limits or () if limit.active and not limit.slot_limit}
    lines: list[_Line] = []
    for pool_id, queues in of_pools.items():
        of_pool = [_line(facts, facts.pools[pool_id], queue, zero) for queue in queues]
        _share_out(of_pool, _room(facts, facts.pools[pool_id], queues), facts, before)
        lines += of_pool
    return Attribution(
        by_queue={line.queue.id: Counter[str](line.causes.values()) + line.counted for line in lines},
        by_run={run: cause for line in lines for run, cause in line.causes.items()},
    )


def _line(facts: Facts, pool: WorkPool, queue: WorkQueue, zero: AbstractSet[str]) -> _Line:
    """Find the causes that lie with a run itself, its queue or its pool's settings, and what the queue offers."""
    line = _Line(queue)
    slots = facts.slots.get(queue.id)
    slot_limit = slots.slot_limit if slots else queue.slot_limit
    closed = _closed(pool, queue, slot_limit)
    is_served = _is_served(facts, pool, queue)
    competing = []
    for run in _listed(facts.backlog, queue):
        cause = _own_cause(run, closed, zero, is_served=is_served)
        if cause:
            line.causes[run.id] = cause
        # One that its deployment refuses is handed out all the same, when it is due.
        if not (run.in_process or closed) and is_served and run.due and (not cause or run.due <= facts.now):
            competing.append(run)
    competing.sort(key=lambda run: (run.due or facts.now, run.id))
    unlisted = _unlisted(facts.backlog, queue)
    if closed or not is_served:
        _count_closed(line, unlisted, closed or "no_worker", is_certain=bool(closed) or not zero)
        return line
    if unlisted and not zero:
        line.counted["deployment_limit"] += unlisted[HELD_BACK]
    taken = slots.taken if slots else None
    if slot_limit is None:
        free: float = inf
    elif taken is None:
        # All that can be said is that it offers no more than it has slots.
        line.most = min(slot_limit, inf if unlisted is None else len(competing) + unlisted.total())
        return line
    else:
        free = max(0, slot_limit - taken)
    line.put_off = unlisted[HELD_BACK] if unlisted else 0
    for place, run in enumerate(competing):
        if place >= free:
            line.causes.setdefault(run.id, "queue_limit")
        elif place + line.put_off < free:
            line.offered.append(run)
    _count_offered(line, len(competing), unlisted, free, is_certain=not zero)
    return line


def _closed(pool: WorkPool, queue: WorkQueue, slot_limit: int | None) -> Cause | None:
    """Return why a queue hands out nothing, by somebody's decision."""
    if pool.is_paused:
        return "pool_paused"
    if queue.is_paused:
        return "queue_paused"
    return "zero_limit" if 0 in {pool.slot_limit, slot_limit} else None


def _is_served(facts: Facts, pool: WorkPool, queue: WorkQueue) -> bool:
    """Whether a worker asks the queue for runs: by its polls, since a status lags, and is that of the whole pool."""
    if facts.is_cloud and pool.type.endswith(_SERVED_BY_PREFECT):
        return True
    return queue.last_polled is not None and facts.now - queue.last_polled <= _UNPOLLED


def _own_cause(run: WaitingRun, closed: Cause | None, zero: AbstractSet[str], *, is_served: bool) -> Cause | None:
    if run.in_process:
        return "retry"
    if closed:
        return closed
    if f"deployment:{run.deployment_id}" in zero:
        return "zero_limit"
    if not is_served:
        return "no_worker"
    return "deployment_limit" if run.state_name == HELD_BACK else None


def _listed(backlog: Backlog, queue: WorkQueue) -> Iterable[WaitingRun]:
    """Return the runs of a queue that are known: of those that were only counted, the one that is due for longest."""
    if backlog.runs is not None:
        return backlog.runs.get(queue.id, ())
    counts = (backlog.counts or {}).get(queue.id)
    # One in another state is none of those that were counted: they were read one after the other.
    return (counts.oldest,) if counts and counts.oldest and counts.by_state.get(counts.oldest.state_name) else ()


def _unlisted(backlog: Backlog, queue: WorkQueue) -> Counter[str] | None:
    """Return how many more runs wait, by the name of their state; None if that is not known."""
    if backlog.runs is not None:
        return Counter() if queue.id in backlog.runs else None
    counts = (backlog.counts or {}).get(queue.id)
    if counts is None:
        return None
    return Counter(counts.by_state) - Counter(run.state_name for run in _listed(backlog, queue))


def _count_closed(line: _Line, unlisted: Counter[str] | None, cause: Cause, *, is_certain: bool) -> None:
    """Count the unlisted runs of a queue that hands out nothing; one that retries may do so in its own process."""
    if unlisted and is_certain:
        line.counted[cause] += unlisted.total() - unlisted[RETRYING]


def _count_offered(line: _Line, listed: int, unlisted: Counter[str] | None, free: float, *, is_certain: bool) -> None:
    """Count the unlisted runs of a queue with so many free slots, after those that are listed and due.

    Of those that wait for their deployment, or are tried again, nobody knows how many take a place. If a deployment has
    a limit of 0, any of them may be its.
    """
    if unlisted is None:
        line.most = free
        return
    others = unlisted[HELD_BACK] + unlisted[RETRYING]
    ordinary = unlisted.total() - others
    line.least, line.most = min(free, listed + ordinary), min(free, listed + ordinary + others)
    if is_certain:
        line.unlisted = int(max(0, min(ordinary, free - listed - others)))
        line.counted["queue_limit"] += int(max(0, min(ordinary, listed + ordinary - free)))


def _room(facts: Facts, pool: WorkPool, queues: Sequence[WorkQueue]) -> tuple[float, float]:
    """Return how many runs fit into the pool: at least, and at most.

    The runs of a paused queue take slots of the pool on SQLite, and none on PostgreSQL. The API does not tell which.
    """
    if pool.slot_limit is None:
        return inf, inf
    taken = {queue.id: slots.taken if (slots := facts.slots.get(queue.id)) else None for queue in queues}
    active = pool.active_slots
    if active is None:  # a server before 3.6.23
        counts = [count for count in taken.values() if count is not None]
        if len(counts) < len(queues):
            return 0, pool.slot_limit
        active = sum(counts)
    paused = [taken[queue.id] for queue in queues if queue.is_paused]
    uncounted = sum(active if count is None else count for count in paused)
    return max(0, pool.slot_limit - active), max(0, pool.slot_limit - max(0, active - uncounted))


def _share_out(
    lines: Iterable[_Line], room: tuple[float, float], facts: Facts, before: Mapping[uuid.UUID, Cause]
) -> None:
    """Hand out the room of a pool by the priority of its queues, and find the cause of the runs that they offer."""
    ahead_least: float = 0
    ahead_most: float = 0
    ordered = sorted(lines, key=lambda line: line.queue.priority)
    for _, group in groupby(ordered, key=lambda line: line.queue.priority):
        equals = list(group)
        full: Cause = "priority" if ahead_least else "pool_limit"
        for line in equals:
            for place, run in enumerate(line.offered):
                if run.id in line.causes:
                    continue
                least, most = ahead_least + place, ahead_most + place + line.put_off
                for other in equals:
                    if other is not line and run.due:
                        older = other.before(run.due)
                        least, most = least + older[0], most + older[1]
                if least >= room[1]:
                    line.causes[run.id] = full
                elif most < room[0] and (cause := _unblocked(run, facts, before)):
                    line.causes[run.id] = cause
            fit = max(0, room[1] - ahead_least - len(line.offered))
            line.counted[full] += int(max(0, line.unlisted - fit))
        ahead_least += sum(line.least for line in equals)
        ahead_most += sum(line.most for line in equals)


def _unblocked(run: WaitingRun, facts: Facts, before: Mapping[uuid.UUID, Cause]) -> Cause | None:
    """Return why a run waits that the next worker should get: its time has only come, or nobody can see why."""
    if run.seconds < _JUST_NOW or before.get(run.id, "none") not in {"just_now", "none"}:
        return "just_now"
    # Without the limits, its deployment's may be 0.
    return None if facts.limits is None else "none"
