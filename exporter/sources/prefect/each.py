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
    failures: list[SourceError] = []
    waiting = iter(enumerate(items))

    async def worker() -> None:
        # Nothing expected may end the group itself: until Python 3.13 it then loses a cancellation that comes
        # meanwhile, and has the timeouts around it take the next one for somebody else's.
        try:
            for index, item in waiting:
                results[index] = await read(item)
        except SourceError as error:
            failures.append(error)
            for task in workers:
                task.cancel()

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(items))]
