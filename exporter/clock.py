"""The two clocks that the exporter reads, as a value that a test can replace."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time for what people read, monotonic time for what must not jump with the wall clock; in seconds."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
