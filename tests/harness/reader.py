"""Read a Prefect server the plain way, for the exporter's values to be compared with.

Written from the server's REST contract alone: no cleverness, no concurrency, one call after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from exporter.demo.states import POOL_HOLDERS, QUEUE_HOLDERS


@dataclass(frozen=True)
class Age:
    """How long one holder has been in its present state, as the server said."""

    state_timestamp: str | None
    time_in_current_state: float | None
    """Seconds; negative when clocks differ. Always None in a reading `by_runs`."""


@dataclass(frozen=True)
class Worker:
    """A worker of a pool."""

    name: str
    status: str
    """ONLINE or OFFLINE."""
    last_heartbeat: datetime | None


@dataclass(frozen=True)
class Pool:
    """A work pool."""

    name: str
    id: str
    type: str
    is_paused: bool
    status: str | None
    """READY, NOT_READY or PAUSED."""
    limit: int | None
    active_slots: int
    """Pending and running runs of its queues; of an unlimited pool too."""
    workers: dict[str, Worker]
    """By name."""


@dataclass(frozen=True)
class WaitingRun:
    """A run that waits in a queue."""

    id: str
    state_name: str
    due: datetime
    """Its next scheduled start."""
    deployment: str | None
    in_process: bool
    """Whether its own process will try it again."""


@dataclass(frozen=True)
class Queue:
    """A work queue; pending, running and cancelling runs hold its slots."""

    pool: str
    name: str
    id: str
    priority: int
    is_paused: bool
    status: str | None
    last_polled: datetime | None
    """When a worker last asked it for runs."""
    limit: int | None
    active_slots: int
    holders: dict[str, int]
    """State type -> runs; only states that a run is in."""
    ages: dict[str, list[Age]]
    """State type -> one for each holder."""
    waiting: dict[str, list[datetime]]
    """State name -> since when each run in it waits to be started, the longest first; none that is for later."""
    runs: list[WaitingRun]
    """The same runs."""
    taken: int
    """Pending and running runs with the queue's id: those that leave fewer slots to hand out."""

    @property
    def oldest_due(self) -> datetime | None:
        """Since when the run that waits longest does so."""
        return min((times[0] for times in self.waiting.values()), default=None)


@dataclass(frozen=True)
class Limit:
    """A limit that is no queue: `tag:<tag>`, `deployment:<id>`, any other name is a global one."""

    id: str
    name: str
    limit: int
    active_slots: int
    active: bool
    slot_decay_per_second: float
    deployment: "Deployment | None"
    """Whose limit it is; None also when that was deleted."""


@dataclass(frozen=True)
class Deployment:
    """A deployment that has a limit."""

    id: str
    name: str
    flow: str
    """Name of its flow."""


@dataclass(frozen=True)
class Reading:
    """All that was read; pools and limits by name, queues by the names of pool and queue."""

    at: datetime
    """What was due by then waits."""
    pools: dict[str, Pool]
    queues: dict[tuple[str, str], Queue]
    limits: dict[str, Limit]


def read(client: httpx.Client, *, by_runs: bool = False) -> Reading:
    """Read the server whose API is the client's `base_url`; the client brings auth and CSRF headers.

    It reads every run there is, finished ones too. `by_runs` takes the holders from these as well, as it has to be
    with servers that have no concurrency status yet; ages then have timestamps only.

    Raises `httpx.HTTPStatusError` for any answer that is not a success, `KeyError` for a missing field.
    Between two calls the server may change: freeze it where exact figures count.
    """
    at = datetime.now(UTC)
    runs = list(_listing(client, "/flow_runs/filter"))
    pools = {}
    queues = {}
    for item in _listing(client, "/work_pools/filter"):
        for queue_item in _listing(client, f"/work_pools/{_in_path(item['name'])}/queues/filter"):
            holders = _holders_by_runs(runs, queue_item) if by_runs else _holders(client, queue_item)
            queue = _queue(item["name"], queue_item, holders, runs, at)
            queues[queue.pool, queue.name] = queue
        pools[item["name"]] = _pool(client, item, _pool_slots_by_runs(runs, item) if by_runs else None)
    limits = {item["name"]: _limit(client, item) for item in _listing(client, "/v2/concurrency_limits/filter")}
    return Reading(at=at, pools=pools, queues=queues, limits=limits)


def _pool(client: httpx.Client, item: dict[str, Any], active_slots: int | None) -> Pool:
    path = f"/work_pools/{_in_path(item['name'])}"
    if active_slots is None:
        # The listing has no active slots for a pool without a limit, this has them for all.
        active_slots = _post(client, f"{path}/concurrency_status", {"limit": 0})["active_slots"]
    workers = [
        Worker(worker["name"], worker["status"], _time(worker["last_heartbeat_time"]))
        for worker in _listing(client, f"{path}/workers/filter")
    ]
    return Pool(
        name=item["name"],
        id=item["id"],
        type=item["type"],
        is_paused=item["is_paused"],
        status=item["status"],
        limit=item["concurrency_limit"],
        active_slots=active_slots,
        workers={worker.name: worker for worker in workers},
    )


