"""`make soak`: thousands of polls, many scrapers, and clients that hang; prints what it found, or fails.

What is measured is in processes of its own: the upstream is never in that of the exporter.
"""

import argparse
import asyncio
import gc
import logging
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from exporter.demo.rows import Pool, Queue
from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.polling.store import SourceState
from exporter.sources import SYSTEMS
from exporter.sources.base import SourceConfig
from exporter.web.connection import LIMITS
from tests.fuzz import strict
from tests.harness.cloro import KEY
from tests.harness.exporter import exporter, troubles
from tests.harness.figures import publish
from tests.harness.inprocess import Exporter, Time
from tests.harness.lookalike import Lookalike, flow_run
from tests.harness.process import PATIENCE, Process, accepts, free_port
from tests.harness.upstream import Answer, Hangup, Request, answer, never, serve
from tests.measure.bench import resident

SCRAPE_TIMEOUT: Final = 10.0
"""Seconds after which Prometheus gives a scrape up, by default."""
PROMETHEUS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    "Accept-Encoding": "gzip",
    "User-Agent": "Prometheus/3.5.0",
    "X-Prometheus-Scrape-Timeout-Seconds": f"{SCRAPE_TIMEOUT:g}",
}
"""What Prometheus sends."""


# --- An upstream whose queues come and go, and that fails: a moment is a number, from which both sides know it.


@dataclass(frozen=True)
class Moment:
    """What an upstream has at one moment, and which of its requests fails, if any, and how."""

    pools: dict[str, list[str]]
    """The names of the queues by that of their pool."""
    tasks: int
    failing: str
    """An item of `FAILURES`, or empty."""
    fails_at: int


FAILURES: Final[dict[str, bytes | Hangup]] = {
    "500": answer({"exception_message": "Internal Server Error"}, 500),
    "503": answer(b"down", 503, media_type="text/plain"),
    "429": answer({}, 429, {"Retry-After": "1"}),
    "401": answer({"detail": "Unauthorized"}, 401),
    "html": answer(b"<html>", media_type="text/html"),
    "wrong": answer([{"id": "x"}]),
    "reset": Hangup(),
    "truncated": Hangup(answer([1, 2, 3])[:-3]),
    "hangs": b"",
}


def moment(number: int) -> Moment:
    """The upstream at this moment."""
    chosen = random.Random(number)  # noqa: S311  not a secret
    pools = {
        f"pool {n}": [f'queue "{q}"\n' for q in sorted(chosen.sample(range(40), chosen.randint(0, 8)))]
        for n in sorted(chosen.sample(range(12), chosen.randint(1, 5)))
    }
    failing = (
        chosen.choice(list(FAILURES)[:-1]) if chosen.random() < 0.2 else "hangs" if chosen.random() < 0.001 else ""
    )
    return Moment(pools, chosen.randint(0, 50), failing, chosen.randint(1, 4))


def changing() -> Answer:
    """Answers for both systems; GET /moment/N makes it be that moment."""
    now, asked = moment(0), 0
    server = lookalike(now)

    async def reply(request: Request) -> bytes:
        nonlocal now, asked, server
        if request.path.startswith("/moment/"):
            now, asked = moment(int(request.path.rpartition("/")[2])), 0
            server = lookalike(now)
            return answer({})
        asked += 1
        if now.failing and asked >= (1 if request.path.startswith("/v1") else now.fails_at):
            failure = FAILURES[now.failing]
            if isinstance(failure, Hangup):
                raise failure
            return failure or await never(request)
        if request.path.startswith("/v1"):
            usage = {"used": 1, "max": 5}
            return answer({"queuedTasks": now.tasks, "processingTasks": 1, "concurrency": usage})
        return await server(request)

    return reply


