"""How many more tasks can be submitted to a queue that would start at once. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporter import views
from exporter.model import Queue
from exporter.polling.store import SourceState
from exporter.views import LimitView, NotKnownError, Origin, QueueView


@dataclass(frozen=True, slots=True)
class Headroom:
    """The headroom of a queue, as of the snapshot.

    `headroom` is `free_slots` less `queued`, and at least 0. Both are of the one that has the fewest slots to spare:
    `limited_by` is `queue`, `pool`, or kind and name of a limit, such as `tag:gpu`. If nothing limits the queue, these
    are None, and `queued` is what waits in the queue. `wanted_slots` is the slots in use and one for each waiting task
    that could start; None if the slots in use are not known.
    """

    headroom: int | None
    free_slots: int | None
    queued: int
    wanted_slots: int | None
    limited_by: str | None


@dataclass(frozen=True, slots=True)
class _Bound:
    """Something that limits: its free slots, and how many tasks already wait for them."""

    name: str
    free: int
    waiting: int

    @property
    def spare(self) -> int:
        return max(self.free - self.waiting, 0)


def headroom(
    states: Sequence[SourceState], source: str, pool: str, queue: str, limits: Iterable[tuple[str, str]] = ()
) -> tuple[Origin, Headroom]:
    """Return the headroom of a queue under its own limit, that of its pool, and `limits`, named by kind and name.

    Raises `NotFoundError` if one of them is not there, and `NotKnownError` if anything that matters is not known.
    """
    state, published = views.source(states, source)
    view = views.queue(states, source, pool, queue)
    named = [views.limit(states, source, *names) for names in limits]
    try:
        bounds = _of_queue(view)
        if pool:
            bounds += _of_pool(state, view, [one for one in published.snapshot.queues if one.pool == pool])
        bounds += _of_limits(view, named)
        return view.origin, _least(view, bounds)
    except _UnknownError as error:
        raise NotKnownError(f"the headroom is not known: source {source!r}: {error}", state) from None


class _UnknownError(Exception):
    """The message says what is not known."""


def _least(view: QueueView, bounds: Sequence[_Bound]) -> Headroom:
    waiting = _waiting(view.queue)
    active = view.queue.active_slots
    startable = min((waiting, *(bound.free for bound in bounds)))
    wanted = None if active is None else active + startable
    if not bounds:
        return Headroom(None, None, waiting, wanted, None)
    least = min(bounds, key=lambda bound: bound.spare)
    return Headroom(least.spare, least.free, least.waiting, wanted, least.name)


def _of_queue(view: QueueView) -> list[_Bound]:
    queue = view.queue
    free = _free(queue)
    if queue.paused:
        return [_Bound("queue", 0, _waiting(queue))]
    return [] if free is None else [_Bound("queue", free, _waiting(queue))]


def _of_pool(state: SourceState, view: QueueView, queues: Sequence[Queue]) -> list[_Bound]:
    """The bound of the pool, which all of its queues share."""
    pool = view.pool
    if pool is None or (pool.paused is None and pool.slot_limit is None):
        raise _UnknownError(f"the limit of pool {view.queue.pool!r} is not known")
    if pool.slot_limit is None and not pool.paused:
        return []
    if state.shard.total > 1:
        raise _UnknownError(f"this exporter reads shard {state.shard} of the queues that share pool {pool.name!r}")
    if unread := views.left_out(state, "queues", pool.name):
        raise _UnknownError(f"{unread[0].what}: {unread[0].reason}: {unread[0].message}")
    # What waits for a slot of its queue can't take one of the pool.
    waiting = 0
    for queue in queues:
        free = _free(queue)
        if not queue.paused:
            waiting += _waiting(queue) if free is None else min(_waiting(queue), free)
    if pool.paused:
        return [_Bound("pool", 0, waiting)]
    # Prefect before 3.6.23 does not say how many slots of a pool are in use.
    active = pool.active_slots if pool.active_slots is not None else sum(_active(queue) for queue in queues)
    return [_Bound("pool", max((pool.slot_limit or 0) - active, 0), waiting)]


def _of_limits(view: QueueView, limits: Iterable[LimitView]) -> list[_Bound]:
    """The bounds of other limits. Which tasks wait for them is not known: all those of the queue may."""
    queued = view.queued
    if queued is None:
        raise _UnknownError(f"the queued tasks of queue {view.queue.name!r} are not known")
    return [
        _Bound(f"{one.limit.kind}:{one.limit.name}", max(one.limit.slot_limit - one.limit.active_slots, 0), queued)
        for one in limits
        if one.limit.active
    ]


def _free(queue: Queue) -> int | None:
    """The free slots of a queue, None without a limit."""
    if not queue.limit_known:
        raise _UnknownError(f"the limit of queue {queue.name!r} is not known")
    if queue.slot_limit is None:
        return None
    return max(queue.slot_limit - _active(queue), 0)


def _active(queue: Queue) -> int:
    if queue.active_slots is None:
        raise _UnknownError(f"the slots in use of queue {queue.name!r} are not known")
    return queue.active_slots


def _waiting(queue: Queue) -> int:
    if queue.slot_waiting is None:
        raise _UnknownError(f"the queued tasks of queue {queue.name!r} are not known")
    return queue.slot_waiting
