"""Every route, as a scraper, a browser and an orchestrator see it."""

import asyncio
import gc
import gzip
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx
import pytest
from starlette.types import ASGIApp

from exporter.clock import Clock
from exporter.metrics.body import Body
from exporter.model import FAILURE_REASONS, OUTCOMES, Limit, Pool, Queue, RateLimit, Snapshot, Unreadable
from exporter.polling.outcome import Failed, Failure
from exporter.web.guard import Guard
from exporter.web.listeners import listen
from exporter.web.location import location
from exporter.web.management import Reload
from exporter.web.server import Server
from tests.harness.exporter import series
from tests.harness.inprocess import Exporter, Time

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CLASSIC = "text/plain; version=0.0.4; charset=utf-8"
HTML = "text/html; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
EVIL = "<script>alert('&')</script>"
QUEUE = Queue(pool="pool", name="queue", usage_known=True, active_slots=3, slot_limit=5)
LIMIT = Limit("gpu", "tag", "1", 1, 2, 0.0, True)
POOL = Pool(name="pool", id="1", kind="process", paused=False, active_slots=1, slot_limit=None)


@asynccontextmanager
async def served(application: ASGIApp) -> AsyncIterator[int]:
    """The port on which it is served."""
    listener = listen("127.0.0.1", 0)
    server = Server(application, graceful_seconds=1)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        await task


