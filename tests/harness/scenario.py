"""What the tests seed into a Prefect server: a plan, and the figures that follow from it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.demo.states import POOL_HOLDERS, QUEUE_HOLDERS, STATE_TYPES
from tests.harness.prefect import PrefectApi, PrefectServer

PAGE_SIZE = 9
"""What to set `PREFECT_SERVER_API_DEFAULT_LIMIT` to, so that every listing of the scenario has several pages.

The 45 holders of `unlimited/paged` then fill five pages exactly, the 12 of `limited/states` one and a third.
"""

PLANNED_STATES = {
    planned: kind
    for state, kind in STATE_TYPES.items()
    for planned in (("ScheduledFuture", "ScheduledDue") if state == "Scheduled" else (state,))
}
"""State of the plan -> state type. The two `Scheduled…` are named Scheduled on the server."""


@dataclass(frozen=True)
class PlannedQueue:
    """`runs` says how many runs the queue has in which state, with the keys of `PLANNED_STATES`."""

    name: str
    limit: int | None = None
    paused: bool = False
    runs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class PlannedPool:
    """A pool; the server adds a queue `default` to it, without a limit or runs."""

    name: str
    kind: str = "process"
    limit: int | None = None
    paused: bool = False
    queues: tuple[PlannedQueue, ...] = ()


@dataclass(frozen=True)
class PlannedLimit:
    """A limit that is no queue; a tag limit has the name `tag:<tag>` on the server."""

    name: str
    limit: int
    active_slots: int = 0
    active: bool = True


ODD_POOL = 'odd? #1 "quoted" back\\slash ünïcode 池'
ODD_QUEUE = 'odd "quoted" back\\slash\nnew line 🚦'

POOLS = (
    PlannedPool(
        "limited",
        limit=50,
        queues=(
            PlannedQueue(
                "states",
                limit=20,
                # Two of each state that holds a slot: 6 runs are pending, 4 running, 2 cancelling.
                runs=tuple((state, 2 if kind in QUEUE_HOLDERS else 1) for state, kind in PLANNED_STATES.items()),
            ),
            PlannedQueue("overfull", limit=2, runs=(("Running", 4), ("Pending", 1), ("Late", 2))),
            PlannedQueue("zero", limit=0, runs=(("ScheduledDue", 1),)),
            PlannedQueue("paused", limit=4, paused=True, runs=(("Running", 1), ("Pending", 1), ("Late", 1))),
            PlannedQueue("empty", limit=3),
        ),
    ),
    PlannedPool(
        "unlimited",
        queues=(
            PlannedQueue("paged", limit=50, runs=(("Running", 30), ("Pending", 10), ("Cancelling", 5))),
            PlannedQueue("unlimited", runs=(("Running", 2), ("Completed", 1))),
        ),
    ),
    PlannedPool("paused", limit=5, paused=True, queues=(PlannedQueue("work", limit=2, runs=(("Running", 1),)),)),
    PlannedPool(
        ODD_POOL,
        limit=3,
        queues=(PlannedQueue(ODD_QUEUE, limit=2, runs=(("Running", 1), ("Submitting", 1))),),
    ),
    PlannedPool("twin-a", queues=(PlannedQueue("shared", limit=2, runs=(("Running", 1),)),)),
    PlannedPool("twin-b", queues=(PlannedQueue("shared", runs=(("Pending", 2),)),)),
    PlannedPool("many", queues=tuple(PlannedQueue(f"queue-{number:02}", limit=number) for number in range(19))),
    PlannedPool("no-slots", limit=0),
    PlannedPool("other-type", kind="kubernetes", limit=1),
    PlannedPool("untouched"),
)

NAME_ONLY_RUNS = (("shared", "Running", 1), ("no such queue", "Running", 1))
"""Queue name, state, how many: runs that name a queue but no pool.

The server counts them in every queue of that name.
"""

QUEUELESS_RUNS = (("Running", 2),)
"""Runs in no queue at all, as of a flow that is called locally."""

LIMITS = (
    PlannedLimit("database", limit=3, active_slots=2),
    PlannedLimit("free", limit=4),
    PlannedLimit("nothing-allowed", limit=0),
    PlannedLimit("over", limit=1, active_slots=2),
    PlannedLimit("switched-off", limit=5, active=False),
    PlannedLimit("tag:gpu", limit=2, active_slots=1),
    PlannedLimit("tag:idle", limit=1),
)
DEPLOYMENT_LIMIT = 6
"""Limit of the scenario's one deployment; the server names it `deployment:<id>`."""


