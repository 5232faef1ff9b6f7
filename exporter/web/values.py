"""The values on the page of one thing, each with the PromQL that gives the same in Prometheus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from exporter.metrics import observed
from exporter.metrics.family import Family
from exporter.views import LimitView, PoolView, QueueView

Kind = Literal["count", "seconds", "moment", "flag"]
"""How a value reads: a number, a duration, a time since the epoch, or yes and no."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value and its query. With two exporters of the same source, a query gives a value for each of them."""

    name: str
    number: float
    query: str
    kind: Kind = "count"


def of_queue(view: QueueView) -> Iterator[Value]:
    """Return the values of a queue that are known."""
    queue = view.queue
    labels = {"source": view.origin.source, "pool": queue.pool, "queue": queue.name}
    yield from _of(observed.QUEUE_ACTIVE_SLOTS, "Slots in use", queue.active_slots, labels)
    yield from _of(observed.QUEUE_SLOT_LIMIT, "Slot limit", queue.slot_limit, labels)
    yield from _of(observed.QUEUE_USAGE_KNOWN, "Slots in use are known", queue.usage_known, labels, "flag")
    yield from _of(observed.QUEUE_PROCESSING_TASKS, "Being processed", queue.processing, labels)
    yield from _of(observed.QUEUE_PAUSED, "Paused", queue.paused, labels, "flag")
    yield from _of(observed.QUEUE_LAST_POLLED, "Last polled by a worker", queue.last_polled, labels, "moment")
    if view.queued is not None:
        yield Value("Waiting", view.queued, f"sum({selector(observed.QUEUE_QUEUED_TASKS, labels)})")
    yield from _of(observed.QUEUE_WAITING_DURATION_MAX, "Longest wait", queue.longest_wait, labels, "seconds")
    for priority, tasks in queue.queued.items():
        yield from _of(
            observed.QUEUE_QUEUED_TASKS, f"Waiting, priority {priority}", tasks, {**labels, "priority": priority}
        )
    for state, waiting in queue.waiting.items():
        yield from _of(observed.QUEUE_WAITING_TASKS, f"Waiting, {state}", waiting.count, {**labels, "state": state})
    for reason, tasks in queue.blocked.items():
        yield from _of(observed.QUEUE_BLOCKED_TASKS, f"Waiting, reason {reason}", tasks, {**labels, "reason": reason})
    for state, holders in queue.holders.items():
        of_state = {**labels, "state": state}
        yield from _of(observed.QUEUE_SLOT_HOLDERS, f"Holders, {state}", holders.count, of_state)
        if holders.seconds:
            longest = max(holders.seconds)
            yield from _of(observed.QUEUE_STATE_DURATION_MAX, f"Longest {state}", longest, of_state, "seconds")


def of_pool(view: PoolView) -> Iterator[Value]:
    """Return the values of a pool that are known."""
    pool = view.pool
    labels = {"source": view.origin.source, "pool": pool.name}
    yield from _of(observed.POOL_ACTIVE_SLOTS, "Slots in use", pool.active_slots, labels)
    yield from _of(observed.POOL_SLOT_LIMIT, "Slot limit", pool.slot_limit, labels)
    yield from _of(observed.POOL_PAUSED, "Paused", pool.paused, labels, "flag")
    for status, has in pool.statuses.items():
        yield from _of(observed.POOL_STATUS, f"Status {status}", has, {**labels, "status": status}, "flag")
    if pool.workers:
        for status, workers in pool.workers.by_status.items():
            yield from _of(observed.POOL_WORKERS, f"Workers, {status}", workers, {**labels, "status": status})
        heartbeat = pool.workers.last_heartbeat
        yield from _of(observed.POOL_LAST_HEARTBEAT, "Newest heartbeat of a worker", heartbeat, labels, "moment")


def of_limit(view: LimitView) -> Iterator[Value]:
    """Return the values of a limit."""
    limit = view.limit
    labels = {"source": view.origin.source, "kind": limit.kind, "limit": limit.name}
    yield from _of(observed.LIMIT_ACTIVE_SLOTS, "Slots in use", limit.active_slots, labels)
    yield from _of(observed.LIMIT_SLOTS, "Slot limit", limit.slot_limit, labels)
    yield from _of(observed.LIMIT_SLOT_DECAY, "Slots released per second", limit.slot_decay, labels)
    yield from _of(observed.LIMIT_ACTIVE, "Enforced", limit.active, labels, "flag")


def _of(
    family: Family, name: str, number: float | None, labels: dict[str, str], kind: Kind = "count"
) -> Iterator[Value]:
    if number is not None:
        yield Value(name, number, selector(family, labels), kind)


def selector(family: Family, labels: dict[str, str]) -> str:
    """Return the query of a series. An empty label matches a series without it, as Prometheus has it."""
    return f"{family.name}{{{', '.join(f'{name}={quoted(value)}' for name, value in labels.items())}}}"


def quoted(text: str) -> str:
    """Return a string of PromQL. What can't be seen is escaped, so that it can be read and copied."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