class Filled(Exporter):
    """An exporter whose sources are not polled, behind a guard that lets everybody in."""

    def __init__(self, reload: Reload | None = None) -> None:
        super().__init__(time=Time(seconds=0.0, wall=1_700_000_000.0), reload=reload)
        self.application: ASGIApp = Guard(self.application, None, self.clock)

    def add(self, source: str = "prod", system: str = "prefect") -> None:
        super().add(source, system)

    def succeed(
        self, name: str = "prod", *queues: Queue, max_series: int = 1_000, **rest: tuple[Unreadable, ...]
    ) -> None:
        snapshot = Snapshot(queues=queues or (QUEUE,), pools=(POOL,), limits=(LIMIT,), **rest)  # type: ignore[arg-type]
        self.publish(name, snapshot, max_series=max_series, took=1.234)

    def fail(self, name: str = "prod", message: str = "no answer") -> None:
        self.store.poll_ended(name, Failed(Failure("timeout", message), 30.0, rate_limit=RateLimit(10, 3)))

    async def raw(self, method: str, targets: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Status and type of the answer to each request over a socket, its target as it is written here."""
        found = {}
        async with served(self.application) as port:
            for target in targets:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"{method} {target} HTTP/1.0\r\nHost: exporter\r\n\r\n".encode())
                answer = (await reader.read()).decode()
                writer.close()
                content_type = re.search(r"^content-type: (.*)\r$", answer, re.MULTILINE | re.IGNORECASE)
                assert content_type
                found[target] = (int(answer.split()[1]), content_type[1])
        return found


@pytest.fixture
def exporter() -> Filled:
    exporter = Filled()
    exporter.add()
    return exporter


async def reloaded() -> str:
    return ""


ROUTES = {
    "/": HTML,
    "/queue?source=prod&pool=pool&queue=queue": HTML,
    "/pool?source=prod&pool=pool": HTML,
    "/limit?source=prod&kind=tag&limit=gpu": HTML,
    "/runbooks/ConcurrencySlotsSaturated.md": PLAIN,
    "/metrics": CLASSIC,
    "/metrics?source=prod": CLASSIC,
    "/metrics?source=": CLASSIC,
    "/sd": "application/json",
    "/api/v1/queues": "application/json",
    "/api/v1/queue?source=prod&pool=pool&queue=queue": "application/json",
    "/api/v1/limits": "application/json",
    "/api/v1/sources": "application/json",
    "/api/v1/openapi.json": "application/json",
    "/-/healthy": PLAIN,
    "/-/ready": PLAIN,
}


@pytest.mark.parametrize(("path", "content_type"), ROUTES.items())
async def test_get_and_head(exporter: Filled, path: str, content_type: str) -> None:
    exporter.succeed()
    get, head = await exporter.get(path), await exporter.request("HEAD", path)
    assert (get.status_code, head.status_code) == (200, 200)
    assert get.headers["Content-Type"] == head.headers["Content-Type"] == content_type
    assert get.content
    assert head.content == b""
    assert int(get.headers["Content-Length"]) == len(get.content)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method(exporter: Filled, path: str, method: str) -> None:
    response = await exporter.request(method, path)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def encoded(path: str) -> set[str]:
    """The path with one of its characters encoded, in both cases, and with all of them, but for the first slash."""
    codes = [f"%{ord(character):02x}" for character in path]
    one = {path[:at] + code + path[at + 1 :] for at, code in enumerate(codes) if at}
    upper = {path[:at] + code.upper() + path[at + 1 :] for at, code in enumerate(codes) if at}
    return {*one, *upper, "/" + "".join(codes[1:])}


# fmt: off
ENDS = (
    "%0a", "%0A", "%0d%0a", "%0d", "%00", "%09", "%20", "%0b", "%0c", "%85", "%e2%80%a8", "%250a",
    "/", "%2f", "/.", "/..", ";", ";x=1", "%3f", "%3fsource=prod", "%23", "%25", "\\", "%5c", ":", ",",
)
BEGINNINGS = ("/", "/.", "/..", "/x/..", "/-", "/%2e", "/%2e%2e", "/%2f", "/%0a", "/%5c")
PATHS = (
    "/metrics", "/sd", "/-/healthy", "/-/ready", "/queue", "/pool", "/limit", "/runbooks/ConcurrencySlotsSaturated.md",
)
OTHER_PATHS = {
    "/metric", "/metrics/x", "/-/", "/-/reload", "/-/quit", "/favicon.ico", "/..%2fmetrics", "/debug/pprof", "*",
    "/api", "/api/", "/api/v1", "/api/v1/", "/api/v2/queues", "/api/v1/queue/", "/api/v1/queues%0a", "/api/v1/%71ueues",
    "/Metrics", "/METRICS", "/%4detrics", "/-%2fhealthy", "/-%2Fready", "/-//healthy", "/-/./healthy",
    "/-/x/../healthy", "/-%252fready", "/%c0%afmetrics",
    "http://exporter//metrics", "http://exporter/metrics%0a", "http://exporter/-%2fready",
    *(path + end for path in (*PATHS, "/") for end in ENDS),
    *(beginning + path for path in PATHS for beginning in BEGINNINGS),
    *(one for path in PATHS for one in encoded(path)),
}
OTHER_RELOADS = {
    "/-%2freload", "/-%2Freload", "/-//reload", "/-/./reload", "/-/x/../reload", "/-/Reload",
    "http://exporter/-/reload%0a",
    *("/-/reload" + end for end in ENDS),
    *(beginning + "/-/reload" for beginning in BEGINNINGS),
    *encoded("/-/reload"),
}
# fmt: on


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_other_paths_are_not_found(exporter: Filled, method: str) -> None:
    """A path has one spelling, else what a proxy keeps from strangers could be had by another."""
    found = await exporter.raw(method, OTHER_PATHS)
    assert found == dict.fromkeys(OTHER_PATHS, (404, PLAIN))


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_reload_has_one_spelling(method: str) -> None:
    async def reload() -> str:
        raise AssertionError

    assert await Filled(reload).raw(method, OTHER_RELOADS) == dict.fromkeys(OTHER_RELOADS, (404, PLAIN))


async def test_a_prefix_may_have_characters_that_clients_encode() -> None:
    """Prometheus encodes those of !'()* in `metrics_path`; other clients encode more of them."""
    prefix = "/a!$&'()*+,;=:@b"
    exporter = Filled()
    exporter.application = location(None, prefix).below(exporter.application)
    spelled = {prefix, quote(prefix, safe="/$&+,;=:@"), quote(prefix), quote(prefix).lower()}
    good = {f"{one}/metrics" for one in spelled}
    assert len(good) == 4
    assert await exporter.raw("GET", good) == dict.fromkeys(good, (200, CLASSIC))
    bad = {*(f"{one}/%6detrics" for one in spelled), f"/%61{prefix[2:]}/metrics", f"{prefix}%2fmetrics"}
    assert await exporter.raw("GET", bad) == dict.fromkeys(bad, (404, PLAIN))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", CLASSIC),
        ("application/openmetrics-text;version=1.0.0,*/*;q=0.1", OPENMETRICS),
        (
            "text/plain;version=1.0.0;escaping=allow-utf-8",
            "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
    ],
)
@pytest.mark.parametrize("accept_encoding", ["gzip", "identity"])
async def test_metrics(exporter: Filled, accept: str, content_type: str, accept_encoding: str) -> None:
    exporter.succeed()
    response = await exporter.get("/metrics", Accept=accept, Accept_Encoding=accept_encoding)
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Vary"] == "Accept, Accept-Encoding"
    assert response.headers.get("Content-Encoding") == ("gzip" if accept_encoding == "gzip" else None)
    assert (
        'concurrency_queue_active_slots{pool="pool",queue="queue",source="prod",system="prefect"} 3.0\n'
        in response.text
    )
    assert 'concurrency_exporter_source_up{source="prod",system="prefect"} 1.0\n' in response.text
    assert response.text.endswith("# EOF\n") == (content_type == OPENMETRICS)
    if accept_encoding == "gzip":
        assert (
            len(gzip.compress(response.content)) / 2 < int(response.headers["Content-Length"]) < len(response.content)
        )


