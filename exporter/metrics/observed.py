"""Every family that is observed at an upstream, declared once, and what a queue, a pool and a limit are in them."""

from collections.abc import Iterator
from typing import Final

from exporter.metrics.family import MAX_EXEMPLAR, Exemplar, Family, Sample
from exporter.model import Holders, Limit, Pool, Queue

SOURCE: Final = ("source", "system")
"""The labels of every family that is about one source."""
_QUEUE: Final = (*SOURCE, "pool", "queue")
_POOL: Final = (*SOURCE, "pool")
_LIMIT: Final = (*SOURCE, "limit", "kind")

QUEUE_ACTIVE_SLOTS = Family(
    "concurrency_queue_active_slots",
    "gauge",
    "Slots in use, as of the last poll of the source.",
    _QUEUE,
)
QUEUE_SLOT_LIMIT = Family(
    "concurrency_queue_slot_limit",
    "gauge",
    "The slot limit: how many slots can be in use at the same time. Absent if there is no limit, or it is not known.",
    _QUEUE,
)
QUEUE_USAGE_KNOWN = Family(
    "concurrency_queue_usage_known",
    "gauge",
    "Whether the upstream server reported how many slots are in use (1) or could not (0). If 0, the queue has no"
    " series of slots in use.",
    _QUEUE,
)
QUEUE_QUEUED_TASKS = Family(
    "concurrency_queue_queued_tasks",
    "gauge",
    "Tasks that are ready to start and are waiting, by priority. The priority is unknown for tasks that the upstream"
    " server counts without one.",
    (*_QUEUE, "priority"),
)
QUEUE_WAITING_TASKS = Family(
    "concurrency_queue_waiting_tasks",
    "gauge",
    "Queued tasks, by their state.",
    (*_QUEUE, "state"),
)
QUEUE_BLOCKED_TASKS = Family(
    "concurrency_queue_blocked_tasks",
    "gauge",
    "Queued tasks, by the one reason that each is waiting for. The sum over the reasons is the number of queued tasks."
    " The reason is unknown for tasks of which the upstream server does not tell enough.",
    (*_QUEUE, "reason"),
)
QUEUE_WAITING_DURATION_MAX = Family(
    "concurrency_queue_waiting_duration_max_seconds",
    "gauge",
    "Time since the oldest queued task became ready to start, by the upstream server's clock. Absent if no task"
    " is queued.",
    _QUEUE,
)
QUEUE_LAST_POLLED = Family(
    "concurrency_queue_last_polled_timestamp_seconds",
    "gauge",
    "When a worker last asked the queue for work. Absent if no worker ever did.",
    _QUEUE,
)
QUEUE_PROCESSING_TASKS = Family(
    "concurrency_queue_processing_tasks",
    "gauge",
    "Tasks that are being processed.",
    _QUEUE,
)
QUEUE_SLOT_HOLDERS = Family(
    "concurrency_queue_slot_holders",
    "gauge",
    "Tasks that hold a slot of the queue, by their state.",
    (*_QUEUE, "state"),
)
QUEUE_STATE_DURATION = Family(
    "concurrency_queue_state_duration_seconds",
    "gaugehistogram",
    "How long the holders of slots have been in their current state, by the upstream server's clock. Absent"
    " if no holder is in this state.",
    (*_QUEUE, "state"),
    buckets=(5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600),
)
QUEUE_STATE_DURATION_MAX = Family(
    "concurrency_queue_state_duration_max_seconds",
    "gauge",
    "Longest time that a holder of a slot has been in its current state, by the upstream server's clock."
    " Absent if no holder is in this state.",
    (*_QUEUE, "state"),
)
QUEUE_PAUSED = Family(
    "concurrency_queue_paused",
    "gauge",
    "Whether the queue is paused. A paused queue hands out no slots.",
    _QUEUE,
)
QUEUE_INFO = Family(
    "concurrency_queue_info",
    "info",
    "Id and priority of the queue, for joins.",
    (*_QUEUE, "id", "priority"),
)
POOL_ACTIVE_SLOTS = Family(
    "concurrency_pool_active_slots",
    "gauge",
    "Slots of the pool in use.",
    _POOL,
)
POOL_SLOT_LIMIT = Family(
    "concurrency_pool_slot_limit",
    "gauge",
    "Slot limit of the pool: how many of its slots can be in use at the same time. Absent if there is no limit.",
    _POOL,
)
POOL_PAUSED = Family(
    "concurrency_pool_paused",
    "gauge",
    "Whether the pool is paused. A paused pool hands out no slots.",
    _POOL,
)
POOL_INFO = Family(
    "concurrency_pool_info",
    "info",
    "Id and type of the pool, for joins.",
    (*_POOL, "id", "pool_type"),
)

POOL_STATUS = Family(
    "concurrency_pool_status",
    "gauge",
    "Status of the pool: 1 for its current status, 0 for the others.",
    (*_POOL, "status"),
)
POOL_WORKERS = Family(
    "concurrency_pool_workers",
    "gauge",
    "Workers of the pool, by their status.",
    (*_POOL, "status"),
)
POOL_LAST_HEARTBEAT = Family(
    "concurrency_pool_last_heartbeat_timestamp_seconds",
    "gauge",
    "Time of the newest heartbeat of the pool's workers. Absent if there is none.",
    _POOL,
)
LIMIT_ACTIVE_SLOTS = Family(
    "concurrency_limit_active_slots",
    "gauge",
    "Slots in use of a limit that is not a queue or a pool.",
    _LIMIT,
)
LIMIT_SLOTS = Family(
    "concurrency_limit_slots",
    "gauge",
    "Total slots of a limit that is not a queue or a pool: how many can be in use at the same time.",
    _LIMIT,
)
LIMIT_SLOT_DECAY = Family(
    "concurrency_limit_slot_decay_per_second",
    "gauge",
    "Slots that the limit releases by itself, per second.",
    _LIMIT,
)
LIMIT_ACTIVE = Family(
    "concurrency_limit_active",
    "gauge",
    "Whether the limit is enforced.",
    _LIMIT,
)
LIMIT_INFO = Family(
    "concurrency_limit_info",
    "info",
    "Id of the limit, for joins.",
    (*_LIMIT, "id"),
)

