"""The program of docs/throttling.md, as it stands there: many of it keep the slots full, and the queue short."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cloro import Cloro
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.demo import cloro
from exporter.demo.pace import Wave
from exporter.demo.tasks import MAX_SLOTS, Tasks
from exporter.sources.cloro import CloroConfig
from exporter.web.connection import Limits
from exporter.web.listeners import listen
from exporter.web.server import Server
from tests.harness.demo import START, Clock
from tests.harness.documents import blocks
from tests.harness.inprocess import Exporter
from tests.harness.loop import until
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT

INTERVAL = 5
"""Seconds from one poll to the next."""


@dataclass
class Counted:
    """An application, and what it was asked."""

    application: ASGIApp
    requests: Counter[str] = field(default_factory=Counter)
    """How often each path was asked for."""
    answered: dict[tuple[str, int], set[Any]] = field(default_factory=dict)
    """The connections that got an answer with this status to a request with this `If-None-Match`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request and its answer."""
        self.requests[scope["path"]] += 1
        seen = dict(scope["headers"]).get(b"if-none-match", b"").decode()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answered.setdefault((seen, message["status"]), set()).add(scope["client"])
            await send(message)

        await self.application(scope, receive, counted)


@asynccontextmanager
async def served(application: ASGIApp) -> AsyncIterator[str]:
    """The address at which it is served."""
    listener = listen("127.0.0.1", 0)
    server = Server(application, graceful_seconds=1, limits=Limits(keeps_bodies=True))
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        await task


def program() -> dict[str, Any]:
    """The names that the program of the document defines."""
    (block,) = (one for one in blocks(ROOT / "docs" / "throttling.md") if one.language == "python")
    names: dict[str, Any] = {"__name__": "submitter"}
    exec(compile(block.text, block.place, "exec"), names)  # noqa: S102
    return names


@dataclass
class Fleet:
    """Many of the programs, each with connections of its own, in threads."""

    exporter: str
    upstream: str
    names: dict[str, Any]
    done: list[BaseException | None] = field(default_factory=list)
    prompts: list[list[str]] = field(default_factory=list)

    def start(self, count: int) -> None:
        """Start them; each has more to submit than it will."""
        for _ in range(count):
            self.prompts.append(["a prompt"] * 10_000)
            threading.Thread(target=self._run, args=(self.prompts[-1],), daemon=True).start()

    def _run(self, prompts: list[str]) -> None:
        try:
            with (
                Cloro(api_key=cloro.API_KEY, base_url=self.upstream, timeout=PATIENCE) as client,
                httpx.Client(base_url=self.exporter, timeout=PATIENCE) as exporter,
            ):
                self.names["submit"](prompts, client, exporter)
        except BaseException as error:  # noqa: BLE001  it is looked at in the test
            self.done.append(error)
        else:
            self.done.append(None)

    async def stop(self) -> None:
        """Let them have nothing more to submit."""
        for prompts in self.prompts:
            prompts.clear()
        await until(lambda: len(self.done) == len(self.prompts))


@pytest.mark.slow
async def test_many_submitters_keep_the_slots_full_and_the_queue_short() -> None:
    names = program()
    names["EVERY"] = 0.05
    submitters = names["SUBMITTERS"]
    clock = Clock()
    tasks = Tasks(START, arrivals=Wave(0))
    upstream = Counted(cloro.application(tasks, clock))
    async with served(upstream) as url:
        whole = {"name": "cloro", "system": "cloro", "url": url, "authorization": {"credentials": cloro.API_KEY}}
        async with Exporter(CloroConfig.model_validate(whole)) as exporter:
            asked = Counted(exporter.application)
            async with served(asked) as exporter_url:
                fleet = Fleet(exporter_url, url, names)
                await exporter.poll("cloro")
                fleet.start(submitters)

                async def all_have(seen: str, status: int) -> None:
                    await until(lambda: len(asked.answered.get((seen, status), ())) == submitters or bool(fleet.done))

                async def interval() -> list[tuple[int, int]]:
                    """The tasks at work and those that wait, after each second until the next poll."""
                    found = []
                    for _ in range(INTERVAL):
                        clock.move(seconds=1)
                        tasks.advance(clock())
                        found.append((tasks.processing, sum(tasks.queued.values())))
                    exporter.time.seconds += INTERVAL
                    await exporter.poll("cloro")
                    return found

                seconds, tag = [], ""
                while (answer := await exporter.get("/api/v1/headroom?source=cloro&queue=async")).status_code == 200:
                    tag = answer.headers["ETag"]
                    # One who gets 304 has submitted its share.
                    await all_have(tag, 304)
                    seconds.append(await interval())
                rounds, created = len(seconds), upstream.requests["/v1/async/task"]
                busy = [second for found in seconds[1:-1] for second in found]
                assert {processing for processing, _ in busy} == {MAX_SLOTS}
                assert 0 < max(queued for _, queued in busy) <= 30
                assert rounds > 40
                assert created > 400
                assert asked.requests["/api/v1/headroom"] >= 2 * rounds * submitters

                # cloro's maintenance: the headroom is not known, and nobody submits.
                await all_have(tag, 503)
                await interval()
                assert upstream.requests["/v1/async/task"] == created

                await fleet.stop()
                assert fleet.done == [None] * submitters
                # One request for each poll, whoever asks the exporter.
                assert upstream.requests["/v1/async/status"] == rounds + 2