async def test_before_the_first_poll_nothing_is_up_and_every_counter_is_there_at_zero(exporter: Filled) -> None:
    found = series((await exporter.get("/metrics?source=prod")).text)
    of_source = {("source", "prod"), ("system", "prefect")}
    assert found.pop(("concurrency_exporter_source_shards", frozenset({*of_source, ("shard", "0")}))) == 1
    assert {name for name, _ in found if "poll_duration" not in name} == {
        "concurrency_exporter_source_up",
        "concurrency_exporter_polls_total",
        "concurrency_exporter_poll_errors_total",
    }
    assert set(found.values()) == {0}
    assert ("concurrency_exporter_poll_duration_seconds_count", frozenset(of_source)) in found
    for outcome in OUTCOMES:
        assert ("concurrency_exporter_polls_total", frozenset({*of_source, ("outcome", outcome)})) in found
    for reason in FAILURE_REASONS:
        assert ("concurrency_exporter_poll_errors_total", frozenset({*of_source, ("reason", reason)})) in found


async def test_two_headers_are_one_list(exporter: Filled) -> None:
    headers = [
        ("Accept", "text/html"),
        ("Accept", "application/openmetrics-text"),
        ("Accept-Encoding", "br"),
        ("Accept-Encoding", "gzip"),
    ]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(exporter.application), base_url="http://exporter"
    ) as client:
        client.headers.clear()
        response = await client.get("/metrics", headers=headers)
    assert (response.headers["Content-Type"], response.headers["Content-Encoding"]) == (OPENMETRICS, "gzip")


async def test_scrapes_at_the_same_time_get_the_same(exporter: Filled) -> None:
    exporter.succeed("prod", *(Queue("pool", f"queue {number}", True, 1, 2) for number in range(200)))
    responses = await asyncio.gather(
        *(exporter.get("/metrics", Accept_Encoding="gzip" if number % 2 else "identity") for number in range(20))
    )
    assert len({_slots(response.text) for response in responses}) == 1
    assert len(_slots(responses[0].text)) == 200


