"""Who plays in the Prefect demo: the pools, queues, deployments, limits and workers, and how busy each queue gets.

Nothing here moves; `world.py` plays it. Ids are derived from names, so that they survive a restart. There is
one object of each deployment and queue: they are compared by identity, which keeps them cheap as keys.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from uuid import NAMESPACE_URL, UUID, uuid5

from exporter.demo.pace import Wave


@cache
def ident(*path: str) -> UUID:
    """The id of the thing with this kind and name."""
    return uuid5(NAMESPACE_URL, "/".join(("demo", *path)))


@dataclass(frozen=True, slots=True, eq=False)
class Deployment:
    """What runs are made of: one flow, deployed to one queue."""

    flow: str
    name: str
    limit: int | None = None
    """Runs that may hold a slot at once; further ones are sent back as AwaitingConcurrencySlot."""
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
    priority: int
    """Within the pool; the lower number is served first."""
    limit: int | None
    """`concurrency_limit`: None is unlimited, 0 hands out nothing."""
    wave: Wave
    running: tuple[int, int]
    """The shortest and the longest that its runs stay RUNNING, in seconds."""
    deployments: tuple[Deployment, ...]
    paused: bool = False
    ahead: int = 0
    """Seconds before its runs are due that the scheduler creates them: SCHEDULED, but no backlog yet."""

    @property
    def id(self) -> UUID:
        """The queue's id, unlike its name unique across pools."""
        return ident("queue", self.pool, self.name)


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool, its queues in the order in which they are served."""

    name: str
    type: str
    limit: int | None
    pending: str
    """What its workers call the state PENDING once they have asked for infrastructure."""
    queues: tuple[Queue, ...]

    @property
    def id(self) -> UUID:
        """`work_pool_id` of its queues."""
        return ident("pool", self.name)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that is no queue: global, or that of a task tag (`tag:<tag>`)."""

    name: str
    limit: int
    users: tuple[tuple[str, str], ...]
    """The (pool, queue) whose RUNNING runs take its slots."""
    slots_per_run: int = 1
    decay: float = 0.0
    """`slot_decay_per_second`: not 0 makes it a rate limit."""
    active: bool = True


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that serves a pool."""

    name: str
    pool: str
    offset: int
    """Seconds by which its heartbeats are out of step with those of the others."""
    died: timedelta | None = None
    """How long before the start of the demo it was last heard of; None while it lives."""


K8S, ML, DOCKER, WAREHOUSE = "kubernetes-prod", "ecs-ml", "docker-internal", "warehouse"

POOLS = (
    Pool(
        DOCKER, "docker", None, "Pending",
        (
            Queue(DOCKER, "default", 1, None, Wave(0.02, 0.6, period=220, starts=130, lasts=60), (10, 30),
                  (Deployment("sync-crm", "internal"), Deployment("send-digest", "internal"))),
            Queue(DOCKER, "reports", 2, 3, Wave(0.01, 0.4, period=250, starts=110, lasts=70), (15, 30),
                  (Deployment("usage-report", "internal"),), ahead=45),
            Queue(DOCKER, "legacy-imports", 3, 2, Wave(0.01), (20, 40),
                  (Deployment("import-ftp", "legacy"),), paused=True),
        ),
    ),
    Pool(
        ML, "ecs", 10, "InfrastructurePending",
        (
            # Full for half an hour of each hour, and from the start: long enough for an alert that pages.
            Queue(ML, "training", 1, 3, Wave(0.005, 0.12, period=3600, starts=-300, lasts=1500), (35, 60),
                  (Deployment("train-ranking", "nightly", tags=("gpu",)),)),
            Queue(ML, "inference", 2, 6, Wave(0.05, 1.5, period=180, starts=100, lasts=50), (5, 12),
                  (Deployment("score-batch", "prod"), Deployment("embed-documents", "prod"))),
            Queue(ML, "default", 3, 2, Wave(0.008), (10, 30), (Deployment("evaluate-model", "adhoc"),)),
        ),
    ),
    Pool(
        K8S, "kubernetes", 18, "InfrastructurePending",
        (
            Queue(K8S, "critical", 1, 4, Wave(0.02, 0.5, period=200, starts=60, lasts=60), (10, 25),
                  (Deployment("settle-payments", "prod"),)),
            Queue(K8S, "etl", 2, 8, Wave(0.03, 0.65, period=240, starts=180, lasts=80), (20, 45),
                  (Deployment("load-orders", "hourly", tags=("database",)), Deployment("load-events", "hourly")),
                  ahead=60),
            Queue(K8S, "reports", 3, 5, Wave(0.02, 0.6, period=270, starts=20, lasts=80), (12, 30),
                  (Deployment("revenue-report", "daily"), Deployment("churn-report", "daily")), ahead=30),
            Queue(K8S, "default", 4, 6, Wave(0.06), (10, 40), (Deployment("housekeeping", "prod"),)),
        ),
    ),
    Pool(
        WAREHOUSE, "process", 7, "Submitting",
        (
            Queue(WAREHOUSE, "dbt", 1, 4, Wave(0.02, 0.45, period=260, starts=210, lasts=80), (15, 30),
                  (Deployment("dbt-build", "prod", limit=2, tags=("database",)), Deployment("dbt-test", "prod"))),
            Queue(WAREHOUSE, "maintenance", 2, 0, Wave(0.006), (30, 60), (Deployment("vacuum", "weekly"),)),
            Queue(WAREHOUSE, "default", 3, 2, Wave(0.008), (10, 30), (Deployment("adhoc-query", "prod"),)),
        ),
    ),
)  # fmt: skip
"""In the order of their names, as the server lists them."""

QUEUES = tuple(queue for pool in POOLS for queue in pool.queues)
DEPLOYMENTS = {deployment: queue for queue in QUEUES for deployment in queue.deployments}

LIMITS = (
    Limit("legacy-ftp", 1, ((DOCKER, "default"),), active=False),
    Limit("llm-requests", 20, ((ML, "inference"),), slots_per_run=3, decay=2.0),
    Limit("tag:database", 8, ((K8S, "etl"), (WAREHOUSE, "dbt"))),
    Limit("tag:gpu", 3, ((ML, "training"),)),
    Limit("warehouse-writes", 6, ((WAREHOUSE, "dbt"), (K8S, "reports"))),
)

WORKERS = (
    Worker("docker-worker-1", DOCKER, 3),
    Worker("ecs-worker-1", ML, 11),
    Worker("ecs-worker-2", ML, 0, died=timedelta(hours=7, minutes=22)),
    Worker("k8s-worker-1", K8S, 7),
    Worker("k8s-worker-2", K8S, 22),
    Worker("warehouse-worker-1", WAREHOUSE, 17),
)

ORPHAN = ((ML, "default"), timedelta(hours=7, minutes=23, seconds=41))
"""Where a run is stuck in RUNNING since its worker died, and for how long when the demo starts."""
STUCK = ((WAREHOUSE, "default"), timedelta(minutes=41, seconds=12))
"""Where a run is stuck in PENDING, and for how long when the demo starts."""
