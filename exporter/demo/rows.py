"""What a Prefect server has in its database at one moment, as far as an exporter reads it.

Ids are derived from names, so that they survive a restart. There is one object of each deployment
and queue: they are compared by identity, which keeps them cheap as keys.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from uuid import NAMESPACE_URL, UUID, uuid5

from exporter.demo.states import QUEUE_HOLDERS, STATE_TYPES, StateType


@cache
def ident(*path: str) -> UUID:
    """The id of the thing with this kind and name."""
    return uuid5(NAMESPACE_URL, "/".join(("demo", *path)))


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """What runs are made of."""

    flow: str
    name: str
    tags: tuple[str, ...] = ()

    @property
    def id(self) -> UUID:
        """`deployment_id` of its runs."""
        return ident("deployment", self.flow, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Queue:
    """A work queue."""

    pool: str
    name: str
    priority: int = 1
    """Within the pool; the lower number is served first."""
    limit: int | None = None
    """`concurrency_limit`: None is unlimited, 0 hands out nothing."""
    paused: bool = False

    @property
    def id(self) -> UUID:
        """The queue's id, unlike its name unique across pools."""
        return ident("queue", self.pool, self.name)


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool."""

    name: str
    type: str = "process"
    limit: int | None = None

    @property
    def id(self) -> UUID:
        """`work_pool_id` of its queues."""
        return ident("pool", self.name)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that is no queue: global, of a task tag (`tag:<tag>`) or of a deployment (`deployment:<id>`)."""

    name: str
    limit: int
    active_slots: int = 0
    active: bool = True
    decay: float = 0.0
    """`slot_decay_per_second`: not 0 makes it a rate limit."""

    @property
    def id(self) -> UUID:
        """The limit's id."""
        return ident("limit", self.name)


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that serves a pool."""

    name: str
    pool: str
    last_heartbeat: datetime
    heartbeat_interval: timedelta
    status: str
    """As the server has stored it. A filter asks for this; an answer says what `status()` tells."""

    @property
    def id(self) -> UUID:
        """The worker's id."""
        return ident("worker", self.pool, self.name)


def status(heartbeat: datetime, interval: timedelta, now: datetime) -> str:
    """Return the status of a worker by its last heartbeat: OFFLINE when three are missing."""
    return "ONLINE" if now - heartbeat < 3 * interval else "OFFLINE"


@dataclass(frozen=True, slots=True)
class State:
    """The state a run is in."""

    id: UUID
    name: str
    timestamp: datetime

    @property
    def type(self) -> StateType:
        """The type that a state of this name has."""
        return STATE_TYPES[self.name]


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
    """`start_time`: None until it is RUNNING for the first time."""
    auto_scheduled: bool = False
    worker: str = ""
    """The worker that has started it, if one has."""


@dataclass(slots=True)
class Rows:
    """Everything that the server has; finished runs are not in it."""

    created: datetime
    """When everything but the runs was created."""
    last_polled: datetime | None
    """When workers last asked the queues for runs."""
    pools: Sequence[Pool]
    queues: Sequence[Queue]
    runs: Sequence[Run]
    limits: Sequence[Limit]
    deployments: Mapping[Deployment, Queue]
    workers: Sequence[Worker]
    unpolled: Mapping[Queue, datetime] = field(default_factory=dict)
    """The queues that no worker asks any more, and when one last did."""

    def holders(self, queue: Queue) -> list[Run]:
        """The runs that hold a slot of the queue."""
        return [run for run in self.runs if run.queue is queue and run.state.type in QUEUE_HOLDERS]

    def taken(self, states: Collection[StateType]) -> Counter[Queue]:
        """Count the runs of each queue in these states."""
        return Counter(run.queue for run in self.runs if run.state.type in states)

    def limit_of(self, deployment: Deployment) -> Limit | None:
        """The limit of the deployment, if it has one."""
        name = f"deployment:{deployment.id}"
        return next((limit for limit in self.limits if limit.name == name), None)
