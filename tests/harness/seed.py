"""Fill a frozen Prefect server quickly, straight in its database, with figures that are known beforehand.

A `Plan` is rows in memory and the figures that follow from them; `seed` writes it. `fleet` makes a large one.
For what the REST API can make in bearable time there is the scenario; ages, orphans and thousands of runs it can't.
"""

import json
import random
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from exporter.demo.states import QUEUE_HOLDERS, STATE_TYPES
from tests.harness.postgres import run_sql
from tests.harness.prefect import PrefectServer

_TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_HAVE_STARTED = {"RUNNING", "CANCELLING", "PAUSED", *_TERMINAL}


@dataclass(frozen=True)
class Pool:
    """A work pool."""

    id: UUID
    name: str
    kind: str
    limit: int | None
    paused: bool
    status: str


@dataclass(frozen=True)
class Queue:
    """A work queue."""

    id: UUID
    pool: Pool
    name: str
    priority: int
    limit: int | None
    paused: bool
    status: str
    last_polled: datetime | None

    @property
    def key(self) -> tuple[str, str]:
        """The names of pool and queue."""
        return self.pool.name, self.name


@dataclass(frozen=True)
class Run:
    """A flow run; its queue is what its two columns say, which need not agree."""

    id: UUID
    name: str
    state: str
    """Name of its state, a key of `STATE_TYPES`."""
    since: datetime | None
    """Its `state_timestamp`."""
    expected: datetime | None
    """When it was first to start."""
    due: datetime | None
    """When it is to start, if it is scheduled."""
    queue_id: UUID | None
    queue_name: str | None
    flow_id: UUID
    deployment_id: UUID | None

    @property
    def state_type(self) -> str:
        return STATE_TYPES[self.state]

    def waiting_since(self, now: datetime) -> datetime | None:
        """Since when it waits to be started; None when it does not, or is scheduled for later.

        A run that a deployment's limit holds back is put off again and again, so it waits since it was first to start.
        """
        if self.state_type != "SCHEDULED":
            return None
        if self.state == "AwaitingConcurrencySlot":
            return self.expected
        return self.due if self.due and self.due <= now else None


@dataclass(frozen=True)
class Worker:
    """A worker of a pool."""

    id: UUID
    pool: Pool
    name: str
    last_heartbeat: datetime
    interval: int
    online: bool
    """As the server says: it stores this, and only its services change it when no heartbeat comes."""


@dataclass(frozen=True)
class Limit:
    """A limit that is no queue; `active_slots` are those of the time of the seeding."""

    id: UUID
    name: str
    limit: int
    active_slots: int
    active: bool
    decay: float
    """Slots that are given back each second."""


@dataclass(frozen=True)
class Flow:
    id: UUID
    name: str


@dataclass(frozen=True)
class Deployment:
    """A deployment; its limit, when it has one, is called `deployment:<id>` on the server."""

    id: UUID
    name: str
    flow: Flow
    queue: Queue | None
    limit: Limit | None


@dataclass(frozen=True)
class QueueFigures:
    """What the server must say of one queue."""

    holders: Mapping[str, int]
    """State type -> runs that hold a slot by the queue's own concurrency status; all three types."""
    own_holders: Mapping[str, int]
    """The same without the runs that know the queue by its name only, as listings and pools count."""
    since: Mapping[str, Sequence[datetime | None]]
    """State type -> the state timestamp of each of the `holders`, sorted, those without one first."""
    waiting: Mapping[str, int]
    """State name -> runs that wait to be started now; only states that one is in."""
    oldest_due: datetime | None
    """Since when the first of them waits."""


@dataclass(frozen=True)
class PoolFigures:
    """What the server must say of one pool."""

    active_slots: int
    """Pending and running runs of its queues, without those that know their queue by its name only."""
    waiting: Mapping[str, int]
    oldest_due: datetime | None
    workers: Mapping[str, bool]
    """Name -> whether the server calls it online."""


