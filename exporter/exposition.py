"""Every family that is observed at an upstream, declared once; and a snapshot turned into exposition text."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from itertools import accumulate, chain
from typing import Final

from prometheus_client import Metric
from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from exporter.family import Family, Sample
from exporter.model import Limit, Pool, Queue, Snapshot

SOURCE: Final = ("source", "system")
_QUEUE: Final = (*SOURCE, "pool", "queue")
_POOL: Final = (*SOURCE, "pool")
_LIMIT: Final = (*SOURCE, "limit", "kind")
_POOL_STATUSES: Final = ("READY", "NOT_READY", "PAUSED")

QUEUE_ACTIVE_SLOTS = Family(
    "concurrency_queue_active_slots",
    "gauge",
    "Slots taken now; at Prefect active_slots of the queue's concurrency_status (runs in PENDING, RUNNING or"
    " CANCELLING), at cloro concurrency.used. Read by a poll of its own timer, not at the scrape.",
    _QUEUE,
)
QUEUE_SLOT_LIMIT = Family(
    "concurrency_queue_slot_limit",
    "gauge",
    "Slots that there are; at Prefect concurrency_limit of the queue, at cloro concurrency.max. Absent where"
    " there is no limit or it is unknown.",
    _QUEUE,
)
QUEUE_USAGE_KNOWN = Family(
    "concurrency_queue_usage_known",
    "gauge",
    "Whether upstream said how many slots are taken (1) or could not (0), as with a null concurrency of cloro;"
    " then the queue has no samples of slots.",
    _QUEUE,
)
QUEUE_QUEUED_TASKS = Family(
    "concurrency_queue_queued_tasks",
    "gauge",
    "Tasks that wait and could be started now, by priority; at cloro priorityBreakdown, where the highest number goes"
    " first, and unknown is what queuedTasks counts beyond it; at Prefect runs in SCHEDULED that are due or"
    " AwaitingConcurrencySlot, by priority of their queue, where the lowest number goes first.",
    (*_QUEUE, "priority"),
)
QUEUE_WAITING_TASKS = Family(
    "concurrency_queue_waiting_tasks",
    "gauge",
    "The queued tasks by their state; at Prefect state_name of the runs. Runs that are scheduled for later are not"
    " among them.",
    (*_QUEUE, "state"),
)
QUEUE_WAITING_DURATION_MAX = Family(
    "concurrency_queue_waiting_duration_max_seconds",
    "gauge",
    "How long the longest waiting of the queued tasks could have been started, by upstream's clock; at Prefect since"
    " next_scheduled_start_time of the run, or expected_start_time if it is AwaitingConcurrencySlot. Absent while"
    " nothing waits.",
    _QUEUE,
)
QUEUE_LAST_POLLED = Family(
    "concurrency_queue_last_polled_timestamp_seconds",
    "gauge",
    "When a worker last asked the queue for work; last_polled of Prefect's work queue. Absent if none ever has.",
    _QUEUE,
)
QUEUE_PROCESSING_TASKS = Family(
    "concurrency_queue_processing_tasks",
    "gauge",
    "Tasks that are being worked on; at Prefect the holders of a slot in RUNNING, at cloro processingTasks.",
    _QUEUE,
)
QUEUE_SLOT_HOLDERS = Family(
    "concurrency_queue_slot_holders",
    "gauge",
    "Runs that hold a slot of the queue, by state_type in Prefect's concurrency_status of the queue.",
    (*_QUEUE, "state"),
)
QUEUE_STATE_DURATION = Family(
    "concurrency_queue_state_duration_seconds",
    "gaugehistogram",
    "How long the holders have been in their present state, now and by upstream's clock; at Prefect"
    " time_in_current_state of the queue's flow_runs. Absent while no holder is in the state.",
    (*_QUEUE, "state"),
    buckets=(5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600),
)
QUEUE_STATE_DURATION_MAX = Family(
    "concurrency_queue_state_duration_max_seconds",
    "gauge",
    "The longest that a holder has been in its present state, by upstream's clock; at Prefect the greatest"
    " time_in_current_state of the queue's flow_runs. Absent while no holder is in the state.",
    (*_QUEUE, "state"),
)
QUEUE_PAUSED = Family(
    "concurrency_queue_paused",
    "gauge",
    "Whether the queue hands out nothing; at Prefect is_paused of the queue.",
    _QUEUE,
)
QUEUE_INFO = Family(
    "concurrency_queue_info",
    "info",
    "What the queue is, to join on; at Prefect id and priority (the lowest number goes first) of the queue.",
    (*_QUEUE, "id", "priority"),
)
POOL_ACTIVE_SLOTS = Family(
    "concurrency_pool_active_slots",
    "gauge",
    "Slots of the pool taken now; active_slots of Prefect's work pool, which counts runs in PENDING and RUNNING"
    " only. Absent where the pool has no limit.",
    _POOL,
)
POOL_SLOT_LIMIT = Family(
    "concurrency_pool_slot_limit",
    "gauge",
    "Slots that the pool has; concurrency_limit of Prefect's work pool. Absent where there is no limit.",
    _POOL,
)
POOL_PAUSED = Family(
    "concurrency_pool_paused",
    "gauge",
    "Whether the pool hands out nothing; is_paused of Prefect's work pool.",
    _POOL,
)
POOL_INFO = Family(
    "concurrency_pool_info",
    "info",
    "What the pool is, to join on; id and type of Prefect's work pool.",
    (*_POOL, "id", "pool_type"),
)

POOL_STATUS = Family(
    "concurrency_pool_status",
    "gauge",
    "Whether the pool has this status, 1 for the one that it has; status of Prefect's work pool.",
    (*_POOL, "status"),
)
POOL_WORKERS = Family(
    "concurrency_pool_workers",
    "gauge",
    "Workers of the pool, by status of Prefect's worker. A service of the server sets OFFLINE after missed heartbeats;"
    " where that does not run, only the newest heartbeat tells.",
    (*_POOL, "status"),
)
POOL_LAST_HEARTBEAT = Family(
    "concurrency_pool_last_heartbeat_timestamp_seconds",
    "gauge",
    "When the newest heartbeat of the pool's workers came; the greatest last_heartbeat_time of Prefect's workers.",
    _POOL,
)
LIMIT_ACTIVE_SLOTS = Family(
    "concurrency_limit_active_slots",
    "gauge",
    "Slots taken now of a limit that is no queue; active_slots of Prefect's concurrency limit, after its decay. A"
    " deployment is named by its flow and its name.",
    _LIMIT,
)
LIMIT_SLOTS = Family(
    "concurrency_limit_slots",
    "gauge",
    "Slots that a limit has which is no queue; limit of Prefect's concurrency limit.",
    _LIMIT,
)
LIMIT_SLOT_DECAY = Family(
    "concurrency_limit_slot_decay_per_second",
    "gauge",
    "Slots that the limit gives back by itself each second; slot_decay_per_second of Prefect's concurrency limit.",
    _LIMIT,
)
LIMIT_ACTIVE = Family(
    "concurrency_limit_active",
    "gauge",
    "Whether the limit is enforced; active of Prefect's concurrency limit.",
    _LIMIT,
)
LIMIT_INFO = Family(
    "concurrency_limit_info",
    "info",
    "What the limit is, to join on; id of Prefect's concurrency limit.",
    (*_LIMIT, "id"),
)

OBSERVED: Final = (
    QUEUE_ACTIVE_SLOTS,
    QUEUE_SLOT_LIMIT,
    QUEUE_USAGE_KNOWN,
    QUEUE_QUEUED_TASKS,
    QUEUE_WAITING_TASKS,
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


class DuplicateSeriesError(ValueError):
    """A snapshot holds one series twice, which prometheus_client would print and Prometheus would refuse."""


def _known(family: Family, value: float | None, *labels: str) -> Iterator[Sample]:
    """The sample, unless upstream does not say."""
    if value is not None:
        yield family.sample(value, *labels)


def _queue_samples(queue: Queue, source: tuple[str, str]) -> Iterator[Sample]:
    labels = (*source, queue.pool, queue.name)
    yield from _known(QUEUE_USAGE_KNOWN, queue.usage_known, *labels)
    yield from _known(QUEUE_ACTIVE_SLOTS, queue.active_slots, *labels)
    yield from _known(QUEUE_SLOT_LIMIT, queue.slot_limit, *labels)
    yield from _known(QUEUE_PROCESSING_TASKS, queue.processing, *labels)
    yield from _known(QUEUE_PAUSED, queue.paused, *labels)
    yield from _known(QUEUE_LAST_POLLED, queue.last_polled, *labels)
    for priority, tasks in queue.queued.items():
        yield QUEUE_QUEUED_TASKS.sample(tasks, *labels, priority)
    for state, tasks in queue.waiting.items():
        yield QUEUE_WAITING_TASKS.sample(tasks, *labels, state)
    yield from _known(QUEUE_WAITING_DURATION_MAX, queue.longest_wait, *labels)
    for state, durations in queue.holders.items():
        yield QUEUE_SLOT_HOLDERS.sample(durations.holders, *labels, state)
        if durations.seconds:
            yield QUEUE_STATE_DURATION.sample(durations.seconds, *labels, state)
            yield QUEUE_STATE_DURATION_MAX.sample(max(durations.seconds), *labels, state)
    if queue.id:
        priority = "" if queue.priority is None else str(queue.priority)
        yield QUEUE_INFO.sample(1, *labels, queue.id, priority)


def _pool_samples(pool: Pool, source: tuple[str, str]) -> Iterator[Sample]:
    labels = (*source, pool.name)
    yield from _known(POOL_ACTIVE_SLOTS, pool.active_slots, *labels)
    yield from _known(POOL_SLOT_LIMIT, pool.slot_limit, *labels)
    yield from _known(POOL_PAUSED, pool.paused, *labels)
    if pool.status:
        has = pool.status if pool.status in _POOL_STATUSES else "unknown"
        for status in dict.fromkeys((*_POOL_STATUSES, has)):
            yield POOL_STATUS.sample(status == has, *labels, status)
    if pool.workers:
        for status, workers in pool.workers.by_status.items():
            yield POOL_WORKERS.sample(workers, *labels, status)
        yield from _known(POOL_LAST_HEARTBEAT, pool.workers.last_heartbeat, *labels)
    if pool.id:
        yield POOL_INFO.sample(1, *labels, pool.id, pool.kind)


def _limit_samples(limit: Limit, source: tuple[str, str]) -> Iterator[Sample]:
    labels = (*source, limit.name, limit.kind)
    yield LIMIT_ACTIVE_SLOTS.sample(limit.active_slots, *labels)
    yield LIMIT_SLOTS.sample(limit.slot_limit, *labels)
    yield LIMIT_SLOT_DECAY.sample(limit.slot_decay, *labels)
    yield LIMIT_ACTIVE.sample(limit.active, *labels)
    yield LIMIT_INFO.sample(1, *labels, limit.id)


QueueKey = tuple[str, str]
"""Pool and name of a queue."""


@dataclass(frozen=True, slots=True)
class _Thing:
    """The samples of one pool, queue or limit; one with a lower rank is left out later."""

    rank: int
    samples: list[Sample]
    queue: QueueKey | None = None

    @property
    def series(self) -> int:
        return sum(sample.series for sample in self.samples)


def _things(snapshot: Snapshot, source: tuple[str, str]) -> Iterator[_Thing]:
    """In the order of their names, so that a cap keeps the same ones at every poll."""
    for pool in sorted(snapshot.pools, key=lambda pool: pool.name):
        yield _Thing(0, list(_pool_samples(pool, source)))
    for queue in sorted(snapshot.queues, key=lambda queue: (queue.pool, queue.name)):
        yield _Thing(_rank(queue), list(_queue_samples(queue, source)), (queue.pool, queue.name))
    for limit in sorted(snapshot.limits, key=lambda limit: (limit.kind, limit.name)):
        yield _Thing(0, list(_limit_samples(limit, source)))


def _rank(queue: Queue) -> int:
    """Queues in which work waits, or without a free slot, matter most; of the others those that hold slots."""
    full = queue.active_slots is not None and queue.slot_limit is not None and queue.active_slots >= queue.slot_limit
    if full or any(queue.queued.values()):
        return 1
    return 2 if queue.active_slots or queue.processing else 3


def _ranked(things: Iterable[_Thing], precedence: Sequence[QueueKey]) -> list[_Thing]:
    """The things in the order in which a cap keeps them: by rank, then as they were, then as they come."""
    places = {queue: place for place, queue in enumerate(precedence)}
    last = len(places)
    return sorted(things, key=lambda thing: (thing.rank, places.get(thing.queue, last) if thing.queue else 0))


class Format(Enum):
    """The two text formats; the value is what ends an exposition in them.

    No name of ours needs escaping in any of the schemes that a scraper can ask for. prometheus_client's encoders are
    told to allow UTF-8 since they then copy a name in one piece instead of a character at a time.
    """

    CLASSIC = b""
    OPENMETRICS = b"# EOF\n"

    def encode(self, metrics: Iterable[Metric]) -> bytes:
        """Families as text, without the end."""
        encoder: Callable[..., bytes] = (
            classic.generate_latest if self is Format.CLASSIC else openmetrics.generate_latest
        )
        return encoder(_Metrics(metrics), escaping=openmetrics.ALLOWUTF8).removesuffix(self.value)


class _Metrics(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One snapshot as text: for each format, its samples under the comment lines (HELP, TYPE, UNIT) of their family.

    Split like this since the families of several sources have to be joined, each under one header. It is
    compared by identity: one snapshot is rendered once.
    """

    text: dict[Format, dict[bytes, bytes]]
    series: int
    series_dropped: int
    precedence: tuple[QueueKey, ...]
    """All queues, those first that would be left out last: what the next snapshot of the source is rendered with."""


