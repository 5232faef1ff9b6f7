"""What a broken, hostile or absent upstream does to a poll, and what `/metrics` then shows: a row for each fault."""

import asyncio
import json
import os
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final, Self

import httpx
import pytest
import structlog
from structlog.testing import capture_logs

from exporter.clock import Clock
from exporter.model import FailureReason, Outcome
from exporter.polling.poller import Poller
from exporter.polling.store import SourceState, Store
from exporter.polling.telemetry import Telemetry
from exporter.sources import SYSTEMS
from exporter.web.routes import application
from tests.harness.cloro import KEY, PUBLISHED, error
from tests.harness.loop import skip, until
from tests.harness.process import PATIENCE
from tests.harness.upstream import Answer, Hangup, Request, Upstream, answer, never, serve

SHORT: Final = "900ms"
"""A deadline for faults that last and fail the whole poll: one request to Prefect may take a third of it."""
FAR: Final = 30 * PATIENCE
"""Seconds of a deadline for faults beside which the rest has to be read: it comes when the clock is moved on."""


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust none of the system's: to read them all takes most of the time of a test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


# --- Two upstreams that work, each a table of answers by path: a fault replaces some of them.


def ident(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def pool(number: int, name: str, **changed: object) -> dict[str, object]:
    whole = {"id": ident(number), "name": name, "type": "process", "is_paused": False}
    return whole | {"concurrency_limit": 9, "active_slots": 1, "status": "READY"} | changed


def queue(number: int, name: str, **changed: object) -> dict[str, object]:
    whole = {"id": ident(number), "name": name, "is_paused": False, "priority": 1, "concurrency_limit": 4}
    return whole | {"last_polled": None, "work_pool_id": ident(8)} | changed


def run(number: int, **changed: object) -> dict[str, object]:
    whole = {"id": ident(number), "name": "able-ibex", "state_type": "RUNNING", "time_in_current_state": 2.5}
    return whole | changed


def status(*runs: object, **changed: object) -> dict[str, object]:
    whole = {"active_slots": len(runs), "concurrency_limit": 4, "flow_runs": runs, "count": len(runs)}
    return whole | {"limit": 200, "pages": 1, "page": 1} | changed


ASYNC: Final = "/v1/async/status"
POOLS: Final = "/api/work_pools/filter"
A_QUEUES: Final = "/api/work_pools/a/queues/filter"
B_QUEUES: Final = "/api/work_pools/b/queues/filter"
ONE, TWO, THREE = (f"/api/work_queues/{ident(number)}/concurrency_status" for number in (1, 2, 3))

Answers = Mapping[str, Answer | bytes]

GOOD: Final[dict[str, Answers]] = {
    "cloro": {ASYNC: answer(PUBLISHED)},
    "prefect": {
        POOLS: answer([pool(8, "a"), pool(9, "b")]),
        A_QUEUES: answer([queue(1, "one"), queue(2, "two")]),
        B_QUEUES: answer([queue(3, "three")]),
        ONE: answer(status(run(11))),
        TWO: answer(status()),
        THREE: answer(status(run(12), run(13))),
    },
}
QUEUES: Final = {"cloro": ["async"], "prefect": ["one", "two", "three"]}
FIRST: Final = {"cloro": ASYNC, "prefect": POOLS}
"""The path of the request that a poll begins with."""

AUTH: Final[dict[str, dict[str, Any]]] = {
    "cloro": {"authorization": {"credentials": KEY}},
    "prefect": {"collect": ["queues", "pools"]},
}


def by_path(answers: Answers) -> Answer:
    def next_answer(request: Request) -> Any:
        found = answers.get(request.path, answer({"detail": "Not Found"}, 404))
        return found if isinstance(found, bytes) else found(request)

    return next_answer


def failing(system: str, faults: Answers) -> Answer:
    return by_path({**GOOD[system], **faults})


# --- The exporter without its schedule, on a clock that the test moves.


@dataclass
class Time:
    seconds: float = 50_000.0

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: 1_000_000 + self.seconds, monotonic=lambda: self.seconds)


class Exporter:
    """One source called `s`, polled when it is told to; read over its own routes."""

    def __init__(self, system: str, url: str, **settings: Any) -> None:
        self.system = system
        self.time = Time()
        base = f"{url}/api" if system == "prefect" else url
        self._whole = (
            {"name": "s", "system": system, "url": base, "timeout": "20m", "stale_after": "10h"}
            | AUTH[system]
            | settings
        )
        self.config = SYSTEMS[system].model_validate(self._whole)
        self._store = Store(self.time.clock)
        self.telemetry = Telemetry(self.time.clock)
        self.poller = Poller(self._store, self.telemetry, self.time.clock)
        self.logs: list[Any] = []

    async def change(self, **settings: Any) -> None:
        """Have other settings; its data stays."""
        await self.poller.configure([SYSTEMS[self.system].model_validate(self._whole | settings)])

    async def poll(self) -> SourceState:
        # With tracebacks, as they are logged.
        with capture_logs([structlog.processors.format_exc_info]) as logs:
            await self.poller.poll("s")
        self.logs += logs
        return self._store.view().states[0]

    async def page(self, path: str = "/metrics") -> str:
        app = application(self._store, self.telemetry)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://exporter") as client:
            return (await client.get(path)).text

    async def own(self, name: str, **labels: str) -> float | None:
        """The value of one of the exporter's own series, and None where it is absent."""
        wanted = sorted((labels | {"source": "s", "system": self.system}).items())
        series = f"concurrency_exporter_{name}{{" + ",".join(f'{label}="{value}"' for label, value in wanted) + "} "
        found = [line for line in (await self.page()).splitlines() if line.startswith(series)]
        return float(found[0].removeprefix(series)) if found else None

    async def observed(self) -> list[str]:
        """All lines of what was observed at upstream."""
        return [line for line in (await self.page()).splitlines() if re.match("concurrency_(?!exporter_)", line)]

    async def queues(self) -> list[str]:
        """The names of the queues that are published."""
        found = (re.match(r'concurrency_queue_usage_known{.*queue="([^"]*)"', line) for line in await self.observed())
        return [match[1] for match in found if match]

    async def __aenter__(self) -> Self:
        await self.poller.configure([self.config])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.poller.stop()


