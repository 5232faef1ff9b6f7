"""What a client may take of the server: time, connections, memory; over real sockets, with limits of a second or so."""

import asyncio
import gc
import logging
import os
import socket
import ssl
import struct
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from itertools import chain, repeat

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.web.answers import MAX_HELD_BYTES, REQUESTS_AT_ONCE, in_turn
from exporter.web.connection import READ_BYTES, Connection, Limits
from exporter.web.http import MAX_HEAD_BYTES
from exporter.web.listeners import listen
from exporter.web.server import Server
from exporter.web.tls import current_context
from tests.harness.certificates import authority, certificate
from tests.harness.loop import skip, until
from tests.harness.process import PATIENCE

FAR = 10 * PATIENCE
"""Seconds of a limit that closes nothing: what is closed before a test gives up is not by it."""
LIMITS = Limits(head=FAR, answer=FAR, keep_alive=FAR)
HEAD = replace(LIMITS, head=0.5)
ANSWER = replace(LIMITS, answer=1.5)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
PIECE = b"x" * 65536


class Served:
    """A running server: its address, and how many pieces of the endless answer were handed over."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pieces = 0

    async def open(self, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)

    async def ask(self, first: bytes, more: Iterable[bytes] = (), *, every: float = 0.2) -> tuple[bytes, float]:
        """All that comes back until the connection is closed, and how many seconds after it was opened that was.

        What more is sent, is until then. Raises `TimeoutError` where it is not closed soon.
        """
        start = time.monotonic()
        reader, writer = await self.open()
        answer = asyncio.create_task(_to_the_end(reader))
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(first)
                for part in more:
                    await asyncio.wait([answer], timeout=every)
                    if answer.done():
                        break
                    writer.write(part)
                return await answer, time.monotonic() - start
        finally:
            writer.close()


async def _to_the_end(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while chunk := await reader.read(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


@asynccontextmanager
async def serving(
    limits: Limits = LIMITS, tls: ssl.SSLContext | None = None, routes: Sequence[Route] = ()
) -> AsyncIterator[Served]:
    async def hello(_: Request) -> Response:
        return PlainTextResponse("hello")

    async def endless(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10_000):
                served.pieces += 1
                yield PIECE

        return StreamingResponse(pieces())

    application = Starlette(routes=[*routes, Route("/", hello, methods=["GET", "POST"]), Route("/endless", endless)])
    listener = listen("127.0.0.1", 0)
    served = Served(listener.getsockname()[1])
    server = Server(application, graceful_seconds=1, tls=tls, limits=limits)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield served
    finally:
        server.stop()
        await task


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  the folder is listed while it is read


# --- Time.


async def test_who_says_nothing_is_closed_without_a_word() -> None:
    async with serving(HEAD) as served:
        answer, seconds = await served.ask(b"")
    assert answer == b""
    assert seconds >= HEAD.head


@pytest.mark.parametrize("more", [(), repeat(b"X")], ids=["stops", "goes-on-a-byte-at-a-time"])
async def test_a_head_that_does_not_end_is_too_late(more: Iterable[bytes]) -> None:
    async with serving(HEAD) as served:
        answer, seconds = await served.ask(b"GET / HTTP/1.1\r\nHo", more)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nRequest Timeout\n")
    assert seconds >= HEAD.head


async def test_a_connection_is_kept_for_the_next_request() -> None:
    """For as long after the last one as after the first."""
    async with serving() as served:
        reader, writer = await served.open()
        for _ in range(3):
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
            skip(0.9 * FAR)
        skip(FAR)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_the_next_request_has_to_end_its_head_too() -> None:
    async with serving(HEAD) as served:
        answer, seconds = await served.ask(GET, chain([b"GET"], repeat(b"X")))
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"HTTP/1.1 408" in answer
    assert seconds >= HEAD.head


async def test_several_requests_at_once_are_answered_in_turn() -> None:
    async with serving() as served:
        answer, _ = await served.ask(GET * 4 + GET.replace(b"x", b"x\r\nConnection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 5


async def test_a_body_that_does_not_end_ends_the_connection() -> None:
    endless = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    async with serving(HEAD) as served:
        answer, _ = await served.ask(endless, repeat(b"x"))
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("reads", [0, 100], ids=["nothing", "a-bit-at-a-time"])
async def test_who_does_not_read_is_closed_and_costs_no_memory(reads: int) -> None:
    before = descriptors()
    async with serving(ANSWER) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            slow.setblocking(False)
            slow.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            start = time.monotonic()
            await until(lambda: served.pieces > 0)
            opened = descriptors()
            pieces = 0
            while descriptors() == opened and time.monotonic() - start < PATIENCE:
                pieces = served.pieces
                await asyncio.sleep(0.05)
                if reads:
                    slow.recv(reads)
            seconds = time.monotonic() - start
        await until(lambda: descriptors() <= before + 1)
    assert ANSWER.answer <= seconds < PATIENCE
    # What the kernel keeps for the two ends is some of it; all of it would be 655 MB.
    assert pieces * len(PIECE) < 32_000_000


# --- What is no HTTP.


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes | None = b"x") -> bytes:
    return b"\r\n".join((first, *([] if host is None else [b"Host: " + host]), *lines, b"", b""))


REFUSED = {
    "tls": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", 400),
    "old": (b"GET /\r\n\r\n", 400),
    "encoding": (head(b"Transfer-Encoding: br"), 501),
    **{f"version-{v}": (head(first=b"GET / HTTP/" + v.encode()), 505) for v in ("0.9", "2.0", "3.0", "9.9")},
    **{f"version-{v}": (head(first=b"GET / HTTP/" + v.encode()), 400) for v in ("2", "1.10", "1.x", "-1.1")},
    "preface-of-http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    **{f"no-host-{v}": (head(first=b"GET / HTTP/" + v.encode(), host=None), 400) for v in ("1.1", "1.2", "1.9")},
    **{
        f"host-{host!r}": (head(host=host), 400)
        for host in (
            b"a b",
            b"a,b",
            b"a/b",
            b"u@a",
            b"a:b",
            b"a:1:2",
            b"a:65536",
            b"a:123456",
            b"<x>",
            b"a?",
            b"a#",
            b"a\\b",
            b'"',
            b"a%00",
            b"\xc3\xa9",
            b"::1",
            b"[::1",
            b"::1]",
            b"[]",
            b"[:::]",
            b"[1.2.3.4]",
            b"[::1]x",
            b"[::1]:x",
            b"[fe80::1%25lo]",
        )
    },
    "host-twice": (head(b"Host: x"), 400),
    "host-twice-others": (head(b"Host: y"), 400),
    "host-twice-in-1.0": (head(b"Host: x", first=b"GET / HTTP/1.0"), 400),
    "host-of-1.0": (head(first=b"GET / HTTP/1.0", host=b"a b"), 400),
    "absolute-host": (head(first=b"GET http://x/ HTTP/1.1", host=b"a b"), 400),
    **{
        f"target-{target!r}": (head(first=b"GET " + target + b" HTTP/1.1"), 400)
        for target in (
            b"metrics",
            b"http://",
            b"http:///",
            b"http://a,b/",
            b"http://u@a/",
            b"http://a:b/",
            b"ftp://a/",
            b"a:80",
            b"?x",
        )
    },
    "connect": (head(first=b"CONNECT example.com:443 HTTP/1.1"), 400),
    "length": (head(b"Content-Length: x"), 400),
    "lengths": (head(b"Content-Length: 1", b"Content-Length: 2"), 400),
    **{
        f"two-lengths-{method.decode()}-{first!r}": (
            head(*lines, first=method + b" / HTTP/1.1") + b"0\r\n\r\n" + head(),
            400,
        )
        for method in (b"GET", b"POST")
        for first, lines in {
            "content-length": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            "transfer-encoding": (b"Transfer-Encoding: chunked", b"content-length: 0"),
        }.items()
    },
    "chunks-of-1.0": (head(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.0") + b"0\r\n\r\n" + head(), 400),
    "large": (b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1), 431),
    "large-in-one-write": (head(b"X: " + b"x" * 100_000), 431),
    "large-of-many-headers": (head(*(b"X%d: x" % n for n in range(10_000))), 431),
    "large-of-spaces": (head(b"X:" + b" " * 100_000), 431),
    "large-target": (head(first=b"GET /" + b"x" * 100_000 + b" HTTP/1.1"), 431),
    "large-by-a-byte": (head(b"X: " + b"x" * (MAX_HEAD_BYTES + 1 - len(head(b"X: ")))), 431),
}


@pytest.mark.parametrize(("request_", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused(request_: bytes, status: int) -> None:
    """With its status, once, and whatever stands behind it is not answered."""
    async with serving() as served:
        answer, _ = await served.ask(request_)
    phrase = HTTPStatus(status).phrase.encode()
    assert answer.startswith(b"HTTP/1.1 %d %s\r\n" % (status, phrase))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n" + phrase + b"\n")


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
async def test_a_head_that_is_too_large_is_refused_however_it_comes(size: int) -> None:
    """And the client can read that, although it goes on sending."""
    large = head(b"X: " + b"x" * 1_000_000)
    async with serving() as served:
        reader, writer = await served.open()
        for start in range(0, len(large), size):
            writer.write(large[start : start + size])
            await writer.drain()
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 431 ")


CLOSE = b"Connection: close"
ACCEPTED = {
    "origin": (head(CLOSE, first=b"GET /asked?q=1 HTTP/1.1", host=b"a:1"), b"/asked q=1 a:1"),
    "absolute": (head(CLOSE, first=b"GET http://b:2/asked?q=1 HTTP/1.1", host=b"a:1"), b"/asked q=1 b:2"),
    "absolute-of-1.0": (head(first=b"GET http://b/asked HTTP/1.0", host=None), b"/asked  b"),
    "absolute-https": (head(CLOSE, first=b"GET HTTPS://[::1]:2/asked HTTP/1.1", host=b"a"), b"/asked  [::1]:2"),
    "absolute-without-a-path": (head(CLOSE, first=b"GET http://b HTTP/1.1"), b"/  b"),
    "absolute-with-a-query-alone": (head(CLOSE, first=b"GET http://b?q HTTP/1.1"), b"/ q b"),
    "minor": (head(CLOSE, first=b"GET /asked HTTP/1.2"), b"/asked  x"),
    "1.0-without-a-host": (head(first=b"GET /asked HTTP/1.0", host=None), b"/asked  "),
    "no-name": (head(CLOSE, first=b"GET /asked HTTP/1.1", host=b""), b"/asked  "),
    "ipv6": (head(CLOSE, first=b"GET /asked HTTP/1.1", host=b"[2001:db8::1]:10099"), b"/asked  [2001:db8::1]:10099"),
    "largest": (head(CLOSE, b"X: " + b"x" * (MAX_HEAD_BYTES - len(head(CLOSE, b"X: ")))), b"/  x"),
}


@pytest.mark.parametrize(("request_", "asked"), ACCEPTED.values(), ids=ACCEPTED)
async def test_what_is_accepted(request_: bytes, asked: bytes) -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(f"{request.url.path} {request.url.query} {request.headers.get('Host', '')}")

    async with serving(routes=[Route("/{path:path}", echo)]) as served:
        answer, _ = await served.ask(request_)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n" + asked)


async def test_a_body_is_nothing_to_keep() -> None:
    """Of a request that waits for its turn, for one."""
    bodies: list[bytes] = []

    async def read(request: Request) -> Response:
        bodies.append(await request.body())
        return PlainTextResponse("read")

    body = b"x" * 1_000_000
    async with serving(routes=[Route("/", read, methods=["POST"])]) as served:
        for framed in (
            head(b"Content-Length: 1000000", CLOSE, first=b"POST / HTTP/1.1") + body,
            head(b"Transfer-Encoding: chunked", CLOSE, first=b"POST / HTTP/1.1")
            + b"f4240\r\n"
            + body
            + b"\r\n0\r\n\r\n",
        ):
            assert (await served.ask(framed))[0].endswith(b"read")
    assert bodies == [b"", b""]


@pytest.mark.parametrize("later", [False, True], ids=["at-once", "after-the-answer"])
async def test_a_broken_body_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture, *, later: bool) -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    caplog.set_level(logging.ERROR)
    async with serving() as served:
        answer, _ = await (served.ask(chunked, [b"zzz\r\n"]) if later else served.ask(chunked + b"zzz\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK" if later else b"HTTP/1.1 400 Bad Request")
    assert answer.count(b"HTTP/1.1") == 1
    assert caplog.records == []


# --- Connections.


async def test_the_oldest_gives_way_and_the_new_one_is_served() -> None:
    before = descriptors()
    async with serving(replace(LIMITS, connections=20)) as served:
        with ExitStack() as stack:
            stuck = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(19)]
            for connection in stuck:
                connection.send(b"GET / HT")
            reader, writer = await served.open()
            for _ in range(60):
                writer.write(GET)
                assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
                another = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
                another.send(b"GET / HT")
                # One of the client, one of the server.
                assert descriptors() <= before + 1 + 20 + len(stuck) + 2 + 60 + 1
            stuck[0].settimeout(PATIENCE)
            assert stuck[0].recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            writer.close()
        await until(lambda: descriptors() <= before + 1)


async def test_who_has_the_most_connections_gives_way() -> None:
    """Although another's has waited for longer."""
    async with serving(Limits(connections=20, head=FAR)) as served:
        waits, writer = await asyncio.open_connection("127.0.0.1", served.port, local_addr=("127.0.0.2", 0))
        writer.write(b"GET / HT")
        with ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", served.port))).send(b"GET / HT")
            reader, other = await served.open()
            other.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
            other.close()
            writer.write(b"TP/1.1\r\nHost: x\r\n\r\n")
            assert (await waits.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
            writer.close()


async def test_answers_that_nobody_reads_give_way_when_they_hold_too_much() -> None:
    """The oldest, and those that are the same count once."""
    large = [bytes([n]) * (MAX_HELD_BYTES // 4) for n in range(6)]
    before: list[socket.socket] = []

    async def answer(request: Request) -> Response:
        return Response(large[int(request.path_params["number"])])

    def asks(number: int) -> None:
        before.append(socket.create_connection(("127.0.0.1", served.port)))
        before[-1].send(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)

    async with serving(LIMITS, routes=[Route("/{number:int}", answer)]) as served:
        opened = descriptors()
        for number in (0, 0, 0, 1, 2, 3):
            asks(number)
        await until(lambda: descriptors() == opened + 2 * len(before))
        first, writer = await served.open()
        writer.write(b"GET /5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await _to_the_end(first)).endswith(large[5])
        writer.close()
        # The three that read the first.
        await until(lambda: descriptors() == opened + 2 * len(before) - 3)
        for one in before:
            one.close()


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """What is over is gone at once, and not when the garbage collector finds it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage")
async def test_a_client_that_is_gone_leaves_nothing_behind() -> None:
    async with serving(Limits()) as served:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", served.port)) as client:
                client.send(GET)
                await asyncio.sleep(0.01)
                # Closed with an answer that was not read: a reset.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(nothing_is_left)


def server_sides() -> list[object]:
    """The TLS of each connection of the server that is there."""
    return [one for one in gc.get_objects() if isinstance(one, SSLProtocol) and one._server_side]


def nothing_is_left() -> bool:
    return not server_sides() and not any(isinstance(one, Connection) for one in gc.get_objects())


async def test_what_is_not_read_ends_with_the_connection() -> None:
    """Else the kernel keeps it, and goes on trying to send it, without a connection of ours that counts it."""
    async with serving(ANSWER) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as slow:
            slow.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: served.pieces > 0)
            opened = descriptors()
            await until(lambda: descriptors() < opened)
            slow.setblocking(False)
            with pytest.raises(ConnectionResetError):
                bytes(chain.from_iterable(iter(lambda: slow.recv(65536), b"")))


# --- Turns.


async def test_hundreds_of_requests_leave_a_turn_to_everything_else() -> None:
    """Few begin in a round of the event loop, in which a poll goes on; and all are answered."""
    begun = 0
    of_round: list[int] = []

    async def answer(_: Request) -> Response:
        nonlocal begun
        begun += 1
        return PlainTextResponse("hello")

    async def count() -> None:
        while True:
            before = begun
            await asyncio.sleep(0)
            of_round.append(begun - before)

    async def ask() -> bytes:
        return (await served.ask(GET * 20 + GET.replace(b"x", b"x\r\nConnection: close")))[0]

    async with serving(routes=[Route("/", answer)]) as served:
        other = asyncio.create_task(count())
        answers = await asyncio.gather(*(ask() for _ in range(50)))
        other.cancel()
    assert {answer.count(b"HTTP/1.1 200 OK") for answer in answers} == {21}
    assert begun == 50 * 21
    assert max(of_round) == REQUESTS_AT_ONCE


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_request_whose_connection_ended_before_its_turn_is_dropped(*, is_open: bool) -> None:
    asked: list[Scope] = []

    async def application(scope: Scope, _: Receive, __: Send) -> None:
        asked.append(scope)

    scope: Scope = {"type": "http", "state": {"is_open": lambda: is_open}}
    await in_turn(application)(scope, None, None)  # type: ignore[arg-type]
    assert asked == [scope] * is_open


# --- TLS.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of the server and of a client."""
    folder = tmp_path_factory.mktemp("certificates")
    trusted = authority(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate(folder, "server"))
    return server, ssl.create_default_context(cafile=trusted)


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half-a-hello"])
async def test_a_handshake_has_to_end(tls: tuple[ssl.SSLContext, ssl.SSLContext], first: bytes) -> None:
    async with serving(HEAD, tls[0]) as served:
        answer, seconds = await served.ask(first)
    assert answer == b""
    assert seconds >= HEAD.head


@pytest.mark.usefixtures("no_garbage")
async def test_a_handshake_that_fails_leaves_nothing_behind(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(Limits(), tls[0]) as served:
        for _ in range(10):
            await served.ask(GET)
        await until(nothing_is_left)


async def test_handshakes_are_connections_too(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    before = descriptors()
    async with serving(replace(LIMITS, connections=20), tls[0]) as served:
        with ExitStack() as stack:
            stuck = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(100)]
            reader, writer = await served.open(tls[1])
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
            assert descriptors() <= before + 1 + 20 + len(stuck) + 1
            for connection in stuck[:80]:
                connection.settimeout(PATIENCE)
                assert connection.recv(1000) == b""
            writer.close()
            await writer.wait_closed()
        await until(lambda: descriptors() <= before + 1)


async def test_a_request_over_tls_has_the_same_limits(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(replace(LIMITS, head=2, keep_alive=1), tls[0]) as served:
        reader, writer = await served.open(tls[1])
        writer.write(b"GET / HT")
        assert (await _to_the_end(reader)).startswith(b"HTTP/1.1 408")
        writer.close()
        reader, writer = await served.open(tls[1])
        writer.write(GET)
        answer = await _to_the_end(reader)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        writer.close()


async def test_what_tls_reads_into_is_as_small_as_we_ask_for(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """asyncio has no setting for it: another version of Python may no longer heed what we assign."""
    gc.collect()
    async with serving(tls=tls[0]) as served:
        reader, writer = await served.open(tls[1])
        writer.write(GET)
        await reader.readuntil(b"hello")
        (connection,) = (one for one in gc.get_objects() if isinstance(one, Connection))
        assert len(connection.transport._ssl_protocol._ssl_buffer) == READ_BYTES  # type: ignore[attr-defined]
        writer.close()


ASKED = {
    "nothing": b"",
    "half-a-head": GET[:10],
    "answered": GET,
    "unread": b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n",
    "many": GET * 1_000,
    "broken": b"GET / HTTP/9.9\r\n\r\n",
}


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01", GET], ids=["nothing", "half-a-hello", "no-hello"])
@pytest.mark.parametrize("connections", [5, 100])
async def test_a_handshake_leaves_nothing_behind(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], first: bytes, connections: int
) -> None:
    """One that gives way, and one that takes too long."""
    async with serving(replace(HEAD, connections=connections), tls[0]) as served:
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(("127.0.0.1", served.port))).send(first)
                await asyncio.sleep(0.01)
            await until(nothing_is_left)


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
async def test_whoever_gives_way_leaves_nothing_behind(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], asked: bytes
) -> None:
    """Although he does not hear that it is over, and does not end his TLS."""
    most = 5
    async with serving(replace(LIMITS, connections=most), tls[0]) as served:
        async with AsyncExitStack() as clients:
            for _ in range(4 * most):
                reader, writer = await served.open(tls[1])
                clients.callback(writer.close)
                clients.callback(writer.transport.abort)
                writer.write(asked)
                if asked == GET:
                    await reader.readuntil(b"hello")
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                await until(lambda: len(server_sides()) <= most)
        await until(nothing_is_left)


async def test_a_bug_in_the_handshake_is_logged_and_leaves_nothing_behind(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], caplog: pytest.LogCaptureFixture
) -> None:
    contexts: list[ssl.SSLContext] = []
    async with serving(replace(LIMITS, connections=3), current_context(lambda: contexts[0])) as served:
        before = descriptors()
        with capture_logs() as logged:
            for _ in range(10):
                assert (await served.ask(GET))[0] == b""
            await until(nothing_is_left)
        assert [one["event"] for one in logged] == ["can't open a connection"] * 10
        await until(lambda: descriptors() == before)
        assert "never retrieved" not in caplog.text
        contexts.append(tls[0])
        reader, writer = await served.open(tls[1])
        writer.write(GET)
        assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
