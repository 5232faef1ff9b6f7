"""The faults of `docs/reliability.md`, by the real command: what it says of each, how soon, and what it asks meanwhile.

All sources with a fault of their own are polled by one exporter at the same time, beside two that work.
"""

import asyncio
import json
import os
import re
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Final

import httpx
import pytest

from exporter.model import FailureReason
from tests.harness.certificates import authority, certificate, expired
from tests.harness.cloro import KEY, PUBLISHED
from tests.harness.exporter import exporter
from tests.harness.process import PATIENCE
from tests.harness.reliability import Resources, Row, Scrape, Table
from tests.harness.resolver import NAME, Resolver
from tests.harness.upstream import Answer, Hangup, Request, Talk, Upstream, answer, never, serve

SYSTEMS: Final = ("prefect", "cloro")
INTERVAL: Final = 2
TIMEOUT: Final = 6
"""On a slow machine any poll may take so long: then it is one more that has failed, for another reason."""
STALE_AFTER: Final = 8
DOWN: Final = 10
"""Intervals that the long outage lasts at least. Most requests are counted in so many."""

POOL: Final = {"id": "00000000-0000-4000-8000-000000000008", "name": "a", "type": "process", "is_paused": False}
WHOLE_POOL: Final = POOL | {"concurrency_limit": 9, "active_slots": 1, "status": "READY"}
HALF_A_POOL: Final = json.dumps(POOL)[:-1].encode()
GOOD: Final[Mapping[str, bytes]] = {
    "cloro": answer(PUBLISHED),
    "prefect": answer([WHOLE_POOL]),
}
PATHS: Final = {"cloro": "/v1/async/status", "prefect": "/api/work_pools/filter"}


def good(system: str) -> Answer:
    return lambda request: GOOD[system] if request.path.endswith(PATHS[system]) else answer({}, 404)


# --- What goes wrong: each begins a fault of an upstream.

Begin = Callable[[Upstream, str], Awaitable[None]]


def answers(what: Answer | bytes | Mapping[str, bytes]) -> Begin:
    """Every request is answered like that, or by system."""

    async def begin(upstream: Upstream, system: str) -> None:
        upstream.talk = None
        found = what[system] if isinstance(what, Mapping) else what
        upstream.answer = (lambda _: found) if isinstance(found, bytes) else found

    return begin


def talks(talk: Talk) -> Begin:
    async def begin(upstream: Upstream, _: str) -> None:
        upstream.talk = talk
        await upstream.cut()

    return begin


def trickles(fast: bytes, slow: bytes) -> Begin:
    """After a request comes what is fast, and then a byte a second."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(fast)
        for byte in slow:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)

    return talks(talk)


def floods(head: bytes, chunk: bytes, times: int | None = None) -> Begin:
    """The head, and then the chunk again and again: as fast as it is taken, without an end if not so many times."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        sent = 0
        while times is None or sent < times:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0.01)  # fast enough: it is not to take the time of the others
            sent += 1

    return talks(talk)


def presents(name: str) -> Begin:
    """The certificate is another one from now on."""

    async def begin(upstream: Upstream, _: str) -> None:
        assert upstream.tls
        upstream.tls.load_cert_chain(*CERTIFICATES[name])
        await upstream.cut()

    return begin


async def refuses(upstream: Upstream, _: str) -> None:
    await upstream.close()


async def unknown(_: Upstream, __: str) -> None:
    RESOLVER[0].do("fails")


