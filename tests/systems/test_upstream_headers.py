"""What headers of an upstream tell: the id of an answer, and when what was asked is deprecated and removed."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.metrics.text import Format
from exporter.shard import WHOLE
from exporter.sources import SYSTEMS
from exporter.sources.base import SourceConfig, SourceError
from tests.harness.cases import CASES
from tests.harness.cloro import KEY, PUBLISHED
from tests.harness.inprocess import Exporter
from tests.harness.upstream import Answer, Hangup, Request, Upstream, answer, serve

ID = "7d0a4c1e-5f3b"
POOL = "11111111-1111-1111-1111-111111111111"
FIRST, SECOND = 1_798_761_600, 1_830_297_600
"""Midnight of the first days of 2027 and 2028."""


def config(system: str, upstream: Upstream, **settings: Any) -> SourceConfig:
    settings = {
        "name": "s",
        "system": system,
        "url": upstream.url + CASES[system].path,
        "authorization": {"credentials": KEY},
    } | settings
    return SYSTEMS[system].model_validate(settings)


async def failure(config: SourceConfig) -> SourceError:
    source = config.build(WHOLE, lambda *_: None)
    try:
        with pytest.raises(SourceError) as failed:
            await source.poll()
    finally:
        await source.close()
    return failed.value


def head(**headers: str) -> bytes:
    """An answer that ends after its head and one byte of its body."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n{lines}\r\n[".encode()


def broken_off(_: Request) -> bytes:
    raise Hangup(head(X_Request_ID=ID))


FAILURES: Mapping[str, Answer] = {
    "status": lambda _: answer({}, 500, {"X-Request-ID": ID}),
    "refused": lambda _: answer({"detail": "no"}, 403, {"x-request-id": ID}),
    "redirected": lambda _: answer({}, 302, {"X-Request-Id": ID, "Location": "http://["}),
    "contract": lambda _: answer({"a": 1}, 200, {"X-Request-ID": ID}),
    "no-json": lambda _: answer(b"<html>", 200, {"X-Request-ID": ID}),
    "compressed": lambda _: answer({}, 200, {"X-Request-ID": ID, "Content-Encoding": "gzip"}),
    "announced-too-large": lambda _: head(X_Request_ID=ID).replace(b": 100\r\n", b": 99999999\r\n"),
    "body-breaks-off": broken_off,
}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("fault", FAILURES)
async def test_every_error_has_the_id_of_its_answer(system: str, fault: str) -> None:
    """Of any answer of which the head has come, whatever is wrong with it."""
    async with serve(FAILURES[fault]) as upstream:
        failed = await failure(config(system, upstream))
    assert failed.request_id == ID
    assert str(failed).endswith(f" (X-Request-ID {ID})")
    assert str(failed).count(ID) == 1


async def test_an_answer_that_never_ends_has_an_id_too() -> None:
    async with serve(lambda _: head(X_Request_ID=ID)) as upstream:
        for seconds in (1, 4, 16, 64):  # until its head comes in time, however busy the machine is
            failed = await failure(config("cloro", upstream, interval=f"{seconds}s"))
            assert failed.reason == "timeout"
            if failed.request_id:
                break
    assert str(failed).endswith(f"s (X-Request-ID {ID})")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("", ""),
        (" ", ""),
        ("00-4bf9+/=_~.:,;|@", "00-4bf9+/=_~.:,;|@"),
        ("a) (b\tc\x1b[31m é", "ab c[31m".replace(" ", "")),
        (f"it is {KEY} again", "itis<secret>again"),
        (f"{KEY[:9]} ({KEY[9:]}", "<secret>"),
        ("i" * 5000, "i" * 200),
    ],
    ids=["empty", "blank", "signs", "odd", "secret", "secret-in-two", "long"],
)
async def test_an_id_is_one_short_word_without_secrets(sent: str, shown: str) -> None:
    async with serve(lambda _: answer({}, 500, {"X-Request-ID": sent})) as upstream:
        failed = await failure(config("cloro", upstream))
    assert failed.request_id == shown
    assert str(failed).endswith(f": 500 Internal Server Error (X-Request-ID {shown})" if shown else "Server Error")


async def test_an_id_is_of_the_request_that_failed() -> None:
    """And not of the one before it, or of an answer that its repetition did not get."""
    asked = 0

    def next_answer(_: Request) -> bytes:
        nonlocal asked
        asked += 1
        raise Hangup(head(X_Request_ID=ID) if asked == 1 else b"")

    async with serve(next_answer) as upstream:
        failed = await failure(config("cloro", upstream))
    assert (asked, failed.reason, failed.request_id) == (2, "connect", "")


async def test_the_same_trouble_is_logged_once_whatever_its_id() -> None:
    ids = iter(f"id-{n}" for n in range(100))

    def fail(request: Request) -> bytes:
        lists_pools = request.path.endswith(("/work_pools/filter", "/status"))
        body: Any = [{"id": POOL, "name": "p", "type": "t", "is_paused": False, "concurrency_limit": None}]
        if request.path.startswith("/api") and lists_pools:
            return answer(body, 200)
        return answer({}, 500, {"X-Request-ID": next(ids)})

    async with serve(fail) as upstream:
        for system in SYSTEMS:
            async with Exporter(config(system, upstream)) as exporter:
                with capture_logs() as logs:
                    for _ in range(3):
                        await exporter.poller.poll("s")
            said = [(line["event"], line["log_level"]) for line in logs]
            assert said == [("poll failed", level) for level in ("warning", "debug", "debug")], system
            assert len({line["error"] for line in logs}) == 3, "each has its own id"
            assert all("(X-Request-ID id-" in line["error"] for line in logs)


