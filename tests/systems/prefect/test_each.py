"""Reading many things at a time: what ends it early."""

import asyncio

import pytest

from exporter.sources.base import SourceError
from exporter.sources.prefect.each import each


async def broken(_: str) -> None:
    raise SourceError("http_status", "broken")


async def test_a_timeout_that_comes_while_an_error_ends_it_is_not_lost() -> None:
    async def read(item: str) -> None:
        if item == "broken":
            await broken(item)
        try:
            await asyncio.Event().wait()
        finally:
            deadline.reschedule(0)
            for _ in range(10):
                await asyncio.sleep(0)

    deadline = asyncio.timeout(None)
    with pytest.raises(TimeoutError):
        async with deadline:
            await each(["slow", "broken"], read, 2)


async def test_a_timeout_that_comes_after_an_error_is_one() -> None:
    async def wait() -> None:
        async with asyncio.timeout(None) as deadline:
            with pytest.raises(SourceError, match="broken"):
                await each(["one", "two"], broken, 2)
            deadline.reschedule(0)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await wait()
