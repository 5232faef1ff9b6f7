"""Results that cost time to make, kept for as long as the snapshots that they were made from are served."""

import asyncio
import weakref
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from exporter.threads import in_thread

T = TypeVar("T")

MOST: Final = 16
"""Results that are kept. There are as many different requests as clients can think of, and a list of 10,000 queues has
0.7 MB."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    made: asyncio.Task[T]
    watches: list[weakref.ref[object]]


class Kept(Generic[T]):
    """Each result is made once, in a thread; requests that come meanwhile wait for it.

    A result is dropped as soon as one of its snapshots is no longer in use, so it must not hold the `Published` itself.
    Thus it keeps no more memory in use than is served.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._entries: dict[Hashable, _Entry[T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: Hashable, data: Iterable[object], make: Callable[[], T]) -> T:
        """Return the result for these snapshots; `key` is all else that it depends on."""
        snapshots = list(data)
        whole = (key, *map(id, snapshots))
        entry = self._entries.get(whole)
        if entry is None:

            def drop(_: object) -> None:
                self._entries.pop(whole, None)

            made = asyncio.create_task(in_thread(make))
            made.add_done_callback(lambda task: drop(task) if task.cancelled() or task.exception() else None)
            entry = _Entry(made, [weakref.ref(one, drop) for one in snapshots])
            while len(self._entries) >= self._most:
                self._entries.pop(next(iter(self._entries)))
            self._entries[whole] = entry
        # A client that goes must not take the result from the others.
        return await asyncio.shield(entry.made)
