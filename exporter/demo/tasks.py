"""cloro's world: the async tasks of one organization, by priority, and the slots of its plan.

A pure simulation, as `world.py` is for Prefect.
"""

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from heapq import heappop, heappush
from random import Random
from typing import Literal
from uuid import uuid4

from exporter.demo.pace import TICK, WARM_UP, Wave, ticks

MAX_SLOTS = 20
"""`concurrency.max`: what the plan allows."""
PRIORITIES = range(1, 11)
"""The levels; the highest number is served first."""
MAX_QUEUED = 2_000
"""Tasks that wait, at most, of those that arrive by themselves."""
MAX_SUBMITTED = 100_000
"""Tasks that wait, at most; then no more can be submitted."""
MAX_REMEMBERED = 10_000
"""Submitted tasks that can be asked for."""

_SHARES = (2, 1, 4, 1, 60, 1, 4, 15, 2, 10)
"""How the tasks are spread over the levels 1 to 10; 5 is what one gets without asking."""
_WAVE = Wave(0.4, 4.0, period=210, starts=140, lasts=80)
_PROCESSING = (5.0, 14.0)
"""The shortest and the longest that a task is processed, in seconds."""
_MAINTENANCE_EVERY, _MAINTENANCE_STARTS, _MAINTENANCE_LASTS = 420, 230, 20
"""When usage can't be told, in seconds: rare, and long enough that a poll sees it."""


@dataclass(slots=True)
class Task:
    """A task that was submitted."""

    id: str
    type: str
    priority: int
    created: datetime
    status: Literal["QUEUED", "PROCESSING", "COMPLETED"] = "QUEUED"


class Tasks:
    """The queue at the moment to which it was last advanced. Beside what arrives by itself, tasks can be submitted."""

    def __init__(self, start: datetime, seed: int = 1, arrivals: Wave = _WAVE) -> None:
        self._start = start
        self._now = start - WARM_UP
        self._dice = Random(seed)  # noqa: S311 - a demo has nothing to hide
        self._arrivals = arrivals
        # None is a task that nobody can ask for.
        self._queued: dict[int, deque[Task | None]] = {priority: deque() for priority in reversed(PRIORITIES)}
        # A heap: the seconds, after the start, at which a task is done, and a number that no other task has.
        self._ends: list[tuple[float, int, Task | None]] = []
        self._started = 0
        self._submitted: dict[str, Task] = {}
        self.advance(start)

    def advance(self, now: datetime) -> None:
        """Play on until `now`, at most `CATCH_UP` of it."""
        for moment in ticks(self._now, now):
            self._now = moment
            self._second_passes((moment - self._start) // TICK)

    @property
    def queued(self) -> dict[int, int]:
        """The waiting tasks by priority, highest first; only the levels that have some."""
        return {priority: len(tasks) for priority, tasks in self._queued.items() if tasks}

    @property
    def processing(self) -> int:
        """The tasks being processed. Each holds one slot."""
        return len(self._ends)

    @property
    def usage_known(self) -> bool:
        """Whether cloro can tell at present how many slots are used."""
        second = (self._now - self._start) // TICK
        return (second - _MAINTENANCE_STARTS) % _MAINTENANCE_EVERY >= _MAINTENANCE_LASTS

    def submit(self, type_: str, priority: int) -> Task | None:
        """Add a task to the queue; None if that is full."""
        if sum(self.queued.values()) >= MAX_SUBMITTED:
            return None
        task = Task(str(uuid4()), type_, priority, self._now)
        self._queued[priority].append(task)
        self._submitted[task.id] = task
        if len(self._submitted) > MAX_REMEMBERED:
            del self._submitted[next(iter(self._submitted))]
        return task

    def submitted(self, task_id: str) -> Task | None:
        """The submitted task with this id."""
        return self._submitted.get(task_id)

    def _second_passes(self, second: int) -> None:
        while self._ends and self._ends[0][0] <= second:
            if done := heappop(self._ends)[2]:
                done.status = "COMPLETED"
        for tasks in self._queued.values():
            while tasks and len(self._ends) < MAX_SLOTS:
                if task := tasks.popleft():
                    task.status = "PROCESSING"
                self._started += 1
                heappush(self._ends, (second + self._dice.uniform(*_PROCESSING), self._started, task))
        arriving = min(self._arrivals.arrivals(second), MAX_QUEUED - sum(self.queued.values()))
        for priority in self._dice.choices(PRIORITIES, _SHARES, k=max(0, arriving)):
            self._queued[priority].append(None)
