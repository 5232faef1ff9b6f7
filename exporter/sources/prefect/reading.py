"""The rows that one poll has read of a server: nothing is counted yet."""

import uuid
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self

from exporter.model import Part, Unreadable
from exporter.sources.oldest import Tasks
from exporter.sources.prefect.api import ConcurrencyLimit, HoldingFlowRun, Worker, WorkPool, WorkQueue


@dataclass(frozen=True, slots=True)
class Discovered:
    """The pools that are read, by their ids, and all of their queues; and the pools whose queues can't be listed."""

    pools: Mapping[uuid.UUID, WorkPool]
    queues: Sequence[WorkQueue]
    unreadable: Sequence[Unreadable] = ()

    def pool_of(self, queue: WorkQueue) -> WorkPool:
        """The pool of one of these queues."""
        if queue.work_pool_id is None:
            raise KeyError(queue.id)
        return self.pools[queue.work_pool_id]


class Origin(NamedTuple):
    """What a run was made of, and the worker that has started it, or an empty text."""

    flow_id: uuid.UUID | None
    deployment_id: uuid.UUID | None
    worker: str = ""

    @classmethod
    def of(cls, run: HoldingFlowRun) -> Self:
        """That of a run."""
        return cls(run.flow_id, run.deployment_id, run.worker)


@dataclass(frozen=True, slots=True)
class Holders:
    """The runs that hold slots of one queue: a row at each index, in columns.

    There may be a million of them, and an object for each would take more memory than the columns.
    """

    state_types: list[str]
    """Those that hold slots, and `unknown` for any other."""
    seconds: list[float | None]
    """For how long each has been in its state by the server's clock."""
    oldest: Mapping[str, Tasks]
    """By state those that are named, with an `Origin` each."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of one queue. `holders` is None where upstream does not list them."""

    active_slots: int
    slot_limit: int | None
    holders: Holders | None
    taken: int | None = None
    """The runs that count against the limit when runs are handed out: PENDING and RUNNING, with the id of the queue.
    None where they are not known."""


class WaitingRun(NamedTuple):
    """A run that waits, and for how many seconds it could have been started by the server's clock.

    `due` is its next scheduled start, and `in_process` whether its own process, and no worker, will try it again.
    """

    id: uuid.UUID
    state_name: str
    seconds: float
    due: datetime | None = None
    deployment_id: uuid.UUID | None = None
    in_process: bool = False
    name: str = ""
    flow_id: uuid.UUID | None = None


class WaitingCounts(NamedTuple):
    """How many runs wait by the name of their state, and the seconds for which the oldest one does.

    `oldest` is the run that has been due for longest, which may not be the one that has waited for longest. `listed`
    are the runs of which one is.
    """

    by_state: Mapping[str, int]
    longest: float | None
    oldest: WaitingRun | None = None
    listed: Sequence[WaitingRun] = ()


@dataclass(frozen=True, slots=True)
class Backlog:
    """The runs that wait, by their queue: rows where they were listed, counts where there are too many. One is None."""

    runs: Mapping[uuid.UUID, Sequence[WaitingRun]] | None = None
    counts: Mapping[uuid.UUID, WaitingCounts] | None = None


class LimitName(NamedTuple):
    """The kind and name of a limit that is not a queue, as people know it."""

    id: uuid.UUID
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class PoolWorkers:
    """The workers of a pool that are at work; and those that were heard of last, if none of them is."""

    at_work: Sequence[Worker]
    heard_of: Sequence[Worker] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """The rows of one poll. None means not read: not wanted, not supported, or among `unreadable`."""

    at: datetime
    """The server's time when the pools and queues had been listed."""
    found: Discovered
    published: frozenset[uuid.UUID]
    """Ids of the pools and the queues that this exporter publishes: neither those of another shard, nor those that a
    filter leaves out, that can't be read, or that were deleted meanwhile."""
    slots: Mapping[uuid.UUID, Slots] | None
    """By queue: of those that are published, and of the others too if a sweep has listed all holders."""
    backlog: Backlog | None
    """Of the published queues, and of the others too if a sweep has listed all waiting runs."""
    waiting: Mapping[uuid.UUID, Mapping[str, Tasks]]
    """By queue and state those of the waiting runs that are named, with an `Origin` each."""
    limits: Sequence[ConcurrencyLimit] | None
    """All global, tag and deployment limits of the server."""
    limit_names: Mapping[uuid.UUID, LimitName]
    """The names of the limits that this exporter publishes, by id."""
    workers: Mapping[uuid.UUID, PoolWorkers] | None
    """By pool."""
    details: Mapping[Hashable, Mapping[str, str]]
    """What is known of each origin, for people: the names of `flow`, `deployment` and `worker`."""
    unreadable: Sequence[Unreadable]
    unsupported: tuple[Part, ...]
    version: str
    """Empty where it is not known."""