def render(
    snapshot: Snapshot, *, source: str, system: str, max_series: int, precedence: Sequence[QueueKey] = ()
) -> Rendered:
    """Turn a snapshot into text. Over `max_series` whole queues are left out, those with free slots and no work first.

    `precedence` is that of the snapshot before. By it the queues that never had work are left out before those that
    had: of a queue that is there only while it is full, every average over time would say that it always is.

    Raises `DuplicateSeriesError` where the snapshot has one series twice. For a large snapshot this takes tenths
    of a second: call it off the event loop.
    """
    things = list(_things(snapshot, (source, system)))
    ranked = _ranked(things, precedence)
    # Nothing goes past the cap by being small: else a queue would come and go with the sizes of those before it.
    totals = accumulate(thing.series for thing in ranked)
    left_out = {id(thing) for thing, total in zip(ranked, totals, strict=True) if total > max_series}
    kept = [thing for thing in things if id(thing) not in left_out]
    samples: dict[Family, dict[tuple[str, ...], Sample]] = {family: {} for family in OBSERVED}
    for sample in chain.from_iterable(thing.samples for thing in kept):
        of_family = samples[sample.family]
        if sample.labels in of_family:
            labels = dict(zip(sample.family.labels, sample.labels, strict=True))
            raise DuplicateSeriesError(f"{sample.family.name}{labels} is in the snapshot twice")
        of_family[sample.labels] = sample
    text: dict[Format, dict[bytes, bytes]] = {format_: {} for format_ in Format}
    for family, of_family in samples.items():
        if of_family:
            lines = [family.lines(sample) for sample in of_family.values()]
            for format_ in Format:
                text[format_].update(_under_headers(family, lines, format_))
    series = sum(thing.series for thing in kept)
    dropped = sum(thing.series for thing in things) - series
    return Rendered(text, series, dropped, tuple(thing.queue for thing in ranked if thing.queue))