async def poll_until_late(exporter: Exporter, upstream: Upstream, *ended: int, hang: int = 1) -> SourceState:
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


# --- Faults that more than bytes are needed for.


def hang_up(after: bytes = b"") -> Answer:
    def close(_: Request) -> bytes:
        raise Hangup(after)

    return close


@asynccontextmanager
async def relay(
    upstream: Upstream,
    tls: ssl.SSLContext | None = None,
    slow_after: bytes | None = None,
    at: socket.socket | None = None,
) -> AsyncIterator[str]:
    """Another address for an upstream: over TLS, or with a byte at a time once its answer has come to `slow_after`."""
    tasks = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, marker: bytes | None) -> None:
        while data := await reader.read(65536):
            fast = len(data) if marker is None else data.index(marker)
            writer.write(data[:fast])
            for byte in data[fast:]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        writer.close()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        ours, theirs = await asyncio.open_connection("127.0.0.1", httpx.URL(upstream.url).port)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(reader, theirs, None))
                group.create_task(copy(ours, writer, slow_after))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            theirs.close()

    server = await asyncio.start_server(connection, sock=at or socket.create_server(("127.0.0.1", 0)), ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read a request, and end the connection with an RST."""
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read whatever comes, and answer in plain text."""
    await reader.read(65536)
    writer.write(answer({}, 400))
    writer.close()


@pytest.fixture
def closed_port() -> Iterator[socket.socket]:
    """A port of ours on which nothing listens yet: connections to it are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


# --- Faults of the whole upstream.


@dataclass(frozen=True)
class Fault:
    """What every path answers; then why the poll fails, a part of the message, and how many requests were made."""

    what: Answer | bytes
    reason: FailureReason
    says: str
    requests: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


def json_answer(text: str) -> bytes:
    return answer(text.encode())


SLOW: Final = {"timeout": f"{FAR}s"}
TOO_LARGE: Final = answer(b" " * (17 * 1024**2))

FAULTS: Final = {
    "closes": Fault(hang_up(), "connect", "Server disconnected without sending a response", 2),
    "never-answers": Fault(never, "timeout", "within 0.", settings={"timeout": SHORT}),
    "truncated-body": Fault(
        hang_up(answer(PUBLISHED)[:-9]), "connect", "without sending complete message body", 2
    ),
    "truncated-headers": Fault(hang_up(b"HTTP/1.1 200 OK\r\nContent-Le"), "connect", "Server disconnected", 2),
    "not-http": Fault(hang_up(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "connect", "illegal status line", 2),
    "endless-header": Fault(hang_up(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), "connect", "buffer too long", 2),
    "401": Fault(answer({}, 401), "auth", "401 Unauthorized; check authorization or basic_auth"),
    "403": Fault(answer({}, 403), "auth", "403 Forbidden; check authorization or basic_auth"),
    "404": Fault(answer({}, 404), "http_status", "404 Not Found"),
    "429": Fault(answer({}, 429), "rate_limited", "429 Too Many Requests"),
    "500": Fault(answer({}, 500), "http_status", "500 Internal Server Error"),
    "503": Fault(answer(b"down", 503, media_type="text/plain"), "http_status", "503 Service Unavailable"),
    "503-compressed": Fault(answer(b"\x1f\x8b", 503, {"Content-Encoding": "gzip"}), "http_status", "503 Service"),
    "204": Fault(b"HTTP/1.1 204 No Content\r\n\r\n", "http_status", "204 No Content"),
    "html": Fault(answer(b"<html>", media_type="text/html"), "contract", "is not JSON but text/html; is url"),
    "no-content-type": Fault(hang_up(b"HTTP/1.1 200 OK\r\n\r\nhello"), "contract", "not JSON but no Content-Type"),
    "empty": Fault(json_answer(""), "contract", "EOF while parsing"),
    "half-json": Fault(json_answer('[{"id": '), "contract", "EOF while parsing"),
    "not-utf-8": Fault(answer(b'{"x": "\xff"}'), "contract", "Invalid JSON"),
    "deep": Fault(json_answer("[" * 500_000), "contract", "recursion limit exceeded"),
    "deep-object": Fault(json_answer('{"x":' * 100_000), "contract", "recursion limit exceeded"),
    "long-number": Fault(json_answer("9" * 100_000), "contract", "number out of range"),
    "a-number": Fault(json_answer("7"), "contract", "contract broken at the answer"),
    "null": Fault(json_answer("null"), "contract", "contract broken at the answer"),
    "17-MiB": Fault(hang_up(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (17 * 1024**2)), "too_large", "larger than 16 MiB"),
    "17-MiB-to-come": Fault(hang_up(TOO_LARGE[:1024]), "too_large", "larger than 16 MiB"),
    "compressed": Fault(answer(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "contract", "is compressed"),
    "redirect": Fault(answer({}, 308, {"Location": "/login"}), "http_status", "redirected to /login; set url"),
    "redirect-to-nothing": Fault(answer({}, 302, {"Location": "http://xn--/"}), "http_status", "redirected"),
}  # fmt: skip


@pytest.mark.parametrize("system", GOOD)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_the_whole_upstream_fails(system: str, fault: Fault) -> None:
    async with serve(by_path(GOOD[system])) as upstream, Exporter(system, upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.queues() == QUEUES[system]
        assert await exporter.own("source_up") == 1
        published, taken_at = await exporter.observed(), 1_000_000 + exporter.time.seconds

        upstream.requests.clear()
        upstream.answer = by_path({FIRST[system]: fault.what})
        exporter.time.seconds += 30
        await exporter.change(**fault.settings)
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", fault.reason)
        assert fault.says in state.failure.message
        assert len(state.failure.message) < 1000
        assert [request.path for request in upstream.requests] == [FIRST[system]] * fault.requests

        assert await exporter.own("source_up") == 0
        assert await exporter.own("last_success_timestamp_seconds") == taken_at
        assert await exporter.own("polls_total", outcome="failure") == 1
        assert await exporter.own("poll_errors_total", reason=fault.reason) == 1
        assert await exporter.observed() == published
        assert [(log["log_level"], log["event"]) for log in exporter.logs] == [("warning", "poll failed")]

        exporter.time.seconds += exporter.config.stale_after - 30.5
        assert await exporter.observed() == published
        exporter.time.seconds += 0.5
        assert await exporter.observed() == []
        assert await exporter.own("source_up") == 0
        assert await exporter.own("last_success_timestamp_seconds") == taken_at
        assert await exporter.own("queues_unreadable") is None

        upstream.answer = by_path(GOOD[system])
        await exporter.change()
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.observed() == published
        assert await exporter.own("source_up") == 1


@pytest.mark.parametrize("system", GOOD)
@pytest.mark.parametrize("slow_after", [b"HTTP", b"\r\n\r\n"], ids=["headers", "body"])
async def test_an_answer_that_trickles(system: str, slow_after: bytes) -> None:
    async with (
        serve(by_path(GOOD[system])) as upstream,
        relay(upstream, slow_after=slow_after) as url,
        Exporter(system, url, timeout=SHORT) as exporter,
    ):
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", "timeout")
        assert "within 0." in state.failure.message
        assert len(upstream.requests) <= 1
        assert await exporter.observed() == []


@pytest.mark.parametrize("system", GOOD)
async def test_a_connection_that_is_reset(system: str) -> None:
    async with listening(reset) as url, Exporter(system, url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, await exporter.own("source_up")) == ("connect", 0)
        assert "Connection reset by peer" in state.failure.message
        assert exporter.telemetry.requests("s") == 2


@pytest.mark.parametrize("system", GOOD)
async def test_started_before_its_upstream(system: str, closed_port: socket.socket) -> None:
    url = "http://{}:{}".format(*closed_port.getsockname())
    async with Exporter(system, url) as exporter:
        assert await exporter.own("source_up") == 0
        assert await exporter.own("polls_total", outcome="failure") == 0
        for _ in range(3):
            state = await exporter.poll()
            assert state.failure
            assert (state.outcome, state.failure.reason) == ("failure", "connect")
            assert "Connection refused" in state.failure.message
        assert await exporter.own("source_up") == 0
        assert await exporter.own("last_success_timestamp_seconds") is None
        assert await exporter.observed() == []
        # The same trouble is told once.
        assert [log["log_level"] for log in exporter.logs] == ["warning", "debug", "debug"]

        async with serve(by_path(GOOD[system])) as upstream, relay(upstream, at=closed_port):
            assert (await exporter.poll()).outcome == "success"
        assert await exporter.own("source_up") == 1
        assert await exporter.queues() == QUEUES[system]
        assert exporter.logs[-1]["event"] == "poll succeeded again"

        assert (await exporter.poll()).outcome == "failure"
        assert [log["log_level"] for log in exporter.logs[3:]] == ["info", "warning"]


# --- What breaks the contract, wherever it stands.

BREACHES: Final = {
    "missing": None,
    "string": '"3"',
    "boolean": "true",
    "fraction": "1.5",
    "negative": "-1",
    "2**63": str(2**63),
    "just-inexact": str(2**53 + 1),
    "NaN": "NaN",
    "Infinity": "Infinity",
    "1e400": "1e400",
    "exponent": "1e2",
    "object": "{}",
}
PLACES: Final[dict[str, tuple[str, str, Any, str, str, Outcome]]] = {
    "cloro": ("cloro", ASYNC, PUBLISHED, "queuedTasks", "", "failure"),
    "pool": ("prefect", POOLS, pool(8, "a"), "concurrency_limit", "0.", "failure"),
    "queue": ("prefect", A_QUEUES, queue(1, "one"), "is_paused", "0.", "partial"),
    "status": ("prefect", ONE, status(run(11)), "active_slots", "", "partial"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("value", BREACHES.values(), ids=BREACHES)
async def test_a_field_that_breaks_the_contract(
    place: tuple[str, str, dict[str, Any], str, str, Outcome], value: str | None
) -> None:
    system, path, body, name, index, outcome = place
    if name == "is_paused" and value == "true":
        value = "1"
    others = {key: body[key] for key in body if key != name}
    text = json.dumps(others) if value is None else f'{json.dumps(others)[:-1]}, "{name}": {value}}}'
    broken = json_answer(f"[{text}]" if index else text)
    async with serve(failing(system, {path: broken})) as upstream, Exporter(system, upstream.url) as exporter:
        state = await exporter.poll()
        assert state.outcome == outcome
        assert await exporter.own("poll_errors_total", reason="contract") == 1
        message = exporter.logs[0]["error"]
        assert f"contract broken at {index}{name}: " in message
        assert f"{upstream.url}{path}" in message


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", '"1"', "true", "[]"])
async def test_a_duration_that_breaks_the_contract(value: str) -> None:
    text = json.dumps(status(run(11, time_in_current_state="?"))).replace('"?"', value)
    async with (
        serve(failing("prefect", {ONE: json_answer(text)})) as upstream,
        Exporter("prefect", upstream.url) as exporter,
    ):
        assert (await exporter.poll()).outcome == "partial"
        assert await exporter.queues() == ["two", "three"]
        assert "contract broken at flow_runs.0.time_in_current_state" in exporter.logs[0]["error"]


@pytest.mark.parametrize(
    ("system", "path", "body", "says"),
    [
        ("cloro", ASYNC, PUBLISHED | {"added": "\ud800"}, "Invalid JSON: "),
        ("cloro", ASYNC, [PUBLISHED], "contract broken at the answer: Input should be an object"),
        ("cloro", ASYNC, {}, "contract broken at queuedTasks: Field required (and 1 more)"),
        ("prefect", POOLS, [pool(8, "\ud800")], "Invalid JSON: "),
        ("prefect", POOLS, {"results": [], "count": 0}, "contract broken at the answer: Input should be a valid array"),
        ("prefect", POOLS, [[]], "contract broken at 0: Input should be an object"),
        ("prefect", POOLS, [pool(8, "a", id="8")], "contract broken at 0.id: Input should be a valid UUID"),
        ("prefect", POOLS, [pool(8, "a", id="\x1b]0;")], "found `` at 0"),
        ("prefect", POOLS, [pool(8, "a", id=8)], "contract broken at 0.id: "),
        ("prefect", POOLS, [pool(8, "a") | {"name": None}], "contract broken at 0.name: "),
    ],
    ids=[
        "cloro-surrogate", "cloro-list", "cloro-nothing", "surrogate", "object", "list", "id", "id-control-character",
        "id-number", "no-name",
    ],
)  # fmt: skip
async def test_a_shape_that_breaks_the_contract(system: str, path: str, body: object, says: str) -> None:
    async with serve(failing(system, {path: answer(body)})) as upstream, Exporter(system, upstream.url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, len(upstream.requests)) == ("contract", 1)
        assert says in state.failure.message


@pytest.mark.parametrize(
    ("system", "path", "begins", "at"),
    [
        ("cloro", ASYNC, '{"queuedTasks": 1, "processingTasks": 1, "priorityBreakdown": [', "priorityBreakdown.0"),
        ("prefect", POOLS, "[", "0"),
    ],
    ids=GOOD,
)
async def test_an_answer_of_many_wrong_values(system: str, path: str, begins: str, at: str) -> None:
    """Told of one by one, they would take minutes and gigabytes, in which no scrape is answered."""
    ends = "}" if "{" in begins else ""
    async with serve(by_path({})) as upstream, Exporter(system, upstream.url) as exporter:
        for values, reason, says in (
            (450_000, "contract", f"contract broken at {at}: Input should be an object"),
            (8_000_000, "too_large", "the answer has more than 500,000 values"),
        ):
            upstream.answer = failing(system, {path: json_answer(f"{begins}{'0,' * values}0]{ends}")})
            async with asyncio.timeout(PATIENCE):
                state = await exporter.poll()
            assert state.failure
            assert state.failure.reason == reason
            assert says in state.failure.message


@pytest.mark.parametrize("system", GOOD)
async def test_of_the_page_of_an_error_only_the_beginning_is_read(system: str) -> None:
    sent = 0
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                writer.write(b"[" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            gone.set()
        finally:
            writer.close()

    async with listening(endless) as url, Exporter(system, url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, "502 Bad Gateway" in state.failure.message) == ("http_status", True)
        await asyncio.wait_for(gone.wait(), PATIENCE)
        assert sent < 8 * 1024**2  # what the kernel holds in its buffers, too


@pytest.mark.parametrize("system", GOOD)
async def test_a_date_in_retry_after_is_by_upstreams_clock(system: str) -> None:
    """Ours may be an hour ahead of it, and would find that the date has passed."""
    at = datetime.now(UTC) - timedelta(hours=1)
    headers = {"Date": format_datetime(at, usegmt=True)}
    headers["Retry-After"] = format_datetime(at + timedelta(seconds=90), usegmt=True)
    async with (
        serve(lambda _: answer({}, 429, headers)) as upstream,
        Exporter(system, upstream.url) as exporter,
    ):
        exporter.poller.start()
        async with asyncio.timeout(PATIENCE):
            while not await exporter.own("polls_total", outcome="failure"):  # noqa: ASYNC110  a page has no event
                await asyncio.sleep(0.01)
        next_poll = exporter.poller.next_poll("s")
        assert next_poll
        assert 80 < (next_poll - datetime.now(UTC)).total_seconds() <= 90


# --- Faults of a part of Prefect.


def paged(*pages: bytes) -> Answer:
    """The pages of a queue's status, the last one for ever."""

    def page(request: Request) -> bytes:
        number: int = request.json["page"]
        return pages[min(number, len(pages)) - 1]

    return page


def repeated(request: Request) -> bytes:
    """The status of a queue whose pages all have the same holders."""
    size = request.json.get("limit", 20)
    return answer(status(*(run(11 + number) for number in range(size)), limit=size, pages=2**53))


def listed(*pages: bytes, limit: int = 2) -> Answer:
    """The pages of a listing of a server that gives no more than `limit` rows at a time."""

    def page(request: Request) -> bytes:
        if request.json["limit"] > limit:
            return answer({"detail": f"Invalid limit: must be less than or equal to {limit}."}, 422)
        number: int = -(-request.json["offset"] // limit)
        return pages[min(number, len(pages) - 1)]

    return page


Left = list[tuple[str, str, FailureReason]]

PARTIAL: Final[dict[str, tuple[Answers, Left, str, dict[str, Any]]]] = {
    "500": ({ONE: answer({}, 500)}, [("a", "one", "http_status")], "500 Internal Server Error", {}),
    "html": ({ONE: answer(b"<html>")}, [("a", "one", "contract")], "Invalid JSON", {}),
    "17-MiB": ({ONE: TOO_LARGE}, [("a", "one", "too_large")], "larger than 16 MiB", {}),
    "hangs": ({ONE: never}, [("a", "one", "timeout")], f"no complete answer within {FAR / 3:g}s", SLOW),
    "page-2-fails": (
        {ONE: paged(answer(status(run(11), run(12), run(13), limit=3)), answer({}, 500))},
        [("a", "one", "http_status")], "500 ", {},
    ),
    "endless": ({ONE: repeated}, [("a", "one", "contract")], "bring no further rows", {}),
    "pages-of-one": (
        {ONE: answer(status(run(11), limit=1))}, [("a", "one", "contract")], "pages of 1 rows are too small", {}
    ),
    "more-than-a-page": (
        {ONE: answer(status(run(11), run(12), limit=1))}, [("a", "one", "contract")], "2 rows, and 1 were asked for", {}
    ),
    "too-old": ({ONE: answer({"detail": "Not Found"}, 404)}, [("a", "one", "http_status")], "3.6.23 or newer?", {}),
    "two": (
        {ONE: answer({}, 500), THREE: answer([])},
        [("a", "one", "http_status"), ("b", "three", "contract")], "500 Internal Server Error", {},
    ),
    "queues-of-a-pool": ({B_QUEUES: answer({}, 500)}, [("b", "", "http_status")], "500 Internal Server Error", {}),
    "queues-of-a-pool-page-2": (
        {B_QUEUES: listed(answer([queue(3, "three"), queue(4, "four")]), answer({}, 500))},
        [("b", "", "http_status")], "500 ", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("faults", "left_out", "says", "settings"), PARTIAL.values(), ids=PARTIAL)
async def test_a_part_of_prefect_fails(faults: Answers, left_out: Left, says: str, settings: dict[str, Any]) -> None:
    async with serve(by_path(GOOD["prefect"])) as upstream, Exporter("prefect", upstream.url, **settings) as exporter:
        assert (await exporter.poll()).outcome == "success"
        published = await exporter.observed()

        upstream.requests.clear()
        upstream.answer = failing("prefect", faults)
        exporter.time.seconds += 30
        state = await (poll_until_late(exporter, upstream, 5) if settings else exporter.poll())
        assert state.published
        unreadable = state.published.snapshot.unreadable
        assert [(one.pool, one.queue, one.reason) for one in unreadable] == left_out
        assert says in unreadable[0].message
        assert len(upstream.requests) <= 1010

        assert await exporter.own("source_up") == 1
        assert await exporter.own("queues_unreadable") == len(left_out)
        assert await exporter.own("last_success_timestamp_seconds") == 1_000_000 + exporter.time.seconds
        assert await exporter.own("polls_total", outcome="partial") == 1
        for _, _, reason in left_out:
            assert await exporter.own("poll_errors_total", reason=reason) == 1
        (log,) = exporter.logs
        assert (log["log_level"], log["event"], log["count"]) == ("warning", "left out of the snapshot", len(left_out))
        lost = [f'concurrency_queue.*pool="{pool}",.*queue="{queue or "[a-z]+"}"' for pool, queue, _ in left_out]
        kept = [line for line in published if not any(re.match(pattern, line) for pattern in lost)]
        assert await exporter.observed() == kept
        assert len(kept) < len(published)


def twice(path: str, *rows: object) -> Answers:
    return {path: answer(rows)}


WHOLE: Final[dict[str, tuple[Answers, FailureReason, str, int]]] = {
    "all-queues-500": (
        dict.fromkeys((ONE, TWO, THREE), answer({}, 500)), "http_status", "no queue could be read; the first: POST", 6
    ),
    "a-queue-401": ({ONE: answer({}, 401)}, "auth", "401 Unauthorized", 6),
    "a-queue-403": ({ONE: answer({"detail": "no"}, 403)}, "auth", "403 Forbidden: no", 6),
    "a-queue-429": ({TWO: answer({}, 429)}, "rate_limited", "429 Too Many Requests", 6),
    "a-queue-closes": ({THREE: hang_up()}, "connect", "Server disconnected", 7),
    "pools-page-2": (
        {POOLS: listed(answer([pool(8, "a"), pool(9, "b")]), answer({}, 500))}, "http_status", "500 ", 3
    ),
    "endless-pools": (
        {POOLS: listed(answer([pool(8, "a"), pool(9, "b")]))}, "contract", "20 pages up to the one at offset 21", 23
    ),
    "wrong-path": ({POOLS: answer({"detail": "Not Found"}, 404)}, "http_status", "is url the address of the API", 1),
    "no-limit-will-do": (
        {POOLS: answer({"detail": "Invalid limit: must be less than or equal to 0."}, 422)}, "http_status", "422 ", 1
    ),
    "two-queues-of-a-name": (
        twice(A_QUEUES, queue(1, "one"), queue(2, "one")), "contract", "two queues 'one' in the pool 'a'", 6
    ),
    "two-pools-of-a-name": (twice(POOLS, pool(8, "a"), pool(9, "a")), "contract", "two pools 'a'", 3),
}  # fmt: skip


async def test_however_many_queues_hang_the_others_are_published() -> None:
    """More hang than there are connections and thirds of the deadline: those behind them are given up in time."""
    queues = [queue(number, f"q{number:02}") for number in range(20, 40)]
    readable = range(20, 24)
    of_queue: Answers = {
        f"/api/work_queues/{one['id']}/concurrency_status": answer(status()) if number in readable else never
        for number, one in enumerate(queues, start=20)
    }
    answers: Answers = {POOLS: answer([pool(8, "a")]), A_QUEUES: answer(queues), **of_queue}
    async with serve(by_path(answers)) as upstream, Exporter("prefect", upstream.url, **SLOW) as exporter:
        state = await poll_until_late(exporter, upstream, 7, 11, 15, hang=4)
        assert state.published
        assert [one.name for one in state.published.snapshot.queues] == [f"q{number}" for number in readable]
        assert {one.reason for one in state.published.snapshot.unreadable} == {"timeout"}
        assert await exporter.own("queues_unreadable") == 16


@pytest.mark.parametrize(("faults", "reason", "says", "requests"), WHOLE.values(), ids=WHOLE)
async def test_a_part_of_prefect_fails_the_whole_poll(
    faults: Answers, reason: FailureReason, says: str, requests: int
) -> None:
    async with serve(by_path(GOOD["prefect"])) as upstream, Exporter("prefect", upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        published = await exporter.observed()
        upstream.requests.clear()
        upstream.answer = failing("prefect", faults)
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", reason)
        assert says in state.failure.message
        assert upstream.url in state.failure.message
        assert len(upstream.requests) <= requests
        assert await exporter.own("source_up") == 0
        assert await exporter.own("poll_errors_total", reason=reason) == 1
        assert await exporter.observed() == published


LONG: Final = "x" * 300

FINE: Final[dict[str, tuple[Answers, list[str]]]] = {
    "queue-deleted": ({ONE: answer({"detail": "Work queue not found."}, 404)}, ["two", "three"]),
    "all-queues-deleted": (
        dict.fromkeys((ONE, TWO, THREE), answer({"detail": "Work queue not found."}, 404)), []
    ),
    "pool-deleted": ({A_QUEUES: answer({"detail": 'Work pool "a" not found.'}, 404)}, ["three"]),
    "pool-deleted-other-quotes": ({A_QUEUES: answer({"detail": "Work pool 'a' not found."}, 404)}, ["three"]),
    "pool-with-long-name-deleted": (
        {
            POOLS: answer([pool(8, LONG), pool(9, "b")]),
            f"/api/work_pools/{LONG}/queues/filter": answer({"detail": f'Work pool "{LONG}" not found.'}, 404),
        },
        ["three"],
    ),
    "nulls": (
        {
            POOLS: answer([pool(8, "a", concurrency_limit=None, active_slots=None, status=None), pool(9, "b")]),
            A_QUEUES: answer([queue(1, "one", status=None, last_polled=None), queue(2, "two")]),
            ONE: answer(status(run(11, state_type=None, time_in_current_state=None), concurrency_limit=None)),
        },
        ["one", "two", "three"],
    ),
    "a-page-that-is-empty-too-early": ({ONE: paged(answer(status(pages=9)))}, ["one", "two", "three"]),
    "no-pools": ({POOLS: answer([])}, []),
    "no-queues": ({A_QUEUES: answer([]), B_QUEUES: answer([])}, []),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "queues"), FINE.values(), ids=FINE)
async def test_what_is_no_fault(changes: Answers, queues: list[str]) -> None:
    async with serve(failing("prefect", changes)) as upstream, Exporter("prefect", upstream.url) as exporter:
        state = await exporter.poll()
        assert (state.outcome, await exporter.queues()) == ("success", queues)
        assert exporter.logs == []
        # One of them for the server's version, in the first poll.
        assert len(upstream.requests) <= 6 + 1


# --- Connections.


@pytest.mark.parametrize("system", GOOD)
async def test_connections_are_kept_and_requests_counted(system: str) -> None:
    async with serve(by_path(GOOD[system])) as upstream, Exporter(system, upstream.url) as exporter:
        for _ in range(3):
            await exporter.poll()
        assert upstream.connections <= {"cloro": 1, "prefect": 4}[system]
        route = {"cloro": ASYNC, "prefect": "/work_queues/{id}/concurrency_status"}[system]
        times = {"cloro": 3, "prefect": 9}[system]
        assert await exporter.own("upstream_requests_total", endpoint=route, code="200") == times


@pytest.mark.parametrize("system", GOOD)
async def test_a_kept_connection_that_the_server_has_closed(system: str) -> None:
    asked: set[str] = set()
    good = by_path(GOOD[system])

    def closes_at_first(request: Request) -> Any:
        if request.path in asked:
            return good(request)
        asked.add(request.path)
        raise Hangup

    async with serve(good) as upstream, Exporter(system, upstream.url) as exporter:
        await exporter.poll()
        upstream.requests.clear()
        upstream.answer = closes_at_first
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.queues() == QUEUES[system]
        assert sorted(request.path for request in upstream.requests) == sorted(2 * list(GOOD[system]))


@pytest.mark.parametrize("system", GOOD)
async def test_nothing_is_remembered_but_connections(system: str) -> None:
    cookie = {"Set-Cookie": "session=1; Path=/"}
    first = GOOD[system][FIRST[system]]
    assert isinstance(first, bytes)
    with_cookie = first.replace(b"\r\n", b"\r\nSet-Cookie: session=1; Path=/\r\n", 1)
    assert answer({}, headers=cookie).count(b"Set-Cookie") == with_cookie.count(b"Set-Cookie")
    async with (
        serve(failing(system, {FIRST[system]: with_cookie})) as upstream,
        Exporter(system, upstream.url) as exporter,
    ):
        assert (await exporter.poll()).outcome == "success"
        assert (await exporter.poll()).outcome == "success"
        assert not [request for request in upstream.requests if "cookie" in request.headers]


# --- CSRF protection of a Prefect server.


class Csrf:
    """A server with CSRF protection over a good one; `at_status` is awaited when the status of a queue is asked for."""

    def __init__(self) -> None:
        self.good = by_path(GOOD["prefect"])
        self.token, self.client = "", ""
        self.fetched = 0
        self.at_status: Callable[[], Any] | None = None

    async def __call__(self, request: Request) -> bytes:
        if request.path.startswith("/api/csrf-token?client="):
            self.fetched += 1
            self.token, self.client = f"token-{self.fetched}", request.path.partition("=")[2]
            return answer({"token": self.token, "client": self.client, "expiration": "2026-11-22T00:00:00Z"})
        if request.path in {ONE, TWO, THREE} and self.at_status:
            await self.at_status()
        sent = [request.headers.get(f"prefect-csrf-{name}") for name in ("token", "client")]
        if sent[0] is None:
            return answer({"detail": "Missing CSRF token."}, 403)
        if sent[1] is None:
            return answer({"detail": "Missing client identifier."}, 403)
        if sent != [self.token, self.client]:
            return answer({"detail": "Invalid CSRF token or client identifier."}, 403)
        good = self.good(request)
        assert isinstance(good, bytes)
        return good


async def test_a_csrf_token_is_fetched_once() -> None:
    csrf = Csrf()
    async with serve(csrf) as upstream, Exporter("prefect", upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        assert [request.path.partition("?")[0] for request in upstream.requests[:3]] == [
            POOLS,
            "/api/csrf-token",
            POOLS,
        ]
        assert (await exporter.poll()).outcome == "success"
        # The first poll also asks for the server's version.
        assert (csrf.fetched, len(upstream.requests)) == (1, 6 + 3 + 6)
        client, token = csrf.client, csrf.token
        csrf.token = "of another client"
        assert (await exporter.poll()).outcome == "success"
        assert (csrf.fetched, csrf.client) == (2, client)
        assert csrf.token != token
        route = {"endpoint": "/csrf-token", "code": "200"}
        assert await exporter.own("upstream_requests_total", **route) == 2


async def test_a_superseded_csrf_token_is_renewed_once_for_parallel_requests() -> None:
    csrf = Csrf()
    together = asyncio.Barrier(3)

    async def at_status() -> None:
        async with together:
            csrf.at_status = None
            csrf.token = "superseded"

    async with serve(csrf) as upstream, Exporter("prefect", upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        csrf.at_status = at_status
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.queues() == QUEUES["prefect"]
        assert csrf.fetched == 2


async def test_two_exporters_do_not_supersede_the_csrf_token_of_each_other() -> None:
    csrf = Csrf()
    async with serve(csrf) as upstream:
        clients = set()
        for _ in range(2):
            async with Exporter("prefect", upstream.url) as exporter:
                await exporter.poll()
                clients.add(csrf.client)
    assert len(clients) == 2


@pytest.mark.parametrize(
    ("refused", "token", "reason", "says", "requests"),
    [
        (
            "Missing CSRF token.",
            answer({"detail": "CSRF protection is disabled."}, 422),
            "http_status",
            "is disabled",
            2,
        ),
        ("Missing CSRF token.", answer({"exception_message": "Unauthorized"}, 401), "auth", "401 Unauthorized", 2),
        ("Missing CSRF token.", answer({"token": None}), "contract", "contract broken at token", 2),
        ("Missing CSRF token.", answer({"token": "tökén"}), "contract", "contract broken at token", 2),
        ("Missing CSRF token.", answer({"token": ""}), "contract", "contract broken at token", 2),
        (
            "Invalid CSRF token or client identifier.",
            answer({"token": "0123456789abcdef"}),
            "auth",
            "Invalid CSRF token",
            3,
        ),
        ("Forbidden", answer({"token": "0123456789abcdef"}), "auth", "403 Forbidden: Forbidden", 1),
    ],
    ids=["disabled", "wants-credentials", "no-token", "no-ascii", "empty-token", "refused-for-ever", "another-403"],
)
async def test_csrf_protection_that_can_not_be_met(
    refused: str, token: bytes, reason: FailureReason, says: str, requests: int
) -> None:
    def server(request: Request) -> bytes:
        return token if request.method == "GET" else answer({"detail": refused}, 403)

    async with serve(server) as upstream, Exporter("prefect", upstream.url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, len(upstream.requests)) == (reason, requests)
        assert says in state.failure.message


# --- TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed: `right` is for 127.0.0.1, `wrong` for another host."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, alternative in (("right", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example")):
        command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=test"
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
        names = ["-addext", f"subjectAltName={alternative}"]
        subprocess.run([*command.split(), *files, *names], check=True, capture_output=True, timeout=PATIENCE)
    return folder


@pytest.mark.parametrize("system", GOOD)
@pytest.mark.parametrize(
    ("served", "settings", "says"),
    [
        ("right", {}, "TLS failed: self-signed certificate; check tls_config"),
        ("wrong", {"ca_file": "wrong.pem"}, "TLS failed: IP address mismatch"),
        ("wrong", {"ca_file": "right.pem"}, "TLS failed: self-signed certificate"),
        ("right", {"ca_file": "right.pem"}, None),
        ("wrong", {"insecure_skip_verify": True}, None),
    ],
    ids=["self-signed", "wrong-name", "wrong-authority", "trusted", "not-verified"],
)
@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_tls(
    certificates: Path, system: str, served: str, settings: dict[str, Any], says: str | None, scheme: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{served}.pem", certificates / f"{served}.key")
    if "ca_file" in settings:
        settings = {"ca_file": str(certificates / settings["ca_file"])}
    async with (
        serve(by_path(GOOD[system])) as upstream,
        relay(upstream, tls=context) as url,
        Exporter(system, url.replace("https", scheme), tls_config=settings) as exporter,
    ):
        state = await exporter.poll()
        if says is None:
            assert (state.outcome, await exporter.queues()) == ("success", QUEUES[system])
            return
        assert state.failure
        assert (state.failure.reason, upstream.requests) == ("tls", [])
        assert says in state.failure.message


@pytest.mark.parametrize(
    ("served", "settings", "says"),
    [
        ("right", {}, "TLS failed: self-signed certificate; check tls_config"),
        ("wrong", {"ca_file": "wrong.pem"}, "TLS failed: IP address mismatch"),
        ("right", {"ca_file": "right.pem"}, None),
        ("wrong", {"insecure_skip_verify": True}, None),
    ],
    ids=["self-signed", "wrong-name", "trusted", "not-verified"],
)
@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
async def test_tls_to_a_proxy(
    certificates: Path, served: str, settings: dict[str, Any], says: str | None, scheme: str
) -> None:
    """It is trusted by the same settings as upstream, which is not encrypted here, so that the proxy can answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{served}.pem", certificates / f"{served}.key")
    if "ca_file" in settings:
        settings = {"ca_file": str(certificates / settings["ca_file"])}
    by_proxy = by_path({f"http://cloro.example{ASYNC}": GOOD["cloro"][ASYNC]})
    async with serve(by_proxy) as proxy, relay(proxy, tls=context) as url:
        proxy_url = url.replace("https", scheme)
        async with Exporter("cloro", "http://cloro.example", proxy_url=proxy_url, tls_config=settings) as exporter:
            state = await exporter.poll()
    if says is None:
        assert (state.outcome, len(proxy.requests)) == ("success", 1)
        return
    assert state.failure
    assert (state.failure.reason, proxy.requests) == ("tls", [])
    assert says in state.failure.message


@pytest.mark.parametrize("system", GOOD)
async def test_tls_to_a_server_that_has_none(system: str) -> None:
    async with (
        listening(refuse) as url,
        Exporter(system, url.replace("http:", "https:")) as exporter,
    ):
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "tls"
        assert "check tls_config" in state.failure.message


# --- Secrets.

CANARY: Final = "canary+7f3a/Z=="


def echo_in_body(request: Request) -> bytes:
    said = request.headers["authorization"]
    return answer(error("ECHO", said) | {"detail": f"sent {said}, decoded user:{CANARY}"}, 500)


def echo_as_text(request: Request) -> bytes:
    return answer({"success": False, "error": request.headers["authorization"], "exception_message": CANARY}, 401)


ECHOES: Final[dict[str, Answer]] = {
    "body": echo_in_body,
    "body-as-text": echo_as_text,
    "reason": lambda request: f"HTTP/1.1 401 {request.headers['authorization']}\r\nContent-Length: 0\r\n\r\n".encode(),
    "location": lambda request: answer({}, 302, {"Location": f"http://x/?{request.headers['authorization']}"}),
    "bad-location": lambda request: answer({}, 302, {"Location": f"http://[{request.headers['authorization']}"}),
    "media-type": lambda request: answer(b"", media_type=request.headers["authorization"]),
    "json-media-type": lambda request: answer(b"", media_type=f"x/json; {request.headers['authorization']}"),
    "first-line": lambda request: hang_up(f"{request.headers['authorization']}\r\n\r\n".encode())(request),
    "header-line": lambda request: hang_up(
        f"HTTP/1.1 200 OK\r\n\0 {request.headers['authorization']}\r\n\r\n".encode()
    )(request),
    "chunk": lambda request: hang_up(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{request.headers['authorization']}\r\n".encode()
    )(request),
    "retry-after": lambda request: answer({}, 429, {"Retry-After": request.headers["authorization"]}),
    "value": lambda request: answer([pool(8, "a", is_paused=request.headers["authorization"])]),
}


@pytest.fixture
def canary_file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    put(path, f"{CANARY}\n".encode())
    return path


def put(file: Path, content: bytes | None) -> None:
    """Replace the content of a file, or delete it."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def credentials(kind: str, file: Path) -> dict[str, Any]:
    return {
        "value": {"authorization": {"credentials": CANARY}},
        "file": {"authorization": {"credentials_file": str(file)}},
        "type": {"authorization": {"type": "Token", "credentials": CANARY}},
        "basic": {"basic_auth": {"username": "user", "password": CANARY}},
        "basic-file": {"basic_auth": {"username": "user", "password_file": str(file)}},
    }[kind]


ENCODED: Final = "dXNlcjpjYW5hcnkrN2YzYS9aPT0="
"""`user:` and the canary, in base64."""


async def assert_no_canary(exporter: Exporter, state: SourceState) -> None:
    shown = [repr(exporter.logs), repr(state), repr(exporter.config), await exporter.page(), await exporter.page("/")]
    for text in shown:
        assert CANARY not in text
        assert ENCODED not in text
        assert CANARY[:10] not in text


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize(
    ("system", "kind"),
    [("cloro", "value"), ("cloro", "file"), ("prefect", "type"), ("prefect", "basic"), ("prefect", "basic-file")],
)
async def test_a_secret_that_upstream_repeats_is_not_shown(
    system: str, kind: str, echo: Answer, canary_file: Path
) -> None:
    async with serve(echo) as upstream, Exporter(system, upstream.url, **credentials(kind, canary_file)) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason != "internal"
        assert upstream.requests[0].headers["authorization"].endswith((CANARY, ENCODED))
        await assert_no_canary(exporter, state)


@pytest.mark.parametrize("kind", ["value", "basic"])
async def test_a_secret_that_is_repeated_for_one_queue_is_not_shown(kind: str, canary_file: Path) -> None:
    async with (
        serve(failing("prefect", {ONE: echo_in_body})) as upstream,
        Exporter("prefect", upstream.url, **credentials(kind, canary_file)) as exporter,
    ):
        state = await exporter.poll()
        assert state.published
        assert "<secret>" in state.published.snapshot.unreadable[0].message
        assert "&lt;secret&gt;" in await exporter.page("/")
        await assert_no_canary(exporter, state)


@pytest.mark.parametrize("system", GOOD)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_no_credentials_follow_a_redirect_to_another_host(system: str, code: int, canary_file: Path) -> None:
    async with serve(by_path(GOOD[system])) as other:
        elsewhere = answer({}, code, {"Location": f"{other.url}{FIRST[system]}"})
        async with (
            serve(lambda _: elsewhere) as upstream,
            Exporter(system, upstream.url, **credentials("value", canary_file)) as exporter,
        ):
            state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "http_status"
        assert f"redirected to {other.url}{FIRST[system]}; set url to where the API is, or" in state.failure.message
        assert (len(upstream.requests), other.connections) == (1, 0)


@pytest.mark.parametrize(
    ("system", "kind", "prefix"),
    [("cloro", "file", "Bearer "), ("prefect", "file", "Bearer "), ("prefect", "basic-file", "Basic ")],
)
async def test_a_file_with_a_secret_is_read_again(system: str, kind: str, prefix: str, canary_file: Path) -> None:
    async with (
        serve(by_path(GOOD[system])) as upstream,
        Exporter(system, upstream.url, **credentials(kind, canary_file)) as exporter,
    ):
        assert (await exporter.poll()).outcome == "success"
        before = upstream.requests[-1].headers["authorization"]
        put(canary_file, b"rotated\n")
        assert (await exporter.poll()).outcome == "success"
        after = upstream.requests[-1].headers["authorization"]
        assert before.startswith(prefix)
        assert after == prefix + {"Bearer ": "rotated", "Basic ": "dXNlcjpyb3RhdGVk"}[prefix]
        requests = len(upstream.requests)

        put(canary_file, None)
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, len(upstream.requests)) == ("auth", requests)
        key = "basic_auth.password_file" if "basic" in kind else "authorization.credentials_file"
        assert state.failure.message == f"can't read {key} {canary_file}: No such file or directory"

        put(canary_file, b"back")
        assert (await exporter.poll()).outcome == "success"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"canary+7f3a\r\nX-Injected: 1", "has characters that a header can't carry"),
        ("canary+7f3aé".encode(), "has characters that a header can't carry"),
        (b"canary+7f3a\xff", "is not UTF-8"),
    ],
    ids=["empty", "blank", "two-lines", "not-ascii", "not-utf-8"],
)
async def test_a_file_with_what_is_no_secret(content: bytes, says: str, canary_file: Path) -> None:
    async with (
        serve(by_path(GOOD["cloro"])) as upstream,
        Exporter("cloro", upstream.url, **credentials("file", canary_file)) as exporter,
    ):
        put(canary_file, content)
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, upstream.requests) == ("auth", [])
        assert says in state.failure.message
        assert str(canary_file) in state.failure.message
        await assert_no_canary(exporter, state)
