"""A Prefect server of rows that a test chooses, with faults before it: the demo's look-alike behind a socket.

The look-alike answers; what stands before it loses rows, refuses pages, and replaces answers by path.
"""

import json
import re
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final
from uuid import UUID

import httpx

from exporter.demo.prefect import application
from exporter.demo.rows import Deployment, Limit, Pool, Queue, Rows, Run, State, Worker
from exporter.demo.states import QUEUE_HOLDERS, STATE_TYPES
from exporter.model import PARTS, Part, Snapshot
from exporter.polling.store import SourceState
from tests.harness.upstream import Answer, Request, Upstream, answer

POOLS: Final = "/work_pools/filter"
QUEUES: Final = "/work_queues/filter"
COUNT: Final = "/flow_runs/count"
RUNS: Final = "/flow_runs/filter"
HISTORY: Final = "/flow_runs/history"
LIMITS: Final = "/v2/concurrency_limits/filter"
DEPLOYMENTS: Final = "/deployments/filter"
FLOWS: Final = "/flows/filter"
VERSION: Final = "/admin/version"
OF_HOLDERS: Final = " of holders"
OF_BACKLOG: Final = " of backlog"

NOT_FOUND: Final = answer({"detail": "Not Found"}, 404)
NOT_ALLOWED: Final = answer({"detail": "Method Not Allowed"}, 405)
BROKEN: Final = answer({"exception_message": "Internal Server Error"}, 500)


def one_status(of: Queue) -> str:
    """The path at which one queue tells its holders."""
    return f"/work_queues/{of.id}/concurrency_status"


