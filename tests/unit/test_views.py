"""What people and programs are shown of the snapshots: what is found, what passes a filter, and in which order."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import views
from exporter.model import Holder, Holders, Limit, Pool, Queue, Unreadable, Waiting, WaitingTask
from exporter.polling.outcome import Failure
from exporter.polling.store import SourceState, View
from exporter.shard import Shard
from exporter.views import NotFoundError, NotKnownError, Wanted
from tests.harness.states import state


def without_data(name: str = "old", *, expired: bool = True) -> SourceState:
    failure = Failure("timeout", "no answer")
    return SourceState(name, "prefect", 0, "failure", failure=failure, last_success=1_000 if expired else None)


def limit(name: str, active: int, slots: int, kind: str = "global") -> Limit:
    return Limit(name, kind, "1", active, slots, 0.0, True)


def named(found: Sequence[views.QueueView]) -> list[str]:
    return [view.queue.name for view in found]


def test_the_age_and_the_end_of_the_data() -> None:
    origin = views.queue([state("a", Queue("p", "q"))], "a", "p", "q").origin
    assert origin == views.Origin("a", "prefect", 1_000, 90)
    assert (origin.age(View(1_012.5, 40, (), True)), origin.expires_in(View(1_012.5, 40, (), True))) == (12.5, 50)
    # The wall clock was set back; the data is served a moment too long.
    assert (origin.age(View(900, 91, (), True)), origin.expires_in(View(900, 91, (), True))) == (0, 0)


def test_queues_come_in_the_order_of_need() -> None:
    in_order = [
        Queue("p", "full, most wait", active_slots=2, slot_limit=2, queued={"1": 9, "2": 1}),
        Queue("p", "over its limit", active_slots=9, slot_limit=2, queued={"1": 9}, longest_wait=50),
        Queue("p", "full, as many wait, less long", active_slots=2, slot_limit=2, queued={"1": 9}, longest_wait=9),
        Queue("p", "full", active_slots=2, slot_limit=2, queued={"1": 0}),
        Queue("p", "no slots", active_slots=0, slot_limit=0),
        Queue("p", "some wait, more used", active_slots=2, slot_limit=4, queued={"1": 1}),
        Queue("p", "some wait, less used", active_slots=1, slot_limit=4, queued={"1": 7}),
        Queue("p", "many wait, no limit", active_slots=9, queued={"1": 100}),
        Queue("p", "used", active_slots=3, slot_limit=4),
        Queue("p", "used less", active_slots=1, slot_limit=4),
        Queue("p", "used, no limit", active_slots=1),
        Queue("a", "idle", active_slots=0, slot_limit=4),
        Queue("p", "idle", active_slots=0, slot_limit=4),
        Queue("p", "unknown"),
    ]
    found = views.queues([state("prod", *reversed(in_order))])
    assert named(found) == [queue.name for queue in in_order]


def test_equal_queues_come_by_their_names() -> None:
    states = [state("b", Queue("p", "1")), state("a", Queue("q", "1"), Queue("p", "2"), Queue("p", "1"))]
    found = views.queues(states)
    assert [(view.origin.source, view.queue.pool, view.queue.name) for view in found] == [
        ("a", "p", "1"),
        ("a", "p", "2"),
        ("a", "q", "1"),
        ("b", "p", "1"),
    ]


BUSY = Queue("etl", "Nightly", active_slots=2, slot_limit=2, queued={"1": 3}, paused=False)
PAUSED = Queue("etl", "weekly", active_slots=0, slot_limit=2, queued={"1": 0}, paused=True)
ASYNC = Queue("", "async", active_slots=1, slot_limit=5)
STATES = (
    state("prod", BUSY, PAUSED),
    without_data(),
    state("straße", ASYNC, system="cloro"),
)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(), ["Nightly", "async", "weekly"]),
        (Wanted(text="night"), ["Nightly"]),
        (Wanted(text="LY"), ["Nightly", "weekly"]),
        (Wanted(text="ETL"), ["Nightly", "weekly"]),
        (Wanted(text="STRASSE"), ["async"]),
        (Wanted(text="Prod Nightly"), []),
        (Wanted(source="prod"), ["Nightly", "weekly"]),
        (Wanted(source="old"), []),
        (Wanted(system="cloro"), ["async"]),
        (Wanted(system="cloro", source="prod"), []),
        (Wanted(full=True), ["Nightly"]),
        (Wanted(full=False), ["async", "weekly"]),
        (Wanted(waiting=True), ["Nightly"]),
        (Wanted(waiting=False), ["async", "weekly"]),
        (Wanted(paused=True), ["weekly"]),
        (Wanted(paused=False), ["Nightly", "async"]),
        (Wanted(paused=True, full=True), []),
    ],
)
def test_filters_of_queues(wanted: Wanted, names: list[str]) -> None:
    assert named(views.queues(STATES, wanted)) == names


def test_pools_and_limits() -> None:
    pools = (Pool("b", active_slots=1, slot_limit=2), Pool("a", active_slots=2, slot_limit=2), Pool("c"))
    limits = (limit("gpu", 1, 2, "tag"), limit("db", 1, 2), limit("api", 3, 2))
    states = [state("prod", Queue("b", "1"), BUSY, Queue("b", "2", queued={"1": 1}), pools=pools, limits=limits)]
    found = views.pools(states)
    assert [(view.pool.name, named(view.queues)) for view in found] == [("a", []), ("b", ["2", "1"]), ("c", [])]
    assert [view.pool.name for view in views.pools(states, Wanted(full=True))] == ["a"]
    assert [view.pool.name for view in views.pools(states, Wanted(text="B"))] == ["b"]
    assert [view.limit.name for view in views.limits(states)] == ["api", "db", "gpu"]
    assert [view.limit.name for view in views.limits(states, Wanted(full=True))] == ["api"]
    assert [view.limit.name for view in views.limits(states, Wanted(text="TAG"))] == ["gpu"]
    assert [view.limit.name for view in views.limits(states, Wanted(source="other"))] == []
    assert views.pool(states, "prod", "b") == found[1]
    assert views.limit(states, "prod", "tag", "gpu").limit == limits[0]
    assert views.queue(states, "prod", "b", "1").pool == pools[0]
    assert views.queue(states, "prod", "etl", "Nightly").pool is None


def test_totals_and_the_oldest_over_all_states() -> None:
    queue = Queue(
        "p",
        "q",
        queued={"1": 2, "unknown": 1},
        holders={
            "PENDING": Holders(1, (7,), (Holder("a", seconds=7),)),
            "RUNNING": Holders(3, (9, 3), (Holder("b", seconds=9), Holder("c", seconds=3), Holder("d"))),
        },
        waiting={
            "Late": Waiting(2, (WaitingTask("e", seconds=5), WaitingTask("f"))),
            "Scheduled": Waiting(1, (WaitingTask("g", seconds=6),)),
        },
    )
    view = views.queue([state("prod", queue)], "prod", "p", "q")
    assert (view.queued, view.holders) == (3, 4)
    assert [(of_state, holder.id) for of_state, holder in view.oldest_holders] == [
        ("RUNNING", "b"),
        ("PENDING", "a"),
        ("RUNNING", "c"),
        ("RUNNING", "d"),
    ]
    assert [(of_state, task.id) for of_state, task in view.oldest_waiting] == [
        ("Scheduled", "g"),
        ("Late", "e"),
        ("Late", "f"),
    ]


def test_what_is_not_told_has_no_total() -> None:
    view = views.queue([state("prod", Queue("p", "q"))], "prod", "p", "q")
    assert (view.queued, view.holders, view.oldest_holders, view.oldest_waiting) == (None, None, [], [])
    assert (view.queue.free_slots, view.queue.utilization, view.queue.is_full) == (None, None, False)


def test_a_source_without_data_is_selected_beside_one_that_has_some() -> None:
    assert [found.name for found in views.selected(STATES)] == ["prod", "old", "straße"]
    assert [found.name for found in views.selected(STATES, Wanted(system="prefect"))] == ["prod", "old"]


@pytest.mark.parametrize("wanted", [Wanted(source="none"), Wanted(system="airflow"), Wanted("", "prod", "cloro")])
def test_a_filter_that_admits_no_source(wanted: Wanted) -> None:
    with pytest.raises(NotFoundError, match=r"no source.*; there are: prod, old, straße"):
        views.selected(STATES, wanted)


def test_no_data_at_all() -> None:
    first = SourceState("new", "cloro", since=0)
    failing = without_data("failing", expired=False)
    for states, wanted, why in (
        (STATES, Wanted(source="old"), "source 'old' has no data: the data has expired; last failure: timeout"),
        ([failing], Wanted(), "source 'failing' has no data: no poll has succeeded yet; last failure: timeout"),
        ([first], Wanted(), "source 'new' has no data yet: its first poll is running"),
        ([failing, first], Wanted(), "failing.*; source 'new'"),
        ([], Wanted(), "there are no sources"),
    ):
        with pytest.raises(NotKnownError, match=why) as error:
            views.selected(states, wanted)
        assert error.value.states == tuple(one for one in states if wanted.admits_source(one))


@pytest.mark.parametrize("name", ["old", "no such source"])
def test_one_thing_of_a_source_without_data(name: str) -> None:
    kind = NotKnownError if name == "old" else NotFoundError
    for find in (
        lambda: views.queue(STATES, name, "p", "q"),
        lambda: views.pool(STATES, name, "p"),
        lambda: views.limit(STATES, name, "global", "l"),
    ):
        with pytest.raises(kind):
            find()


def test_one_thing_that_is_not_there() -> None:
    for find, what in (
        (lambda: views.queue(STATES, "prod", "etl", "nightly"), "no queue 'nightly' of pool 'etl' in the data of"),
        (lambda: views.queue(STATES, "straße", "", "x"), "no queue 'x' in the data of source 'straße'$"),
        (lambda: views.pool(STATES, "prod", "p"), "no pool 'p' in the data of"),
        (lambda: views.limit(STATES, "prod", "tag", "gpu"), "no 'tag' limit 'gpu' in the data of"),
    ):
        with pytest.raises(NotFoundError, match=what):
            find()
    sharded = replace(state("prod"), shard=Shard(1, 3))
    with pytest.raises(NotFoundError, match=r"of which this exporter reads shard 1/3$"):
        views.queue([sharded], "prod", "p", "q")


@pytest.mark.parametrize(
    ("unreadable", "known"),
    [
        (Unreadable("queues", "timeout", "late", "p", "q"), {"other queue", "other pool", "pool", "limit"}),
        (Unreadable("queues", "timeout", "late", "p"), {"other pool", "pool", "limit"}),
        (Unreadable("queues", "timeout", "late"), {"pool", "limit"}),
        (Unreadable("pools", "timeout", "late", "p"), {"queue", "other queue", "other pool", "limit"}),
        (Unreadable("pools", "timeout", "late"), {"queue", "other queue", "other pool", "limit"}),
        (Unreadable("limits", "timeout", "late"), {"queue", "other queue", "other pool", "pool"}),
        (Unreadable("workers", "timeout", "late"), {"queue", "other queue", "other pool", "pool", "limit"}),
    ],
)
def test_what_a_poll_left_out_is_not_known_to_be_absent(unreadable: Unreadable, known: set[str]) -> None:
    states = [state("prod", unreadable=(unreadable,))]
    found = set()
    for what, find in (
        ("queue", lambda: views.queue(states, "prod", "p", "q")),
        ("other queue", lambda: views.queue(states, "prod", "p", "r")),
        ("other pool", lambda: views.queue(states, "prod", "o", "q")),
        ("pool", lambda: views.pool(states, "prod", "p")),
        ("limit", lambda: views.limit(states, "prod", "tag", "t")),
    ):
        try:
            find()
        except NotFoundError:
            found.add(what)
        except NotKnownError as error:
            assert "not known: timeout: late" in str(error)  # noqa: PT017
            assert error.states == tuple(states)  # noqa: PT017
    assert found == known


def test_a_part_of_which_nothing_is_known_is_not_empty() -> None:
    found = state("prod", Queue("p", "q"), not_collected=("limits",))
    old = replace(state("cloud", Queue("p", "q")), shard=Shard(0, 2))
    for states, why in (
        ([found], "the limits of source 'prod' are not known: its configuration does not collect them"),
        ([state(unsupported=("limits",))], "are not known: its server does not support them"),
        ([state(unreadable=(Unreadable("limits", "timeout", "late"),))], "are not known: timeout: late"),
        ([found, without_data()], "its configuration does not collect them; source 'old' has no data"),
    ):
        with pytest.raises(NotKnownError, match=why):
            views.selected(states, Wanted(), "limits")
        if len(states) == 1:
            with pytest.raises(NotKnownError, match=why):
                views.limit(states, "prod", "tag", "t")
    assert views.selected([found, old], Wanted(), "limits") == [found, old]
    assert views.selected([found], Wanted()) == [found]
    one_too_long = Unreadable("limits", "too_large", "its name is too long", "a name")
    assert views.selected([state(unreadable=(one_too_long,))], Wanted(), "limits")


def test_queues_are_read_for_their_slots_or_for_what_waits() -> None:
    for parts in (("queues",), ("backlog",)):
        assert views.why_missing(state(not_collected=parts), "queues") == ""
    assert "does not collect" in views.why_missing(state(not_collected=("queues", "backlog")), "queues")


@given(total=st.integers(0, 350), size=st.integers(1, 120))
def test_pages_have_everything_once(total: int, size: int) -> None:
    items = range(total)
    first = views.page(items, 1, size)
    pages = [views.page(items, number, size) for number in range(1, first.pages + 1)]
    assert [item for one in pages for item in one.items] == list(items)
    assert {(one.pages, one.total) for one in pages} == {(first.pages, total)}
    assert all(len(one.items) == size for one in pages[:-1])
    for number in (0, -1, first.pages + 1):
        with pytest.raises(NotFoundError, match=f"the last page is {first.pages}"):
            views.page(items, number, size)
