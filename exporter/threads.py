"""Threads: some for what takes CPU for long, and apart from them those in which asyncio looks names up.

A look-up holds its thread for as long as the resolver tries, even when nobody waits for it any more.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_POOL: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="work")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `function` returns, without holding the event loop.

    Unlike with `asyncio.to_thread`, names that can't be looked up do not delay it.
    """
    return await asyncio.get_running_loop().run_in_executor(_POOL, partial(function, *args, **kwargs))


class LookUps:
    """The threads in which the event loop looks names up."""

    _NAME: Final = "look-up"
    _IDLE_SECONDS: Final = 0.2

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix=self._NAME)
        loop.set_default_executor(self._pool)

    def hang(self) -> bool:
        """Whether a look-up still goes on, after the threads that are idle have been ended."""
        self._pool.shutdown(wait=False)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith(self._NAME)]
        for thread in threads:
            thread.join(self._IDLE_SECONDS / len(threads))
        return any(thread.is_alive() for thread in threads)
