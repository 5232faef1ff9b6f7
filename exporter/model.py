"""The domain, immutable: what one poll of a source found. No metric names and no JSON in here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

Reason = Literal[
    "timeout", "connect", "tls", "auth", "rate_limited", "http_status", "too_large", "contract", "internal"
]
"""Why a poll, or the reading of one queue, failed: all the values of the label `reason`."""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

Outcome = Literal["success", "partial", "failure", "skipped"]
"""How a poll ended: all the values of the label `outcome`."""
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Durations:
    """The holders that are in one state, and for how long each has been.

    `seconds` is by upstream's clock and is never negative. It may be shorter than `holders`: a holder whose
    duration upstream does not know still holds its slot.
    """

    holders: int
    seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Queue:
    """A thing that work waits in and that hands out slots.

    `None` means that upstream does not say; an empty mapping that it says "none". `pool` is empty where the
    system has no pools. `queued` is tasks by priority, `holders` is keyed by state.
    """

    pool: str
    name: str
    active_slots: int | None
    slot_limit: int | None
    processing: int | None = None
    queued: Mapping[str, int] = field(default_factory=dict)
    holders: Mapping[str, Durations] = field(default_factory=dict)
    paused: bool | None = None
    id: str = ""
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A Prefect work pool: a limit above the limits of its queues."""

    name: str
    id: str
    kind: str
    paused: bool
    active_slots: int | None
    slot_limit: int | None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What upstream's rate-limit headers said last: requests allowed, and requests left, in its window."""

    limit: int | None
    remaining: int | None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A queue (or, with an empty `queue`, the queues of a whole pool) that a partial snapshot leaves out."""

    pool: str
    queue: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one poll of one source found, complete but for what `unreadable` names."""

    queues: tuple[Queue, ...] = ()
    pools: tuple[Pool, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    rate_limit: RateLimit | None = None
