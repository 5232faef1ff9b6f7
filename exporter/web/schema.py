"""The JSON of version 1, as pydantic models that are made from views. They are the schema that is published.

A field may be added to version 1. To rename or remove one takes another version.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field

from exporter import model, views
from exporter.headroom import Headroom as Found
from exporter.model import FailureReason, Outcome, Part
from exporter.polling.store import SourceState, View
from exporter.views import LimitView, Page, QueueView

MOST_LEFT_OUT: Final = 100
"""Things that a source names, of those that its last poll left out."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Error(Answer):
    """The answer to a request that fails."""

    error: str
    """What is wrong."""


class Holder(Answer):
    """A task that holds a slot of the queue."""

    id: str
    """Id of the task in the upstream system."""
    name: str | None
    """Its name."""
    state: str
    """Its state: a key of `by_state`."""
    seconds: Seconds | None
    """Seconds that it had been in its state when the snapshot was taken, by the upstream server's clock."""
    url: str | None
    """Its page in the upstream's own UI."""
    details: dict[str, str]
    """More about it, in the words of its system, such as the flow of a Prefect run."""


class Holders(Answer):
    """The tasks that hold a slot of the queue."""

    total: Count | None
    """How many there are."""
    by_state: dict[str, Count] | None
    """How many there are in each state."""
    oldest: list[Holder] | None
    """Those that have been in their state longest, the longest first. The exporter keeps some of each state."""

    @classmethod
    def of(cls, view: QueueView) -> Self:
        """Return the holders of a queue."""
        oldest = [
            Holder(
                id=holder.id,
                name=holder.name or None,
                state=state,
                seconds=holder.seconds,
                url=holder.url,
                details=dict(holder.details),
            )
            for state, holder in view.oldest_holders
        ]
        return cls(
            total=view.holders,
            by_state=_known({state: holders.count for state, holders in view.queue.holders.items()}),
            # Without names, an empty list would say that nothing holds a slot.
            oldest=oldest if oldest or view.holders == 0 else None,
        )


class Queued(Answer):
    """The tasks that wait in the queue."""

    total: Count | None
    """How many there are."""
    by_priority: dict[str, Count] | None
    """How many there are of each priority."""
    by_state: dict[str, Count] | None
    """How many there are in each state."""
    by_reason: dict[str, Count] | None
    """How many there are by the one reason that each waits for."""
    longest_wait_seconds: Seconds | None
    """Seconds for which the oldest had been ready to start, by the upstream server's clock. Null also if none waits."""

    @classmethod
    def of(cls, view: QueueView) -> Self:
        """Return the waiting tasks of a queue."""
        queue = view.queue
        return cls(
            total=view.queued,
            by_priority=_known(queue.queued),
            by_state=_known({state: waiting.count for state, waiting in queue.waiting.items()}),
            by_reason=_known(queue.blocked),
            longest_wait_seconds=queue.longest_wait,
        )


class Queue(Answer):
    """A queue, as of the last good poll of its source."""

    source: str
    """Name of the source."""
    system: str
    """System of the source, such as `prefect`."""
    pool: str
    """Name of its pool; empty for a system without pools."""
    queue: str
    """Its name."""
    url: str | None
    """Its page in the upstream's own UI."""
    taken_at: Moment
    """When the poll began that found this."""
    age_seconds: Seconds
    """Seconds since then, when the answer was made."""
    expires_in_seconds: Seconds
    """Seconds until this is too old to be served."""
    paused: bool | None
    """Whether it is paused."""
    active_slots: Count | None
    """Slots in use."""
    slot_limit: Count | None
    """How many slots can be in use at the same time. Null also if there is no limit."""
    free_slots: Count | None
    """Slots below the limit that are not in use."""
    queued: Queued
    """The tasks that wait in it."""
    holders: Holders
    """The tasks that hold its slots."""

    @classmethod
    def of(cls, view: QueueView, now: View) -> Self:
        """Return a queue, with its age now."""
        queue, origin = view.queue, view.origin
        return cls(
            source=origin.source,
            system=origin.system,
            pool=queue.pool,
            queue=queue.name,
            url=queue.url,
            taken_at=moment(origin.taken_at),
            age_seconds=_rounded(origin.age(now)),
            expires_in_seconds=_rounded(origin.expires_in(now)),
            paused=queue.paused,
            active_slots=queue.active_slots,
            slot_limit=queue.slot_limit,
            free_slots=queue.free_slots,
            queued=Queued.of(view),
            holders=Holders.of(view),
        )


