"""The schedule: at once and then at each interval, never two polls of a source at a time, no source delays another."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from exporter.clock import Clock
from exporter.exposition import Format
from exporter.poller import MAX_RETRY_AFTER, Poller
from exporter.sources.cloro import CloroConfig
from exporter.store import Store
from exporter.telemetry import Telemetry
from tests.harness.exporter import series
from tests.harness.upstream import Request, Upstream, answer, never, serve

STATUS = {"queuedTasks": 3, "processingTasks": 2, "concurrency": {"used": 2, "max": 5}}


class Running:
    """A poller with its schedule, and what it counts."""

    def __init__(self) -> None:
        clock = Clock()
        self.store = Store(clock)
        self._telemetry = Telemetry(self.store, clock)
        self.poller = Poller(self.store, self._telemetry, clock)

    def polls(self, source: str, outcome: str) -> float:
        labels = frozenset({"source": source, "system": "cloro", "outcome": outcome}.items())
        return series(self._telemetry.render(Format.CLASSIC).decode())["concurrency_exporter_polls_total", labels]


def source(name: str, upstream: Upstream, **settings: object) -> CloroConfig:
    whole = {"name": name, "system": "cloro", "url": upstream.url, "authorization": {"credentials": "key"}}
    return CloroConfig.model_validate(whole | settings)


@asynccontextmanager
async def scheduled(*sources: CloroConfig) -> AsyncIterator[Running]:
    running = Running()
    await running.poller.configure(sources)
    running.poller.start()
    try:
        yield running
    finally:
        await running.poller.stop()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  a counter has no event to wait for
            await asyncio.sleep(0.01)


async def test_the_first_poll_comes_at_once_and_the_next_at_the_interval() -> None:
    async with serve(lambda _: answer(STATUS)) as upstream:
        started = datetime.now(UTC)
        async with scheduled(source("a", upstream, interval="400ms")) as running:
            await until(lambda: running.polls("a", "success") == 1)
            assert datetime.now(UTC) - started < timedelta(milliseconds=300)
            await until(lambda: running.polls("a", "success") == 4)
        # Three intervals, each with at most a tenth of jitter to either side.
        assert timedelta(milliseconds=1000) < datetime.now(UTC) - started < timedelta(milliseconds=2000)


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
        settings = {"interval": "50ms", "timeout": "10s", "stale_after": "20s"}
        async with scheduled(source("a", upstream, **settings)) as running:
            await until(lambda: running.polls("a", "skipped") >= 3)
            assert running.polls("a", "success") == 0
            go_on.set()
            await until(lambda: running.polls("a", "success") >= 2)
    assert most_at_once == 1


async def test_a_dead_source_does_not_delay_another() -> None:
    async with serve(never) as dead, serve(lambda _: answer(STATUS)) as alive:
        settings = {"interval": "50ms", "timeout": "5s", "stale_after": "10s"}
        async with scheduled(source("dead", dead, **settings), source("alive", alive, **settings)) as running:
            await until(lambda: running.polls("alive", "success") >= 10, seconds=4)
            assert running.polls("dead", "failure") == 0
            assert [state.up for state in running.store.states()] == [False, True]


@pytest.mark.parametrize(("asked", "waited"), [("3", 3), ("999999999", MAX_RETRY_AFTER)], ids=["within", "absurd"])
async def test_the_next_poll_waits_as_long_as_upstream_asks(asked: str, waited: float) -> None:
    async with serve(lambda _: answer({}, 429, {"Retry-After": asked})) as upstream:
        async with scheduled(source("a", upstream, interval="100ms")) as running:
            await until(lambda: running.polls("a", "failure") == 1)
            next_poll = running.poller.next_poll("a")
            assert next_poll is not None
            wait = (next_poll - datetime.now(UTC)).total_seconds()
            assert waited - 1 < wait <= waited
            await asyncio.sleep(0.5)  # five intervals, in which nothing may come
            assert len(upstream.requests) == 1


async def test_without_retry_after_the_next_poll_comes_as_ever() -> None:
    async with serve(lambda _: answer({}, 429)) as upstream:
        async with scheduled(source("a", upstream, interval="100ms")) as running:
            await until(lambda: running.polls("a", "failure") >= 3)


async def test_a_reload_ends_the_poll_that_runs_and_frees_what_it_held() -> None:
    async with serve(never) as hanging, serve(lambda _: answer(STATUS)) as good:
        async with scheduled(source("a", hanging, interval="5s"), source("b", good, interval="5s")) as running:
            await until(lambda: running.polls("b", "success") == 1 and bool(hanging.requests))
            kept = running.store.states()[1]
            await running.poller.configure([source("a", good, interval="5s"), source("b", good, interval="5s")])
            await until(lambda: running.polls("a", "success") == 1)
            assert {state.name: state.up for state in running.store.states()} == {"a": True, "b": True}
            assert kept in running.store.states(), "what did not change keeps its data"
            await running.poller.configure([source("b", good, interval="5s")])
            assert running.store.states() == [kept]
