"""Who plays in the Prefect demo: the pools, queues, deployments, limits and workers, and how busy each queue gets.

Nothing here moves; `world.py` plays it.
"""

from dataclasses import dataclass
from datetime import timedelta

from exporter.demo import rows
from exporter.demo.pace import Wave


@dataclass(frozen=True, slots=True, eq=False)
class Deployment(rows.Deployment):
    """One flow, deployed to one queue."""

    limit: int | None = None
    """Runs that may hold a slot at once; further ones are sent back as AwaitingConcurrencySlot."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Queue(rows.Queue):
    """A work queue, and the load on it."""

    wave: Wave
    running: tuple[int, int]
    """The shortest and the longest that its runs stay RUNNING, in seconds."""
    deployments: tuple[Deployment, ...]
    ahead: int = 0
    """Seconds before its runs are due that the scheduler creates them: SCHEDULED, but no backlog yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(rows.Pool):
    """A work pool, its queues in the order in which they are served."""

    pending: str
    """What its workers call the state PENDING once they have asked for infrastructure."""
    queues: tuple[Queue, ...]


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
        DOCKER, "docker", None, pending="Pending",
        queues=(
            Queue(DOCKER, "default", 1, None, wave=Wave(0.02, 0.6, period=220, starts=130, lasts=60), running=(10, 30),
                  deployments=(Deployment("sync-crm", "internal"), Deployment("send-digest", "internal"))),
            Queue(DOCKER, "reports", 2, 3, wave=Wave(0.01, 0.4, period=250, starts=110, lasts=70), running=(15, 30),
                  deployments=(Deployment("usage-report", "internal"),), ahead=45),
            Queue(DOCKER, "legacy-imports", 3, 2, wave=Wave(0.01), running=(20, 40),
                  deployments=(Deployment("import-ftp", "legacy"),), paused=True),
        ),
    ),
    Pool(
        ML, "ecs", 10, pending="InfrastructurePending",
        queues=(
            # Full for half an hour of each hour, and from the start: long enough for an alert that pages.
            Queue(ML, "training", 1, 3, wave=Wave(0.005, 0.12, period=3600, starts=-300, lasts=1500), running=(35, 60),
                  deployments=(Deployment("train-ranking", "nightly", tags=("gpu",)),)),
            Queue(ML, "inference", 2, 6, wave=Wave(0.05, 1.5, period=180, starts=100, lasts=50), running=(5, 12),
                  deployments=(Deployment("score-batch", "prod"), Deployment("embed-documents", "prod"))),
            Queue(ML, "default", 3, 2, wave=Wave(0.008), running=(10, 30),
                  deployments=(Deployment("evaluate-model", "adhoc"),)),
        ),
    ),
    Pool(
        K8S, "kubernetes", 18, pending="InfrastructurePending",
        queues=(
            Queue(K8S, "critical", 1, 4, wave=Wave(0.02, 0.5, period=200, starts=60, lasts=60), running=(10, 25),
                  deployments=(Deployment("settle-payments", "prod"),)),
            Queue(K8S, "etl", 2, 8, wave=Wave(0.03, 0.65, period=240, starts=180, lasts=80), running=(20, 45),
                  deployments=(Deployment("load-orders", "hourly", tags=("database",)),
                               Deployment("load-events", "hourly")),
                  ahead=60),
            Queue(K8S, "reports", 3, 5, wave=Wave(0.02, 0.6, period=270, starts=20, lasts=80), running=(12, 30),
                  deployments=(Deployment("revenue-report", "daily"), Deployment("churn-report", "daily")), ahead=30),
            Queue(K8S, "default", 4, 6, wave=Wave(0.06), running=(10, 40),
                  deployments=(Deployment("housekeeping", "prod"),)),
        ),
    ),
    Pool(
        WAREHOUSE, "process", 7, pending="Submitting",
        queues=(
            Queue(WAREHOUSE, "dbt", 1, 4, wave=Wave(0.02, 0.45, period=260, starts=210, lasts=80), running=(15, 30),
                  deployments=(Deployment("dbt-build", "prod", limit=2, tags=("database",)),
                               Deployment("dbt-test", "prod"))),
            Queue(WAREHOUSE, "maintenance", 2, 0, wave=Wave(0.006), running=(30, 60),
                  deployments=(Deployment("vacuum", "weekly"),)),
            Queue(WAREHOUSE, "default", 3, 2, wave=Wave(0.008), running=(10, 30),
                  deployments=(Deployment("adhoc-query", "prod"),)),
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

UNPOLLED = ((ML, "default"), timedelta(hours=7, minutes=22))
"""The queue that only the dead worker asked for runs, and how long before the start of the demo it last did."""
ORPHAN = ((ML, "default"), timedelta(hours=7, minutes=23, seconds=41), "ecs-worker-2")
"""Where a run is stuck in RUNNING since its worker died, for how long when the demo starts, and which worker."""
STUCK = ((WAREHOUSE, "default"), timedelta(minutes=41, seconds=12), "warehouse-worker-1")
"""Where a run is stuck in PENDING, for how long when the demo starts, and the worker that has submitted it."""