@dataclass
class Plan:
    """Rows to be written. Everything but `at`, the time that all ages count from, is the same for the same `seed`."""

    seed: int = 0
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    pools: list[Pool] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311

    def add_pool(
        self,
        name: str,
        *,
        kind: str = "process",
        limit: int | None = None,
        paused: bool = False,
        status: str = "NOT_READY",
    ) -> Pool:
        """A pool, with a queue called `default` as every pool has it."""
        pool = Pool(self._id(), name, kind, limit, paused, "PAUSED" if paused else status)
        self.pools.append(pool)
        self.add_queue(pool, "default")
        return pool

    def add_queue(
        self,
        pool: Pool,
        name: str,
        *,
        limit: int | None = None,
        paused: bool = False,
        polled: float | None = None,
    ) -> Queue:
        """A queue, last of its pool. `polled`: how many seconds ago a worker asked it for runs."""
        priority = 1 + sum(queue.pool is pool for queue in self.queues)
        status = "PAUSED" if paused else "NOT_READY" if polled is None else "READY"
        queue = Queue(self._id(), pool, name, priority, limit, paused, status, self._ago(polled))
        self.queues.append(queue)
        return queue

    def add_run(
        self,
        state: str,
        queue: Queue | None,
        *,
        age: float | None = 60,
        late: float = 60,
        by_name_only: bool = False,
        deployment: Deployment | None = None,
    ) -> Run:
        """A run that has been in `state` for `age` seconds; None: the server does not know.

        `late`: for how many seconds it should have been started, negative when that is still to come. With
        `by_name_only` it has the name of the queue but not its id, as the run of a queue that was deleted.
        """
        expected = self._ago(late)
        due = expected if STATE_TYPES[state] == "SCHEDULED" else None
        if state == "AwaitingConcurrencySlot":
            due = self._ago(-3600)
        elif state == "AwaitingRetry":
            # It has run before.
            expected = self._ago(late + 600)
        run = Run(
            id=self._id(),
            name=f"run-{len(self.runs):06}",
            state=state,
            since=self._ago(age),
            expected=expected,
            due=due,
            queue_id=None if queue is None or by_name_only else queue.id,
            queue_name=None if queue is None else queue.name,
            flow_id=(deployment.flow if deployment else self._any_flow()).id,
            deployment_id=None if deployment is None else deployment.id,
        )
        self.runs.append(run)
        return run

    def add_worker(
        self, pool: Pool, name: str, *, heartbeat: float, interval: int = 30, online: bool | None = None
    ) -> Worker:
        """A worker that was last heard of `heartbeat` seconds ago; `online` if that is less than three intervals."""
        if online is None:
            online = heartbeat < 3 * interval
        worker = Worker(self._id(), pool, name, self.at - timedelta(seconds=heartbeat), interval, online)
        self.workers.append(worker)
        return worker

    def add_limit(
        self, name: str, *, limit: int, active_slots: int = 0, active: bool = True, decay: float = 0
    ) -> Limit:
        """A global limit, or that of a tag with the name `tag:<tag>`."""
        added = Limit(self._id(), name, limit, active_slots, active, decay)
        self.limits.append(added)
        return added

    def add_flow(self, name: str) -> Flow:
        flow = Flow(self._id(), name)
        self.flows.append(flow)
        return flow

    def add_deployment(
        self, name: str, flow: Flow, *, queue: Queue | None = None, limit: int | None = None, active_slots: int = 0
    ) -> Deployment:
        """A deployment; with a `limit` it adds that to the limits too."""
        identity = self._id()
        its_limit = (
            None if limit is None else self.add_limit(f"deployment:{identity}", limit=limit, active_slots=active_slots)
        )
        deployment = Deployment(identity, name, flow, queue, its_limit)
        self.deployments.append(deployment)
        return deployment

    def queue_figures(self, now: datetime | None = None) -> dict[tuple[str, str], QueueFigures]:
        """The figures of each queue, by the names of pool and queue; `now` decides what is due."""
        now = now or datetime.now(UTC)
        by_id: dict[UUID, list[Run]] = {queue.id: [] for queue in self.queues}
        by_name: dict[str, list[Run]] = {queue.name: [] for queue in self.queues}
        for run in self.runs:
            if run.queue_id is not None:
                by_id[run.queue_id].append(run)
            elif run.queue_name is not None:
                by_name.setdefault(run.queue_name, []).append(run)
        return {queue.key: _queue_figures(by_id[queue.id], by_name[queue.name], now) for queue in self.queues}

    def pool_figures(self, now: datetime | None = None) -> dict[str, PoolFigures]:
        """The figures of each pool, by its name."""
        now = now or datetime.now(UTC)
        of_queues = self.queue_figures(now)
        found = {}
        for pool in self.pools:
            queues = [of_queues[queue.key] for queue in self.queues if queue.pool is pool]
            waiting: dict[str, int] = {}
            for queue in queues:
                for state, number in queue.waiting.items():
                    waiting[state] = waiting.get(state, 0) + number
            found[pool.name] = PoolFigures(
                active_slots=sum(queue.own_holders["PENDING"] + queue.own_holders["RUNNING"] for queue in queues),
                waiting=waiting,
                oldest_due=min((queue.oldest_due for queue in queues if queue.oldest_due), default=None),
                workers={worker.name: worker.online for worker in self.workers if worker.pool is pool},
            )
        return found

    def _any_flow(self) -> Flow:
        return self.flows[0] if self.flows else self.add_flow(f"flow-{self.seed}")

    def _id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def _ago(self, seconds: float | None) -> datetime | None:
        return None if seconds is None else self.at - timedelta(seconds=seconds)


