"""The domain, immutable: what one poll of a source found. No metric names and no JSON in here."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, get_args

FailureReason = Literal[
    "timeout", "connect", "tls", "auth", "rate_limited", "http_status", "too_large", "contract", "internal"
]
"""Why a poll, or the reading of one queue, failed: all the values of the label `reason`."""
FAILURE_REASONS: Final[tuple[FailureReason, ...]] = get_args(FailureReason)

Outcome = Literal["success", "partial", "failure", "skipped"]
"""How a poll ended: all the values of the label `outcome`."""
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Holder:
    """A task that holds a slot.

    `name` is for people to read, and empty where upstream does not say. `seconds` is how long it has been in its state,
    by upstream's clock when the snapshot was taken. `url` is its page in the upstream's own UI, made by its system.
    `details` are values that only its system knows, by the system's own words, such as the flow of a run.
    """

    id: str
    name: str = ""
    seconds: float | None = None
    url: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Holders:
    """The holders that are in one state.

    `seconds` is how long each has been in it, by upstream's clock, and is never negative. It may be shorter than
    `count`: a holder whose duration upstream does not know still holds its slot. `oldest` are some of them, longest
    first; those with an unknown duration come last.
    """

    count: int
    seconds: Sequence[float] = ()
    oldest: Sequence[Holder] = ()


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task that waits for a slot. `seconds` is how long it could have been started.

    `reason` is why it waits, one of those of `Queue.blocked`, or None if that is not known. All else is as of a
    `Holder`.
    """

    id: str
    name: str = ""
    seconds: float | None = None
    url: str | None = None
    details: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The queued tasks that are in one state. `oldest` are some of them, longest first.

    `for_slot` is whether they wait for a slot of the queue or its pool, and not for one of another limit.
    """

    count: int
    oldest: Sequence[WaitingTask] = ()
    for_slot: bool = True


class _Slots:
    """Slots in use, and a limit of them. None is not known, or no limit."""

    __slots__ = ()
    active_slots: int | None
    slot_limit: int | None

    @property
    def free_slots(self) -> int | None:
        """Slots that can be taken; None without a limit, or if it is not known."""
        if self.active_slots is None or self.slot_limit is None:
            return None
        return max(self.slot_limit - self.active_slots, 0)

    @property
    def is_full(self) -> bool:
        """Whether no slot is free, as far as that is known."""
        return self.free_slots == 0

    @property
    def utilization(self) -> float | None:
        """Share of the slots that are in use, 1 for a limit of 0; None without a limit, or if it is not known."""
        if self.active_slots is None or self.slot_limit is None:
            return None
        return self.active_slots / self.slot_limit if self.slot_limit else 1.0


@dataclass(frozen=True, slots=True)
class Queue(_Slots):
    """A thing that work waits in and that hands out slots.

    `None` means that upstream does not say; an empty mapping that it says "none", or was not asked. `pool` is empty
    where the system has no pools. `usage_known` is whether upstream could say how many slots are taken, and None where
    it was not asked. `queued` is tasks by priority, `waiting` the same tasks by the name of their state, `holders` is
    keyed by the type of their state. `url` is its page in the upstream's own UI.
    """

    pool: str
    name: str
    usage_known: bool | None = None
    active_slots: int | None = None
    slot_limit: int | None = None
    limit_known: bool = True
    """Whether upstream says what the limit is, or that there is none."""
    processing: int | None = None
    holders: Mapping[str, Holders] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    blocked: Mapping[str, int] = field(default_factory=dict)
    """The queued tasks by the one reason that each waits for, made by `blocked_by`."""
    longest_wait: float | None = None
    """Seconds, by upstream's clock, for which the task that waits longest could have been started."""
    paused: bool | None = None
    last_polled: float | None = None
    """When a worker last asked for work, in seconds since the epoch."""
    id: str = ""
    priority: int | None = None
    url: str | None = None

    @property
    def slot_waiting(self) -> int | None:
        """Queued tasks that wait for a slot of the queue or its pool; None if the queued tasks are not known."""
        if not self.queued:
            return None
        if not self.waiting:
            return sum(self.queued.values())
        return sum(waiting.count for waiting in self.waiting.values() if waiting.for_slot)

    @property
    def why(self) -> tuple[str, int] | None:
        """Return the reason that most queued tasks wait for, and how many do; None if none waits."""
        reason, tasks = max(self.blocked.items(), key=lambda one: one[1], default=("", 0))
        return (reason, tasks) if tasks else None

    @property
    def need(self) -> int:
        """Its need for attention: 1 if work waits or no slot is free, 2 if it holds slots, 3 otherwise."""
        if self.is_full or any(self.queued.values()):
            return 1
        return 2 if self.active_slots or self.processing else 3


