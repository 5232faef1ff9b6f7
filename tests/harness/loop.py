"""The event loop of the tests: its clock can be moved on, so that a deadline comes when a test wants it to."""

import asyncio
import time
from collections.abc import Callable

from tests.harness.process import PATIENCE


class Loop(asyncio.SelectorEventLoop):
    """The clock goes on by itself, too. So a deadline that has to come only by `skip` is far away."""

    _skipped = 0.0

    def time(self) -> float:
        """The clock of all timeouts, in seconds."""
        return super().time() + self._skipped

    def skip(self, seconds: float) -> None:
        """Move the clock on: what is due by then is run next."""
        self._skipped += seconds


def skip(seconds: float) -> None:
    """Move the clock of the loop that runs on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.skip(seconds)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds that has no event; raises `TimeoutError` where it never does."""
    deadline = time.monotonic() + PATIENCE  # a clock that is not moved on
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.01)
