"""A snapshot turned into exposition text: as much of it as its source may add."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from exporter.metrics.family import Family, Sample
from exporter.metrics.observed import OBSERVED, limit_samples, pool_samples, queue_samples
from exporter.metrics.text import Block, Format, blocks
from exporter.model import Snapshot


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
        yield _Thing(queue.need, list(queue_samples(queue, source)), (queue.pool, queue.name))
    for limit in sorted(snapshot.limits, key=lambda limit: (limit.kind, limit.name)):
        yield _Thing(0, list(limit_samples(limit, source)))


def _ranked(things: Iterable[_Thing], precedence: Sequence[QueueKey]) -> list[_Thing]:
    """The things in the order in which a cap keeps them: by rank, then as they were, then as they come."""
    places = {queue: place for place, queue in enumerate(precedence)}
    last = len(places)
    return sorted(things, key=lambda thing: (thing.rank, places.get(thing.queue, last) if thing.queue else 0))


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """One snapshot as text, in blocks that can be joined with those of other sources.

    It is compared by identity: one snapshot is rendered once.
    """

    blocks: Mapping[Format, Sequence[Block]]
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
    text: dict[Format, list[Block]] = {format_: [] for format_ in Format}
    for family, of_family in samples.items():
        if of_family:
            for format_, of_format in blocks(family, list(of_family.values())).items():
                text[format_] += of_format
    series = sum(thing.series for thing in kept)
    dropped = sum(thing.series for thing in things) - series
    return Rendered(text, series, dropped, tuple(thing.queue for thing in ranked if thing.queue))
