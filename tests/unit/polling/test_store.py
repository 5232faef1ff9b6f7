"""What is known of a source after each poll, and for how long its snapshot is served."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pytest

from exporter.clock import Clock
from exporter.metrics.exposition import Rendered, render
from exporter.model import Pool, RateLimit, Retirement, Snapshot, Unreadable
from exporter.polling.outcome import Failed, Failure, Published, Succeeded
from exporter.polling.store import SourceState, Store

COMPLETE = Snapshot()
PARTIAL = Snapshot(unreadable=(Unreadable("queues", "timeout", "late", "pool", "queue"),))
TIMEOUT = Failure("timeout", "late")


@dataclass
class Time:
    """A clock that stands still; the two hands are far apart, as those of a real one may be."""

    seconds: float = 0.0

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: 1_000_000 + self.seconds, monotonic=lambda: 50 + self.seconds)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def store(time: Time) -> Store:
    store = Store(time.clock)
    store.add("a", "prefect")
    return store


def text(snapshot: Snapshot) -> Rendered:
    return render(snapshot, source="a", system="prefect", max_series=100)


def published(time: Time, snapshot: Snapshot = COMPLETE, lives: float = 90) -> Published:
    now = time.clock
    return Published(snapshot, text(snapshot), taken_at=now.now(), expires=now.monotonic() + lives)


def only(store: Store) -> SourceState:
    (state,) = store.view().states
    return state


def test_before_the_first_poll(store: Store, time: Time) -> None:
    time.seconds = 10
    assert asdict(only(store)) == asdict(SourceState("a", "prefect", since=1_000_000))
    assert not only(store).up


@pytest.mark.parametrize(
    ("polls", "outcome", "since"),
    [
        ("s", "success", 1),
        ("p", "partial", 1),
        ("f", "failure", 1),
        ("sss", "success", 1),
        ("ff", "failure", 1),
        ("pp", "partial", 1),
        ("sf", "failure", 2),
        ("sff", "failure", 2),
        ("fs", "success", 2),
        ("sp", "partial", 2),
        ("ps", "success", 2),
        ("pf", "failure", 2),
        ("sfs", "success", 3),
        ("sfsf", "failure", 4),
    ],
)
def test_since_is_when_polls_began_to_end_like_the_last(
    store: Store, time: Time, polls: str, outcome: str, since: int
) -> None:
    for number, poll in enumerate(polls, 1):
        time.seconds = number
        if poll == "f":
            store.poll_ended("a", Failed(TIMEOUT, number / 10))
        else:
            store.poll_ended("a", Succeeded(published(time, PARTIAL if poll == "p" else COMPLETE), number / 10))
    state = only(store)
    assert (state.outcome, state.since, state.duration) == (outcome, 1_000_000 + since, len(polls) / 10)
    assert state.up == (outcome != "failure")
    assert state.failure == (None if state.up else TIMEOUT)


def test_a_success_replaces_everything(store: Store, time: Time) -> None:
    store.poll_ended("a", Failed(TIMEOUT, 1, rate_limit=RateLimit(10, 0)))
    time.seconds = 30
    good = published(time, Snapshot(rate_limit=RateLimit(10, 9)))
    store.poll_ended("a", Succeeded(good, 2))
    state = only(store)
    assert state.published is good
    assert (state.failure, state.rate_limit, state.last_success) == (None, RateLimit(10, 9), 1_000_030)
    time.seconds = 60
    better = published(time, Snapshot(pools=(Pool("p", "1", "process", False, 1, 2),)))
    store.poll_ended("a", Succeeded(better, 2))
    state = only(store)
    assert state.published is better
    assert (state.rate_limit, state.last_success) == (None, 1_000_060)


def test_a_failure_leaves_the_last_good_snapshot(store: Store, time: Time) -> None:
    good = published(time)
    store.poll_ended("a", Succeeded(good, 2))
    time.seconds = 30
    store.poll_ended("a", Failed(TIMEOUT, 7, rate_limit=RateLimit(10, 0)))
    state = only(store)
    assert state.published is good
    assert (state.failure, state.rate_limit, state.last_success, state.duration) == (
        TIMEOUT,
        RateLimit(10, 0),
        1_000_000,
        7,
    )


@pytest.mark.parametrize(("seconds", "served"), [(0, True), (89.999, True), (90, False), (1_000, False)])
@pytest.mark.parametrize("failed", [False, True], ids=["hanging", "failing"])
def test_a_snapshot_expires_at_its_time(store: Store, time: Time, seconds: float, served: bool, failed: bool) -> None:
    good = published(time)
    store.poll_ended("a", Succeeded(good, 2))
    time.seconds = seconds
    if failed:
        store.poll_ended("a", Failed(TIMEOUT, 1))
    state = only(store)
    assert state.published is (good if served else None)
    assert state.last_success == 1_000_000
    assert state.outcome == ("failure" if failed else "success")


def test_an_expired_snapshot_never_comes_back(store: Store, time: Time) -> None:
    store.poll_ended("a", Succeeded(published(time), 2))
    time.seconds = 90
    assert only(store).published is None
    store.prolong("a", 60)
    assert only(store).published is None
    fresh = published(time)
    store.poll_ended("a", Succeeded(fresh, 2))
    assert only(store).published is fresh


def test_the_wall_clock_expires_nothing(time: Time) -> None:
    store = Store(Clock(now=lambda: 9e9 + time.seconds, monotonic=lambda: 50.0))
    store.add("a", "prefect")
    good = published(time)
    store.poll_ended("a", Succeeded(good, 2))
    time.seconds = 1e9
    assert only(store).published is good


def test_an_end_that_is_announced_counts_for_a_day_after_it_was_last_heard(store: Store, time: Time) -> None:
    """A route that is never asked again can't take it back; the wall clock does not matter."""
    end, other = (Retirement(sunset=datetime(2027, 1, day, tzinfo=UTC)) for day in (1, 2))
    day = 24 * 3600

    def after(seconds: float, announced: dict[str, Retirement | None]) -> set[str]:
        time.seconds = seconds
        store.poll_ended("a", Failed(TIMEOUT, 1, announced=announced))
        return set(only(store).retirements)

    assert after(0, {"once": end, "often": end}) == {"once", "often"}
    assert after(day - 1, {"often": other}) == {"once", "often"}
    assert after(day, {}) == {"often"}
    assert only(store).retirements == {"often": other}
    assert after(2 * day - 2, {}) == {"often"}
    assert after(2 * day - 1, {}) == set()
    assert not only(store).heard
    assert after(2 * day, {"often": end}) == {"often"}
    assert after(2 * day + 1, {"often": None}) == set()


