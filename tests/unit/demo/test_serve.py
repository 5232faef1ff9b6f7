import asyncio
import signal
from urllib.parse import urlsplit

import httpx
import pytest

from exporter.demo import Upstreams, serve, utc_now
from exporter.sources.prefect.links import Links
from tests.harness.process import PATIENCE

KINDS = ["tag", "global"]


async def test_both_upstreams_answer_on_loopback_at_once() -> None:
    async with serve() as upstreams, httpx.AsyncClient(timeout=PATIENCE) as client:
        assert upstreams.prefect_url.startswith("http://127.0.0.1:")
        assert upstreams.prefect_url.endswith("/api")
        assert (await client.get(f"{upstreams.prefect_url}/health")).json() is True
        headers = {"Authorization": f"Bearer {upstreams.cloro_api_key}"}
        assert (await client.get(f"{upstreams.cloro_url}/v1/async/status", headers=headers)).status_code == 200


async def test_it_stops_whoever_is_still_connected() -> None:
    tasks = asyncio.all_tasks()
    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        async with serve() as upstreams:
            await client.get(f"{upstreams.prefect_url}/health")
            await client.get(upstreams.cloro_url)
            silent = await asyncio.open_connection("127.0.0.1", urlsplit(upstreams.cloro_url).port)
            silent[1].write(b"GET / HT")
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{upstreams.prefect_url}/health")
        assert await silent[0].read() == b"", "not until its request was too late"
        silent[1].close()
        await silent[1].wait_closed()
    assert asyncio.all_tasks() == tasks


async def test_a_context_that_ends_at_once_stops_too() -> None:
    tasks = asyncio.all_tasks()
    async with serve():
        pass
    assert asyncio.all_tasks() == tasks


async def test_an_error_inside_the_context_comes_out_unchanged() -> None:
    async def fail(_: Upstreams) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with serve() as upstreams:
            await fail(upstreams)


async def test_it_leaves_the_signals_to_the_process() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve() as upstreams, httpx.AsyncClient(timeout=PATIENCE) as client:
        await client.get(f"{upstreams.prefect_url}/health")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_two_demos_can_run_side_by_side() -> None:
    async with serve() as one, serve() as other:
        assert one != other


def test_the_default_clock_knows_its_time_zone() -> None:
    assert utc_now().utcoffset() is not None


async def test_every_link_into_the_ui_leads_somewhere() -> None:
    async with serve() as upstreams, httpx.AsyncClient(timeout=PATIENCE) as client:
        links = Links.of(upstreams.prefect_url, None)
        urls = [links.run("id"), links.pool("ecs-ml"), links.queue("ecs-ml", "a/b"), *map(links.limit, KINDS, KINDS)]
        for url in urls:
            assert url
            assert "demo" in (await client.get(url)).text
