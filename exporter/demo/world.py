"""The Prefect server's world: runs arrive, wait for a slot, hold it and are gone.

A pure simulation. It reads no clock and does no I/O, and the same moments give the same world.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from uuid import UUID

from exporter.demo.pace import TICK, WARM_UP, ticks
from exporter.demo.scenario import (
    DEPLOYMENTS,
    ORPHAN,
    POOLS,
    QUEUES,
    STUCK,
    Deployment,
    Limit,
    Pool,
    Queue,
    Worker,
)

LATE_AFTER = timedelta(seconds=15)
"""PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS."""
LATE_LOOP = timedelta(seconds=5)
"""PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS."""
TRY_AGAIN_AFTER = timedelta(seconds=30)
"""For how long a run that met its deployment's limit is put back."""
HEARTBEAT = timedelta(seconds=30)
"""`heartbeat_interval_seconds` of the workers."""
MAX_WAITING = 60
"""Runs that wait in one queue, at most: a paused queue must not grow for ever."""
CANCELLED_SHARE = 0.05
"""Of the runs, those that somebody cancels: their CANCELLING holds a slot of the queue but none of the pool."""

_ADJECTIVES = ("amber", "bold", "calm", "dapper", "eager", "fluffy", "gentle", "humble", "jolly", "keen")
_ANIMALS = ("badger", "crane", "dolphin", "ermine", "falcon", "gecko", "heron", "ibex", "koala", "lemur")


class StateType(StrEnum):
    """The types of a run's state, in the server's order."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


QUEUE_HOLDERS = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
"""The states that hold a slot, as a queue's `concurrency_status` and `/work_queues/filter` count."""
POOL_HOLDERS = frozenset({StateType.PENDING, StateType.RUNNING})
"""The states that hold a slot, as the endpoints below `/work_pools` count and the scheduler enforces."""


@dataclass(frozen=True, slots=True)
class State:
    """The state a run is in."""

    id: UUID
    type: StateType
    name: str
    timestamp: datetime


@dataclass(slots=True)
class Run:
    """A flow run that waits or holds a slot."""

    id: UUID
    name: str
    queue: Queue
    deployment: Deployment
    created: datetime
    expected_start: datetime
    state: State
    due: datetime | None
    """`next_scheduled_start_time`: None once it has left SCHEDULED."""
    started: datetime | None = None
    """`start_time`: None until it is RUNNING."""
    moves_on: datetime | None = None
    """When it leaves the state it holds its slot in; None is never."""


