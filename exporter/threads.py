"""Threads: some for what takes CPU for long, and apart from them those of look-ups and of files.

A look-up holds its thread for as long as the resolver tries, and a file for as long as its server does not answer, even
when nobody waits for it any more.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_POOL: Final = ThreadPoolExecutor(max_workers=4, thread_name_prefix="work")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `function` returns, without holding the event loop.

    Unlike with `asyncio.to_thread`, names that can't be looked up do not delay it. It is not for what reads files.
    """
    return await asyncio.get_running_loop().run_in_executor(_POOL, partial(function, *args, **kwargs))


async def in_own_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `function` returns, which may never do so, as what reads a file.

    It holds nothing else up, nor the end of the process.
    """
    return await asyncio.wrap_future(_started(partial(function, *args, **kwargs)))


class Reader(Generic[R]):
    """Calls `function`, which reads files, in a thread of its own, but never twice at once.

    While a call goes on that nobody waits for any more, no other one is started: a later one waits for that one.
    """

    def __init__(self, function: Callable[[], R]) -> None:
        self._function = function
        self._running: Future[R] | None = None

    async def read(self) -> R:
        """Return what the function returns."""
        if self._running is None or self._running.done():
            self._running = _started(self._function)
        return await asyncio.wrap_future(self._running)


def _started(function: Callable[[], R]) -> Future[R]:
    """The result of `function` in a thread that the end of the process does not wait for."""
    future: Future[R] = Future()
    # One who no longer waits for it does not cancel it: others may wait.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="file", daemon=True).start()
    return future


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