@dataclass
class Lookalike(Rows):
    """A server with these rows and a clock of its own; `faults` replace some of its answers.

    The key of a fault is a path below `/api`, or the path of flow runs and whether it asks for holders or the backlog.
    """

    created: datetime = datetime(2026, 5, 1, tzinfo=UTC)
    last_polled: datetime | None = None
    pools: list[Pool] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    deployments: dict[Deployment, Queue] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    ahead: timedelta = timedelta()
    """By how much its clock differs from ours."""
    stands_at: datetime | None = None
    """Where the clock stands by which it answers, if it stands; not that of the Date."""
    dated: bool = True
    """Whether its answers have a Date."""
    greatest: int = 200
    """The greatest page that it gives."""
    lossy: bool = False
    """Whether a page of the listing of all queues repeats one of the page before it, instead of one of its own."""
    faults: dict[str, bytes | Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        app = application(lambda _: self, lambda: self.stands_at or self.now)
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://prefect")

    @property
    def now(self) -> datetime:
        """The moment that its Date tells."""
        return datetime.now(UTC) + self.ahead

    async def __call__(self, request: Request) -> bytes:
        """The answer, with whatever is wrong with it."""
        path = request.path.removeprefix("/api")
        fault = self.faults.get(path) or self.faults.get(path + _what(request))
        if fault is not None:
            reply = fault if isinstance(fault, bytes) else fault(request)
            return await reply if isinstance(reply, Awaitable) else reply
        body = json.loads(request.body or b"{}")
        if body.get("limit", 0) > self.greatest:
            return answer({"detail": f"Invalid limit: must be less than or equal to {self.greatest}."}, 422)
        if path == QUEUES and self.lossy and "work_queues" not in body:
            return answer(await self._lossy_page(request, body["offset"], body["limit"]))
        found = await self.ask(request)
        date = {"Date": format_datetime(self.now, usegmt=True)} if self.dated else {}
        return answer(found.content, found.status_code, date)

    async def ask(self, request: Request, **changed: Any) -> httpx.Response:
        """What it answers without a fault, with some fields of the body changed."""
        content = json.dumps(request.json | changed).encode() if changed else request.body
        return await self._client.request(request.method, request.path, content=content)

    async def _lossy_page(self, request: Request, offset: int, limit: int) -> list[Any]:
        first = max(offset - 1, 0)
        rows: list[Any] = (await self.ask(request, offset=first, limit=limit + offset - first)).json()
        for number in range(1, len(rows)):
            if (first + number) % self.greatest == 0:
                rows[number] = rows[number - 1]
        return rows[offset - first :]


def _what(request: Request) -> str:
    if not request.path.startswith("/api/flow_runs/"):
        return ""
    return OF_HOLDERS if "PENDING" in request.body.decode() else OF_BACKLOG


NIGHTLY: Final = Deployment("etl", "nightly")


def flow_run(number: int, state: str, queue: Queue, since: datetime, **changed: Any) -> Run:
    """A run that has been in the state of this name since then; one that waits is due since then."""
    holds = STATE_TYPES[state] in QUEUE_HOLDERS
    run = Run(
        id=UUID(int=number),
        name="able-ibex",
        queue=queue,
        deployment=NIGHTLY,
        created=since,
        expected_start=since,
        state=State(UUID(int=number), state, since),
        due=None if holds else since,
        started=since if holds else None,
    )
    return replace(run, **changed)


def limit(name: str, **changed: Any) -> Limit:
    """A limit of which one of three slots is taken."""
    return replace(Limit(name, 3, active_slots=1), **changed)


BEAT: Final = datetime.now(UTC)


def worker(number: int, pool: str = "a", status: str = "ONLINE", silent: timedelta = timedelta()) -> Worker:
    """A worker whose last heartbeat came so long before `BEAT`."""
    return Worker(f"w{number}", pool, BEAT - silent, timedelta(minutes=10), status)


def small(**changed: Any) -> Lookalike:
    """Three pools with six queues, few holders and waiting runs, three limits, and a worker in each pool."""
    ago = datetime.now(UTC) - timedelta(seconds=60)
    queues = [Queue("abc"[number // 2], f"q{number}", limit=4) for number in range(6)]
    rows: dict[str, Any] = {
        "pools": [Pool(name, limit=9) for name in "abc"],
        "queues": queues,
        "runs": [
            flow_run(21, "Running", queues[0], ago),
            flow_run(22, "Pending", queues[0], ago),
            flow_run(23, "Cancelling", queues[5], ago),
            flow_run(31, "Late", queues[1], ago),
            flow_run(32, "AwaitingConcurrencySlot", queues[1], ago),
        ],
        "limits": [limit("database"), limit("tag:gpu"), limit(f"deployment:{NIGHTLY.id}")],
        "deployments": {NIGHTLY: queues[0]},
        "workers": [worker(71 + number, name) for number, name in enumerate("abc")],
    }
    return Lookalike(**rows | changed)


A_WORKERS: Final = "/work_pools/a/workers/filter"
ALL: Final[dict[str, Any]] = {"collect": list(PARTS)}


def asked(upstream: Upstream) -> list[str]:
    """The paths of the requests since this was last called."""
    paths = [request.path.removeprefix("/api") for request in upstream.requests]
    upstream.requests.clear()
    return paths


def snapshot_of(state: SourceState) -> Snapshot:
    assert state.failure is None
    assert state.published
    return state.published.snapshot


def active(snapshot: Snapshot) -> dict[str, int | None]:
    return {one.name: one.active_slots for one in snapshot.queues}


ACTIVE: Final = {"q0": 2, "q1": 0, "q2": 0, "q3": 0, "q4": 0, "q5": 1}

FAMILIES: Final[dict[Part, str]] = {
    "queues": "concurrency_queue_(active_slots|usage_known|processing_tasks|slot_holders|state_duration.*)",
    "backlog": "concurrency_queue_(queued_tasks|waiting_tasks|blocked_tasks|waiting_duration_max_seconds)",
    "pools": "concurrency_pool_(active_slots|slot_limit|paused|status|info)",
    "limits": "concurrency_limit_.*",
    "workers": "concurrency_pool_(workers|last_heartbeat_timestamp_seconds)",
}


def without(lines: list[str], part: Part, of_pool: str = ".*") -> list[str]:
    return [line for line in lines if not re.match(f'{FAMILIES[part]}{{(.*pool="{of_pool}"|.*kind=)', line)]


def families(lines: Iterable[str]) -> set[str]:
    return {line.partition("{")[0] for line in lines}


def timeless(lines: list[str]) -> list[str]:
    """Without what depends on when the fake was asked."""
    return [line for line in lines if "duration" not in line]


WORKERS: Final = tuple(f"/work_pools/{name}/workers/filter" for name in "abc")