async def hears_nothing(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def sends(what: bytes) -> Answer:
    """These bytes, and the end of the connection."""

    def hang_up(_: Request) -> bytes:
        raise Hangup(what)

    return hang_up


def numbers(text: str) -> Mapping[str, bytes]:
    """A good answer in which one number is this text."""
    return {
        "cloro": answer(b'{"processingTasks": 2, "concurrency": null, "queuedTasks": %s}' % text.encode()),
        "prefect": answer(
            json.dumps([POOL])[:-2].encode() + b', "active_slots": 1, "concurrency_limit": %s}]' % text.encode()
        ),
    }


def tunnel(to: Upstream) -> Talk:
    """A proxy that joins every CONNECT to one upstream."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        ours, theirs = await asyncio.open_connection("127.0.0.1", to.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(copy(reader, theirs), copy(ours, writer))
        finally:
            theirs.close()

    return talk


def too_many(**retry_after: str) -> Begin:
    return answers(answer({}, 429, {name.replace("_", "-"): value for name, value in retry_after.items()}))


def too_many_until(_: Request) -> bytes:
    return answer({}, 429, {"Retry-After": formatdate(time.time() + 4 * INTERVAL, usegmt=True)})


CERTIFICATES: Final[dict[str, tuple[Path, Path]]] = {}
JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with an upstream, and the reason that it is told by; without one it is no failure."""

    begin: Begin
    reason: FailureReason | None
    says: str
    """A part of the error in the log."""
    attempts: int = 1
    """Requests of one poll."""
    by: str = "http"
    """How the upstream is reached: by `http`, `tls`, a `name` that is looked up, or `proxy`: then the proxy fails."""
    fewest: int = 3
    """Polls that have failed for the reason when the long outage ends."""
    requests: int = 7
    """Most polls in the first `DOWN` intervals of the long outage."""
    recovered: str = "next poll"
    comes_back: bool = True
    """Whether it recovers while we wait."""
    slow: bool = False
    """Whether a poll takes until its deadline to fail."""


FAULTS: Final[Mapping[str, Fault]] = {
    "connection refused": Fault(refuses, "connect", "Connection refused"),
    "connection reset": Fault(talks(resets), "connect", "Connection reset by peer", 2),
    "connection closed without an answer": Fault(answers(sends(b"")), "connect", "Server disconnected", 2),
    "accepts the connection, never reads or answers": Fault(
        talks(hears_nothing), "timeout", "no complete answer", fewest=2, slow=True
    ),
    "reads the request, never answers": Fault(answers(never), "timeout", "no complete answer", fewest=2, slow=True),
    "headers at one byte a second": Fault(
        trickles(b"", JSON), "timeout", "no complete answer", fewest=2, slow=True
    ),
    "body at one byte a second": Fault(
        trickles(JSON + b"Content-Length: 99\r\n\r\n", b"[" * 99), "timeout", "no complete answer", fewest=2, slow=True
    ),
    "endless headers": Fault(
        floods(JSON, b"X-Filler: " + b"x" * 65536 + b"\r\n"), "connect", "buffer too long", 2
    ),
    "truncated headers": Fault(answers(sends(b"HTTP/1.1 200 OK\r\nContent-Le")), "connect", "Server disconnected", 2),
    "truncated body": Fault(
        answers(sends(JSON + b"Content-Length: 99\r\n\r\n{}")), "connect", "without sending complete message", 2
    ),
    "Content-Length too small": Fault(
        answers(sends(JSON + b"Content-Length: 3\r\n\r\n" + json.dumps(PUBLISHED).encode())), "contract", "EOF while"
    ),
    "Content-Length is not a number": Fault(
        answers(sends(JSON + b"Content-Length: x\r\n\r\n{}")), "connect", "bad Content-Length", 2
    ),
    "two Content-Lengths": Fault(
        answers(sends(JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}")), "connect", "Content-Length", 2
    ),
    "answer is not HTTP": Fault(answers(sends(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")), "connect", "illegal status line", 2),
    "TLS certificate expired": Fault(presents("expired"), "tls", "certificate has expired", by="tls"),
    "TLS certificate for another name": Fault(presents("misnamed"), "tls", "IP address mismatch", by="tls"),
    "TLS certificate self-signed": Fault(presents("self-signed"), "tls", "self-signed certificate", by="tls"),
    "proxy refuses connections": Fault(refuses, "connect", "Connection refused", by="proxy"),
    "proxy requires credentials": Fault(
        answers(sends(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")), "connect", "407", by="proxy"
    ),
    "proxy can't reach upstream": Fault(
        answers(sends(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")), "connect", "502 Bad Gateway", by="proxy"
    ),
    "401": Fault(answers(answer({}, 401)), "auth", "401 Unauthorized; check authorization"),
    "403": Fault(answers(answer({}, 403)), "auth", "403 Forbidden; check authorization"),
    "404": Fault(answers(answer({}, 404)), "http_status", "404 Not Found"),
    "409": Fault(answers(answer({}, 409)), "http_status", "409 Conflict"),
    "429": Fault(too_many(), "rate_limited", "429 Too Many Requests"),
    "429, Retry-After of 4 intervals": Fault(
        too_many(Retry_After=f"{4 * INTERVAL}"), "rate_limited", "429", fewest=2, requests=4
    ),
    "429, Retry-After as a date": Fault(answers(too_many_until), "rate_limited", "429", fewest=2, requests=4),
    "429, Retry-After far too long": Fault(
        too_many(Retry_After="9" * 20), "rate_limited", "429", fewest=1, requests=1,
        recovered="next poll, after ten minutes", comes_back=False
    ),
    "499": Fault(answers(answer({}, 499)), "http_status", "499"),
    "500": Fault(answers(answer({}, 500)), "http_status", "500 Internal Server Error"),
    "502": Fault(answers(answer(b"<html>", 502, media_type="text/html")), "http_status", "502 Bad Gateway"),
    "503": Fault(answers(answer({}, 503)), "http_status", "503 Service Unavailable"),
    "504": Fault(answers(answer({}, 504)), "http_status", "504 Gateway Timeout"),
    "204": Fault(answers(b"HTTP/1.1 204 No Content\r\n\r\n"), "http_status", "204 No Content"),
    "500 with an endless body": Fault(
        floods(b"HTTP/1.1 500 Internal Server Error\r\n\r\n", b"[" * 2**21), "http_status", "500 Internal Server Error"
    ),
    "redirect to another host": Fault(
        answers(lambda _: answer({}, 302, {"Location": f"{ELSEWHERE[0].url}/"})), "http_status", "redirected to http"
    ),
    "HTML with status 200": Fault(
        answers(answer(b"<html>", media_type="text/html")), "contract", "not JSON but text/html"
    ),
    "empty body": Fault(answers(answer(b"")), "contract", "EOF while parsing"),
    "truncated JSON": Fault(answers(answer(b'[{"id": ')), "contract", "EOF while parsing"),
    "JSON in UTF-16": Fault(answers(answer(json.dumps(PUBLISHED).encode("utf-16"))), "contract", "Invalid JSON"),
    "JSON with invalid UTF-8": Fault(answers(answer(b'{"x": "\xff"}')), "contract", "Invalid JSON"),
    "JSON 500,000 levels deep": Fault(answers(answer(b"[" * 500_000)), "contract", "recursion limit exceeded"),
    "JSON with millions of values": Fault(
        answers(answer(b"[" + b"0," * 3_000_000 + b"0]")), "too_large", "more than 500,000 values"
    ),
    "a count that is NaN": Fault(answers(numbers("NaN")), "contract", "contract broken"),
    "a count that is Infinity": Fault(answers(numbers("Infinity")), "contract", "contract broken"),
    "a count that is 1e400": Fault(answers(numbers("1e400")), "contract", "contract broken"),
    "a count that is 2^63": Fault(answers(numbers(str(2**63))), "contract", "contract broken"),
    "a count that is negative": Fault(answers(numbers("-1")), "contract", "contract broken"),
    "a count that is a string": Fault(answers(numbers('"1"')), "contract", "contract broken"),
    "a count that is missing": Fault(
        answers({"cloro": answer({}), "prefect": answer([{}])}), "contract", "Field required"
    ),
    "gzip bomb": Fault(
        floods(JSON + b"Content-Encoding: gzip\r\n\r\n", b"\x1f\x8b" + b"\0" * 2**21), "contract", "is compressed"
    ),
    "body of 100 MB": Fault(
        floods(JSON + b"Content-Length: 100000000\r\n\r\n", b" " * 2_000_000, 50), "too_large", "larger than 16 MiB"
    ),
    "endless body": Fault(floods(JSON + b"\r\n", b" " * 2**21), "too_large", "larger than 16 MiB"),
    "duplicate key in a JSON object": Fault(
        answers({
            "cloro": answer(json.dumps(PUBLISHED)[:-1].encode() + b', "queuedTasks": 6}'),
            "prefect": answer(b"[" + json.dumps(WHOLE_POOL)[:-1].encode() + b', "active_slots": 4}]'),
        }),
        None, r"concurrency_(queue_queued_tasks|pool_active_slots)\{.*\} 4.0",
    ),
    "host name does not resolve": Fault(unknown, "connect", "Name or service not known", by="name"),
}  # fmt: skip
NOTHING: Final = Fault(answers(GOOD), None, "concurrency_.*")
"""No fault at all: of a source that is polled beside those that fail."""
ELSEWHERE: Final[list[Upstream]] = []
"""To where the redirect leads."""
RESOLVER: Final[list[Resolver]] = []
"""What the exporter looks names up by."""


# --- One exporter, all of the faults at the same time.


@dataclass
class Member:
    """A source of the exporter, and the upstream that fails it."""

    what: str
    system: str
    fault: Fault
    upstream: Upstream
    usual: Talk | None
    """What the upstream does with connections while it works."""

    @property
    def name(self) -> str:
        return f"{self.system}: {self.what}"

    def settings(self, url: str, ca_file: Path) -> dict[str, object]:
        """Its part of the configuration. `url` is upstream's, where it is behind a proxy."""
        timeout, stale_after = (TIMEOUT, STALE_AFTER) if self.fault.reason else (PATIENCE, 2 * PATIENCE)
        times = {"interval": f"{INTERVAL}s", "timeout": f"{timeout}s", "stale_after": f"{stale_after}s"}
        more: dict[str, object] = {"tls_config": {"ca_file": str(ca_file)}} if self.fault.by in {"tls", "proxy"} else {}
        if self.fault.by == "proxy":
            more["proxy_url"] = self.upstream.url
        more["url"] = url + ("/api" if self.system == "prefect" else "")
        own = {"collect": ["pools"]} if self.system == "prefect" else {"authorization": {"credentials": KEY}}
        return {"name": self.name, "system": self.system} | times | own | more

    async def fail(self) -> None:
        await self.fault.begin(self.upstream, self.system)
        if self.fault.by != "http":
            await self.upstream.cut()

    async def mend(self) -> None:
        self.upstream.talk, self.upstream.answer = self.usual, good(self.system)
        if self.upstream.tls:
            self.upstream.tls.load_cert_chain(*CERTIFICATES["good"])
        if self.fault.by == "name":
            RESOLVER[0].do("works")
        if not self.upstream.listens:
            await self.upstream.listen(self.upstream.port)
        await self.upstream.cut()


@dataclass
class Outage:
    """All scrapes from before the faults `began` until the upstreams were mended and their sources were back."""

    members: list[Member]
    began: float = 0.0
    scrapes: list[Scrape] = field(default_factory=list)
    down: slice = field(default_factory=lambda: slice(0))
    """Those between which all upstreams failed."""

    async def scrape(self, client: httpx.AsyncClient) -> None:
        asked = time.time()
        text = (await client.get("/metrics")).raise_for_status().text
        self.scrapes.append(Scrape(asked, time.time(), text))

    async def go_on(self, client: httpx.AsyncClient, until: Callable[[Scrape], bool]) -> None:
        """Scrape until something holds; raises `TimeoutError` where it never does."""
        async with asyncio.timeout(PATIENCE):
            await self.scrape(client)
            while not until(self.scrapes[-1]):
                await asyncio.sleep(0.5)
                await self.scrape(client)

    async def happen(self, client: httpx.AsyncClient, seconds: float) -> None:
        """Fail until every source has told the reason; then come back.

        Where seconds are given, it lasts as long, and until there were enough such polls and all data has expired.
        """
        await self.go_on(client, lambda now: all(now.up[one.name] and now.observed[one.name] for one in self.members))
        del self.scrapes[:-1]
        self.began = time.time()
        for member in self.members:
            await member.fail()
        begin = len(self.scrapes)
        await self.scrape(client)
        down = {one.name: (one.fault.reason, one.fault.fewest) for one in self.members if one.fault.reason}
        before = self.scrapes[0].reasons

        def is_over(now: Scrape) -> bool:
            failed = {name: now.reasons[name, reason] - before[name, reason] for name, (reason, _) in down.items()}
            if not seconds:
                return all(failed.values())
            return now.at > self.began + seconds and all(
                failed[name] >= fewest and not now.observed[name] for name, (_, fewest) in down.items()
            )

        await self.go_on(client, is_over)
        self.down = slice(begin, len(self.scrapes))
        for member in self.members:
            await member.mend()
        await self.scrape(client)
        back = [member.name for member in self.members if member.fault.comes_back]
        await self.go_on(client, lambda now: all(now.up[name] for name in back))


@dataclass
class Ran:
    """What the exporter did in a short outage, in which no data expires, and in a long one."""

    members: dict[tuple[str, str], Member]
    short: Outage
    long: Outage
    before: Resources
    after: Resources
    log: str
    """Of the exporter."""


async def run(folder: Path) -> Ran:
    for name, made in (("good", certificate), ("expired", expired)):
        CERTIFICATES[name] = made(folder, name)
    CERTIFICATES["misnamed"] = certificate(folder, "misnamed", "DNS:elsewhere.example")
    CERTIFICATES["self-signed"] = authority(folder, "self-signed").with_suffix(".pem"), folder / "self-signed.key"
    async with AsyncExitStack() as stack:

        async def upstream(system: str, *, tls: bool = False) -> Upstream:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
            if context:
                context.load_cert_chain(*CERTIFICATES["good"])
            return await stack.enter_async_context(serve(good(system), tls=context))

        ELSEWHERE[:] = [await upstream("cloro")]
        RESOLVER[:] = [Resolver(folder / "python")]
        members, sources = {}, []
        for system in SYSTEMS:
            proxied = await upstream(system, tls=True)
            for what, fault in ({**FAULTS, "nothing": NOTHING}).items():
                failing = await upstream(system, tls=fault.by == "tls")
                failing.talk = tunnel(proxied) if fault.by == "proxy" else None
                member = members[what, system] = Member(what, system, fault, failing, failing.talk)
                url = {"proxy": proxied.url, "name": f"http://{NAME}:{failing.port}"}.get(fault.by, failing.url)
                sources.append(member.settings(url, folder / "ca.pem"))
        config = folder / "exporter.yml"
        config.write_text(json.dumps({"sources": sources}))
        command = exporter(folder, f"--config.file={config}", env=os.environ | RESOLVER[0].env)
        running = await asyncio.to_thread(stack.enter_context, command)
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=running.url, timeout=PATIENCE, trust_env=False)
        )
        start = Outage([])
        await start.go_on(client, lambda scrape: all(scrape.up[member.name] for member in members.values()))
        before = Resources.of(running.process.pid)
        short = Outage([one for one in members.values() if one.fault.comes_back and not one.fault.slow])
        await short.happen(client, 0)
        long = Outage(list(members.values()))
        await long.happen(client, DOWN * INTERVAL)
        return Ran(members, short, long, before, Resources.of(running.process.pid), running.process.log_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("faults")
    authority(folder)
    return asyncio.run(run(folder))


def found(ran: Ran, what: str, system: str) -> Row:
    """The row of a fault of one system, after everything was checked that it claims."""
    member = ran.members[what, system]
    fault, name = member.fault, member.name
    for outage in (ran.short, ran.long):
        if member not in outage.members:
            continue
        down = outage.scrapes[outage.down]
        before, last, end = outage.scrapes[0], down[-1], outage.scrapes[-1]
        outcomes = {key[1]: last.outcomes[key] - before.outcomes[key] for key in last.outcomes if key[0] == name}
        reasons = {key[1] for key in last.reasons if key[0] == name and last.reasons[key] > before.reasons[key]}
        if fault.reason is None:
            assert all(scrape.observed[name] == before.observed[name] > 0 for scrape in outage.scrapes)
            assert set(+Counter(outcomes)) <= {"success", "skipped"}
            if outage is ran.long:
                assert outcomes["success"] > max(polls_of_others(outage)), "it does not wait longer each time"
                lines = [line for line in last.text.splitlines() if f'source="{name}"' in line]
                assert any(re.match(rf"{fault.says}$", line) for line in lines)
            continue
        for scrape in outage.scrapes:
            least, most = (at - scrape.last_success.get(name, 0) for at in (scrape.asked, scrape.at))
            if most < STALE_AFTER - 1:
                assert scrape.observed[name] == before.observed[name] > 0, "good data was not served"
            if least > STALE_AFTER + 1:
                assert scrape.observed[name] == 0, "old data was served"
        assert {fault.reason} <= reasons <= {fault.reason, "timeout"}
        succeeded = last.outcomes[name, "success"] - down[0].outcomes[name, "success"]
        assert succeeded <= 1, "only a poll that was under way may still succeed"
        polls = outcomes["failure"]
        requests = last.requests[name] - before.requests[name]
        of_reason = last.reasons[name, fault.reason] - before.reasons[name, fault.reason]
        least, most = (outcomes["success"] + failed * fault.attempts for failed in (of_reason, polls))
        # One that was under way in the first scrape, or in the last, is counted on one side only.
        assert least - fault.attempts - 1 <= requests <= most + fault.attempts + 1
        for scrape in down:
            failed = scrape.outcomes[name, "failure"] > before.outcomes[name, "failure"]
            assert scrape.up[name] == (not failed), "told by the first poll that fails"
        if outage is ran.long:
            counted = [
                scrape.outcomes[name, "failure"] for scrape in down if scrape.at <= outage.began + DOWN * INTERVAL
            ]
            assert fault.fewest <= of_reason
            assert all(failed - before.outcomes[name, "failure"] <= fault.requests for failed in counted)
            assert last.observed[name] == 0
        if fault.comes_back:
            mended = outage.scrapes[outage.down.stop]
            failed = end.outcomes[name, "failure"] - mended.outcomes[name, "failure"]
            late = end.reasons[name, "timeout"] - mended.reasons[name, "timeout"]
            assert failed - late <= 1, "only a poll that was under way may still fail"
            assert end.outcomes[name, "success"] > mended.outcomes[name, "success"] or mended.up[name]
    if fault.reason:
        assert any(f'"{name}"' in line and fault.says in line for line in ran.log.splitlines() if "poll failed" in line)
    if fault.reason is None:
        return Row(what, "both", "success", "", "the last of the two", "", "", f"≤ {DOWN + 1}")
    return Row(
        what,
        "both",
        "failure",
        f"`{fault.reason}`",
        "old data, then none",
        "next poll" if not fault.slow else "next poll, after its `timeout`",
        fault.recovered,
        f"≤ {fault.requests * fault.attempts}",
    )


def polls_of_others(outage: Outage) -> Iterator[int]:
    """How many polls have ended of each source that fails."""
    before, last = outage.scrapes[0], outage.scrapes[outage.down][-1]
    for member in outage.members:
        if member.fault.reason:
            yield last.outcomes[member.name, "failure"] - before.outcomes[member.name, "failure"]


ROWS: Final = [*FAULTS]


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    table = Table("faults", ROWS, update=request.config.getoption("--update-reliability"))
    yield table
    table.write()


def test_the_document_has_all_faults_and_no_others() -> None:
    assert Table("faults", ROWS, update=False).faults == ROWS


def test_a_source_beside_the_faults_keeps_its_pace(ran: Ran) -> None:
    """However slow that is: it is polled more often than any that fails, since these wait ever longer."""
    for system in SYSTEMS:
        name = ran.members["nothing", system].name
        first, last = ran.long.scrapes[0], ran.long.scrapes[ran.long.down][-1]
        assert last.outcomes[name, "failure"] == 0
        polls = last.outcomes[name, "success"] - first.outcomes[name, "success"]
        assert polls > max(polls_of_others(ran.long))


def test_nothing_leaks(ran: Ran) -> None:
    """Two outages of all upstreams, with hundreds of broken connections and answers of some 16 MiB at a time."""
    assert ran.after.fds <= ran.before.fds + 20
    assert ran.after.threads <= ran.before.threads + 4
    assert ran.after.memory < 300 * 1024**2
    assert "Traceback" not in ran.log
    assert "level=error" not in ran.log
    assert ELSEWHERE[0].connections == 0, "no redirect is followed"


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_the_upstream(ran: Ran, table: Table, what: str) -> None:
    prefect, cloro = (found(ran, what, system) for system in SYSTEMS)
    assert prefect == cloro
    table.check(cloro)
