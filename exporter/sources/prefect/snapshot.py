"""Counts the rows that one poll has read: a `Reading` → a `Snapshot`, without I/O."""

import uuid
from array import array
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from exporter import model
from exporter.model import PARTS, Holder, Limit, Part, Pool, Queue, Snapshot, Waiting, WaitingTask, Workers, blocked_by
from exporter.sources.oldest import Oldest, Row, Tasks
from exporter.sources.prefect.about import ABOUT, POOL_STATUSES
from exporter.sources.prefect.api import ConcurrencyLimit, WorkPool, WorkQueue
from exporter.sources.prefect.causes import HELD_BACK, Attribution, Cause, Facts, attribute
from exporter.sources.prefect.links import Links
from exporter.sources.prefect.reading import (
    Backlog,
    Holders,
    LimitName,
    Origin,
    PoolWorkers,
    Reading,
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


def to_snapshot(
    reading: Reading, collect: Collection[Part], before: object, links: Links, *, is_cloud: bool
) -> Snapshot:
    """Return the snapshot of everything that this exporter publishes; pools have only a name if not in `collect`.

    `before` is the memory of the snapshot before.
    """
    memory = before if isinstance(before, Memory) else Memory({})
    causes = _causes(reading, memory, is_cloud=is_cloud)
    return Snapshot(
        queues=tuple(
            _queue(reading, queue, causes, links) for queue in reading.found.queues if queue.id in reading.published
        ),
        pools=tuple(
            _pool(pool, (reading.workers or {}).get(pool.id), links, whole="pools" in collect)
            for pool in reading.found.pools.values()
            if pool.id in reading.published
        ),
        limits=tuple(
            _limit(limit, reading.limit_names[limit.id], links)
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


def _queue(reading: Reading, queue: WorkQueue, causes: Attribution | None, links: Links) -> Queue:
    pool = reading.found.pool_of(queue).name
    slots = (reading.slots or {}).get(queue.id)
    holders = by_state(slots.holders, reading.details, links) if slots and slots.holders else {}
    waiting = _waiting(reading.backlog, queue.id)
    queued = sum(waiting.by_state.values()) if waiting else 0
    by_cause = causes.by_queue.get(queue.id, {}) if causes else {}
    return Queue(
        pool=pool,
        name=queue.name,
        usage_known=True if slots else None,
        active_slots=slots.active_slots if slots else None,
        slot_limit=slots.slot_limit if slots else queue.slot_limit,
        processing=holders["RUNNING"].count if holders else None,
        holders=holders,
        queued={str(queue.priority): queued} if waiting else {},
        waiting=waiting_by_state(waiting.by_state, _oldest_waiting(reading, queue, causes, links)) if waiting else {},
        blocked=blocked_by(by_cause, ABOUT.reasons, queued) if waiting else {},
        longest_wait=waiting.longest if waiting else None,
        paused=queue.is_paused,
        last_polled=queue.last_polled.timestamp() if queue.last_polled else None,
        id=str(queue.id),
        priority=queue.priority,
        url=links.queue(pool, queue.name),
    )


def by_state(holders: Holders, details: Mapping[Hashable, Mapping[str, str]], links: Links) -> dict[str, model.Holders]:
    """Count holders by state: all the states that hold slots, and any other that upstream lists as `unknown`."""
    of_state: dict[str, list[float | None]] = {state: [] for state in HOLDING_STATES}
    for state, seconds in zip(holders.state_types, holders.seconds, strict=True):
        of_state.setdefault(state, []).append(seconds)
    return {
        state: model.Holders(
            count=len(times),
            # 8 bytes each: of a million holders, a tuple would hold a million objects.
            seconds=array("d", [time for time in times if time is not None]),
            oldest=Oldest(Holder, tasks, details, links.run) if (tasks := holders.oldest.get(state)) else (),
        )
        for state, times in of_state.items()
    }


def _waiting(backlog: Backlog | None, queue_id: uuid.UUID) -> WaitingCounts | None:
    """Count the waiting runs of a queue; None if they were not read."""
    if backlog is None:
        return None
    if backlog.runs is None:
        return (backlog.counts or {}).get(queue_id)
    runs = backlog.runs.get(queue_id)
    if runs is None:
        return None
    return WaitingCounts(Counter(run.state_name for run in runs), max((run.seconds for run in runs), default=None))


def waiting_by_state(
    counts: Mapping[str, int], oldest: Mapping[str, Sequence[WaitingTask]] = MappingProxyType({})
) -> dict[str, Waiting]:
    """Return the tasks of each state in which a run waits, 0 if none does; any other state counts as `other`."""
    by_state = {state: counts.get(state, 0) for state in WAITING_STATES}
    if other := sum(counts.values()) - sum(by_state.values()):
        by_state["other"] = other
    return {
        state: Waiting(count, oldest.get(state, ()), for_slot=state != HELD_BACK) for state, count in by_state.items()
    }


def oldest_waiting(backlog: Backlog, queues: Iterable[WorkQueue], named: int) -> dict[uuid.UUID, dict[str, Tasks]]:
    """Return so many of the waiting runs of each queue and state, longest first: of those that were listed.

    Where they were only counted, these are the one or two that a queue's longest wait comes from.
    """
    found: dict[uuid.UUID, dict[str, Tasks]] = {}
    origins: dict[Origin, Origin] = {}
    for queue in queues:
        counts = (backlog.counts or {}).get(queue.id)
        runs = (backlog.runs or {}).get(queue.id) or (counts.listed if counts else ())
        rows: dict[str, list[Row]] = {}
        for run in runs:
            state = run.state_name if run.state_name in WAITING_STATES else "other"
            origin = Origin(run.flow_id, run.deployment_id)
            rows.setdefault(state, []).append((run.seconds, str(run.id), run.name, origins.setdefault(origin, origin)))
        found[queue.id] = {state: Tasks.oldest(of_state, named) for state, of_state in rows.items()}
    return found


def _oldest_waiting(
    reading: Reading, queue: WorkQueue, causes: Attribution | None, links: Links
) -> dict[str, Oldest[WaitingTask]]:
    by_run = causes.by_run if causes else {}

    def task(run_id: str, name: str, seconds: float | None, url: str | None, details: Mapping[str, str]) -> WaitingTask:
        return WaitingTask(run_id, name, seconds, url, details, by_run.get(uuid.UUID(run_id)))

    return {
        state: Oldest(task, tasks, reading.details, links.run)
        for state, tasks in reading.waiting.get(queue.id, {}).items()
    }


def _pool(pool: WorkPool, workers: PoolWorkers | None, links: Links, *, whole: bool) -> Pool:
    of_pool = _workers(workers) if workers else None
    if not whole:
        return Pool(name=pool.name, workers=of_pool, url=links.pool(pool.name))
    return Pool(
        name=pool.name,
        id=str(pool.id),
        kind=pool.type,
        paused=pool.is_paused,
        active_slots=pool.active_slots,
        slot_limit=pool.slot_limit,
        statuses=_statuses(pool),
        workers=of_pool,
        url=links.pool(pool.name),
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


def _limit(limit: ConcurrencyLimit, called: LimitName, links: Links) -> Limit:
    return Limit(
        name=called.name,
        kind=called.kind,
        id=str(limit.id),
        active_slots=limit.active_slots,
        slot_limit=limit.slot_limit,
        slot_decay=limit.slot_decay_per_second,
        active=limit.active,
        url=links.limit(called.kind, str(limit.id)),
    )
