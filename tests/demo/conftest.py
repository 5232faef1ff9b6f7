"""The demo upstreams over a real socket, with a clock that the test moves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from exporter.demo import Upstreams, serve
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
)


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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def upstreams(clock: Clock) -> AsyncIterator[Upstreams]:
    async with serve(clock) as running:
        yield running


@pytest.fixture
async def prefect(upstreams: Upstreams) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=upstreams.prefect_url) as client:
        yield client


@pytest.fixture
async def cloro(upstreams: Upstreams) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {upstreams.cloro_api_key}"}
    async with httpx.AsyncClient(base_url=upstreams.cloro_url, headers=headers) as client:
        yield client
