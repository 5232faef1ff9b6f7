"""cloro's world: the async tasks of one organization, by priority, and the slots of its plan.

A pure simulation, as `world.py` is for Prefect.
"""

from datetime import datetime
from heapq import heappop, heappush
from random import Random

from exporter.demo.pace import TICK, WARM_UP, Wave, ticks

MAX_SLOTS = 20
"""`concurrency.max`: what the plan allows."""
PRIORITIES = range(1, 11)
"""The levels; the highest number is served first."""
MAX_QUEUED = 2_000
"""Tasks that wait, at most."""

_SHARES = (2, 1, 4, 1, 60, 1, 4, 15, 2, 10)
"""How the tasks are spread over the levels 1 to 10; 5 is what one gets without asking."""
_WAVE = Wave(0.4, 4.0, period=210, starts=140, lasts=80)
_PROCESSING = (5.0, 14.0)
"""The shortest and the longest that a task is processed, in seconds."""
_MAINTENANCE_EVERY, _MAINTENANCE_STARTS, _MAINTENANCE_LASTS = 420, 230, 20
"""When usage can't be told, in seconds: rare, and long enough that a poll sees it."""


class Tasks:
    """The queue at the moment to which it was last advanced."""

    def __init__(self, start: datetime, seed: int = 1) -> None:
        self._start = start
        self._now = start - WARM_UP
        self._dice = Random(seed)  # noqa: S311 - a demo has nothing to hide
        self._queued = dict.fromkeys(reversed(PRIORITIES), 0)
        self._ends: list[float] = []  # a heap of the seconds, after the start, at which a task is done
        self.advance(start)

    def advance(self, now: datetime) -> None:
        """Play on until `now`, at most `CATCH_UP` of it."""
        for moment in ticks(self._now, now):
            self._now = moment
            self._second_passes((moment - self._start) // TICK)

    @property
    def queued(self) -> dict[int, int]:
        """The waiting tasks by priority, highest first; only the levels that have some."""
        return {priority: count for priority, count in self._queued.items() if count}

    @property
    def processing(self) -> int:
        """The tasks being processed. Each holds one slot."""
        return len(self._ends)

    @property
    def usage_known(self) -> bool:
        """Whether cloro can tell at present how many slots are used."""
        second = (self._now - self._start) // TICK
        return (second - _MAINTENANCE_STARTS) % _MAINTENANCE_EVERY >= _MAINTENANCE_LASTS

    def _second_passes(self, second: int) -> None:
        while self._ends and self._ends[0] <= second:
            heappop(self._ends)
        for priority in self._queued:
            while self._queued[priority] and len(self._ends) < MAX_SLOTS:
                self._queued[priority] -= 1
                heappush(self._ends, second + self._dice.uniform(*_PROCESSING))
        arriving = min(_WAVE.arrivals(second), MAX_QUEUED - sum(self._queued.values()))
        for priority in self._dice.choices(PRIORITIES, _SHARES, k=arriving):
            self._queued[priority] += 1