def _queue_figures(own: Sequence[Run], by_name: Sequence[Run], now: datetime) -> QueueFigures:
    holders: dict[str, int] = dict.fromkeys(QUEUE_HOLDERS, 0)
    own_holders = dict(holders)
    since: dict[str, list[datetime | None]] = {state: [] for state in QUEUE_HOLDERS}
    for run in (*own, *by_name):
        if run.state_type in QUEUE_HOLDERS:
            holders[run.state_type] += 1
            own_holders[run.state_type] += run.queue_id is not None
            since[run.state_type].append(run.since)
    for times in since.values():
        times.sort(key=lambda time: (time is not None, time))
    # Workers are never given a run that knows its queue by the name only, so it waits in none.
    waits = [(run.state, begun) for run in own if (begun := run.waiting_since(now))]
    waiting: dict[str, int] = {}
    for state, _ in waits:
        waiting[state] = waiting.get(state, 0) + 1
    return QueueFigures(holders, own_holders, since, waiting, min((begun for _, begun in waits), default=None))


_MIX = {
    "Running": 20,
    "Retrying": 1,
    "Pending": 4,
    "Submitting": 2,
    "Cancelling": 1,
    "Scheduled": 20,
    "Late": 10,
    "AwaitingConcurrencySlot": 4,
    "AwaitingRetry": 2,
    "Paused": 1,
    "Completed": 32,
    "Failed": 2,
    "Cancelled": 1,
}


def fleet(
    seed: int = 0,
    *,
    pools: int = 10,
    queues: int = 50,
    runs: int = 5000,
    limits: int = 20,
    mix: Mapping[str, float] = _MIX,
    at: datetime | None = None,
) -> Plan:
    """So many pools with so many queues each besides `default`, and runs spread over all of these by chance.

    Half of the queues have a limit. Scheduled runs are as often due as they are for later, an hour away at least.
    Each pool has a worker that is online, one that is not, and two deployments, one of them with a limit.
    """
    plan = Plan(seed, at or datetime.now(UTC))
    chance = plan.random
    flow = plan.add_flow(f"fleet-{seed}")
    for number in range(pools):
        pool = plan.add_pool(
            f"pool-{number:02}", limit=chance.choice([None, 100]), paused=number % 10 == 9, status="READY"
        )
        for of_pool in range(queues):
            plan.add_queue(
                pool,
                f"queue-{of_pool:03}",
                limit=chance.choice([None, None, None, 1, 5, 20]),
                paused=of_pool % 20 == 19,
                polled=chance.choice([None, 5.0, 600.0]),
            )
        plan.add_worker(pool, "online", heartbeat=chance.uniform(0, 60))
        plan.add_worker(pool, "gone", heartbeat=chance.uniform(600, 6000))
        limit = chance.randint(1, 5)
        queue = plan.queues[-1]
        plan.add_deployment(f"limited-{number:02}", flow, queue=queue, limit=limit, active_slots=limit)
        plan.add_deployment(f"free-{number:02}", flow, queue=queue)
    for number in range(limits):
        limit = chance.randint(0, 50)
        name = f"tag:tag-{number:03}" if number % 2 else f"limit-{number:03}"
        # A tenth of them gives slots back while time passes, but none between two readings of a test.
        decay = 1e-6 if number % 10 == 4 else 0.0
        plan.add_limit(
            name, limit=limit, active_slots=chance.randint(0, limit + 1), active=number % 7 != 6, decay=decay
        )
    homes = [queue for queue in plan.queues if queue.name != "default"] or plan.queues
    limited = [deployment for deployment in plan.deployments if deployment.limit]
    for state in chance.choices(list(mix), list(mix.values()), k=runs):
        plan.add_run(
            state,
            chance.choice(homes),
            age=min(chance.lognormvariate(4, 1.6), 6 * 86_400),
            late=_lateness(state, chance),
            deployment=chance.choice(limited) if state == "AwaitingConcurrencySlot" and limited else None,
        )
    return plan


