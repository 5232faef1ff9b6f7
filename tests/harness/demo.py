"""The demo's upstreams as a client sees them, on a clock that a test moves, beside what a real server answered."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.demo.scenario import K8S, ML

START = datetime(2026, 11, 21, 23, 24, 25, 143650, tzinfo=UTC)

LISTINGS = (
    "/work_pools/filter",
    f"/work_pools/{K8S}/queues/filter",
    f"/work_pools/{ML}/workers/filter",
    "/work_queues/filter",
    "/flow_runs/filter",
    "/v2/concurrency_limits/filter",
    "/deployments/filter",
    "/flows/filter",
)

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
FREE_FORM = {"base_job_template", "labels", "parameters"}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


async def post(client: httpx.AsyncClient, path: str, **body: Any) -> Any:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def assert_like(real: Any, ours: Any, where: str = "") -> None:
    """The same fields in the same order, and types that agree wherever both have a value."""
    if isinstance(real, dict) and isinstance(ours, dict):
        assert list(real) == list(ours), where
        for field in real.keys() - FREE_FORM:
            assert_like(real[field], ours[field], f"{where}.{field}")
    elif real is not None and ours is not None:
        assert type(real) is type(ours), where


async def run_in(client: httpx.AsyncClient, clock: Clock, state: str) -> Any:
    """A run in the state of this type or name, as soon as there is one."""
    for _ in range(60):
        for run in await post(client, "/flow_runs/filter"):
            if state in {run["state_type"], run["state_name"]}:
                return run
        clock.move(seconds=5)
    pytest.fail(f"no run is ever {state}")
