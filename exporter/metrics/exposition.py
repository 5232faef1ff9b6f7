"""A snapshot turned into exposition text, as much of it as its source may add, and the texts of all sources joined."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from itertools import accumulate, chain

from prometheus_client import Metric
from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from exporter.metrics.family import Family, Sample
from exporter.metrics.observed import OBSERVED, limit_samples, pool_samples, queue_samples
from exporter.model import Queue, Snapshot


class DuplicateSeriesError(ValueError):
    """A snapshot holds one series twice, which prometheus_client would print and Prometheus would refuse."""


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
        yield _Thing(0, list(pool_samples(pool, source)))
    for queue in sorted(snapshot.queues, key=lambda queue: (queue.pool, queue.name)):
        yield _Thing(_rank(queue), list(queue_samples(queue, source)), (queue.pool, queue.name))
    for limit in sorted(snapshot.limits, key=lambda limit: (limit.kind, limit.name)):
        yield _Thing(0, list(limit_samples(limit, source)))


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
