"""How time passes in the demo: in whole seconds, only when asked, with load that comes in waves."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import cos, floor, pi

TICK = timedelta(seconds=1)
WARM_UP = timedelta(minutes=15)
"""How long a world has already run when the demo starts, so that the first poll finds it busy."""
CATCH_UP = timedelta(minutes=15)
"""The most that is simulated at once. More would hold the event loop after a laptop has slept for a night."""


def ticks(last: datetime, now: datetime) -> Iterator[datetime]:
    """The ticks after `last` up to `now`: only those of the last `CATCH_UP`, none when the clock went back."""
    due = (now - last) // TICK
    for tick in range(max(0, due - CATCH_UP // TICK) + 1, due + 1):
        yield last + tick * TICK


@dataclass(frozen=True, slots=True)
class Wave:
    """The arrivals at a queue: a trickle, and once in every period a surge.

    A surge outruns what the slots can do, so that the queue fills up, saturates while work waits, and drains.
    """

    calm: float
    """Arrivals per second between the surges."""
    peak: float = 0.0
    """Arrivals per second on top of that, at the height of the surge."""
    period: int = 240
    """Seconds from one surge to the next."""
    starts: int = 0
    """Seconds into the period at which the surge begins: what keeps the queues out of phase."""
    lasts: int = 80
    """Seconds that the surge lasts."""

    def arrivals(self, second: int) -> int:
        """Return how many arrive in one second; `second` counts from the start of the demo."""
        return floor(self._arrived(second + 1)) - floor(self._arrived(second))

    def _arrived(self, second: int) -> float:
        """The integral of the rate. Drawing lots instead would make some surges too small to saturate anything."""
        surges, into = divmod(second - self.starts, self.period)
        half_sine = self.lasts / pi
        done = 2 * half_sine * surges + half_sine * (1 - cos(pi * min(into, self.lasts) / self.lasts))
        return self.calm * second + self.peak * done