def _pool_slots_by_runs(runs: list[dict[str, Any]], pool: dict[str, Any]) -> int:
    return sum(run["work_pool_id"] == pool["id"] and run["state_type"] in POOL_HOLDERS for run in runs)


def _queue(pool: str, item: dict[str, Any], holders: "_Holders", runs: list[dict[str, Any]], at: datetime) -> Queue:
    waiting = _waiting(runs, item, at)
    return Queue(
        pool=pool,
        name=item["name"],
        id=item["id"],
        priority=item["priority"],
        is_paused=item["is_paused"],
        status=item["status"],
        last_polled=_time(item["last_polled"]),
        limit=item["concurrency_limit"],
        active_slots=holders.active_slots,
        holders={state: len(its_ages) for state, its_ages in holders.ages.items()},
        ages=holders.ages,
        waiting={
            state: sorted(since for since, of_state in waiting if of_state.state_name == state)
            for state in {run.state_name for _, run in waiting}
        },
        runs=[run for _, run in waiting],
        taken=sum(run["work_queue_id"] == item["id"] and run["state_type"] in POOL_HOLDERS for run in runs),
    )


@dataclass(frozen=True)
class _Holders:
    active_slots: int
    ages: dict[str, list[Age]]


def _holders(client: httpx.Client, queue: dict[str, Any]) -> _Holders:
    runs = {}
    page = 1
    while True:
        status = _post(client, f"/work_queues/{queue['id']}/concurrency_status", {"page": page})
        for run in status["flow_runs"]:
            runs[run["id"]] = run
        if not status["flow_runs"]:
            break
        page += 1

    ages: dict[str, list[Age]] = {}
    for run in runs.values():
        age = Age(run["state_timestamp"], run["time_in_current_state"])
        ages.setdefault(run["state_type"], []).append(age)
    return _Holders(status["active_slots"], ages)


def _holders_by_runs(runs: list[dict[str, Any]], queue: dict[str, Any]) -> _Holders:
    ages: dict[str, list[Age]] = {}
    count = 0
    for run in runs:
        by_name = run["work_queue_id"] is None and run["work_queue_name"] == queue["name"]
        if (run["work_queue_id"] == queue["id"] or by_name) and run["state_type"] in QUEUE_HOLDERS:
            count += 1
            age = Age(run["state"]["timestamp"] if run["state"] else None, None)
            ages.setdefault(run["state_type"], []).append(age)
    return _Holders(count, ages)


def _waiting(runs: list[dict[str, Any]], queue: dict[str, Any], at: datetime) -> list[tuple[datetime, WaitingRun]]:
    """The waiting runs of the queue, and since when each waits."""
    waiting = []
    for run in runs:
        if run["work_queue_id"] != queue["id"] or run["state_type"] != "SCHEDULED":
            continue
        # Held back by the limit of its deployment, and put off again each time, so that it is never due for long.
        held_back = run["state_name"] == "AwaitingConcurrencySlot"
        since = _time(run["expected_start_time" if held_back else "next_scheduled_start_time"])
        due = _time(run["next_scheduled_start_time"])
        if since and due and (held_back or since <= at):
            retries = (run["empirical_policy"] or {}).get("retry_type") == "in_process"
            waiting.append((since, WaitingRun(run["id"], run["state_name"], due, run["deployment_id"], retries)))
    return waiting


def _limit(client: httpx.Client, item: dict[str, Any]) -> Limit:
    return Limit(
        id=item["id"],
        name=item["name"],
        limit=item["limit"],
        active_slots=item["active_slots"],
        active=item["active"],
        slot_decay_per_second=item["slot_decay_per_second"],
        deployment=_deployment(client, item["name"]),
    )


def _deployment(client: httpx.Client, limit: str) -> Deployment | None:
    kind, _, identity = limit.partition(":")
    if kind != "deployment":
        return None
    answer = client.get(f"/deployments/{identity}")
    if answer.status_code == httpx.codes.NOT_FOUND:
        return None
    deployment = answer.raise_for_status().json()
    flow = client.get(f"/flows/{deployment['flow_id']}").raise_for_status().json()
    return Deployment(id=identity, name=deployment["name"], flow=flow["name"])


def _listing(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """All items of a listing; its pages are as long as the server likes, and an empty one is the end."""
    offset = 0
    while page := _post(client, path, {"offset": offset}):
        yield from page
        offset += len(page)


def _post(client: httpx.Client, path: str, body: dict[str, int]) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _in_path(name: str) -> str:
    return quote(name, safe="")
