"""The exporter inside the test's own process: store, metrics, poller and routes, on a clock that the test moves."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any, Final, Self

import httpx
import structlog
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from exporter.clock import Clock
from exporter.metrics.exposition import render
from exporter.metrics.text import Format
from exporter.model import Snapshot
from exporter.polling.outcome import Published, Succeeded
from exporter.polling.poller import Poller
from exporter.polling.store import SourceState, Store, View
from exporter.polling.telemetry import Telemetry
from exporter.shard import WHOLE, Shard
from exporter.sources import SYSTEMS
from exporter.sources.base import SourceConfig
from exporter.sources.cloro import CloroConfig
from exporter.web.management import Reload
from exporter.web.routes import application
from tests.harness.cases import CASES
from tests.harness.exporter import series
from tests.harness.loop import skip, until
from tests.harness.process import PATIENCE
from tests.harness.upstream import Upstream

SHORT: Final = "900ms"
"""A deadline for faults that last and fail the whole poll: one request to Prefect may take a third of it."""

FAR: Final = 30 * PATIENCE
"""Seconds of a deadline for faults beside which the rest has to be read: it comes when the clock is moved on."""

SLOW: Final = {"timeout": f"{FAR}s"}
"""Settings with that deadline."""


@dataclass
class Time:
    """The two clocks of an exporter. They stand where a test puts them; with `runs`, they go on from there.

    They are far apart, as those of a machine are.
    """

    seconds: float = 50_000.0
    """What the monotonic clock says; while the clocks run, by how much it is ahead of ours."""
    wall: float = 1_000_000.0
    """By how much the wall clock is ahead of it."""
    runs: bool = False

    @classmethod
    def running(cls) -> Self:
        """Our own clocks, until they are moved."""
        return cls(seconds=0.0, wall=0.0, runs=True)

    @property
    def clock(self) -> Clock:
        """The clocks as the exporter reads them."""
        return Clock(
            now=lambda: (time.time() if self.runs else 0.0) + self.seconds + self.wall,
            monotonic=lambda: (time.monotonic() if self.runs else 0.0) + self.seconds,
        )


class Exporter:
    """Polls when it is told to, or by its schedule after `poller.start()`; it is read over its own routes.

    As a context it begins with these sources, and ends its polls and their connections.
    """

    def __init__(
        self, *sources: SourceConfig, time: Time | None = None, shard: Shard = WHOLE, reload: Reload | None = None
    ) -> None:
        self.time = time or Time()
        self.clock = self.time.clock
        self.store = Store(self.clock)
        self.telemetry = Telemetry(self.clock)
        self.poller = Poller(self.store, self.telemetry, self.clock, shard)
        self.routes = application(self.store, self.telemetry, reload)
        self.application: ASGIApp = self.routes
        self.logs: list[Any] = []
        """What was logged by the polls that it was told to do."""
        self._sources = sources

    async def configure(self, *sources: SourceConfig) -> None:
        """Have these sources from now on, as after a reload."""
        await self.poller.configure(sources)

    def add(self, source: str, system: str = "prefect") -> None:
        """Know of a source that is not polled: a test says what its polls find."""
        self.store.add(source, system)
        self.telemetry.add(source, system)

    def publish(self, source: str, snapshot: Snapshot, *, took: float = 0.3, max_series: int = 100_000) -> None:
        """Have a poll of such a source end with this snapshot, which is served for 90 s."""
        rendered = render(snapshot, source=source, system=self.state(source).system, max_series=max_series)
        published = Published(snapshot, rendered, self.clock.now(), self.clock.monotonic() + 90)
        self.store.poll_ended(source, Succeeded(published, took))

    @property
    def view(self) -> View:
        """What is known now."""
        return self.store.view()

    def state(self, source: str) -> SourceState:
        """What is known of one source now."""
        (found,) = (state for state in self.view.states if state.name == source)
        return found

    async def poll(self, source: str = "s") -> SourceState:
        """Poll a source, and return what is known of it then."""
        with capture_logs([structlog.processors.format_exc_info]) as logs:  # with tracebacks, as they are logged
            await self.poller.poll(source)
        self.logs += logs
        return self.state(source)

    async def request(self, method: str, path: str, **headers: str) -> httpx.Response:
        """The answer to a request, whatever its status; an underscore in the name of a header is a hyphen."""
        transport = httpx.ASGITransport(self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://exporter") as client:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers={"Accept-Encoding": "identity"} | names)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """The answer to a GET request."""
        return await self.request("GET", path, **headers)

    async def page(self, path: str = "/metrics") -> str:
        """The text of a page."""
        return (await self.get(path)).text

    def own(self, name: str, source: str = "s", **labels: str) -> float | None:
        """The value of one of the exporter's metrics about a source, and None where it is absent."""
        text = self.telemetry.render(self.view, Format.CLASSIC).decode()
        key = frozenset({"source": source, "system": self.state(source).system, **labels}.items())
        return series(text).get((f"concurrency_exporter_{name}", key))

    async def observed(self) -> list[str]:
        """All lines of `/metrics` that tell of upstream servers."""
        return [line for line in (await self.page()).splitlines() if re.match("concurrency_(?!exporter_)", line)]

    async def queues(self) -> list[str]:
        """The names of the queues that are published."""
        found = (re.match(r'concurrency_queue_usage_known{.*queue="([^"]*)"', line) for line in await self.observed())
        return [match[1] for match in found if match]

    async def __aenter__(self) -> Self:
        await self.configure(*self._sources)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.poller.stop()


class OneSource(Exporter):
    """An exporter with one source, called `s`, of which a test names the settings that matter to it.

    Its deadlines are far away; it has the rest from the case of its system.
    """

    def __init__(self, system: str, url: str, **settings: Any) -> None:
        self.system = system
        far = {"timeout": "20m", "stale_after": "10h"}
        self._whole = {"name": "s", "system": system, **far, **CASES[system].source(url), **settings}
        self.config = SYSTEMS[system].model_validate(self._whole)
        super().__init__(self.config)

    async def change(self, **settings: Any) -> None:
        """Have other settings; its data stays."""
        await self.configure(SYSTEMS[self.system].model_validate(self._whole | settings))


async def poll_until_late(exporter: OneSource, upstream: Upstream, *ended: int, hang: int = 1) -> SourceState:
    """Poll, and let a request's share of `FAR` pass each time when so many requests have ended and the others hang.

    The poll's own deadline is not reached by that.
    """
    before, sent = exporter.telemetry.requests("s"), len(upstream.requests)
    poll = asyncio.create_task(exporter.poll())
    left = 0.9 * FAR
    for number in ended:
        await until(lambda number=number: exporter.telemetry.requests("s") == before + number)  # type: ignore[misc]
        await until(lambda number=number: len(upstream.requests) == sent + number + hang)  # type: ignore[misc]
        skip(min(FAR / 3, left))
        left -= FAR / 3
    return await poll


def of_cloro(name: str, upstream: Upstream, **settings: object) -> CloroConfig:
    """A source whose polls are one request each."""
    whole = {"name": name, "system": "cloro", "url": upstream.url, "authorization": {"credentials": "key"}}
    return CloroConfig.model_validate(whole | settings)