def planned_queues() -> Iterator[tuple[PlannedPool, PlannedQueue]]:
    """Every queue that the seeded server has, the `default` ones too."""
    for pool in POOLS:
        for queue in (PlannedQueue("default"), *pool.queues):
            yield pool, queue


def expected_holders(queue: PlannedQueue) -> dict[str, int]:
    """State type -> how many runs hold a slot of the queue in it, by the queue's own concurrency status."""
    count: dict[str, int] = dict.fromkeys(QUEUE_HOLDERS, 0)
    by_name = [(state, number) for name, state, number in NAME_ONLY_RUNS if name == queue.name]
    for state, number in (*queue.runs, *by_name):
        if PLANNED_STATES[state] in count:
            count[PLANNED_STATES[state]] += number
    return count


def expected_pool_slots(pool: PlannedPool) -> int:
    """Active slots of a pool: the server counts neither cancelling runs nor those that name no pool."""
    return sum(number for queue in pool.queues for state, number in queue.runs if PLANNED_STATES[state] in POOL_HOLDERS)


def expected_state_names() -> Counter[str]:
    """State name on the server -> runs in it, in any queue or none."""
    return Counter(_state(state)["name"] for _, _, state in _planned_runs())


def seed_scenario(server: PrefectServer) -> None:
    """Create the scenario on an empty server over its REST API.

    The states stay as they are only on a server without background services. Raises `httpx.HTTPStatusError`
    when the server refuses something.
    """
    with closing(server.client()) as client:
        api = PrefectApi(client)
        flow = api.create_flow("seeded")
        _create_pools(api)
        _create_limits(api, flow)
        # One after the other: SQLite lets one writer in, and turning the others away costs more time.
        for run in _planned_runs():
            _create_run(api, flow, *run)


def _create_pools(api: PrefectApi) -> None:
    for pool in POOLS:
        api.create_pool(pool.name, kind=pool.kind, limit=pool.limit, paused=pool.paused)
        for queue in pool.queues:
            api.create_queue(pool.name, queue.name, limit=queue.limit, paused=queue.paused)


def _create_limits(api: PrefectApi, flow: str) -> None:
    for planned in LIMITS:
        body = {
            "name": planned.name,
            "limit": planned.limit,
            "active_slots": planned.active_slots,
            "active": planned.active,
        }
        api.request("POST", "/v2/concurrency_limits/", body)
    api.request("POST", "/deployments/", {"name": "seeded", "flow_id": flow, "concurrency_limit": DEPLOYMENT_LIMIT})


def _planned_runs() -> Iterator[tuple[str | None, str | None, str]]:
    """Pool, queue and state of every run."""
    for pool, queue in planned_queues():
        for state, number in queue.runs:
            yield from [(pool.name, queue.name, state)] * number
    for name, state, number in NAME_ONLY_RUNS:
        yield from [(None, name, state)] * number
    for state, number in QUEUELESS_RUNS:
        yield from [(None, None, state)] * number


def _create_run(api: PrefectApi, flow: str, pool: str | None, queue: str | None, state: str) -> None:
    run = api.create_run(flow, pool=pool, queue=queue, state=_state("ScheduledFuture"))
    if state in {"Retrying", "Cancelling"}:
        # These have run before, and keep the start time of then.
        api.set_state(run, _state("Running"))
    if state != "ScheduledFuture":
        api.set_state(run, _state(state))


def _state(planned: str) -> dict[str, Any]:
    kind = PLANNED_STATES[planned]
    state: dict[str, Any] = {"type": kind, "name": planned}
    if kind == "SCHEDULED":
        waits = timedelta(hours=-1) if planned in {"ScheduledDue", "Late"} else timedelta(days=1)
        state["state_details"] = {"scheduled_time": (datetime.now(UTC) + waits).isoformat()}
        state["name"] = "Scheduled" if planned.startswith("Scheduled") else planned
    return state