def lookalike(now: Moment) -> Lookalike:
    """The Prefect server of a moment, in which each task is a run that holds a slot."""
    since = datetime(2026, 11, 21, 23, 24, 25, tzinfo=UTC)
    queues = [Queue(pool, name, limit=4) for pool, names in now.pools.items() for name in names]
    return Lookalike(
        pools=[Pool(name, limit=9) for name in now.pools],
        queues=queues,
        runs=[flow_run(n, "Running", queues[n % len(queues)], since) for n in range(now.tasks)] if queues else [],
    )


async def run_upstream(port: int) -> None:
    """Serve until the process is ended."""
    async with serve(changing(), port=port) as fake:
        while True:
            await asyncio.sleep(1)
            fake.requests.clear()


@contextmanager
def child(what: str, *arguments: object) -> Iterator[str]:
    """A server that is a command of this module or of `bench`, in a process of its own: its address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        module = "tests.measure.soak" if what == "changing" else "tests.measure.bench"
        process = Process(
            [sys.executable, "-m", module, what, *map(str, arguments), str(port)], log=Path(directory) / "log"
        )
        try:
            process.wait_until(accepts(port), what=f"{what} listens")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stop()


# --- Polls at full speed.


@dataclass(frozen=True)
class Held:
    """What a process holds at one time."""

    polls: int
    mib: float
    objects: int
    descriptors: int
    threads: int
    tasks: int
    series: int
    """Of the exporter about itself."""


async def polls(count: int, checkpoints: int = 10) -> list[Held]:
    """Poll both systems `count` times in all; what is held after each part. Every poll is compared with its moment."""
    held = []
    with child("changing") as url:
        async with (
            Exporter(*_sources(url), time=Time.running()) as exporter,
            httpx.AsyncClient(trust_env=False) as control,
        ):
            for number in range(1, count // 2 + 1):
                (await control.get(f"{url}/moment/{number}")).raise_for_status()
                for name in ("cloro", "prefect"):
                    await exporter.poller.poll(name)
                view = exporter.view
                compare(number, view.states)
                for format_ in Format:
                    body = Body(view.live.values(), format_)
                    await body.gzipped(exporter.telemetry.render(view, format_))
                if number % max(1, count // 2 // checkpoints) == 0:
                    held.append(_held(2 * number, exporter))
    return held


def _sources(url: str) -> list[SourceConfig]:
    settings: list[dict[str, Any]] = [
        {"system": "cloro", "url": url, "authorization": {"credentials": KEY}},
        {"system": "prefect", "url": f"{url}/api", "collect": ["queues", "pools"]},
    ]
    common = {"interval": "10m", "timeout": "15s"}
    return [SYSTEMS[one["system"]].model_validate({"name": one["system"]} | common | one) for one in settings]


def compare(number: int, states: Sequence[SourceState]) -> None:
    """The series are exactly those of what upstream has now; only a moment that fails may leave some out."""
    now = moment(number)
    for state in states:
        if now.failing and state.outcome != "success":
            assert state.outcome == "failure" or now.failing in {"500", "503", "html", "wrong", "hangs"}, state
            continue
        assert state.outcome == "success", (number, state.failure)
        assert state.published
        text = b"".join(Body([state.published.rendered], Format.CLASSIC).plain(b""))
        series = [(name, dict(labels)) for name, labels in strict.check(text, Format.CLASSIC)]
        found = {(labels["pool"], labels["queue"]) for _, labels in series if "queue" in labels}
        pools = {labels["pool"] for name, labels in series if name == "concurrency_pool_info"}
        if state.system == "cloro":
            assert (found, pools) == ({("", "async")}, set())
        else:
            assert found == {(pool, queue) for pool, queues in now.pools.items() for queue in queues}
            assert pools == set(now.pools)


def _held(done: int, exporter: Exporter) -> Held:
    gc.collect()
    text = exporter.telemetry.render(exporter.view, Format.CLASSIC)
    return Held(
        polls=done,
        mib=resident(),
        objects=len(gc.get_objects()),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208  it changes while it is read
        threads=threading.active_count(),
        tasks=len(asyncio.all_tasks()),
        series=sum(not line.startswith(b"#") for line in text.splitlines()),
    )


def grown(held: Sequence[Held]) -> list[str]:
    """What has grown since the first part, by which all that is made once is there."""
    first, last = held[0], held[-1]
    allowed = {"mib": 8.0, "objects": first.objects * 0.02, "descriptors": 8, "threads": 4, "tasks": 2, "series": 40}
    return [
        f"{name}: {getattr(first, name)} after {first.polls} polls, {getattr(last, name)} after {last.polls}"
        for name, most in allowed.items()
        if getattr(last, name) - getattr(first, name) > most
    ]


# --- Scrapes.


@dataclass(frozen=True)
class Times:
    """How long scrapes took, in seconds."""

    scrapes: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """Of single scrapes."""
        ranked = sorted(seconds)
        return cls(len(ranked), statistics.median(ranked), ranked[int(len(ranked) * 0.99)], ranked[-1])

    def row(self, what: str) -> str:
        """A row of a table, in milliseconds."""
        return f"| {what} | {self.scrapes:,} | {self.p50 * 1e3:.0f} | {self.p99 * 1e3:.0f} | {self.longest * 1e3:.0f} |"


def slow(times: Mapping[str, Times]) -> list[str]:
    """By whom one scrape in a hundred would be given up."""
    return [
        f"{by}: p99 of a scrape is {one.p99:.1f} s, above {SCRAPE_TIMEOUT:g} s"
        for by, one in times.items()
        if one.p99 > SCRAPE_TIMEOUT
    ]


async def _scrape(client: httpx.AsyncClient, url: str) -> float:
    start = time.perf_counter()
    async with client.stream("GET", f"{url}/metrics") as response:
        async for _ in response.aiter_raw():
            pass
    assert response.status_code == httpx.codes.OK
    assert response.headers["Content-Encoding"] == "gzip"
    return time.perf_counter() - start


async def _scrape_again(client: httpx.AsyncClient, url: str) -> float:
    """As Go's client: once more where a connection that was kept had just been closed; both count."""
    start = time.perf_counter()
    try:
        await _scrape(client, url)
    except (httpx.RemoteProtocolError, httpx.ReadError):
        await _scrape(client, url)
    return time.perf_counter() - start