class Limit(Answer):
    """A limit that is neither a queue nor a pool, as of the last good poll of its source."""

    source: str
    """Name of the source."""
    system: str
    """System of the source, such as `prefect`."""
    kind: str
    """Kind of the limit: `global`, `tag` or `deployment`."""
    limit: str
    """Its name."""
    url: str | None
    """Its page in the upstream's own UI, or the list of limits."""
    taken_at: Moment
    """When the poll began that found this."""
    age_seconds: Seconds
    """Seconds since then, when the answer was made."""
    expires_in_seconds: Seconds
    """Seconds until this is too old to be served."""
    active: bool
    """Whether it is enforced."""
    active_slots: Count
    """Slots in use."""
    slot_limit: Count
    """How many slots can be in use at the same time."""
    free_slots: Count
    """Slots below the limit that are not in use."""
    slot_decay_per_second: Seconds
    """Slots that it releases by itself each second."""

    @classmethod
    def of(cls, view: LimitView, now: View) -> Self:
        """Return a limit, with its age now."""
        limit, origin = view.limit, view.origin
        return cls(
            source=origin.source,
            system=origin.system,
            kind=limit.kind,
            limit=limit.name,
            url=limit.url,
            taken_at=moment(origin.taken_at),
            age_seconds=_rounded(origin.age(now)),
            expires_in_seconds=_rounded(origin.expires_in(now)),
            active=limit.active,
            active_slots=limit.active_slots,
            slot_limit=limit.slot_limit,
            free_slots=max(limit.slot_limit - limit.active_slots, 0),
            slot_decay_per_second=limit.slot_decay,
        )


class Missing(Answer):
    """A source of which the answer lacks something that could belong to it."""

    source: str
    """Name of the source."""
    error: str
    """What is missing, and why."""


class Listing(Answer):
    """A page of a list."""

    total: Count
    """How many passed the filter, on all pages together."""
    page: Annotated[int, Field(ge=1)]
    """Number of this page."""
    pages: Annotated[int, Field(ge=1)]
    """Number of the last page."""
    missing: list[Missing]
    """Sources without data, and those whose last poll could not read everything. If there is one, there may be more
    than the answer has."""


class Queues(Listing):
    """A page of queues, those first that need attention."""

    queues: list[Queue]
    """Up to 100 queues."""


class Limits(Listing):
    """A page of limits, those first of which the most slots are in use."""

    limits: list[Limit]
    """Up to 100 limits."""


class Failure(Answer):
    """Why a poll failed."""

    reason: FailureReason
    """The value of the label `reason` of `concurrency_exporter_poll_errors_total`."""
    message: str
    """The error in full."""


class LeftOut(Failure):
    """Something that the last poll could not read."""

    part: Part
    """What kind of data it is."""
    pool: str | None
    """The pool that it is, or belongs to."""
    queue: str | None
    """The queue that it is."""