def _lateness(state: str, chance: random.Random) -> float:
    if state in {"Scheduled", "AwaitingRetry"} and chance.random() < 0.5:
        return -chance.uniform(3600, 86_400)
    return chance.uniform(20, 86_400)


def add_oddities(plan: Plan) -> None:
    """Runs that a server may have and that are easily counted wrong, in two pools of their own."""
    first, second = (plan.add_pool(f"odd-{letter}") for letter in "ab")
    ages = plan.add_queue(first, "ages", limit=10)
    plan.add_run("Pending", ages, age=None)
    plan.add_run("Cancelling", ages, age=None)
    plan.add_run("Running", ages, age=-3600)
    plan.add_run("Running", ages, age=4000 * 86_400)
    plan.add_run("Running", ages, age=0)
    for pool, limit in ((first, 3), (second, None)):
        # What is left of a deleted queue counts in every queue that has its name now.
        recreated = plan.add_queue(pool, "recreated", limit=limit)
        for state in ("Running", "Pending", "Cancelling", "Late", "Completed"):
            plan.add_run(state, recreated, age=7200, by_name_only=True)
        plan.add_run("Running", recreated, age=30)
    for state in ("Running", "Late"):
        plan.add_run(state, None)
    later = plan.add_queue(second, "later", limit=1)
    plan.add_run("Scheduled", later, late=-86_400)
    plan.add_run("AwaitingRetry", later, late=-86_400)


def add_unreadable_run(plan: Plan, queue: Queue) -> Run:
    """A running run without a state timestamp: a `/flow_runs/filter` whose page it is in is answered with 500."""
    return plan.add_run("Running", queue, age=None)


def seed(server: PrefectServer, plan: Plan) -> None:
    """Write the plan into the server's database; the server has run once, and may be running.

    A plan's ids and names may not be there yet. Raises `sqlite3.Error`, or `ProcessError` with PostgreSQL.
    """
    if server.database_url:
        run_sql(server.database_url, _copy_script(_tables(plan)))
    else:
        _write_sqlite(server.database, _tables(plan))


_Value = UUID | str | float | datetime | timedelta | Mapping[str, object] | Sequence[object] | None
_Table = tuple[str, Sequence[str], Iterable[Sequence[_Value]]]
"""Name, columns, rows."""

_POLICY: Mapping[str, object] = {
    "max_retries": 0,
    "retry_delay_seconds": 0.0,
    "retries": None,
    "retry_delay": None,
    "pause_keys": [],
    "resuming": False,
    "retry_type": None,
}
_STORAGE: Mapping[str, object] = {
    "bundle_upload_step": None,
    "bundle_execution_step": None,
    "default_result_storage_block_id": None,
}


def _tables(plan: Plan) -> Iterable[_Table]:
    at = plan.at
    stamps = ("id", "created", "updated")
    yield (
        "flow",
        (*stamps, "name", "tags", "labels"),
        [(flow.id, at, at, flow.name, [], {}) for flow in plan.flows],
    )
    default = {queue.pool.id: queue.id for queue in reversed(plan.queues)}
    yield (
        "work_pool",
        (
            *(*stamps, "name", "type", "base_job_template", "is_paused", "concurrency_limit", "default_queue_id"),
            *("status", "storage_configuration"),
        ),
        [(p.id, at, at, p.name, p.kind, {}, p.paused, p.limit, default[p.id], p.status, _STORAGE) for p in plan.pools],
    )
    yield (
        "work_queue",
        (
            *(*stamps, "name", "description", "is_paused", "concurrency_limit", "last_polled", "priority"),
            *("work_pool_id", "status"),
        ),
        [
            (q.id, at, at, q.name, "", q.paused, q.limit, q.last_polled, q.priority, q.pool.id, q.status)
            for q in plan.queues
        ],
    )
    yield (
        "worker",
        (*stamps, "name", "last_heartbeat_time", "work_pool_id", "heartbeat_interval_seconds", "status"),
        [(w.id, at, at, w.name, w.last_heartbeat, w.pool.id, w.interval, _status(w)) for w in plan.workers],
    )
    yield (
        "concurrency_limit_v2",
        (
            *(*stamps, "active", "name", "limit", "active_slots", "denied_slots", "slot_decay_per_second"),
            "avg_slot_occupancy_seconds",
        ),
        [(n.id, at, at, n.active, n.name, n.limit, n.active_slots, 0, n.decay, 2.0) for n in plan.limits],
    )
    yield (
        "deployment",
        (
            *(*stamps, "name", "tags", "parameters", "flow_id", "infra_overrides"),
            *(
                "enforce_parameter_schema",
                "paused",
                "status",
                "concurrency_limit_id",
                "work_queue_name",
                "work_queue_id",
            ),
        ),
        (_deployment_row(deployment, at) for deployment in plan.deployments),
    )
    state_ids = {run.id: UUID(int=run.id.int ^ 1) for run in plan.runs if run.since}
    yield (
        "flow_run",
        (
            *(*stamps, "name", "state_type", "state_name", "state_timestamp", "state_id", "run_count"),
            *("expected_start_time", "next_scheduled_start_time", "start_time", "end_time", "total_run_time"),
            *("parameters", "context", "empirical_policy", "tags", "auto_scheduled", "flow_id", "deployment_id"),
            *("work_queue_id", "work_queue_name", "job_variables", "labels"),
        ),
        (_run_row(run, state_ids.get(run.id), at) for run in plan.runs),
    )
    yield (
        "flow_run_state",
        (*stamps, "type", "timestamp", "name", "state_details", "flow_run_id"),
        [
            (state_ids[run.id], at, at, run.state_type, run.since, run.state, _state_details(run), run.id)
            for run in plan.runs
            if run.since
        ],
    )


