"""The client of an upstream: a request that is cancelled costs the next one nothing."""

import asyncio
import os
from contextlib import suppress

from pydantic import TypeAdapter

from exporter.sources.client import Client
from exporter.sources.cloro import CloroConfig
from tests.harness.upstream import Request, answer, serve

ANY = TypeAdapter[object](object)


def client(url: str) -> Client:
    settings = {"name": "s", "system": "cloro", "url": url, "authorization": {"credentials": "sk_1"}}
    config = CloroConfig.model_validate(settings)
    return Client(config, request_timeout=30, explain=lambda _: None, count_request=lambda *_: None)


async def test_a_request_may_be_cancelled_at_any_time() -> None:
    """At each step of it: while it waits for a connection, connects, sends, reads."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with serve(lambda _: answer(1)) as upstream:
        ours = client(upstream.url)
        for steps in range(60):
            several = [asyncio.create_task(ours.get("/", ANY)) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in several:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*several)
            await asyncio.wait(several)
            assert (await asyncio.wait_for(ours.get("/", ANY), 20)).content == 1
        # Two ends of a connection for each that is kept.
        assert len(os.listdir("/proc/self/fd")) < before + 20  # noqa: PTH208
        await ours.close()


async def test_a_request_that_is_cancelled_does_not_end_the_others() -> None:
    arrived = {path: asyncio.Event() for path in ("/slow", "/never", "/next")}
    go_on = asyncio.Event()

    async def slowly(request: Request) -> bytes:
        arrived[request.path].set()
        if request.path == "/slow":
            await go_on.wait()
        elif request.path == "/never":
            await asyncio.Event().wait()
        return answer(request.path)

    async with serve(slowly) as upstream:
        ours = client(upstream.url)
        slow = asyncio.create_task(ours.get("/slow", ANY))
        await arrived["/slow"].wait()
        never = asyncio.create_task(ours.get("/never", ANY))
        await arrived["/never"].wait()
        never.cancel()
        await asyncio.wait([never])
        assert (await ours.get("/next", ANY)).content == "/next"
        go_on.set()
        assert (await slow).content == "/slow"
        await ours.close()