def published(exporter: Exporter) -> dict[str, float]:
    begin = "concurrency_exporter_upstream_"
    lines = exporter.telemetry.render(exporter.view, Format.CLASSIC).decode().splitlines()
    dates = [line.removeprefix(begin).split("{") for line in lines if line.startswith(begin) and "timestamp" in line]
    return {name.removesuffix("_timestamp_seconds"): float(rest.split(" ")[1]) for name, rest in dates}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("@1688169599", 1_688_169_599),
        ('@1688169599;why="old"', 1_688_169_599),
        ("  @0 ", 0),
        ("@-86400", -86_400),
        ("@1688169599.5", None),
        ("@99999999999999", None),
        ("@999999999999999", None),
        ("@9999999999999999", None),
        ("@-99999999999999", None),
        ("1688169599", None),
        ("@", None),
        ("@1, @2", None),
        ("@0x10", None),
        ("@²", None),
        ("true", None),
        ("Fri, 01 Jan 2027 00:00:00 GMT", None),
        ("", None),
    ],
)
async def test_a_date_of_deprecation_is_a_structured_one(header: str, expected: float | None) -> None:
    async with (
        serve(lambda _: answer(PUBLISHED, 200, {"Deprecation": header})) as upstream,
        Exporter(config("cloro", upstream)) as exporter,
    ):
        await exporter.poller.poll("s")
        assert published(exporter) == ({} if expected is None else {"deprecation": expected})


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Fri, 01 Jan 2027 00:00:00 GMT", FIRST),
        ("Friday, 01-Jan-27 00:00:00 GMT", FIRST),
        ("Fri Jan  1 00:00:00 2027", FIRST),
        ("2027-01-01T00:00:00Z", None),
        ("@1798761600", None),
        ("1798761600", None),
        ("Fri, 99 Foo 2027 00:00:00 GMT", None),
        ("Fri, 01 Jan 99999 00:00:00 GMT", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_a_sunset_is_a_date_of_http(header: str, expected: float | None) -> None:
    async with (
        serve(lambda _: answer(PUBLISHED, 200, {"Sunset": header})) as upstream,
        Exporter(config("cloro", upstream)) as exporter,
    ):
        await exporter.poller.poll("s")
        assert published(exporter) == ({} if expected is None else {"sunset": expected})


async def test_an_end_that_is_announced_is_logged_once_and_published_until_it_is_withdrawn() -> None:
    both = {
        "Deprecation": f"@{FIRST}",
        "Sunset": "Sat, 01 Jan 2028 00:00:00 GMT",
        "Link": f'<https://docs.example.com/moved?key={KEY}>; rel="deprecation"; type="text/html"',
    }
    headers: Mapping[str, str] = both
    status = 200
    async with (
        serve(lambda _: answer(PUBLISHED, status, headers)) as upstream,
        Exporter(config("cloro", upstream)) as exporter,
    ):
        with capture_logs() as logs:
            for _ in range(3):
                await exporter.poller.poll("s")
            assert published(exporter) == {"deprecation": FIRST, "sunset": SECOND}
            # A proxy's error page says nothing of it, and a reload changes nothing.
            status, headers = 502, {}
            await exporter.poller.poll("s")
            await exporter.configure(config("cloro", upstream, interval="60s"))
            await exporter.poller.poll("s")
            assert published(exporter) == {"deprecation": FIRST, "sunset": SECOND}
            status, headers = 200, both | {"Link": "<https://elsewhere.example.com>; rel=deprecation"}
            await exporter.poller.poll("s")
        announced = [line for line in logs if line["event"] == "upstream deprecates endpoints that are read"]
        assert announced == [
            {
                "event": "upstream deprecates endpoints that are read",
                "log_level": "warning",
                "source": "s",
                "endpoints": "/v1/async/status",
                "deprecation": datetime.fromtimestamp(FIRST, UTC).isoformat(),
                "sunset": datetime.fromtimestamp(SECOND, UTC).isoformat(),
                "link": "https://docs.example.com/moved?key=<secret>",
            }
        ]
        headers = {"Sunset": "Fri, 01 Jan 2027 00:00:00 GMT"}
        with capture_logs() as logs:
            await exporter.poller.poll("s")
        assert [line.get("sunset") for line in logs] == [datetime.fromtimestamp(FIRST, UTC).isoformat()]
        headers = {}
        with capture_logs() as logs:
            await exporter.poller.poll("s")
        assert (published(exporter), logs) == ({}, [])


async def test_an_error_announces_too() -> None:
    async with (
        serve(lambda _: answer({}, 410, {"Sunset": "Fri, 01 Jan 2027 00:00:00 GMT"})) as upstream,
        Exporter(config("cloro", upstream)) as exporter,
    ):
        await exporter.poller.poll("s")
        assert published(exporter) == {"sunset": FIRST}


async def test_of_several_routes_the_earliest_counts() -> None:
    """Also of one that is asked once only."""
    dates = {"/api/work_pools/filter": f"@{SECOND}", "/api/admin/version": f"@{FIRST}"}

    def next_answer(request: Request) -> bytes:
        headers = {"Deprecation": dates[request.path]} if request.path in dates else {}
        return answer("3.9.1" if request.path.endswith("version") else [], 200, headers)

    async with (
        serve(next_answer) as upstream,
        Exporter(config("prefect", upstream)) as exporter,
    ):
        with capture_logs() as logs:
            for _ in range(3):
                await exporter.poller.poll("s")
        assert published(exporter) == {"deprecation": FIRST}
        assert [line["endpoints"] for line in logs if "endpoints" in line] == ["/admin/version,/work_pools/filter"]
