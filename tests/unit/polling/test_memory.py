"""What a source wants to know at its next poll travels with its snapshots, and is lost by nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from exporter.model import Queue, Snapshot
from exporter.shard import Shard
from exporter.sources.base import CountRequest, Source, SourceError
from exporter.sources.cloro import CloroConfig
from tests.harness.inprocess import Exporter

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
async def polled() -> AsyncIterator[Exporter]:
    BUILT.clear()
    FOUND.clear()
    async with Exporter(config()) as exporter:
        yield exporter


def given() -> list[object]:
    return [memory for source in BUILT for memory in source.given]


async def test_each_poll_gets_what_the_last_one_left() -> None:
    async with polled() as exporter:
        for _ in range(3):
            await exporter.poll()
    assert given() == [None, 1, 2]


@pytest.mark.parametrize(
    "failure", [SourceError("timeout", "late"), Snapshot(queues=TWICE)], ids=["not-read", "read-and-not-rendered"]
)
async def test_a_poll_that_fails_changes_nothing(failure: Snapshot | SourceError) -> None:
    """One that fails after its source has read loses what was read: the next poll reads it again."""
    async with polled() as exporter:
        await exporter.poll()
        FOUND.append(failure)
        await exporter.poll()
        await exporter.poll()
    assert given() == [None, 1, 1]


async def test_it_outlives_the_data_that_is_served() -> None:
    async with polled() as exporter:
        await exporter.poll()
        exporter.time.seconds += 1e6
        assert exporter.state("s").published is None
        await exporter.poll()
    assert given() == [None, 1]


async def test_a_reload_keeps_it_where_the_upstream_is_the_same() -> None:
    async with polled() as exporter:
        await exporter.poll()
        await exporter.configure(config(interval="7s"))
        await exporter.poll()
        await exporter.configure(config("http://other.example", interval="7s"))
        await exporter.poll()
    assert len(BUILT) == 3
    assert given() == [None, 1, None]
