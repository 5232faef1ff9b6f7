"""What a source wants to know at its next poll travels with its snapshots, and is lost by nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from exporter.clock import Clock
from exporter.model import Queue, Snapshot
from exporter.polling.poller import Poller
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.shard import Shard
from exporter.sources.base import CountRequest, Source, SourceError
from exporter.sources.cloro import CloroConfig

TWICE = (Queue("", "q", active_slots=1),) * 2


class Counting:
    """Its memory is the number of its good polls; what it finds is said by the test."""

    def __init__(self, found: list[Snapshot | SourceError]) -> None:
        self._found = found
        self.given: list[object] = []

    async def poll(self, memory: object = None, /) -> Snapshot:
        self.given.append(memory)
        found = self._found.pop(0) if self._found else Snapshot()
        if isinstance(found, SourceError):
            raise found
        polls = memory if isinstance(memory, int) else 0
        return Snapshot(queues=found.queues, memory=polls + 1)

    async def close(self) -> None:
        """It has no connections."""


BUILT: list[Counting] = []
FOUND: list[Snapshot | SourceError] = []


class CountingConfig(CloroConfig):
    def build(self, shard: Shard, count_request: CountRequest) -> Source:  # noqa: ARG002  it sends no requests
        BUILT.append(Counting(FOUND))
        return BUILT[-1]


def config(url: str = "http://one.example", **settings: object) -> CountingConfig:
    whole = {"name": "s", "system": "cloro", "url": url, "authorization": {"credentials": "key"}}
    return CountingConfig.model_validate(whole | settings)


@asynccontextmanager
async def polled(clock: Clock | None = None) -> AsyncIterator[Poller]:
    BUILT.clear()
    FOUND.clear()
    clock = clock or Clock()
    store = Store(clock)
    poller = Poller(store, Telemetry(clock), clock)
    await poller.configure([config()])
    try:
        yield poller
    finally:
        await poller.stop()


def given() -> list[object]:
    return [memory for source in BUILT for memory in source.given]


async def test_each_poll_gets_what_the_last_one_left() -> None:
    async with polled() as poller:
        for _ in range(3):
            await poller.poll("s")
    assert given() == [None, 1, 2]


@pytest.mark.parametrize(
    "failure", [SourceError("timeout", "late"), Snapshot(queues=TWICE)], ids=["not-read", "read-and-not-rendered"]
)
async def test_a_poll_that_fails_changes_nothing(failure: Snapshot | SourceError) -> None:
    """One that fails after its source has read loses what was read: the next poll reads it again."""
    async with polled() as poller:
        await poller.poll("s")
        FOUND.append(failure)
        await poller.poll("s")
        await poller.poll("s")
    assert given() == [None, 1, 1]


async def test_it_outlives_the_data_that_is_served() -> None:
    seconds = 0.0
    async with polled(Clock(monotonic=lambda: seconds)) as poller:
        await poller.poll("s")
        seconds = 1e6
        assert poller._store.view().states[0].published is None
        await poller.poll("s")
    assert given() == [None, 1]


async def test_a_reload_keeps_it_where_the_upstream_is_the_same() -> None:
    async with polled() as poller:
        await poller.poll("s")
        await poller.configure([config(interval="7s")])
        await poller.poll("s")
        await poller.configure([config("http://other.example", interval="7s")])
        await poller.poll("s")
    assert len(BUILT) == 3
    assert given() == [None, 1, None]
