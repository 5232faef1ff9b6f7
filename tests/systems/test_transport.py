"""What a broken, hostile or absent upstream does to a poll, and what `/metrics` then shows: a row for each fault."""

import asyncio
import socket
import ssl
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import pytest

from exporter.model import FailureReason
from exporter.sources import SYSTEMS
from tests.harness.cases import CASES, by_path
from tests.harness.cloro import PUBLISHED
from tests.harness.connections import hang_up, listening, refuse, relay, reset
from tests.harness.inprocess import SHORT, OneSource
from tests.harness.loop import until
from tests.harness.process import PATIENCE
from tests.harness.upstream import TOO_LARGE, Answer, Hangup, Request, answer, json_answer, never, serve
from tests.systems.cloro.case import STATUS


@dataclass(frozen=True)
class Fault:
    """What every path answers; then why the poll fails, a part of the message, and how many requests were made."""

    what: Answer | bytes
    reason: FailureReason
    says: str
    requests: int = 1
    settings: dict[str, Any] = field(default_factory=dict)


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


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_the_whole_upstream_fails(system: str, fault: Fault) -> None:
    async with serve(CASES[system].works) as upstream, OneSource(system, upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.queues() == CASES[system].queues
        assert exporter.own("source_up") == 1
        published, taken_at = await exporter.observed(), 1_000_000 + exporter.time.seconds

        upstream.requests.clear()
        upstream.answer = by_path({CASES[system].first: fault.what})
        exporter.time.seconds += 30
        await exporter.change(**fault.settings)
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", fault.reason)
        assert fault.says in state.failure.message
        assert len(state.failure.message) < 1000
        assert [request.path for request in upstream.requests] == [CASES[system].first] * fault.requests

        assert exporter.own("source_up") == 0
        assert exporter.own("last_success_timestamp_seconds") == taken_at
        assert exporter.own("polls_total", outcome="failure") == 1
        assert exporter.own("poll_errors_total", reason=fault.reason) == 1
        assert await exporter.observed() == published
        assert [(log["log_level"], log["event"]) for log in exporter.logs] == [("warning", "poll failed")]

        exporter.time.seconds += exporter.config.stale_after - 30.5
        assert await exporter.observed() == published
        exporter.time.seconds += 0.5
        assert await exporter.observed() == []
        assert exporter.own("source_up") == 0
        assert exporter.own("last_success_timestamp_seconds") == taken_at
        assert exporter.own("queues_unreadable") is None

        upstream.answer = CASES[system].works
        await exporter.change()
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.observed() == published
        assert exporter.own("source_up") == 1


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("slow_after", [b"HTTP", b"\r\n\r\n"], ids=["headers", "body"])
async def test_an_answer_that_trickles(system: str, slow_after: bytes) -> None:
    async with (
        serve(CASES[system].works) as upstream,
        relay(upstream, slow_after=slow_after) as url,
        OneSource(system, url, timeout=SHORT) as exporter,
    ):
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", "timeout")
        assert "within 0." in state.failure.message
        assert len(upstream.requests) <= 1
        assert await exporter.observed() == []


@pytest.mark.parametrize("system", SYSTEMS)
async def test_a_connection_that_is_reset(system: str) -> None:
    async with listening(reset) as url, OneSource(system, url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, exporter.own("source_up")) == ("connect", 0)
        assert "Connection reset by peer" in state.failure.message
        assert exporter.telemetry.requests("s") == 2


@pytest.mark.parametrize("system", SYSTEMS)
async def test_started_before_its_upstream(system: str, closed_port: socket.socket) -> None:
    url = "http://{}:{}".format(*closed_port.getsockname())
    async with OneSource(system, url) as exporter:
        assert exporter.own("source_up") == 0
        assert exporter.own("polls_total", outcome="failure") == 0
        for _ in range(3):
            state = await exporter.poll()
            assert state.failure
            assert (state.outcome, state.failure.reason) == ("failure", "connect")
            assert "Connection refused" in state.failure.message
        assert exporter.own("source_up") == 0
        assert exporter.own("last_success_timestamp_seconds") is None
        assert await exporter.observed() == []
        # The same trouble is told once.
        assert [log["log_level"] for log in exporter.logs] == ["warning", "debug", "debug"]

        async with serve(CASES[system].works) as upstream, relay(upstream, at=closed_port):
            assert (await exporter.poll()).outcome == "success"
        assert exporter.own("source_up") == 1
        assert await exporter.queues() == CASES[system].queues
        assert exporter.logs[-1]["event"] == "poll succeeded again"

        assert (await exporter.poll()).outcome == "failure"
        assert [log["log_level"] for log in exporter.logs[3:]] == ["info", "warning"]


# --- Answers of which only a part is read, or of which the headers matter.


@pytest.mark.parametrize("system", SYSTEMS)
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

    async with listening(endless) as url, OneSource(system, url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, "502 Bad Gateway" in state.failure.message) == ("http_status", True)
        await asyncio.wait_for(gone.wait(), PATIENCE)
        assert sent < 8 * 1024**2  # what the kernel holds in its buffers, too


@pytest.mark.parametrize("system", SYSTEMS)
async def test_a_date_in_retry_after_is_by_upstreams_clock(system: str) -> None:
    """Ours may be an hour ahead of it, and would find that the date has passed."""
    at = datetime.now(UTC) - timedelta(hours=1)
    headers = {"Date": format_datetime(at, usegmt=True)}
    headers["Retry-After"] = format_datetime(at + timedelta(seconds=90), usegmt=True)
    async with (
        serve(lambda _: answer({}, 429, headers)) as upstream,
        OneSource(system, upstream.url) as exporter,
    ):
        exporter.poller.start()
        await until(lambda: exporter.own("polls_total", outcome="failure") == 1)
        next_poll = exporter.poller.next_poll("s")
        assert next_poll
        assert 80 < (next_poll - datetime.now(UTC)).total_seconds() <= 90


# --- Connections.


@pytest.mark.parametrize("system", SYSTEMS)
async def test_connections_are_kept_and_requests_counted(system: str) -> None:
    async with serve(CASES[system].works) as upstream, OneSource(system, upstream.url) as exporter:
        for _ in range(3):
            await exporter.poll()
        case = CASES[system]
        assert upstream.connections <= case.connections
        requests = exporter.own("upstream_requests_total", endpoint=case.route, code="200")
        assert requests == 3 * case.requests


@pytest.mark.parametrize("system", SYSTEMS)
async def test_a_kept_connection_that_the_server_has_closed(system: str) -> None:
    asked: set[str] = set()
    good = CASES[system].works

    def closes_at_first(request: Request) -> Any:
        if request.path in asked:
            return good(request)
        asked.add(request.path)
        raise Hangup

    async with serve(good) as upstream, OneSource(system, upstream.url) as exporter:
        await exporter.poll()
        upstream.requests.clear()
        upstream.answer = closes_at_first
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.queues() == CASES[system].queues
        assert sorted(request.path for request in upstream.requests) == sorted(2 * list(CASES[system].good))


@pytest.mark.parametrize("system", SYSTEMS)
async def test_nothing_is_remembered_but_connections(system: str) -> None:
    cookie = {"Set-Cookie": "session=1; Path=/"}
    first = CASES[system].good[CASES[system].first]
    assert isinstance(first, bytes)
    with_cookie = first.replace(b"\r\n", b"\r\nSet-Cookie: session=1; Path=/\r\n", 1)
    assert answer({}, headers=cookie).count(b"Set-Cookie") == with_cookie.count(b"Set-Cookie")
    async with (
        serve(CASES[system].failing({CASES[system].first: with_cookie})) as upstream,
        OneSource(system, upstream.url) as exporter,
    ):
        assert (await exporter.poll()).outcome == "success"
        assert (await exporter.poll()).outcome == "success"
        assert not [request for request in upstream.requests if "cookie" in request.headers]


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


@pytest.mark.parametrize("system", SYSTEMS)
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
        serve(CASES[system].works) as upstream,
        relay(upstream, tls=context) as url,
        OneSource(system, url.replace("https", scheme), tls_config=settings) as exporter,
    ):
        state = await exporter.poll()
        if says is None:
            assert (state.outcome, await exporter.queues()) == ("success", CASES[system].queues)
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
    by_proxy = by_path({f"http://cloro.example{STATUS}": CASES["cloro"].good[STATUS]})
    async with serve(by_proxy) as proxy, relay(proxy, tls=context) as url:
        proxy_url = url.replace("https", scheme)
        async with OneSource("cloro", "http://cloro.example", proxy_url=proxy_url, tls_config=settings) as exporter:
            state = await exporter.poll()
    if says is None:
        assert (state.outcome, len(proxy.requests)) == ("success", 1)
        return
    assert state.failure
    assert (state.failure.reason, proxy.requests) == ("tls", [])
    assert says in state.failure.message


@pytest.mark.parametrize("system", SYSTEMS)
async def test_tls_to_a_server_that_has_none(system: str) -> None:
    async with (
        listening(refuse) as url,
        OneSource(system, url.replace("http:", "https:")) as exporter,
    ):
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "tls"
        assert "check tls_config" in state.failure.message
