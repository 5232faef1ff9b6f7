"""The Prefect server's world: runs arrive, wait for a slot, hold it and are gone.

A pure simulation. It reads no clock and does no I/O, and the same moments give the same world.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from random import Random
from uuid import UUID

from exporter.demo import rows
from exporter.demo.pace import TICK, WARM_UP, ticks
from exporter.demo.rows import Rows, State
from exporter.demo.scenario import (
    DEPLOYMENTS,
    LIMITS,
    ORPHAN,
    POOLS,
    QUEUES,
    STUCK,
    UNPOLLED,
    WORKERS,
    Deployment,
    Limit,
    Pool,
    Queue,
    Worker,
)
from exporter.demo.states import POOL_HOLDERS, QUEUE_HOLDERS, StateType

LATE_AFTER = timedelta(seconds=15)
"""PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS."""
LATE_LOOP = timedelta(seconds=5)
"""PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS."""
TRY_AGAIN_AFTER = timedelta(seconds=30)
"""For how long a run that met its deployment's limit is put back."""
HEARTBEAT = timedelta(seconds=30)
"""`heartbeat_interval_seconds` of the workers."""
SET_UP = timedelta(days=200)
"""How long before the start of the demo everything but the runs was created."""
MAX_WAITING = 60
"""Runs that wait in one queue, at most: a paused queue must not grow forever."""
CANCELLED_SHARE = 0.05
"""Of the runs, those that somebody cancels: their CANCELLING holds a slot of the queue but none of the pool."""

_ADJECTIVES = ("amber", "bold", "calm", "dapper", "eager", "fluffy", "gentle", "humble", "jolly", "keen")
_ANIMALS = ("badger", "crane", "dolphin", "ermine", "falcon", "gecko", "heron", "ibex", "koala", "lemur")


@dataclass(slots=True)
class Run(rows.Run):
    """A run that is played."""

    queue: Queue
    deployment: Deployment
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
        self._strand(*ORPHAN, "Running")
        self._strand(*STUCK, "Pending")
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

    def at(self, now: datetime) -> Rows:
        """Play the server on until `now`, and return its rows."""
        self.advance(now)
        return Rows(
            created=self.start - SET_UP,
            last_polled=self.now,
            pools=POOLS,
            queues=QUEUES,
            runs=list(self.runs()),
            limits=self._limits(),
            deployments=dict(DEPLOYMENTS.items()),
            workers=[self._worker(worker, now) for worker in WORKERS],
            unpolled={queue: self.start - UNPOLLED[1] for queue in QUEUES if (queue.pool, queue.name) == UNPOLLED[0]},
        )

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

    def _worker(self, worker: Worker, now: datetime) -> rows.Worker:
        if worker.died is not None:
            heartbeat = self.start - worker.died
        else:
            heartbeat = self.now - (self.now - self.start + timedelta(seconds=worker.offset)) % HEARTBEAT
        return rows.Worker(worker.name, worker.pool, heartbeat, HEARTBEAT, rows.status(heartbeat, HEARTBEAT, now))

    def _limits(self) -> Sequence[rows.Limit]:
        return [
            *(
                rows.Limit(limit.name, limit.limit, self.taken_of_limit(limit), limit.active, limit.decay)
                for limit in LIMITS
            ),
            *(
                rows.Limit(f"deployment:{deployment.id}", deployment.limit, self.taken_of_deployment(deployment))
                for deployment in DEPLOYMENTS
                if deployment.limit is not None
            ),
        ]

    def _move_on(self) -> None:
        for holding in self._holding.values():
            for run in holding:
                if run.moves_on is not None and run.moves_on <= self.now:
                    self._leave_state(run)
            holding[:] = [run for run in holding if run.state.type in QUEUE_HOLDERS]

    def _leave_state(self, run: Run) -> None:
        if run.state.type is StateType.PENDING:
            run.started = self.now
            self._enter(run, "Running", run.queue.running)
        elif run.state.type is StateType.RUNNING and self._dice.random() < CANCELLED_SHARE:
            self._enter(run, "Cancelling", (15, 45))
        else:
            self._enter(run, "Completed")

    def _mark_late(self) -> None:
        for waiting in self._waiting.values():
            for run in waiting:
                if run.state.name == "Scheduled" and run.expected_start + LATE_AFTER < self.now:
                    self._enter(run, "Late")

    def _hand_out(self, pool: Pool) -> None:
        left_in_pool = MAX_WAITING if pool.limit is None else pool.limit - self.taken_in_pool(pool)
        for queue in pool.queues:
            left = left_in_pool if queue.limit is None else min(left_in_pool, queue.limit - self.taken(queue))
            if left <= 0 or queue.paused or (queue.pool, queue.name) == UNPOLLED[0]:
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
            self._enter(run, "AwaitingConcurrencySlot")
            return False
        run.due = None
        workers = _at_work(run.queue.pool)
        run.worker = workers[run.id.int % len(workers)]
        self._enter(run, pending, (2, 5))
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
            state=State(self._id(), "Scheduled", created),
            due=due,
            auto_scheduled=queue.ahead > 0,
        )

    def _strand(self, where: tuple[str, str], since: timedelta, worker: str, state: str) -> None:
        """Put a run that never moves on where it is stuck."""
        queue = next(queue for queue in QUEUES if (queue.pool, queue.name) == where)
        moment = self.start - since
        run = self._create(queue, moment)
        run.due = None
        run.state = State(self._id(), state, moment)
        run.worker = worker
        if run.state.type is StateType.RUNNING:
            run.started = moment
        self._holding[queue].append(run)

    def _enter(self, run: Run, state: str, seconds: tuple[int, int] | None = None) -> None:
        """Change the run's state, for as long as between the two numbers of seconds, or until it is changed."""
        run.state = State(self._id(), state, self.now)
        run.moves_on = self.now + timedelta(seconds=self._dice.uniform(*seconds)) if seconds else None

    def _id(self) -> UUID:
        return UUID(int=self._dice.getrandbits(128), version=4)


@cache
def _at_work(pool: str) -> list[str]:
    """The names of the workers of a pool that live."""
    return [worker.name for worker in WORKERS if worker.pool == pool and worker.died is None]