def _under_headers(family: Family, lines: Sequence[Sequence[str]], format_: Format) -> Iterator[tuple[bytes, bytes]]:
    """The lines of each of the family's series under the headers of the format.

    OpenMetrics has one header for a family. The classic format has no gauge histogram: it takes the last two lines of
    each, the count and the sum, for gauges of their own, each with its header.
    """
    headers = _headers(family, format_)
    apart = len(headers) - 1
    yield headers[0], "".join(line for of_series in lines for line in of_series[: len(of_series) - apart]).encode()
    for place, header in enumerate(headers[1:], start=-apart):
        yield header, "".join(of_series[place] for of_series in lines).encode()


# A line that starts with "# " is a comment: a sample's line starts with its name, and a newline in a label is escaped.
_HEADER = re.compile(rb"(?:^# (?:HELP|TYPE|UNIT) .*\n)+", re.MULTILINE)


@cache
def _headers(family: Family, format_: Format) -> list[bytes]:
    """The comment lines over the family's samples, as prometheus_client writes them for any one of its series."""
    value = (0.0,) if family.buckets else 0.0
    one = family.metric([family.sample(value, *("" for _ in family.labels))])
    return _HEADER.findall(format_.encode([one]))


class Body:
    """The ready part of a scrape's answer: the text of some snapshots, and the same compressed.

    gzip is a stream. Its beginning is the same for all the scrapes between two polls, so it is compressed once, and a
    scrape goes on from a copy of the compressor's state: an answer costs what its live end costs.
    """

    def __init__(self, rendered: Sequence[Rendered], format_: Format) -> None:
        families: dict[bytes, list[bytes]] = {}
        for one in rendered:
            for header, lines in one.text[format_].items():
                families.setdefault(header, [header]).append(lines)
        self._text = b"".join(chunk for header in sorted(families) for chunk in families[header])

    def plain(self, end: bytes) -> tuple[bytes, bytes]:
        """The whole answer, in two parts: the first is the same object for all scrapes."""
        return self._text, end

    def gzipped(self, end: bytes) -> tuple[bytes, bytes]:
        """The same as one gzip member. Call `compress` before, off the event loop."""
        compressed, compressor = self._compressed
        rest = compressor.copy()
        return compressed, rest.compress(end) + rest.flush()

    @property
    def is_compressed(self) -> bool:
        """Whether `gzipped` has its work done."""
        return "_compressed" in self.__dict__

    def compress(self) -> None:
        """Compress the ready part, unless that is done: tenths of a second for a text of many megabytes."""
        _ = self._compressed

    @cached_property
    def _compressed(self) -> tuple[bytes, "zlib._Compress"]:
        compressor = zlib.compressobj(level=6, wbits=zlib.MAX_WBITS | 16)
        # The flush ends the bytes so far at a byte's boundary: what follows can be joined to them.
        return compressor.compress(self._text) + compressor.flush(zlib.Z_SYNC_FLUSH), compressor
