"""What is fuzzed: functions that take any bytes, and raise where the exporter does what it never should."""

import asyncio
import io
import logging
import re
import tempfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
from starlette.types import ASGIApp

from exporter import config, logs
from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.model import FAILURE_REASONS, Limit, Pool, Queue, Snapshot
from exporter.polling.store import SourceState, View
from exporter.polling.telemetry import Telemetry
from exporter.settings.reader import ConfigError
from exporter.sources import SYSTEMS
from exporter.web import api, schema
from exporter.web import config as web_config
from exporter.web.listeners import listen
from exporter.web.negotiation import accepts_gzip, negotiate
from exporter.web.openapi import Operation
from exporter.web.passwords import _credentials
from exporter.web.server import Server
from tests.fuzz import strict
from tests.fuzz.upstream import decode, network, parts, replying
from tests.harness.inprocess import Exporter, Time
from tests.harness.page import Page
from tests.harness.states import Filled

NAME: Final = "s"
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "cloro": {"url": "http://cloro", "authorization": {"credentials": "sk_canary"}},
    "prefect": {"url": "http://prefect/api", "authorization": {"credentials": "pnu_canary"}},
}
_SAMPLED: Final = 16
"""One input of so many is polled twice (the second poll knows what the first has found), and what is published is read
by the parsers of prometheus_client too: this takes longer than all else."""


@cache
def _runner() -> asyncio.Runner:
    """One loop for all inputs."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    return asyncio.Runner()


class Log(io.StringIO):
    """All that is logged."""

    def take(self) -> str:
        """What was logged since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@cache
def log() -> Log:
    """Where everything is logged from now on."""
    sink = Log()
    structlog.reset_defaults()
    logs.configure("debug", "logfmt", sink)
    return sink


@cache
def _exporter() -> Exporter:
    """The exporter of all inputs; each has a source of its own."""
    return Exporter(time=Time.running())


def answers(data: bytes) -> None:
    """Bytes of upstream's answers: each poll ends with a valid exposition or with a reason that is known."""
    changed = decode(data)
    if changed:
        _runner().run(polls(_system(changed), changed, thorough=zlib.crc32(data) % _SAMPLED == 0))


def _system(changed: Mapping[str, bytes]) -> str:
    return "cloro" if "A" in changed else "prefect"


def exposition(data: bytes) -> str:
    """What is published after such answers, in the classic format; empty where that is nothing."""
    changed = decode(data)
    state = _runner().run(polls(_system(changed), changed, thorough=False)) if changed else None
    if not state or not state.published:
        return ""
    return b"".join(Body([state.published.rendered], Format.CLASSIC).plain(b"")).decode()


async def polls(system: str, changed: dict[str, bytes], *, thorough: bool) -> SourceState:
    """Poll an upstream with these answers, and check after each poll all that the exporter says; the last state."""
    exporter, lines = _exporter(), log()
    lines.take()
    settings = {"name": NAME, "system": system, "timeout": "5s"} | SETTINGS[system]
    if system == "prefect":
        settings["collect"] = sorted(parts(changed))
    await exporter.poller.configure([SYSTEMS[system].model_validate(settings)])
    try:
        with network(replying(changed)):
            for _ in range(2 if thorough else 1):
                await exporter.poller.poll(NAME)
                view = exporter.store.view()
                (state,) = view.states
                _outcome_is_known(state)
                _published(view, exporter.telemetry, thorough=thorough)
        if thorough:
            await _page(exporter)
    finally:
        await exporter.poller.configure([])
    said = lines.take()
    assert "Traceback" not in said, said
    assert said.replace("\n", "").isprintable(), said
    assert "_canary" not in said, said
    return state


def _outcome_is_known(state: SourceState) -> None:
    reasons = [state.failure.reason] if state.failure else []
    if state.published:
        reasons += [one.reason for one in state.published.snapshot.unreadable]
    assert state.outcome in {"success", "partial", "failure"}
    assert (state.outcome == "failure") == (state.failure is not None)
    assert set(reasons) <= set(FAILURE_REASONS) - {"internal"}, state.failure


def _published(view: View, telemetry: Telemetry, *, thorough: bool) -> None:
    live = view.live.values()
    for format_ in Format:
        body = Body(live, format_)
        observed = strict.check(b"".join(body.plain(format_.value)), format_)
        assert len(observed) == sum(one.series for one in live)
        if thorough:
            text = b"".join(body.plain(telemetry.render(view, format_)))
            series = strict.check(text, format_)
            read = openmetrics if format_ is Format.OPENMETRICS else classic
            theirs = {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in read(text.decode())
                for sample in family.samples
            }
            assert theirs == series


PAGES: Final = ("/", "/queue", "/pool", "/limit")


