"""The embedded upstreams that `--demo` polls: look-alikes of a Prefect server and of cloro, on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.demo import cloro, prefect
from exporter.demo.tasks import Tasks
from exporter.demo.world import World
from exporter.web.connection import Limits
from exporter.web.listeners import listen
from exporter.web.server import Server

STOP_WITHIN = 1
"""Seconds that requests still being answered may take when the demo stops."""


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Addresses of the running demo upstreams."""

    prefect_url: str
    """Ends in `/api`, as PREFECT_API_URL does."""
    cloro_url: str
    cloro_api_key: str
    """What the cloro look-alike accepts."""


@asynccontextmanager
async def serve(clock: Callable[[], datetime] = utc_now) -> AsyncIterator[Upstreams]:
    """Serve both upstreams on free ports of 127.0.0.1, in the running loop, for as long as the context lasts.

    `clock` gives moments with a time zone. What the upstreams answer depends on nothing else.
    """
    start = clock()
    with ExitStack() as sockets:
        # They listen from here on, so that a request that comes before its server runs waits instead of failing.
        servers = []
        for app in (prefect.application(World(start).at, clock), cloro.application(Tasks(start), clock)):
            listener = sockets.enter_context(listen("127.0.0.1", 0))
            servers.append((Server(app, graceful_seconds=STOP_WITHIN, limits=Limits(keeps_bodies=True)), listener))
        running = [asyncio.create_task(server.serve([listener])) for server, listener in servers]
        urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for _, listener in servers]
        try:
            yield Upstreams(prefect_url=f"{urls[0]}/api", cloro_url=urls[1], cloro_api_key=cloro.API_KEY)
        finally:
            for server, _ in servers:
                server.stop()
            await asyncio.gather(*running)