def _deployment_row(deployment: Deployment, at: datetime) -> Sequence[_Value]:
    limit, queue = deployment.limit, deployment.queue
    return (
        *(deployment.id, at, at, deployment.name, [], {}, deployment.flow.id, {}),
        *(False, False, "NOT_READY", limit.id if limit else None),
        *((queue.name, queue.id) if queue else (None, None)),
    )


def _run_row(run: Run, state_id: UUID | None, at: datetime) -> Sequence[_Value]:
    started = run.since or run.expected if run.state_type in _HAVE_STARTED or run.state == "AwaitingRetry" else None
    ended = run.since if run.state_type in _TERMINAL else None
    return (
        *(run.id, run.expected or at, at, run.name, run.state_type, run.state, run.since, state_id, int(bool(started))),
        *(run.expected, run.due, started, ended, timedelta(0)),
        *({}, {}, _POLICY, [], False, run.flow_id, run.deployment_id),
        *(run.queue_id, run.queue_name, {}, {"prefect.flow.id": str(run.flow_id)}),
    )


def _state_details(run: Run) -> dict[str, object]:
    return {"flow_run_id": str(run.id), "scheduled_time": run.due.isoformat() if run.due else None}


def _status(worker: Worker) -> str:
    return "ONLINE" if worker.online else "OFFLINE"


def _write_sqlite(database: Path, tables: Iterable[_Table]) -> None:
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for name, columns, rows in tables:
            names = ", ".join(f'"{column}"' for column in columns)
            places = ", ".join("?" * len(columns))
            # Every name in it is one of this file's own.
            statement = f'INSERT INTO "{name}" ({names}) VALUES ({places})'  # noqa: S608
            connection.executemany(statement, ([_for_sqlite(value) for value in row] for row in rows))


def _for_sqlite(value: _Value) -> str | float | None:
    match value:
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        case timedelta():
            return _for_sqlite(datetime(1970, 1, 1, tzinfo=UTC) + value)
        case UUID():
            return str(value)
        case None | str() | int() | float():
            return value
        case _:
            return json.dumps(value)


def _copy_script(tables: Iterable[_Table]) -> str:
    # Tables refer to each other in circles, and as a replica the database does not check that.
    lines = ["SET session_replication_role = replica;"]
    for name, columns, rows in tables:
        names = ", ".join(f'"{column}"' for column in columns)
        lines.append(f'COPY "{name}" ({names}) FROM STDIN WITH (FORMAT csv);')
        lines.extend(",".join(_for_csv(value) for value in row) for row in rows)
        lines.append(r"\.")
    return "\n".join([*lines, ""])


def _for_csv(value: _Value) -> str:
    match value:
        case None:
            return ""
        case datetime():
            text = value.isoformat()
        case timedelta():
            text = f"{value.total_seconds()} seconds"
        case str() | int() | float() | UUID():
            text = str(value)
        case _:
            text = json.dumps(value)
    return '"' + text.replace('"', '""') + '"'