async def _page(exporter: Exporter) -> None:
    assert await _html(exporter.application, "/") == 200
    for state in exporter.view.states:
        snapshot = state.published.snapshot if state.published else Snapshot()
        named: list[tuple[str, dict[str, str]]] = [
            *(("/queue", {"pool": one.pool, "queue": one.name}) for one in snapshot.queues if one.name),
            *(("/pool", {"pool": one.name}) for one in snapshot.pools if one.name),
            *(("/limit", {"kind": one.kind, "limit": one.name}) for one in snapshot.limits if one.name),
        ]
        for path, names in named:
            query = urlencode({"source": state.name, **names}).encode()
            assert await _html(exporter.application, path, query) == 200
    for operation in api.operations():
        if operation.answers:
            await _json(exporter.application, operation)


async def _html(application: ASGIApp, path: str, query: bytes = b"") -> int:
    """Ask for a page: it is one, whatever the names on it, and does nothing. Returns the status."""
    status, body = await _asked(application, path, query)
    page = Page(body.decode())
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "img", "iframe"})
    assert all(urlsplit(link).scheme in {"", "http", "https"} for _, link in page.links)
    return status


async def _json(application: ASGIApp, operation: Operation, query: bytes = b"") -> None:
    """Ask a route of the JSON API: the answer is what its schema has."""
    status, body = await _asked(application, api.PREFIX + operation.path, query)
    assert status in {200, 400, 404, 503}, (operation.path, status)
    model = operation.answers if status == 200 else schema.Error
    if model:
        model.model_validate_json(body, strict=True)


async def _asked(application: ASGIApp, path: str, query: bytes = b"") -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "headers": [(b"host", b"x")],
        "query_string": query,
    }
    await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _settings(data: bytes, load: Callable[[Path], object]) -> None:
    path = _folder() / "settings.yml"
    path.write_bytes(data)
    try:
        load(path)
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        return
    wrong = [text for text in mistakes if not re.match(rf"{re.escape(str(path))}(:[0-9]+)?: \S", text)]
    assert mistakes, "no mistake is named"
    assert wrong == []
    "".join(mistakes).encode()


def config_file(data: bytes) -> None:
    """A configuration file: it is good, or has mistakes that name the file."""
    _settings(data, config.load)


def web_config_file(data: bytes) -> None:
    """The file of `--web.config.file`, likewise."""
    _settings(data, web_config.load)


def headers(data: bytes) -> None:
    """The headers of a request that are looked into."""
    text = data.decode("latin-1")
    format_, content_type = negotiate(text)
    assert content_type.startswith("application/openmetrics-text" if format_ is Format.OPENMETRICS else "text/plain")
    assert re.fullmatch(r"[ -~]+", content_type)
    accepts_gzip(text)
    _credentials(text)
    _credentials(f"Basic {text}")


class _Server:
    """A server of ours on loopback, in the loop of the fuzzer."""

    def __init__(self) -> None:
        exporter = Exporter(time=Time.running())
        exporter.add(NAME)
        self._listener = listen("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self._server = Server(exporter.application, graceful_seconds=1)

    async def start(self) -> None:
        """Serve for as long as the loop lasts."""
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: logging.getLogger("loop").error(context["message"])
        )
        self._task = asyncio.create_task(self._server.serve([self._listener]))


@cache
def _server() -> _Server:
    server = _Server()
    _runner().run(server.start())
    return server


def request(data: bytes) -> None:
    """Bytes to the listening socket: no answer is a 5xx, nothing is logged, and the next request is answered."""
    server, lines = _server(), log()
    lines.take()
    answer = _runner().run(_talk(server.port, data))
    for status in re.findall(rb"^HTTP/1\.1 (\d+) ", answer, re.MULTILINE):
        assert int(status) < 500 or status == b"501", answer
    said = [line for line in lines.take().splitlines() if "level=error" in line or "level=warning" in line]
    assert said == []
    if zlib.crc32(data) % _SAMPLED == 0:
        assert (
            _runner()
            .run(_talk(server.port, b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
            .endswith(b"healthy\n")
        )


async def _talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    try:
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@cache
def _filled() -> Filled:
    """An exporter with two queues, a pool and a limit, and a source without data."""
    exporter = Filled()
    exporter.add("s")
    exporter.add("old")
    queue = Queue("p", "q", active_slots=1, slot_limit=3, queued={"1": 1}, paused=False)
    pool, limit = Pool("p", paused=False, slot_limit=9, active_slots=1), Limit("l", "tag", "1", 1, 2, 0.0, True)
    exporter.succeed("s", queue, Queue("", "\x00💥", queued={"1": 0}), pools=(pool,), limits=(limit,))
    return exporter


def parameters(data: bytes) -> None:
    """A query string, as a client sends it, for each page and each route of the JSON API."""
    log().take()
    for path in PAGES:
        assert _runner().run(_html(_filled().application, path, data)) in {200, 400, 404, 503}
    for operation in api.operations():
        _runner().run(_json(_filled().application, operation, data))
    assert log().take() == ""


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "answers": answers,
    "config": config_file,
    "web-config": web_config_file,
    "headers": headers,
    "request": request,
    "parameters": parameters,
}
