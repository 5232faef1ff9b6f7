"""Reading many things of one server, a few at a time."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from exporter.sources.base import SourceError
from exporter.sources.prefect.api import Row, is_deleted, is_unsupported
from exporter.sources.prefect.failures import raise_if_whole_server

I = TypeVar("I", bound=Row)  # noqa: E741
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found(Generic[R]):
    """The things that were read, and the errors of those that were not: both by id, in the order of the things.

    A thing that was deleted since it was listed is in neither.
    """

    read: dict[uuid.UUID, R]
    failed: dict[uuid.UUID, SourceError]
    unsupported: SourceError | None
    """The error, if the server has no such endpoint: it says so of all, and of one if it can't find its path."""


async def each_apart(
    things: Sequence[I],
    read: Callable[[I], Awaitable[R]],
    concurrency: int,
    *,
    until: float | None = None,
    late: Callable[[I], str] = "{} was not read in time".format,
) -> Found[R]:
    """Return what `read` returns for each thing; one that can't be read costs no other.

    A thing that is not read `until` then, by the loop's clock, fails with the message of `late`. Raises `SourceError`
    if the fault is the whole server's.
    """
    found: dict[uuid.UUID, R] = {}
    failed: dict[uuid.UUID, SourceError] = {}

    async def of(thing: I) -> None:
        try:
            async with asyncio.timeout_at(until):
                found[thing.id] = await read(thing)
        except TimeoutError:
            failed[thing.id] = SourceError("timeout", late(thing))
        except SourceError as error:
            raise_if_whole_server(error)
            if not is_deleted(error):
                failed[thing.id] = error

    await each(things, of, concurrency)
    errors = {thing.id: failed[thing.id] for thing in things if thing.id in failed}
    return Found(
        {thing.id: found[thing.id] for thing in things if thing.id in found},
        errors,
        next(iter(errors.values()))
        if errors and len(errors) == len(things) and all(is_unsupported(error) for error in errors.values())
        else None,
    )


async def each(items: Sequence[T], read: Callable[[T], Awaitable[R]], concurrency: int) -> list[R]:
    """Return the result of `read` for every item, in order, `concurrency` items at a time.

    The first `SourceError` ends all; of several at the same time, any one is raised.
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
