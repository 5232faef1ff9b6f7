"""The demo upstreams over a real socket, with a clock that the test moves."""

from collections.abc import AsyncIterator

import httpx
import pytest

from exporter.demo import Upstreams, serve
from tests.harness.demo import Clock
from tests.harness.process import PATIENCE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def upstreams(clock: Clock) -> AsyncIterator[Upstreams]:
    async with serve(clock) as running:
        yield running


@pytest.fixture
async def prefect(upstreams: Upstreams) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=upstreams.prefect_url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
async def cloro(upstreams: Upstreams) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {upstreams.cloro_api_key}"}
    async with httpx.AsyncClient(base_url=upstreams.cloro_url, headers=headers, timeout=PATIENCE) as client:
        yield client