async def scrapes(queues: int, scrapers: int, waves: int) -> Times:
    """Scrape all at once, wave after wave, while an upstream with so many queues is polled without a pause."""
    with child("upstream", queues, 10) as upstream, tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "config.yml"
        config.write_text(
            f"sources: [{{name: p, system: prefect, url: '{upstream}/api', interval: 1s, timeout: 1m, stale_after: 10m,"
            " collect: [queues, pools]}]"
        )
        with exporter(Path(directory), f"--config.file={config}") as running:
            limits = httpx.Limits(max_connections=scrapers)
            async with httpx.AsyncClient(trust_env=False, headers=PROMETHEUS, limits=limits, timeout=30) as client:
                seconds: list[float] = []
                for _ in range(waves):
                    begun = time.monotonic()
                    seconds += await asyncio.gather(*(_scrape(client, running.url) for _ in range(scrapers)))
                    await asyncio.sleep(max(0.0, begun + 1 - time.monotonic()))
            assert running.series("concurrency_exporter_polls_total")
            strict.check(running.get(Accept=PROMETHEUS["Accept"]).content, Format.OPENMETRICS)
            return Times.of(seconds)


# --- Clients that hang.

HALF_OPEN: Final = 500
SLOW: Final = 50


@dataclass(frozen=True)
class Siege:
    """How a scraper fared among clients that hang, and how many file descriptors the exporter had."""

    times: Times
    before: int
    most: int
    after: int