UNKNOWN_REASON: Final = "unknown"
"""The reason of the tasks of which the upstream does not tell enough."""


def blocked_by(found: Mapping[str, int], reasons: Collection[str], queued: int) -> dict[str, int]:
    """Return how many of the queued tasks wait for each reason: all the reasons that a system has, 0 where none does.

    The tasks without a reason in `found` are `unknown`, so that the sum is always `queued`. Raises `ValueError` if
    `found` has a reason that is none of the system's, or more tasks than are queued.
    """
    if others := found.keys() - set(reasons):
        raise ValueError(f"{sorted(others)} are none of the reasons that the system declares")
    unknown = queued - sum(found.values())
    if unknown < 0 or any(tasks < 0 for tasks in found.values()):
        raise ValueError(f"{dict(found)} are not reasons of {queued} tasks")
    return {reason: found.get(reason, 0) for reason in reasons} | {UNKNOWN_REASON: unknown}


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a pool by status, and when the newest heartbeat came, in seconds since the epoch."""

    by_status: Mapping[str, int]
    last_heartbeat: float | None


@dataclass(frozen=True, slots=True)
class Pool(_Slots):
    """A limit above the limits of its queues, such as a work pool of Prefect.

    None and an empty text mean that upstream does not say, or was not asked. `url` is its page in the upstream's own
    UI.
    """

    name: str
    id: str = ""
    kind: str = ""
    paused: bool | None = None
    active_slots: int | None = None
    slot_limit: int | None = None
    statuses: Mapping[str, bool] = field(default_factory=dict)
    """Each status that a pool can have, and whether it has it."""
    workers: Workers | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Limit(_Slots):
    """A limit that is no queue. `kind` is `global`, `tag` or `deployment`; `name` is for people to read.

    `url` is its page in the upstream's own UI, or the list of limits where it has none.
    """

    name: str
    kind: str
    id: str
    active_slots: int
    slot_limit: int
    slot_decay: float
    """Slots given back each second."""
    active: bool
    url: str | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The upstream's rate-limit headers of the last answer: requests allowed, and requests left, in its window."""

    limit: int | None
    remaining: int | None


@dataclass(frozen=True, slots=True)
class Retirement:
    """The end of a route as an answer announces it: from when it is deprecated, and when it goes; one may be None.

    `link` is where upstream explains it, or empty.
    """

    deprecation: datetime | None = None
    sunset: datetime | None = None
    link: str = field(default="", compare=False)


def first_of(retirements: Iterable[Retirement]) -> Retirement:
    """The earliest date of each kind."""
    each = list(retirements)
    return Retirement(
        min((one.deprecation for one in each if one.deprecation), default=None),
        min((one.sunset for one in each if one.sunset), default=None),
        next((one.link for one in each if one.link), ""),
    )


Part = Literal["queues", "backlog", "pools", "limits", "workers"]
"""What of an upstream can be read, or left out."""
PARTS: Final[tuple[Part, ...]] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that a partial snapshot leaves out: a whole part, or of the queues one pool's, or one."""

    part: Part
    reason: FailureReason
    message: str
    pool: str = ""
    queue: str = ""

    @property
    def what(self) -> str:
        """Describe what is left out."""
        if self.queue:
            return f"queue {self.queue!r} of pool {self.pool!r}"
        if self.part == "pools" and self.pool:
            return f"pool {self.pool!r}"
        return f"the {self.part} of pool {self.pool!r}" if self.pool else f"the {self.part}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one poll of one source found, complete but for what `unreadable` names.

    `unsupported` are the parts that this server, or this version of it, does not have, and `not_collected` those that
    the configuration leaves out. `memory` is what the source
    wants to know at its next poll; only its own system looks inside.
    """

    queues: tuple[Queue, ...] = ()
    pools: tuple[Pool, ...] = ()
    limits: tuple[Limit, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    unsupported: tuple[Part, ...] = ()
    not_collected: tuple[Part, ...] = ()
    version: str = ""
    """Version of the server; empty where it is not known."""
    rate_limit: RateLimit | None = None
    memory: object = None
