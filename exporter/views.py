"""The data of the store as people and programs are shown it: found by name, filtered, and in order. Pure.

Pages, JSON and texts are made from these views, so that all of them say the same. A view holds no age, since that
changes all the time: its `origin` tells it for a moment.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from exporter.model import Holder, Limit, Part, Pool, Queue, Unreadable, WaitingTask
from exporter.polling.outcome import Published
from exporter.polling.store import SourceState, View

T = TypeVar("T")

PAGE_SIZE: Final = 100
"""Views on one page."""
RETRY_SECONDS: Final = 5
"""When to come again for missing data if it is not known when the next poll ends."""


class NotFoundError(LookupError):
    """There is nothing of this name, as far as the data goes, which is complete where it would be."""


class NotKnownError(LookupError):
    """The data that would tell is missing: it has expired, there is none yet, or the poll left it out.

    `states` are the sources that it would come from.
    """

    def __init__(self, message: str, *states: SourceState) -> None:
        super().__init__(message)
        self.states = states


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a view comes from. `taken_at` is in seconds since the epoch, `expires` on the monotonic clock."""

    source: str
    system: str
    taken_at: float
    expires: float

    def age(self, view: View) -> float:
        """Seconds since the snapshot was taken, by the moment of a view of the store."""
        return max(view.now - self.taken_at, 0.0)

    def expires_in(self, view: View) -> float:
        """Seconds until the snapshot is no longer served."""
        return max(self.expires - view.moment, 0.0)


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue, and its pool if that is in the snapshot."""

    origin: Origin
    queue: Queue
    pool: Pool | None

    @property
    def queued(self) -> int | None:
        """Tasks that wait."""
        return _total(self.queue.queued.values())

    @property
    def holders(self) -> int | None:
        """Tasks that hold a slot; None also where the system does not list them."""
        return _total(holders.count for holders in self.queue.holders.values())

    @property
    def oldest_holders(self) -> list[tuple[str, Holder]]:
        """The holders that the snapshot names, with their state: the longest in its state first."""
        return sorted(
            ((state, holder) for state, holders in self.queue.holders.items() for holder in holders.oldest),
            key=lambda one: _longest_first(one[1].seconds),
        )

    @property
    def oldest_holder(self) -> tuple[str, Holder] | None:
        """The first of `oldest_holders`, for less than all of them cost."""
        first = ((state, holders.oldest[0]) for state, holders in self.queue.holders.items() if holders.oldest)
        return min(first, key=lambda one: _longest_first(one[1].seconds), default=None)

    @property
    def why(self) -> list[tuple[str, int]]:
        """The reasons for which tasks wait, and how many wait for each: the one with the most tasks first."""
        return sorted(
            ((reason, tasks) for reason, tasks in self.queue.blocked.items() if tasks), key=lambda one: -one[1]
        )

    @property
    def oldest_waiting(self) -> list[tuple[str, WaitingTask]]:
        """The waiting tasks that the snapshot names, with their state: the one that waits longest first."""
        return sorted(
            ((state, task) for state, waiting in self.queue.waiting.items() for task in waiting.oldest),
            key=lambda one: _longest_first(one[1].seconds),
        )


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool with the queues that this exporter reads of it, in order of need."""

    origin: Origin
    pool: Pool
    queues: tuple[QueueView, ...]


@dataclass(frozen=True, slots=True)
class LimitView:
    """A limit that is neither a queue nor a pool."""

    origin: Origin
    limit: Limit


def _total(counts: Iterable[int]) -> int | None:
    """The sum; None where upstream gives no counts, not even zeros."""
    each = list(counts)
    return sum(each) if each else None


def _longest_first(seconds: float | None) -> float:
    return 1.0 if seconds is None else -seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter. An empty text and None let everything pass.

    `text` is searched for in the names of source, pool, queue and limit, in either case. `waiting` and `paused` are
    only for queues. What is not known counts as not full, not waiting and not paused.
    """

    text: str = ""
    source: str = ""
    system: str = ""
    full: bool | None = None
    waiting: bool | None = None
    paused: bool | None = None

    def _names(self, *names: str) -> bool:
        wanted = self.text.casefold()
        return any(wanted in name.casefold() for name in names)

    def admits_source(self, state: SourceState) -> bool:
        """Whether something of this source may pass."""
        return self.source in {"", state.name} and self.system in {"", state.system}

    def admits_queue(self, view: QueueView) -> bool:
        """Whether the queue passes."""
        queue = view.queue
        return (
            self.full in {None, queue.is_full}
            and self.waiting in {None, bool(view.queued)}
            and self.paused in {None, bool(queue.paused)}
            and self._names(view.origin.source, queue.pool, queue.name)
        )

    def admits_pool(self, origin: Origin, pool: Pool) -> bool:
        """Whether the pool passes."""
        return self.full in {None, pool.is_full} and self._names(origin.source, pool.name)

    def admits_limit(self, view: LimitView) -> bool:
        """Whether the limit passes."""
        limit = view.limit
        return self.full in {None, limit.is_full} and self._names(view.origin.source, limit.kind, limit.name)


EVERYTHING: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of the views; `number` counts from 1. There is a page even if there is nothing to show."""

    items: Sequence[T]
    number: int
    pages: int
    total: int


