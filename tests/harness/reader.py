"""Read a Prefect server the plain way, for the exporter's values to be compared with.

Written from the server's REST contract alone: no cleverness, no concurrency, one call after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx


@dataclass(frozen=True)
class Age:
    """How long one holder has been in its present state, as the server said."""

    state_timestamp: str | None
    time_in_current_state: float | None
    """Seconds; negative when clocks differ."""


@dataclass(frozen=True)
class Pool:
    """A work pool."""

    name: str
    id: str
    type: str
    is_paused: bool
    limit: int | None
    active_slots: int
    """Pending and running runs of its queues; of an unlimited pool too."""


@dataclass(frozen=True)
class Queue:
    """A work queue; pending, running and cancelling runs hold its slots."""

    pool: str
    name: str
    id: str
    priority: int
    is_paused: bool
    limit: int | None
    active_slots: int
    holders: dict[str, int]
    """State type -> runs; only states that a run is in."""
    ages: dict[str, list[Age]]
    """State type -> one for each holder."""


@dataclass(frozen=True)
class Limit:
    """A limit that is no queue: `tag:<tag>`, `deployment:<id>`, any other name is a global one."""

    name: str
    limit: int
    active_slots: int
    active: bool


@dataclass(frozen=True)
class Reading:
    """All that was read; pools and limits by name, queues by the names of pool and queue."""

    pools: dict[str, Pool]
    queues: dict[tuple[str, str], Queue]
    limits: dict[str, Limit]


def read(client: httpx.Client) -> Reading:
    """Read the server whose API is the client's `base_url`; the client brings auth and CSRF headers.

    Raises `httpx.HTTPStatusError` for any answer that is not a success, `KeyError` for a missing field.
    Between two calls the server may change: freeze it where exact figures count.
    """
    pools = {}
    queues = {}
    for item in _listing(client, "/work_pools/filter"):
        pool = _pool(client, item)
        pools[pool.name] = pool
        for queue_item in _listing(client, f"/work_pools/{_in_path(pool.name)}/queues/filter"):
            queue = _queue(client, pool.name, queue_item)
            queues[pool.name, queue.name] = queue
    limits = {item["name"]: _limit(item) for item in _listing(client, "/v2/concurrency_limits/filter")}
    return Reading(pools=pools, queues=queues, limits=limits)


def _pool(client: httpx.Client, item: dict[str, Any]) -> Pool:
    # The listing has no active slots for a pool without a limit, this has them for all.
    status = _post(client, f"/work_pools/{_in_path(item['name'])}/concurrency_status", {"limit": 0})
    return Pool(
        name=item["name"],
        id=item["id"],
        type=item["type"],
        is_paused=item["is_paused"],
        limit=item["concurrency_limit"],
        active_slots=status["active_slots"],
    )


def _queue(client: httpx.Client, pool: str, item: dict[str, Any]) -> Queue:
    runs = {}
    page = 1
    while True:
        status = _post(client, f"/work_queues/{item['id']}/concurrency_status", {"page": page})
        for run in status["flow_runs"]:
            runs[run["id"]] = run
        if not status["flow_runs"]:
            break
        page += 1

    ages: dict[str, list[Age]] = {}
    for run in runs.values():
        age = Age(run["state_timestamp"], run["time_in_current_state"])
        ages.setdefault(run["state_type"], []).append(age)
    return Queue(
        pool=pool,
        name=item["name"],
        id=item["id"],
        priority=item["priority"],
        is_paused=item["is_paused"],
        limit=status["concurrency_limit"],
        active_slots=status["active_slots"],
        holders={state: len(its_ages) for state, its_ages in ages.items()},
        ages=ages,
    )


def _limit(item: dict[str, Any]) -> Limit:
    return Limit(name=item["name"], limit=item["limit"], active_slots=item["active_slots"], active=item["active"])


def _listing(client: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    """All items of a listing; its pages are as long as the server likes, and an empty one is the end."""
    offset = 0
    while page := _post(client, path, {"offset": offset}):
        yield from page
        offset += len(page)


def _post(client: httpx.Client, path: str, body: dict[str, int]) -> Any:
    return client.post(path, json=body).raise_for_status().json()


def _in_path(name: str) -> str:
    return quote(name, safe="")