class Source(Answer):
    """A source: how its last poll ended, and the data that is served."""

    source: str
    """Name of the source."""
    system: str
    """Its system, such as `prefect`."""
    up: bool
    """Whether the last poll succeeded, at least in part."""
    outcome: Outcome | None
    """How the last poll ended. Null while the first one is running."""
    since: Moment
    """Since when polls have ended like this."""
    poll_seconds: Seconds | None
    """Seconds that the last poll took."""
    next_poll_in_seconds: Seconds | None
    """Seconds until the next poll begins; 0 while one is running. Null before the first one has ended."""
    taken_at: Moment | None
    """When the poll began that found the data. Null if there is no data to serve."""
    age_seconds: Seconds | None
    """Seconds since then, when the answer was made."""
    expires_in_seconds: Seconds | None
    """Seconds until the data is too old to be served."""
    last_success_at: Moment | None
    """When the last good poll began, even if its data has expired."""
    queues: Count | None
    """Queues in the data."""
    pools: Count | None
    """Pools in the data."""
    limits: Count | None
    """Limits in the data that are neither queues nor pools."""
    version: str | None
    """Version of the upstream server."""
    shard: str
    """The part of the source that this exporter reads, as `--shard` writes it."""
    failure: Failure | None
    """Why the last poll failed, if it did."""
    left_out: list[LeftOut] | None
    """Up to 100 things that are missing in the data because the poll could not read them."""
    left_out_total: Count | None
    """How many these are."""
    unsupported: list[Part] | None
    """Kinds of data that this server does not have."""

    @classmethod
    def of(cls, state: SourceState, now: View) -> Self:
        """Return a source as it is now."""
        data = state.published
        snapshot = data.snapshot if data else None
        due = None if state.next_poll is None else _rounded(max(state.next_poll - now.moment, 0.0))
        return cls(
            source=state.name,
            system=state.system,
            up=state.up,
            outcome=state.outcome,
            since=moment(state.since),
            poll_seconds=state.duration,
            next_poll_in_seconds=due,
            taken_at=moment(data.taken_at) if data else None,
            age_seconds=_rounded(max(now.now - data.taken_at, 0.0)) if data else None,
            expires_in_seconds=_rounded(max(data.expires - now.moment, 0.0)) if data else None,
            last_success_at=None if state.last_success is None else moment(state.last_success),
            queues=len(snapshot.queues) if snapshot else None,
            pools=len(snapshot.pools) if snapshot else None,
            limits=len(snapshot.limits) if snapshot else None,
            version=snapshot.version or None if snapshot else None,
            shard=str(state.shard),
            failure=Failure(reason=state.failure.reason, message=state.failure.message) if state.failure else None,
            left_out=[_left_out(one) for one in snapshot.unreadable[:MOST_LEFT_OUT]] if snapshot else None,
            left_out_total=len(snapshot.unreadable) if snapshot else None,
            unsupported=list(snapshot.unsupported) if snapshot else None,
        )


class Sources(Answer):
    """All sources."""

    sources: list[Source]
    """The sources, in the order of the configuration."""


class Headroom(Answer):
    """How many more tasks can be submitted to a queue that would start at once, as of the last good poll."""

    headroom: Count | None
    """How many more would start: `free_slots` less `queued`, and at least 0. Null if nothing limits the queue."""
    free_slots: Count | None
    """Free slots of what limits it. Null if nothing does."""
    queued: Count
    """Tasks that already wait for these slots."""
    wanted_slots: Count | None
    """Slots of the queue in use, and one for each waiting task that could start. Null if the slots in use are not
    known."""
    limited_by: str | None
    """What has the fewest slots to spare: `queue`, `pool`, or kind and name of a limit, such as `tag:gpu`."""
    age_seconds: Seconds
    """Seconds since the poll began that found this, when the answer was made."""

    @classmethod
    def of(cls, found: Found, origin: views.Origin, now: View) -> Self:
        """Return a headroom, with its age now."""
        return cls(
            headroom=found.headroom,
            free_slots=found.free_slots,
            queued=found.queued,
            wanted_slots=found.wanted_slots,
            limited_by=found.limited_by,
            age_seconds=_rounded(origin.age(now)),
        )


def queues(page: Page[QueueView], states: Iterable[SourceState], now: View) -> Queues:
    """Return a page of queues of these sources."""
    found = [Queue.of(view, now) for view in page.items]
    missing = _missing(states, "queues")
    return Queues(queues=found, total=page.total, page=page.number, pages=page.pages, missing=missing)


def limits(page: Page[LimitView], states: Iterable[SourceState], now: View) -> Limits:
    """Return a page of limits of these sources."""
    found = [Limit.of(view, now) for view in page.items]
    missing = _missing(states, "limits")
    return Limits(limits=found, total=page.total, page=page.number, pages=page.pages, missing=missing)


def _missing(states: Iterable[SourceState], part: Part) -> list[Missing]:
    return [Missing(source=state.name, error=what) for state, what in views.missing(states, part)]


def _left_out(one: model.Unreadable) -> LeftOut:
    return LeftOut(
        part=one.part, pool=one.pool or None, queue=one.queue or None, reason=one.reason, message=one.message
    )


def _known(counts: Mapping[str, int]) -> dict[str, int] | None:
    """The counts; None where upstream gives none, not even zeros."""
    return dict(counts) or None


def moment(timestamp: float) -> str:
    """Seconds since the epoch as text, to the millisecond."""
    return datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