def page(items: Sequence[T], number: int = 1, size: int = PAGE_SIZE) -> Page[T]:
    """Return one page. Raises `NotFoundError` if there is no such page."""
    pages = max(1, -(-len(items) // size))
    if not 1 <= number <= pages:
        raise NotFoundError(f"no page {number}; the last page is {pages}")
    return Page(items[(number - 1) * size : number * size], number, pages, len(items))


def selected(states: Sequence[SourceState], wanted: Wanted = EVERYTHING, part: Part = "queues") -> list[SourceState]:
    """Return the sources that the filter admits, also those that know nothing of a part.

    Raises `NotFoundError` if there is none, and `NotKnownError` if none of them knows anything of it.
    """
    found = [state for state in states if wanted.admits_source(state)]
    if not found and states:
        of_system = f" of the system {wanted.system!r}" if wanted.system else ""
        named = f" {wanted.source!r}" if wanted.source else ""
        raise NotFoundError(f"no source{named}{of_system}; there are: {', '.join(state.name for state in states)}")
    why = [why_missing(state, part) for state in found]
    if all(why):
        raise NotKnownError("; ".join(why) or "there are no sources", *found)
    return found


def source(states: Sequence[SourceState], name: str) -> tuple[SourceState, Published]:
    """Return one source and its data. Raises `NotFoundError` and `NotKnownError`."""
    for state in states:
        if state.name == name:
            if state.published is None:
                raise NotKnownError(why_no_data(state), state)
            return state, state.published
    raise NotFoundError(f"no source {name!r}; there are: {', '.join(state.name for state in states)}")


def why_no_data(state: SourceState) -> str:
    """Say why a source has no data to serve."""
    if state.outcome is None:
        return f"source {state.name!r} has no data yet: its first poll is running"
    what = "the data has expired" if state.last_success else "no poll has succeeded yet"
    failed = f"; last failure: {state.failure.reason}" if state.failure else ""
    return f"source {state.name!r} has no data: {what}{failed}"


def why_missing(state: SourceState, part: Part) -> str:
    """Say why nothing is known of a part of a source; empty if something is, or if its system has no such part."""
    if state.published is None:
        return why_no_data(state)
    snapshot = state.published.snapshot
    # The backlog needs the queues too.
    parts: set[Part] = {"queues", "backlog"} if part == "queues" else {part}
    if parts <= set(snapshot.not_collected):
        return f"the {part} of source {state.name!r} are not known: its configuration does not collect them"
    if part in snapshot.unsupported and part != "queues":
        return f"the {part} of source {state.name!r} are not known: its server does not support them"
    for one in left_out(state, part):
        if not one.pool and not one.queue:
            return f"the {part} of source {state.name!r} are not known: {one.reason}: {one.message}"
    return ""


def until_next_poll(state: SourceState, now: View) -> float:
    """Return the seconds until a source is polled; 0 while a poll runs, or if there is no schedule."""
    return 0.0 if state.next_poll is None else max(state.next_poll - now.moment, 0.0)


def retry_after(missing: NotKnownError, now: View) -> int:
    """Return the seconds after which the missing data may be there."""
    waits = [seconds for state in missing.states if (seconds := until_next_poll(state, now)) > 0]
    return math.ceil(min(waits, default=RETRY_SECONDS))


def left_out(state: SourceState, part: Part, pool: str = "", queue: str = "") -> list[Unreadable]:
    """Return what the snapshot of a source leaves out of a part; with a pool or queue, what may concern that one."""
    unreadable = state.published.snapshot.unreadable if state.published else ()
    return [
        one
        for one in unreadable
        if one.part == part and (not pool or one.pool in {"", pool}) and (not queue or one.queue in {"", queue})
    ]


def missing(states: Iterable[SourceState], *parts: Part) -> Iterator[tuple[SourceState, str]]:
    """Say what is missing of each source of which nothing is known of the first of these parts, or not all of each."""
    for state in states:
        if why := why_missing(state, parts[0]):
            yield state, why
        elif unread := [one for part in parts for one in left_out(state, part)]:
            more = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
            yield state, f"source {state.name!r} is not complete: {unread[0].what}{more}: {unread[0].message}"


def queues(states: Iterable[SourceState], wanted: Wanted = EVERYTHING) -> list[QueueView]:
    """Return the queues that pass, those first that need attention.

    Those come first in which work waits, or which have no free slot; then those with active slots. Of these, the full
    ones come first, by the number of tasks that wait, and then those with the highest utilization.
    """
    found = (
        view for state in states if wanted.admits_source(state) for view in _queues(state) if wanted.admits_queue(view)
    )
    return sorted(found, key=_by_need)


def pools(states: Iterable[SourceState], wanted: Wanted = EVERYTHING) -> list[PoolView]:
    """Return the pools that pass, by utilization, the highest first."""
    found = (view for state in states if wanted.admits_source(state) for view in _pools(state, wanted))
    return sorted(found, key=lambda view: (_use(view.pool), view.origin.source, view.pool.name))


def limits(states: Iterable[SourceState], wanted: Wanted = EVERYTHING) -> list[LimitView]:
    """Return the limits that are neither queues nor pools and pass, by utilization, the highest first."""
    found = (
        view for state in states if wanted.admits_source(state) for view in _limits(state) if wanted.admits_limit(view)
    )
    return sorted(found, key=lambda view: (_use(view.limit), view.origin.source, view.limit.kind, view.limit.name))


def queue(states: Sequence[SourceState], source_name: str, pool_name: str, name: str) -> QueueView:
    """Return one queue. Raises `NotFoundError` and `NotKnownError`."""
    state, published = source(states, source_name)
    for one in published.snapshot.queues:
        if one.name == name and one.pool == pool_name:
            return QueueView(_origin(state, published), one, _pool_of(published, pool_name))
    of_pool = f" of pool {pool_name!r}" if pool_name else ""
    raise _absent(state, "queues", left_out(state, "queues", pool_name, name), f"queue {name!r}{of_pool}")


def pool(states: Sequence[SourceState], source_name: str, name: str) -> PoolView:
    """Return one pool. Raises `NotFoundError` and `NotKnownError`."""
    state, published = source(states, source_name)
    if one := _pool_of(published, name):
        mine = [
            QueueView(_origin(state, published), each, one) for each in published.snapshot.queues if each.pool == name
        ]
        return PoolView(_origin(state, published), one, tuple(sorted(mine, key=_by_need)))
    raise _absent(state, "pools", left_out(state, "pools", name), f"pool {name!r}")


def limit(states: Sequence[SourceState], source_name: str, kind: str, name: str) -> LimitView:
    """Return one limit that is neither a queue nor a pool. Raises `NotFoundError` and `NotKnownError`."""
    state, published = source(states, source_name)
    for one in published.snapshot.limits:
        if one.name == name and one.kind == kind:
            return LimitView(_origin(state, published), one)
    raise _absent(state, "limits", left_out(state, "limits"), f"{kind!r} limit {name!r}")


def _absent(state: SourceState, part: Part, unread: Sequence[Unreadable], what: str) -> NotFoundError | NotKnownError:
    """The error for something that a snapshot does not have: perhaps it was not read."""
    if why := why_missing(state, part):
        return NotKnownError(why, state)
    if unread:
        one = unread[0]
        return NotKnownError(f"{what} of source {state.name!r} is not known: {one.reason}: {one.message}", state)
    share = f", of which this exporter reads shard {state.shard}" if state.shard.total > 1 else ""
    return NotFoundError(f"no {what} in the data of source {state.name!r}{share}")


def _origin(state: SourceState, published: Published) -> Origin:
    return Origin(state.name, state.system, published.taken_at, published.expires)


def _queues(state: SourceState) -> Iterator[QueueView]:
    if published := state.published:
        origin = _origin(state, published)
        by_name = {pool.name: pool for pool in published.snapshot.pools}
        for one in published.snapshot.queues:
            yield QueueView(origin, one, by_name.get(one.pool))


def _pools(state: SourceState, wanted: Wanted) -> Iterator[PoolView]:
    if published := state.published:
        origin = _origin(state, published)
        admitted = [one for one in published.snapshot.pools if wanted.admits_pool(origin, one)]
        by_pool: dict[str, list[QueueView]] = {one.name: [] for one in admitted}
        for view in _queues(state):
            by_pool.get(view.queue.pool, []).append(view)
        for one in admitted:
            yield PoolView(origin, one, tuple(sorted(by_pool[one.name], key=_by_need)))


def _limits(state: SourceState) -> Iterator[LimitView]:
    if published := state.published:
        for one in published.snapshot.limits:
            yield LimitView(_origin(state, published), one)


def _pool_of(published: Published, name: str) -> Pool | None:
    return next((one for one in published.snapshot.pools if one.name == name), None)


def _by_need(view: QueueView) -> tuple[object, ...]:
    queue = view.queue
    waited = queue.longest_wait or 0.0
    return queue.need, _use(queue), -(view.queued or 0), -waited, view.origin.source, queue.pool, queue.name


def _use(slots: Queue | Pool | Limit) -> float:
    """The place by utilization. A limit that was lowered below the slots in use is full, and not more than full."""
    return -min(slots.utilization or 0.0, 1.0)
