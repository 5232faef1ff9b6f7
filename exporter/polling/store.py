"""The state of each source: how its last poll ended, the data to serve, and the memory for the next poll."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from exporter.clock import Clock
from exporter.metrics.exposition import QueueKey, Rendered
from exporter.model import FailureReason, Outcome, Part, RateLimit, Retirement
from exporter.polling.outcome import Ended, Failure, Published, Succeeded
from exporter.shard import WHOLE, Shard

_ANNOUNCEMENT_LIVES: Final = 24 * 3600
"""Seconds for which an announced end counts. A route that is never asked again can't take it back."""


@dataclass(frozen=True, slots=True, eq=False)
class SourceState:
    """The state of one source. Every change makes a new one, so two are equal only if they are the same.

    `outcome` is None until the first poll has ended. `since` (seconds since the epoch) is when polls began to end the
    way the last one did, `duration` the seconds that the last one took. `published` is the last good snapshot, until
    it expires.
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
    """The part of the source that this exporter reads."""
    left_out: tuple[tuple[Part, str, str, FailureReason], ...] = ()
    """Part, pool, queue and reason of what the last poll left out of its snapshot, sorted."""
    unsupported: tuple[Part, ...] = ()
    """The parts that the server did not have at the last good poll."""
    precedence: tuple[QueueKey, ...] = ()
    """The queues that a cap on the series keeps first, as of the last good poll."""
    memory: object = None
    """The memory of the source for its next poll, as the last good one left it."""
    retirements: Mapping[str, Retirement] = field(default_factory=dict)
    """By route, the end that its last answer announced, for a day. It outlives the poll: some routes are asked once."""
    heard: Mapping[str, float] = field(default_factory=dict)
    """By route, when its end was last announced, by the monotonic clock."""
    next_poll: float | None = None
    """When the next poll was due, by the monotonic clock, as of the end of the last one; None without a schedule."""

    @property
    def up(self) -> bool:
        """Whether the last poll succeeded, at least in part."""
        return self.outcome in {"success", "partial"}


@dataclass(frozen=True, slots=True)
class View:
    """What is known of every source at one moment. It does not change: a request is answered from one view."""

    now: float
    """The moment, in seconds since the epoch."""
    moment: float
    """The same by the monotonic clock, by which snapshots expire and polls are due."""
    states: tuple[SourceState, ...]
    """The sources in the order in which they were added, without snapshots that have expired."""
    is_ready: bool
    """Whether there was a moment, since the start, at which every source that is configured had been polled."""

    @property
    def live(self) -> Mapping[str, Rendered]:
        """The text of each snapshot that is served, by the name of its source."""
        return {state.name: state.published.rendered for state in self.states if state.published}


class Store:
    """States by the name of their source. Used on the event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, SourceState] = {}
        self._is_ready = False

    def knows(self, name: str) -> bool:
        """Whether there is a source of this name."""
        return name in self._states

    def add(self, name: str, system: str, shard: Shard = WHOLE) -> None:
        """A source that was not polled yet."""
        self._states[name] = SourceState(name=name, system=system, since=self._clock.now(), shard=shard)

    def remove(self, name: str) -> None:
        """Forget a source, and with it all of its series."""
        del self._states[name]

    def configured(self) -> None:
        """The sources are those of the configuration now: all were added, and those that are gone were removed."""
        self._see_whether_ready()

    def _see_whether_ready(self) -> None:
        # Once ready, always ready: a source that a reload adds must not take away those that are served.
        self._is_ready = self._is_ready or all(state.outcome for state in self._states.values())

    def prolong(self, name: str, seconds: float) -> None:
        """Serve the snapshot of a source for so much longer, or shorter; one that has expired does not come back."""
        state = self._now(name)
        if published := state.published:
            state = replace(state, published=replace(published, expires=published.expires + seconds))
        self._states[name] = state

    def poll_ended(self, name: str, ended: Ended) -> None:
        """Keep what came of a poll, in one step. A good snapshot is served until it expires or a new one comes."""
        state = self._now(name)
        since = state.since if ended.outcome == state.outcome else self._clock.now()
        moment = self._clock.monotonic()
        heard = {**state.heard, **dict.fromkeys(ended.announced, moment)}
        retirements = {
            route: retirement
            for route, retirement in {**state.retirements, **ended.announced}.items()
            if retirement and heard[route] + _ANNOUNCEMENT_LIVES > moment
        }
        state = replace(
            state,
            outcome=ended.outcome,
            since=since,
            duration=ended.duration,
            retirements=retirements,
            heard={route: heard[route] for route in retirements},
        )
        if isinstance(ended, Succeeded):
            snapshot = ended.published.snapshot
            self._states[name] = replace(
                state,
                failure=None,
                rate_limit=snapshot.rate_limit,
                published=ended.published,
                last_success=ended.published.taken_at,
                left_out=tuple(sorted((one.part, one.pool, one.queue, one.reason) for one in snapshot.unreadable)),
                unsupported=snapshot.unsupported,
                precedence=ended.published.rendered.precedence,
                memory=snapshot.memory,
            )
        else:
            self._states[name] = replace(state, failure=ended.failure, rate_limit=ended.rate_limit, left_out=())
        self._see_whether_ready()

    def plan(self, name: str, seconds: float | None) -> None:
        """The next poll of a source is due in so many seconds; None without a schedule."""
        due = None if seconds is None else self._clock.monotonic() + seconds
        self._states[name] = replace(self._states[name], next_poll=due)

    def state(self, name: str) -> SourceState:
        """Return the state of one source, with its snapshot even if that has expired."""
        return self._states[name]

    def serves(self, name: str) -> bool:
        """Whether a source has a snapshot that is fresh enough to serve."""
        return self._now(name).published is not None

    def view(self) -> View:
        """Return what is known now."""
        moment = self._clock.monotonic()
        states = tuple(_fresh(state, moment) for state in self._states.values())
        return View(self._clock.now(), moment, states, self._is_ready)

    def _now(self, name: str) -> SourceState:
        return _fresh(self._states[name], self._clock.monotonic())


def _fresh(state: SourceState, moment: float) -> SourceState:
    """Return the state without its snapshot if that has expired by then, on the monotonic clock."""
    return replace(state, published=None) if state.published and state.published.expires <= moment else state