OBSERVED: Final = (
    QUEUE_ACTIVE_SLOTS,
    QUEUE_SLOT_LIMIT,
    QUEUE_USAGE_KNOWN,
    QUEUE_QUEUED_TASKS,
    QUEUE_WAITING_TASKS,
    QUEUE_BLOCKED_TASKS,
    QUEUE_WAITING_DURATION_MAX,
    QUEUE_PROCESSING_TASKS,
    QUEUE_SLOT_HOLDERS,
    QUEUE_STATE_DURATION,
    QUEUE_STATE_DURATION_MAX,
    QUEUE_PAUSED,
    QUEUE_LAST_POLLED,
    QUEUE_INFO,
    POOL_ACTIVE_SLOTS,
    POOL_SLOT_LIMIT,
    POOL_PAUSED,
    POOL_STATUS,
    POOL_WORKERS,
    POOL_LAST_HEARTBEAT,
    POOL_INFO,
    LIMIT_ACTIVE_SLOTS,
    LIMIT_SLOTS,
    LIMIT_SLOT_DECAY,
    LIMIT_ACTIVE,
    LIMIT_INFO,
)


def _known(family: Family, value: float | None, *labels: str) -> Iterator[Sample]:
    """The sample, unless upstream does not say."""
    if value is not None:
        yield family.sample(value, *labels)


def _exemplar(holders: Holders) -> Exemplar | None:
    """Return the id of the oldest holder as an exemplar; None if no holder is named, or its id is too long for one."""
    oldest = holders.oldest[0] if holders.oldest else None
    if oldest is None or oldest.seconds is None or len("run_id") + len(oldest.id) > MAX_EXEMPLAR:
        return None
    return Exemplar((("run_id", oldest.id),), oldest.seconds)


def queue_samples(queue: Queue, source: tuple[str, str]) -> Iterator[Sample]:
    """Return the samples of a queue; `source` is the values of `SOURCE`."""
    labels = (*source, queue.pool, queue.name)
    yield from _known(QUEUE_USAGE_KNOWN, queue.usage_known, *labels)
    yield from _known(QUEUE_ACTIVE_SLOTS, queue.active_slots, *labels)
    yield from _known(QUEUE_SLOT_LIMIT, queue.slot_limit, *labels)
    yield from _known(QUEUE_PROCESSING_TASKS, queue.processing, *labels)
    yield from _known(QUEUE_PAUSED, queue.paused, *labels)
    yield from _known(QUEUE_LAST_POLLED, queue.last_polled, *labels)
    for priority, tasks in queue.queued.items():
        yield QUEUE_QUEUED_TASKS.sample(tasks, *labels, priority)
    for state, waiting in queue.waiting.items():
        yield QUEUE_WAITING_TASKS.sample(waiting.count, *labels, state)
    for reason, tasks in queue.blocked.items():
        yield QUEUE_BLOCKED_TASKS.sample(tasks, *labels, reason)
    yield from _known(QUEUE_WAITING_DURATION_MAX, queue.longest_wait, *labels)
    for state, holders in queue.holders.items():
        yield QUEUE_SLOT_HOLDERS.sample(holders.count, *labels, state)
        if holders.seconds:
            distribution = QUEUE_STATE_DURATION.distribution(holders.seconds, _exemplar(holders))
            yield QUEUE_STATE_DURATION.sample(distribution, *labels, state)
            yield QUEUE_STATE_DURATION_MAX.sample(max(holders.seconds), *labels, state)
    if queue.id:
        priority = "" if queue.priority is None else str(queue.priority)
        yield QUEUE_INFO.sample(1, *labels, queue.id, priority)


def pool_samples(pool: Pool, source: tuple[str, str]) -> Iterator[Sample]:
    """Return the samples of a pool; `source` is the values of `SOURCE`."""
    labels = (*source, pool.name)
    yield from _known(POOL_ACTIVE_SLOTS, pool.active_slots, *labels)
    yield from _known(POOL_SLOT_LIMIT, pool.slot_limit, *labels)
    yield from _known(POOL_PAUSED, pool.paused, *labels)
    for status, has in pool.statuses.items():
        yield POOL_STATUS.sample(has, *labels, status)
    if pool.workers:
        for status, workers in pool.workers.by_status.items():
            yield POOL_WORKERS.sample(workers, *labels, status)
        yield from _known(POOL_LAST_HEARTBEAT, pool.workers.last_heartbeat, *labels)
    if pool.id:
        yield POOL_INFO.sample(1, *labels, pool.id, pool.kind)


def limit_samples(limit: Limit, source: tuple[str, str]) -> Iterator[Sample]:
    """Return the samples of a limit; `source` is the values of `SOURCE`."""
    labels = (*source, limit.name, limit.kind)
    yield LIMIT_ACTIVE_SLOTS.sample(limit.active_slots, *labels)
    yield LIMIT_SLOTS.sample(limit.slot_limit, *labels)
    yield LIMIT_SLOT_DECAY.sample(limit.slot_decay, *labels)
    yield LIMIT_ACTIVE.sample(limit.active, *labels)
    yield LIMIT_INFO.sample(1, *labels, limit.id)
