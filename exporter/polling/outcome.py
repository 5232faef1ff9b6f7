"""How a poll ended, as one value: what the store, the telemetry and the log read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.metrics.exposition import Rendered
from exporter.model import FailureReason, Outcome, RateLimit, Retirement, Snapshot

Announced = Mapping[str, Retirement | None]
"""By route, the end that its last answer in a poll announced, or that it announced none."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Published:
    """A good snapshot, and its text. `taken_at` is in seconds since the epoch, `expires` on the monotonic clock.

    What is made of it can be dropped when nothing refers to it any more.
    """

    snapshot: Snapshot
    rendered: Rendered
    taken_at: float
    expires: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a poll failed."""

    reason: FailureReason
    message: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A poll that took `duration` seconds and read everything, or left something out of its snapshot."""

    published: Published
    duration: float
    announced: Announced = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """`partial` where the snapshot leaves something out."""
        return "partial" if self.published.snapshot.unreadable else "success"

    @property
    def reasons(self) -> set[FailureReason]:
        """Why something was left out."""
        return {one.reason for one in self.published.snapshot.unreadable}


@dataclass(frozen=True, slots=True)
class Failed:
    """A poll that failed after `duration` seconds. `retry_after` is the seconds that upstream asks to wait."""

    failure: Failure
    duration: float
    retry_after: float | None = None
    rate_limit: RateLimit | None = None
    announced: Announced = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """`failure`."""
        return "failure"

    @property
    def reasons(self) -> set[FailureReason]:
        """Why it failed."""
        return {self.failure.reason}


Ended = Succeeded | Failed