def _slots(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"^concurrency_queue_active_slots.*", text, re.MULTILINE))


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
@pytest.mark.parametrize("accept_encoding", ["gzip", "identity"])
async def test_a_source_comes_changes_and_vanishes(exporter: Filled, accept: str, accept_encoding: str) -> None:
    async def slots() -> list[float]:
        response = await exporter.get("/metrics", Accept=accept, Accept_Encoding=accept_encoding)
        return [float(line.split()[-1]) for line in _slots(response.text)]

    assert await slots() == []
    exporter.succeed()
    assert await slots() == [3]
    exporter.succeed("prod", Queue(pool="", name="queue", usage_known=True, active_slots=4))
    assert await slots() == [4]
    exporter.add("second")
    exporter.succeed("second")
    assert await slots() == [4, 3]
    exporter.fail()
    assert await slots() == [4, 3]
    exporter.time.seconds = 89
    exporter.succeed("second")
    exporter.time.seconds = 90
    assert await slots() == [3]
    exporter.store.remove("second")
    assert await slots() == []


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
@pytest.mark.parametrize("accept_encoding", ["gzip", "identity"])
async def test_the_series_of_one_source(exporter: Filled, accept: str, accept_encoding: str) -> None:
    async def lines(query: str) -> list[str]:
        url = f"/metrics{query}"
        response = await exporter.get(url, Accept=accept, Accept_Encoding=accept_encoding)
        assert response.headers.get("Content-Encoding") == ("gzip" if accept_encoding == "gzip" else None)
        assert response.headers["Content-Type"].startswith(accept)
        assert response.text.endswith("# EOF\n") == ("openmetrics" in accept)
        samples = [line for line in response.text.splitlines() if not line.startswith("#")]
        for name in {re.split(r"[{ ]", sample)[0] for sample in samples}:
            assert f"# TYPE {re.sub('_(total|bucket|count|sum|info)$', '', name)}" in response.text
        # Of the process there is something else at each scrape.
        assert ("process_resident_memory_bytes" in response.text) == (query in {"", "?source="})
        return [line for line in samples if not line.startswith(("process_", "python_gc"))]

    exporter.add(EVIL)
    exporter.add("second")
    for name in ("prod", EVIL):
        exporter.succeed(name, Queue("", name, True, 3, 5))
    exporter.fail("second")
    whole = await lines("")
    parts = {name: await lines(f"?source={quote(name, safe='')}") for name in ("", "prod", EVIL, "second")}
    assert sorted(line for part in parts.values() for line in part) == sorted(whole)
    assert not any("source=" in line for line in parts[""])
    assert any(line.startswith("concurrency_exporter_build_info{") for line in parts[""])
    for name in ("prod", EVIL, "second"):
        assert parts[name]
        assert all(f'source="{name}"' in line for line in parts[name])
    assert not any(line.startswith("concurrency_queue") for line in parts["second"])
    # What is kept of an answer is given up with its source, and made anew for each snapshot.
    exporter.succeed("prod", Queue("", "prod", True, 4, 5))
    assert parts["prod"] != await lines("?source=prod")
    exporter.store.remove("second")
    exporter.telemetry.remove("second")
    assert (await exporter.get("/metrics?source=second", Accept=accept)).status_code == 404
    assert parts[EVIL] == await lines(f"?source={quote(EVIL, safe='')}")


@pytest.mark.parametrize(
    "query", ["source=none", "source=PROD", "source=prod%20", "source=prod&source=prod", "source=&source=prod"]
)
async def test_a_source_that_there_is_not(exporter: Filled, query: str) -> None:
    exporter.add("a b, c")
    response = await exporter.get(f"/metrics?{query}")
    assert (response.status_code, response.headers["Content-Type"]) == (404, PLAIN)
    assert response.text == "no such source; there are: prod, a b, c\n"


async def test_nothing_is_kept_of_sources_that_are_gone(exporter: Filled) -> None:
    for number in range(30):
        exporter.add(f"source {number}")
        exporter.succeed(f"source {number}")
        for name in (f"source {number}", f"nobody {number}"):
            await exporter.get(f"/metrics?source={name}")
        exporter.store.remove(f"source {number}")
        exporter.telemetry.remove(f"source {number}")
    await exporter.get("/metrics?source=prod")
    gc.collect()
    assert sum(isinstance(one, Body) for one in gc.get_objects()) <= 2


async def test_other_parameters_change_nothing(exporter: Filled) -> None:
    exporter.succeed()
    assert _slots((await exporter.get("/metrics?sources=x")).text) == _slots((await exporter.get("/metrics")).text)


