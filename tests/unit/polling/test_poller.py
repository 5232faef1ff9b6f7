"""The schedule: at once and then at each interval, never two polls of a source at a time, no source delays another."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest

from exporter.polling.poller import MAX_RETRY_AFTER
from exporter.sources.cloro import CloroConfig
from tests.harness.inprocess import Exporter, Time, of_cloro
from tests.harness.loop import until
from tests.harness.process import PATIENCE
from tests.harness.upstream import Request, answer, never, serve

STATUS = {"queuedTasks": 3, "processingTasks": 2, "concurrency": {"used": 2, "max": 5}}
PATIENT = {"timeout": "20m", "stale_after": "1h"}
"""For an interval that a poll may overrun on a busy machine."""


class Running(Exporter):
    """An exporter that polls by its schedule, and what it plans."""

    def polls(self, source: str, outcome: str) -> float:
        return self.own("polls_total", source, outcome=outcome) or 0.0

    def planned(self, source: str) -> datetime:
        """When the next poll is due."""
        next_poll = self.poller.next_poll(source)
        assert next_poll
        return next_poll

    def assert_shows_the_plan(self, source: str, *, since: datetime) -> None:
        """That a request sees when the next poll is due, as planned since then, whatever time reading clocks takes."""
        before = datetime.now(UTC)
        view = self.store.view()
        due = next(state.next_poll for state in view.states if state.name == source)
        assert due is not None
        in_time = timedelta(seconds=due - view.moment)
        assert self.planned(source) - datetime.now(UTC) <= in_time <= self.planned(source) - before + (before - since)

    def assert_waits(self, source: str, seconds: float, *, since: datetime, jitter: float = 0) -> None:
        """That the next poll is planned so many seconds after the last one, which has come and ended since then.

        However late that was, and is looked at. It may be off by the jitter.
        """
        least, most = timedelta(seconds=seconds - jitter), timedelta(seconds=seconds + jitter)
        assert since + least <= self.planned(source) <= datetime.now(UTC) + most

    async def poll_now(self, source: str, *, then: float) -> None:
        """Poll it now: the next poll is planned so many seconds after that, and a request sees the plan."""
        since = datetime.now(UTC)
        await self.poller.poll(source)
        self.assert_waits(source, then, since=since)
        self.assert_shows_the_plan(source, since=since)


@asynccontextmanager
async def scheduled(*sources: CloroConfig) -> AsyncIterator[Running]:
    async with Running(*sources, time=Time.running()) as running:
        running.poller.start()
        yield running


async def test_the_first_poll_comes_at_once_and_the_next_at_the_interval() -> None:
    arrived: list[float] = []

    def note(_: Request) -> bytes:
        arrived.append(time.monotonic())
        return answer(STATUS)

    async with serve(note) as upstream:
        since = datetime.now(UTC)
        async with scheduled(of_cloro("a", upstream, interval="10m")) as running:
            await until(lambda: running.polls("a", "success") == 1)
            running.assert_waits("a", 600, since=since, jitter=60)
        arrived.clear()
        began = time.monotonic()
        async with scheduled(of_cloro("a", upstream, interval="400ms")):
            await until(lambda: len(arrived) == 4)
    assert arrived[-1] - began >= 3 * 0.36  # later only if the machine is busy


async def test_an_overrun_is_skipped_and_never_polled_twice_at_a_time() -> None:
    at_once = most_at_once = 0
    go_on = asyncio.Event()

    async def slow(_: Request) -> bytes:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await go_on.wait()
        at_once -= 1
        return answer(STATUS)

    async with serve(slow) as upstream:
        settings = {"interval": "50ms", **PATIENT}
        async with scheduled(of_cloro("a", upstream, **settings)) as running:
            await until(lambda: running.polls("a", "skipped") >= 3)
            assert running.polls("a", "success") == 0
            go_on.set()
            await until(lambda: running.polls("a", "success") >= 2)
    assert most_at_once == 1


async def test_a_dead_source_does_not_delay_another() -> None:
    async with serve(never) as dead, serve(lambda _: answer(STATUS)) as alive:
        settings = {"interval": "50ms", **PATIENT}
        async with scheduled(of_cloro("dead", dead, **settings), of_cloro("alive", alive, **settings)) as running:
            await until(lambda: running.polls("alive", "success") >= 10)
            assert running.polls("dead", "failure") == 0
            assert [state.up for state in running.store.view().states] == [False, True]


@pytest.mark.parametrize(("asked", "waited"), [("3", 3), ("999999999", MAX_RETRY_AFTER)], ids=["within", "absurd"])
async def test_the_next_poll_is_planned_for_when_upstream_asks(asked: str, waited: float) -> None:
    async with serve(lambda _: answer({}, 429, {"Retry-After": asked})) as upstream:
        since = datetime.now(UTC)
        async with scheduled(of_cloro("a", upstream, interval="100ms", **PATIENT)) as running:
            await until(lambda: running.polls("a", "failure") == 1)
            running.assert_waits("a", waited, since=since)


@pytest.mark.parametrize("step", [-1800, 1800], ids=["back", "forward"])
async def test_polls_keep_their_pace_when_the_wall_clock_is_set(step: float) -> None:
    """What is planned by wall time moves with it. The clock is looked at whenever the schedule changes."""
    async with serve(lambda _: answer(STATUS)) as upstream:
        one, other = of_cloro("a", upstream, interval="2h"), of_cloro("b", upstream, interval="2h")
        async with scheduled(one) as running:
            await until(lambda: running.polls("a", "success") == 1)
            planned = running.planned("a")
            running.time.wall += step
            await running.poller.configure([one, other])
            moved = (running.planned("a") - planned).total_seconds()
            assert abs(moved - step) < 1  # the two clocks are not read at the same moment
            await running.poller.configure([one])
            assert (running.planned("a") - planned).total_seconds() == moved


async def test_no_poll_comes_before_upstream_has_asked_for_one() -> None:
    arrived: list[float] = []

    def refuse(_: Request) -> bytes:
        arrived.append(time.monotonic())
        return answer({}, 429, {"Retry-After": "1"})

    async with serve(refuse) as upstream:
        async with scheduled(of_cloro("a", upstream, interval="100ms", **PATIENT)):
            await until(lambda: len(arrived) == 2)
    assert arrived[1] - arrived[0] >= 1


async def test_while_good_data_is_served_polls_keep_their_interval() -> None:
    """Seconds of waiting could lose data that is still good to a fault that has long ended."""
    async with serve(lambda _: answer(STATUS)) as upstream:
        async with scheduled(of_cloro("a", upstream, interval="50s")) as running:
            await until(lambda: running.polls("a", "success") == 1)
            planned = running.planned("a")
            upstream.answer = lambda _: answer({}, 429)
            for _ in range(9):
                await running.poller.poll("a")
            assert running.polls("a", "failure") == 9
            assert running.planned("a") == planned


async def test_with_nothing_to_serve_polls_come_ever_later() -> None:
    arrived: list[float] = []

    def refuse(_: Request) -> bytes:
        arrived.append(time.monotonic())
        return answer({}, 500)

    async with serve(refuse) as upstream:
        began = time.monotonic()
        async with scheduled(of_cloro("a", upstream, interval="50ms")):
            await until(lambda: len(arrived) == 5)
    # Each wait is twice the one before it; the first is the interval, with its jitter of a tenth.
    for arrival, planned in zip(arrived, accumulate((0, 0.045, 0.1, 0.2, 0.4)), strict=True):
        assert arrival - began >= planned  # later only if the machine is busy


async def test_a_poll_that_succeeds_ends_the_back_off() -> None:
    """What is planned is read, not waited for. A success brings no plan forward, so failures have to tell."""
    async with serve(lambda _: answer({}, 500)) as upstream:
        async with scheduled(of_cloro("a", upstream, interval="10s")) as running:
            await until(lambda: running.polls("a", "failure") == 1)
            await running.poll_now("a", then=20)
            upstream.answer = lambda _: answer(STATUS)
            await running.poller.poll("a")
            assert running.polls("a", "success") == 1
            upstream.answer = lambda _: answer({}, 500)
            running.time.seconds += 3600
            await running.poller.poll("a")  # its 10 s end before the 20 of the plan
            for planned in (20, 40, 80):
                await running.poll_now("a", then=planned)


async def test_polls_come_no_later_than_two_minutes_apart() -> None:
    """Without a schedule: what is planned is read, not waited for."""
    async with serve(lambda _: answer({}, 500)) as upstream:
        since = datetime.now(UTC)
        async with scheduled(
            of_cloro("a", upstream, interval="50s"), of_cloro("b", upstream, interval="5m")
        ) as running:
            await until(lambda: running.polls("a", "failure") == 1 and running.polls("b", "failure") == 1)
            for planned in (100, 120, 120, 120):
                await running.poll_now("a", then=planned)
                await running.poller.poll("b")
                running.assert_waits("b", 300, since=since, jitter=30)


async def test_retry_after_counts_where_it_asks_for_more_than_the_back_off() -> None:
    async with serve(lambda _: answer({}, 503, {"Retry-After": "7"})) as upstream:
        since = datetime.now(UTC)
        async with scheduled(of_cloro("a", upstream, interval="1s", **PATIENT)) as running:
            await until(lambda: running.polls("a", "failure") == 1)
            running.assert_waits("a", 7, since=since)
            for planned in (7, 7, 8, 16):
                await running.poll_now("a", then=planned)


async def test_names_that_can_not_be_looked_up_delay_no_other_source() -> None:
    """asyncio looks names up in a few threads, each of which is held for as long as the resolver tries."""
    found = threading.Event()
    loop = asyncio.get_running_loop()
    look_ups = [loop.run_in_executor(None, found.wait) for _ in range(64)]
    try:
        async with serve(lambda _: answer(STATUS)) as upstream:
            async with scheduled(of_cloro("a", upstream, interval="100ms")) as running:
                await until(lambda: running.polls("a", "success") >= 2)
                for path in ("/metrics", "/"):  # the first is compressed
                    answered = await asyncio.wait_for(running.get(path, Accept_Encoding="gzip"), PATIENCE)
                    assert answered.status_code == 200
    finally:
        found.set()
        await asyncio.gather(*look_ups)


async def test_a_reload_ends_the_poll_that_runs_and_frees_what_it_held() -> None:
    async with serve(never) as hanging, serve(lambda _: answer(STATUS)) as good:
        async with scheduled(of_cloro("a", hanging, interval="1h"), of_cloro("b", good, interval="1h")) as running:
            await until(lambda: running.polls("b", "success") == 1 and bool(hanging.requests))
            kept = running.store.view().states[1]
            await running.poller.configure([of_cloro("a", good, interval="1h"), of_cloro("b", good, interval="1h")])
            await until(lambda: running.polls("a", "success") == 1)
            assert {state.name: state.up for state in running.store.view().states} == {"a": True, "b": True}
            assert kept in running.store.view().states, "what did not change keeps its data"
            await running.poller.configure([of_cloro("b", good, interval="1h")])
            assert running.store.view().states == (kept,)
