"""Counts the rows that one poll has read: a `Reading` → a `Snapshot`, without I/O."""

import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from exporter import model
from exporter.model import PARTS, Limit, Part, Pool, Queue, Snapshot, Waiting, Workers, blocked_by
from exporter.sources.prefect.about import ABOUT, POOL_STATUSES
from exporter.sources.prefect.api import ConcurrencyLimit, WorkPool, WorkQueue
from exporter.sources.prefect.causes import HELD_BACK, Attribution, Cause, Facts, attribute
from exporter.sources.prefect.reading import (
    Backlog,
    Holders,
    LimitName,
    PoolWorkers,
    Reading,
    Slots,
    WaitingCounts,
)
from exporter.sources.prefect.slots import HOLDING_STATES
from exporter.sources.prefect.workers import ONLINE

WAITING_STATES: Final = tuple(ABOUT.waiting_states)
"""Names of the states in which a run waits; any other is counted as `other`."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a poll leaves for the next one: the cause of each run that waited."""

    causes: Mapping[uuid.UUID, Cause]


def to_snapshot(reading: Reading, collect: Collection[Part], before: object, *, is_cloud: bool) -> Snapshot:
    """Return the snapshot of everything that this exporter publishes; pools have only a name if not in `collect`.

    `before` is the memory of the snapshot before.
    """
    memory = before if isinstance(before, Memory) else Memory({})
    causes = _causes(reading, memory, is_cloud=is_cloud)
    return Snapshot(
        queues=tuple(_queues(reading, causes)),
        pools=tuple(
            _pool(pool, (reading.workers or {}).get(pool.id), whole="pools" in collect)
            for pool in reading.found.pools.values()
            if pool.id in reading.published
        ),
        limits=tuple(
            _limit(limit, reading.limit_names[limit.id])
            for limit in reading.limits or ()
            if limit.id in reading.limit_names
        ),
        unreadable=tuple(reading.unreadable),
        unsupported=reading.unsupported,
        not_collected=tuple(part for part in PARTS if part not in collect),
        version=reading.version,
        memory=Memory(causes.by_run) if causes else memory,
    )


def _causes(reading: Reading, memory: Memory, *, is_cloud: bool) -> Attribution | None:
    """Return why the runs wait; None if they were not read."""
    if reading.backlog is None:
        return None
    facts = Facts(
        now=reading.at,
        pools=reading.found.pools,
        queues=reading.found.queues,
        slots=reading.slots or {},
        backlog=reading.backlog,
        limits=reading.limits,
        is_cloud=is_cloud,
    )
    return attribute(facts, memory.causes)


def _queues(reading: Reading, causes: Attribution | None) -> Iterator[Queue]:
    slots = reading.slots or {}
    waiting = _waiting(reading.backlog)
    by_queue = causes.by_queue if causes else {}
    for queue in reading.found.queues:
        if queue.id in reading.published:
            pool = reading.found.pool_of(queue).name
            yield _queue(queue, pool, slots.get(queue.id), waiting.get(queue.id), by_queue.get(queue.id, {}))


def _queue(
    queue: WorkQueue, pool: str, slots: Slots | None, waiting: WaitingCounts | None, causes: Mapping[str, int]
) -> Queue:
    holders = by_state(slots.holders) if slots and slots.holders else {}
    queued = sum(waiting.by_state.values()) if waiting else 0
    return Queue(
        pool=pool,
        name=queue.name,
        usage_known=True if slots else None,
        active_slots=slots.active_slots if slots else None,
        slot_limit=slots.slot_limit if slots else queue.slot_limit,
        processing=holders["RUNNING"].count if holders else None,
        holders=holders,
        queued={str(queue.priority): queued} if waiting else {},
        waiting=waiting_by_state(waiting.by_state) if waiting else {},
        blocked=blocked_by(causes, ABOUT.reasons, queued) if waiting else {},
        longest_wait=waiting.longest if waiting else None,
        paused=queue.is_paused,
        last_polled=queue.last_polled.timestamp() if queue.last_polled else None,
        id=str(queue.id),
        priority=queue.priority,
    )


def by_state(holders: Holders) -> dict[str, model.Holders]:
    """Count holders by state: all the states that hold slots, and any other that upstream lists as `unknown`."""
    of_state: dict[str, list[float | None]] = {state: [] for state in HOLDING_STATES}
    for state, seconds in zip(holders.state_types, holders.seconds, strict=True):
        of_state.setdefault(state if state in HOLDING_STATES else "unknown", []).append(seconds)
    return {
        state: model.Holders(
            count=len(times),
            # Negative where the clock of the server is behind that of the worker which set the state.
            seconds=tuple([time if time > 0 else 0.0 for time in times if time is not None]),
        )
        for state, times in of_state.items()
    }


def _waiting(backlog: Backlog | None) -> Mapping[uuid.UUID, WaitingCounts]:
    """Count the waiting runs of each queue."""
    if backlog is None:
        return {}
    if backlog.runs is None:
        return backlog.counts or {}
    return {
        queue_id: WaitingCounts(
            Counter(run.state_name for run in runs), max((run.seconds for run in runs), default=None)
        )
        for queue_id, runs in backlog.runs.items()
    }


def waiting_by_state(counts: Mapping[str, int]) -> dict[str, Waiting]:
    """Return the count of each state in which a run waits, 0 if none does; any other state counts as `other`."""
    by_state = {state: counts.get(state, 0) for state in WAITING_STATES}
    if other := sum(counts.values()) - sum(by_state.values()):
        by_state["other"] = other
    return {state: Waiting(count, for_slot=state != HELD_BACK) for state, count in by_state.items()}


def _pool(pool: WorkPool, workers: PoolWorkers | None, *, whole: bool) -> Pool:
    of_pool = _workers(workers) if workers else None
    if not whole:
        return Pool(name=pool.name, workers=of_pool)
    return Pool(
        name=pool.name,
        id=str(pool.id),
        kind=pool.type,
        paused=pool.is_paused,
        active_slots=pool.active_slots,
        slot_limit=pool.slot_limit,
        statuses=_statuses(pool),
        workers=of_pool,
    )


def _statuses(pool: WorkPool) -> dict[str, bool]:
    if not pool.status:
        return {}
    has = pool.status if pool.status in POOL_STATUSES else "unknown"
    return {status: status == has for status in dict.fromkeys((*POOL_STATUSES, has))}


def _workers(workers: PoolWorkers) -> Workers:
    counts = Counter(row.status if row.status in {ONLINE, "OFFLINE"} else "unknown" for row in workers.at_work)
    del counts["OFFLINE"]
    beats = (row.last_heartbeat_time for row in (*workers.at_work, *workers.heard_of))
    return Workers({ONLINE: 0, **counts}, max((beat.timestamp() for beat in beats if beat), default=None))


def _limit(limit: ConcurrencyLimit, called: LimitName) -> Limit:
    return Limit(
        name=called.name,
        kind=called.kind,
        id=str(limit.id),
        active_slots=limit.active_slots,
        slot_limit=limit.slot_limit,
        slot_decay=limit.slot_decay_per_second,
        active=limit.active,
    )