async def test_service_discovery_lists_the_sources(exporter: Filled) -> None:
    exporter.add(EVIL)
    exporter.store.add("scraper", "cloro")
    for host, scheme in (("exporter:10099", "http"), ("[::1]:10099", "http"), ("exporter.example", "https")):
        url = f"{scheme}://{host}/sd"
        response = await exporter.get(url)
        assert response.headers["Content-Type"] == "application/json"
        more = {"__scheme__": "https"} if scheme == "https" else {}
        assert response.json() == [
            {"targets": [host], "labels": {"__param_source": name, "__meta_concurrency_system": system} | more}
            for name, system in (("prod", "prefect"), (EVIL, "prefect"), ("scraper", "cloro"))
        ]
    for name in ("prod", EVIL, "scraper"):
        exporter.store.remove(name)
    assert (await exporter.get("/sd")).json() == []


async def test_service_discovery_wants_to_know_its_own_address(exporter: Filled) -> None:
    response = await exporter.get("/sd", Host="")
    assert (response.status_code, response.headers["Content-Type"]) == (400, PLAIN)
    assert response.text == "the header Host is missing: it is the address of the targets\n"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/metrics", 200),
        ("GET", "/metrics?source=<script>", 404),
        ("GET", "/sd", 200),
        ("GET", "/-/healthy", 200),
        ("GET", "/-/ready", 503),
        ("POST", "/-/reload", 500),
        ("GET", "/-/reload", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/nowhere", 404),
    ],
)
async def test_every_answer_tells_the_browser_to_do_nothing_with_it(method: str, path: str, status: int) -> None:
    async def reload() -> str:
        return "<script>"

    exporter = Filled(reload)
    exporter.add()
    answer = await exporter.request(method, path)
    assert answer.status_code == status
    policy = answer.headers.get_list("Content-Security-Policy")
    form = "'self'" if path == "/" else "'none'"  # that of the filter
    assert [one.startswith(f"default-src 'none'; base-uri 'none'; form-action {form}; fr") for one in policy] == [True]
    assert {name: answer.headers.get_list(name) for name in SECURE} == {name: [SECURE[name]] for name in SECURE}


SECURE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def test_an_error_of_ours_has_the_headers_too() -> None:
    is_broken = False

    def now() -> float:
        if is_broken:
            raise RuntimeError
        return 0.0

    class Breaking(Time):
        @property
        def clock(self) -> Clock:
            return Clock(now=now)

    exporter = Exporter(time=Breaking())
    failing = Guard(exporter.application, None, exporter.clock)
    is_broken = True
    transport = httpx.ASGITransport(failing, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://exporter") as client:
        answer = await client.get("/metrics")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_ready_is_when_every_source_was_tried(exporter: Filled) -> None:
    exporter.add("second")
    response = await exporter.get("/-/ready")
    assert (response.status_code, response.text) == (503, "not ready: no poll has ended yet of prod, second\n")
    exporter.fail()
    response = await exporter.get("/-/ready")
    assert (response.status_code, response.text) == (503, "not ready: no poll has ended yet of second\n")
    exporter.succeed("second")
    response = await exporter.get("/-/ready")
    assert (response.status_code, response.text) == (200, "ready\n")
    exporter.time.seconds = 1_000
    assert (await exporter.get("/-/ready")).status_code == 200


async def test_healthy_is_the_process(exporter: Filled) -> None:
    exporter.fail()
    response = await exporter.get("/-/healthy")
    assert (response.status_code, response.text) == (200, "healthy\n")


@pytest.mark.parametrize(
    ("mistakes", "status", "text"),
    [("", 200, "reloaded\n"), ("c.yml:1: x\nc.yml:2: y", 500, "c.yml:1: x\nc.yml:2: y\n")],
    ids=["good", "bad"],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_reload(method: str, mistakes: str, status: int, text: str) -> None:
    calls = []

    async def reload() -> str:
        calls.append(method)
        return mistakes

    response = await Filled(reload).request(method, "/-/reload")
    assert (response.status_code, response.text, response.headers["Content-Type"]) == (status, text, PLAIN)
    assert calls == [method]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_reload_only_changes_on_purpose(method: str) -> None:
    response = await Filled(reloaded).request(method, "/-/reload")
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"POST", "PUT"}