class World:
    """What the server knows at the moment to which it was last advanced."""

    def __init__(self, start: datetime, seed: int = 1) -> None:
        self.start = start
        self.now = start - WARM_UP
        self._dice = Random(seed)  # noqa: S311 - a demo has nothing to hide
        self._waiting: dict[Queue, list[Run]] = {queue: [] for queue in QUEUES}
        self._holding: dict[Queue, list[Run]] = {queue: [] for queue in QUEUES}
        self._strand(*ORPHAN, StateType.RUNNING)
        self._strand(*STUCK, StateType.PENDING)
        self.advance(start)

    def advance(self, now: datetime) -> None:
        """Play on until `now`, at most `CATCH_UP` of it."""
        for moment in ticks(self.now, now):
            self.now = moment
            self._move_on()
            if (self.now - self.start) % LATE_LOOP < TICK:
                self._mark_late()
            for pool in POOLS:
                self._hand_out(pool)
            self._arrive()

    def runs(self) -> Iterator[Run]:
        """Every run that is not finished."""
        for queue in QUEUES:
            yield from self._waiting[queue]
            yield from self._holding[queue]

    def holders(self, queue: Queue) -> list[Run]:
        """The runs that hold a slot of the queue (see `QUEUE_HOLDERS`)."""
        return self._holding[queue]

    def taken(self, queue: Queue) -> int:
        """The slots of the queue that count against limits (see `POOL_HOLDERS`)."""
        return sum(run.state.type in POOL_HOLDERS for run in self._holding[queue])

    def taken_in_pool(self, pool: Pool) -> int:
        """The slots of the pool that are taken."""
        return sum(map(self.taken, pool.queues))

    def taken_of_limit(self, limit: Limit) -> int:
        """The slots of a global or tag limit that are taken; an inactive limit hands out none."""
        users = [queue for queue in QUEUES if (queue.pool, queue.name) in limit.users]
        running = sum(run.state.type is StateType.RUNNING for queue in users for run in self._holding[queue])
        return min(limit.limit, running * limit.slots_per_run) if limit.active else 0

    def taken_of_deployment(self, deployment: Deployment) -> int:
        """The runs of the deployment that hold a slot; a cancelling run keeps it until it has ended."""
        return sum(run.deployment == deployment for run in self._holding[DEPLOYMENTS[deployment]])

    def heartbeat(self, worker: Worker) -> datetime:
        """When the worker was last heard of."""
        if worker.died is not None:
            return self.start - worker.died
        return self.now - (self.now - self.start + timedelta(seconds=worker.offset)) % HEARTBEAT

    def _move_on(self) -> None:
        for holding in self._holding.values():
            for run in holding:
                if run.moves_on is not None and run.moves_on <= self.now:
                    self._leave_state(run)
            holding[:] = [run for run in holding if run.state.type in QUEUE_HOLDERS]

    def _leave_state(self, run: Run) -> None:
        if run.state.type is StateType.PENDING:
            run.started = self.now
            self._enter(run, StateType.RUNNING, "Running", run.queue.running)
        elif run.state.type is StateType.RUNNING and self._dice.random() < CANCELLED_SHARE:
            self._enter(run, StateType.CANCELLING, "Cancelling", (15, 45))
        else:
            self._enter(run, StateType.COMPLETED, "Completed")

    def _mark_late(self) -> None:
        for waiting in self._waiting.values():
            for run in waiting:
                if run.state.name == "Scheduled" and run.expected_start + LATE_AFTER < self.now:
                    self._enter(run, StateType.SCHEDULED, "Late")

    def _hand_out(self, pool: Pool) -> None:
        left_in_pool = MAX_WAITING if pool.limit is None else pool.limit - self.taken_in_pool(pool)
        for queue in pool.queues:
            left = left_in_pool if queue.limit is None else min(left_in_pool, queue.limit - self.taken(queue))
            if left <= 0 or queue.paused:
                continue
            due = sorted((due, run.id) for run in self._waiting[queue] if (due := run.due) and due <= self.now)
            chosen = {run_id for _, run_id in due[:left]}
            for run in [run for run in self._waiting[queue] if run.id in chosen]:
                left_in_pool -= self._start(run, pool.pending)

    def _start(self, run: Run, pending: str) -> bool:
        """Give the run a slot, unless its deployment's limit (collision strategy ENQUEUE) sends it back."""
        limit = run.deployment.limit
        if limit is not None and self.taken_of_deployment(run.deployment) >= limit:
            run.due = self.now + TRY_AGAIN_AFTER
            self._enter(run, StateType.SCHEDULED, "AwaitingConcurrencySlot")
            return False
        run.due = None
        self._enter(run, StateType.PENDING, pending, (2, 5))
        self._waiting[run.queue].remove(run)
        self._holding[run.queue].append(run)
        return True

    def _arrive(self) -> None:
        second = (self.now - self.start) // TICK
        for queue, waiting in self._waiting.items():
            for _ in range(queue.wave.arrivals(second)):
                if len(waiting) < MAX_WAITING:
                    waiting.append(self._create(queue, self.now))

    def _create(self, queue: Queue, created: datetime) -> Run:
        due = created + timedelta(seconds=queue.ahead)
        return Run(
            id=self._id(),
            name=f"{self._dice.choice(_ADJECTIVES)}-{self._dice.choice(_ANIMALS)}",
            queue=queue,
            deployment=self._dice.choice(queue.deployments),
            created=created,
            expected_start=due,
            state=State(self._id(), StateType.SCHEDULED, "Scheduled", created),
            due=due,
        )

    def _strand(self, where: tuple[str, str], since: timedelta, state: StateType) -> None:
        """Put a run that never moves on where it is stuck."""
        queue = next(queue for queue in QUEUES if (queue.pool, queue.name) == where)
        moment = self.start - since
        run = self._create(queue, moment)
        run.due = None
        if state is StateType.RUNNING:
            run.started = moment
        run.state = State(self._id(), state, state.capitalize(), moment)
        self._holding[queue].append(run)

    def _enter(self, run: Run, state: StateType, name: str, seconds: tuple[int, int] | None = None) -> None:
        """Change the run's state, for as long as between the two numbers of seconds, or until it is changed."""
        run.state = State(self._id(), state, name, self.now)
        run.moves_on = self.now + timedelta(seconds=self._dice.uniform(*seconds)) if seconds else None

    def _id(self) -> UUID:
        return UUID(int=self._dice.getrandbits(128), version=4)