def test_each_source_is_by_itself_and_in_order(store: Store, time: Time) -> None:
    for name in ("c", "b"):
        store.add(name, "cloro")
    store.poll_ended("c", Succeeded(published(time, lives=10), 1))
    store.poll_ended("b", Succeeded(published(time, lives=20), 1))
    store.poll_ended("a", Failed(TIMEOUT, 1))
    time.seconds = 15
    states = store.view().states
    assert [(state.name, state.system, state.up, bool(state.published)) for state in states] == [
        ("a", "prefect", False, False),
        ("c", "cloro", True, False),
        ("b", "cloro", True, True),
    ]
    store.remove("c")
    assert [state.name for state in store.view().states] == ["a", "b"]
    store.add("c", "prefect")
    assert asdict(store.view().states[-1]) == asdict(SourceState("c", "prefect", since=1_000_015))


def test_a_view_does_not_change(store: Store, time: Time) -> None:
    (before,) = first = store.view().states
    store.poll_ended("a", Succeeded(published(time), 1))
    assert only(store) is not before
    store.remove("a")
    assert first == (before,)
    assert before.published is None


def test_a_view_is_of_one_moment(store: Store, time: Time) -> None:
    store.poll_ended("a", Succeeded(published(time, lives=10), 1))
    before = store.view()
    time.seconds = 10
    after = store.view()
    assert (before.now, len(before.live)) == (1_000_000, 1)
    assert (after.now, len(after.live)) == (1_000_010, 0)
    assert store.view().states[0].last_success == 1_000_000


def test_a_snapshot_that_has_expired_is_given_up_when_a_poll_fails(store: Store, time: Time) -> None:
    store.poll_ended("a", Succeeded(published(time), 1))
    time.seconds = 90
    store.poll_ended("a", Failed(TIMEOUT, 1))
    assert store.state("a").published is None


def test_ready_is_when_every_source_was_polled_and_from_then_on(store: Store, time: Time) -> None:
    store.add("b", "cloro")
    store.configured()
    ready = [store.view().is_ready]
    store.poll_ended("a", Succeeded(published(time), 1))
    ready.append(store.view().is_ready)
    store.poll_ended("b", Failed(TIMEOUT, 1))
    ready.append(store.view().is_ready)
    store.add("c", "cloro")
    store.configured()
    ready.append(store.view().is_ready)
    assert ready == [False, False, True, True]


def test_ready_without_sources_and_when_those_that_were_not_polled_are_gone(time: Time) -> None:
    empty = Store(time.clock)
    assert not empty.view().is_ready
    empty.configured()
    empty.add("a", "prefect")
    empty.configured()
    assert empty.view().is_ready
    waiting = Store(time.clock)
    waiting.add("a", "prefect")
    waiting.configured()
    waiting.remove("a")
    waiting.add("b", "prefect")
    waiting.configured()
    assert not waiting.view().is_ready
    waiting.remove("b")
    waiting.configured()
    assert waiting.view().is_ready
