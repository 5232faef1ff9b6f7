"""Reading many things of one server, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from exporter.sources.base import SourceError

T = TypeVar("T")
R = TypeVar("R")


async def each(items: Sequence[T], read: Callable[[T], Awaitable[R]], concurrency: int) -> list[R]:
    """What `read` returns for every item, in order, `concurrency` items at a time.

    The first `SourceError` ends all; of several that come at once any is as good as the others.
    """
    results: dict[int, R] = {}
    waiting = iter(enumerate(items))

    async def worker() -> None:
        for index, item in waiting:
            results[index] = await read(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    except ExceptionGroup as errors:
        # Not `except*`: before Python 3.11.4 it puts what is raised in it into a group again.
        failed, others = errors.split(SourceError)
        if failed is None or others:
            raise
        raise failed.exceptions[0] from None
    return [results[index] for index in range(len(items))]
