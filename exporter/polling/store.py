"""The last outcome of each source, replaced atomically, and which snapshots are still fresh enough to serve."""

from dataclasses import dataclass, replace

from exporter.clock import Clock
from exporter.metrics.exposition import Rendered
from exporter.model import Outcome, RateLimit, Reason, Snapshot
from exporter.shard import WHOLE, Shard


@dataclass(frozen=True, slots=True)
class Published:
    """A good snapshot, and its text. `taken_at` is in seconds since the epoch, `expires` on the monotonic clock."""

    snapshot: Snapshot
    rendered: Rendered
    taken_at: float
    expires: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last poll failed."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class SourceState:
    """What is known of one source: how its last poll ended, and the last good snapshot until it expires.

    Every change makes a new one, so two are equal only if they are the same.

    `outcome` is None until the first poll has ended. `since` (seconds since the epoch) is when polls began to end the
    way the last one did, `duration` the seconds that the last one took.
    """

    name: str
    system: str
    since: float
    outcome: Outcome | None = None
    duration: float | None = None
    failure: Failure | None = None
    rate_limit: RateLimit | None = None
    published: Published | None = None
    last_success: float | None = None
    shard: Shard = WHOLE
    """What of the source is read."""

    @property
    def up(self) -> bool:
        """Whether the last poll succeeded, at least in part."""
        return self.outcome in {"success", "partial"}


class Store:
    """States by the name of their source. Used on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, SourceState] = {}

    def knows(self, name: str) -> bool:
        """Whether there is a source of this name."""
        return name in self._states

    def add(self, name: str, system: str, shard: Shard = WHOLE) -> None:
        """A source that was not polled yet."""
        self._states[name] = SourceState(name=name, system=system, since=self._clock.now(), shard=shard)

    def remove(self, name: str) -> None:
        """Forget a source, and with it all of its series."""
        del self._states[name]

    def prolong(self, name: str, seconds: float) -> None:
        """Serve the snapshot of a source for so much longer, or shorter."""
        state = self._states[name]
        if published := state.published:
            self._states[name] = replace(state, published=replace(published, expires=published.expires + seconds))

    def succeed(self, name: str, published: Published, duration: float) -> None:
        """A poll of `duration` seconds has succeeded, at least in part."""
        outcome: Outcome = "partial" if published.snapshot.unreadable else "success"
        self._states[name] = replace(
            self._ended(name, outcome, duration),
            failure=None,
            rate_limit=published.snapshot.rate_limit,
            published=published,
            last_success=published.taken_at,
        )

    def fail(self, name: str, failure: Failure, duration: float, rate_limit: RateLimit | None) -> None:
        """A poll of `duration` seconds has failed. The last good snapshot goes on being served until it expires."""
        self._states[name] = replace(self._ended(name, "failure", duration), failure=failure, rate_limit=rate_limit)

    def _ended(self, name: str, outcome: Outcome, duration: float) -> SourceState:
        state = self._states[name]
        since = state.since if outcome == state.outcome else self._clock.now()
        return replace(state, outcome=outcome, since=since, duration=duration)

    def serves(self, name: str) -> bool:
        """Whether a source has a snapshot that is fresh enough to serve."""
        published = self._states[name].published
        return published is not None and published.expires > self._clock.monotonic()

    def states(self) -> list[SourceState]:
        """Every source as it is now, in the order in which they were added; without snapshots that have expired."""
        for name, state in self._states.items():
            if state.published and not self.serves(name):
                self._states[name] = replace(state, published=None)
        return list(self._states.values())