async def siege(seconds: float) -> Siege:
    """Scrape four times a second among 500 half-open connections, 50 slow writers and 50 who do not read.

    For so many seconds, and until there are as many as are served.
    """
    with tempfile.TemporaryDirectory() as directory, exporter(Path(directory), "--demo") as running:
        folder = Path(f"/proc/{running.process.pid}/fd")
        port = int(running.url.rpartition(":")[2])
        before = _descriptors(folder)
        most = 0
        times: list[float] = []
        hanging = [
            *(asyncio.create_task(_hang(port, b"" if n % 2 else b"GET /metrics HT", 0.0)) for n in range(HALF_OPEN)),
            *(asyncio.create_task(_hang(port, b"GET /metrics HTTP/1.1\r\nX: ", 0.5)) for _ in range(SLOW)),
            *(
                asyncio.create_task(_hang(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20, 0.0))
                for _ in range(SLOW)
            ),
        ]
        until = time.monotonic() + seconds
        async with httpx.AsyncClient(trust_env=False, headers=PROMETHEUS, timeout=PATIENCE) as client:
            while time.monotonic() < until or len(times) < 3 or most < LIMITS.connections:
                times.append(await _scrape_again(client, running.url))
                most = max(most, _descriptors(folder))
                await asyncio.sleep(0.25)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            while (after := _descriptors(folder)) > before + 4:  # noqa: ASYNC110  of another process
                await asyncio.sleep(0.1)
        said = troubles(running.process)
        assert said == [], said
        return Siege(Times.of(times), before, most, after)


def _descriptors(folder: Path) -> int:
    return len(os.listdir(folder))  # noqa: PTH208


async def _hang(port: int, first: bytes, every: float) -> None:
    """Send this and then a byte at a time or nothing, never read, and come again when the connection is closed."""
    while True:
        with suppress(OSError):
            connection = socket.socket()
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, ("127.0.0.1", port))
                await loop.sock_sendall(connection, first)
                while not _is_closed(connection):
                    await asyncio.sleep(every or 1)
                    if every:
                        await loop.sock_sendall(connection, b"x")
            finally:
                connection.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False


# --- The command.


async def report(count: int, waves: int, seconds: float) -> tuple[str, list[str]]:
    """Run all of it: the tables, and what has grown or is too slow."""
    begun = time.monotonic()
    held = await polls(count)
    took = time.monotonic() - begun
    lines = [f"{count:,} polls in {took:.0f} s.", "", *_table([field.name for field in fields(Held)])]
    for one in held:
        cells = [f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in astuple(one)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *_table(["scraped by", "scrapes", "p50 ms", "p99 ms", "longest ms"])]
    times = {
        "1 scraper, during polls of 1,000 queues": await scrapes(1_000, 1, waves),
        "50 scrapers at once, likewise": await scrapes(1_000, 50, waves),
    }
    besieged = await siege(seconds)
    times["1 scraper among 600 clients that hang"] = besieged.times
    lines += [one.row(by) for by, one in times.items()]
    descriptors = (
        f"{besieged.before} before the 600 came, at most {besieged.most} meanwhile, {besieged.after} afterwards"
    )
    lines += ["", f"File descriptors: {descriptors}."]
    return "\n".join(lines), [f"GROWS: {line}" for line in grown(held)] + [f"SLOW: {line}" for line in slow(times)]


def _table(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]


def main() -> int:
    """All of it, for a few minutes or for as long as was said; `changing` is the server that it needs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--polls", type=int, default=10_000)
    parser.add_argument("--waves", type=int, default=30, help="waves of scrapes, one a second")
    parser.add_argument("--siege", type=float, default=40, help="seconds among clients that hang")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/reliability.md")
    parser.add_argument("server", nargs="*")
    flags = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # failures are the plan
    if flags.server:
        asyncio.run(run_upstream(int(flags.server[1])))
        return 0
    text, broken = asyncio.run(report(flags.polls, flags.waves, flags.siege))
    print(text, *broken, sep="\n")
    if flags.write:
        publish("load", text)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
