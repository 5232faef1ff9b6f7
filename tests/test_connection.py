"""What a client may take of the server: time, connections, memory; over real sockets, with limits of a second or so."""

import asyncio
import gc
import logging
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from itertools import chain, repeat

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from exporter.web.connection import MAX_HEAD_BYTES, Connection, Limits
from exporter.web.server import Server, listen
from tests.harness.certificates import authority, certificate

pytestmark = pytest.mark.timeout(30)

LATE = 20
"""Seconds by which a busy machine may be late. What is closed within them is not by a limit that is `FAR`."""
FAR = 60
LIMITS = Limits(head=FAR, answer=FAR, keep_alive=FAR)
HEAD = replace(LIMITS, head=0.5)
ANSWER = replace(LIMITS, answer=1.5)
KEEP_ALIVE = replace(LIMITS, head=2, keep_alive=3)
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
            async with asyncio.timeout(LATE):
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
async def serving(limits: Limits = LIMITS, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    async def hello(_: Request) -> Response:
        return PlainTextResponse("hello")

    async def endless(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10_000):
                served.pieces += 1
                yield PIECE

        return StreamingResponse(pieces())

    application = Starlette(routes=[Route("/", hello, methods=["GET", "POST"]), Route("/endless", endless)])
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


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  it is of the kernel, or of the garbage collector
            await asyncio.sleep(0.02)


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
    async with serving(KEEP_ALIVE) as served:
        pause = (b"",) * 3
        answer, seconds = await served.ask(GET, [*pause, GET, *pause, GET])
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert seconds >= 8 * 0.2 + KEEP_ALIVE.keep_alive


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
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    async with serving(HEAD) as served:
        answer, _ = await served.ask(head, repeat(b"x"))
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
            while descriptors() == opened and time.monotonic() - start < LATE:
                pieces = served.pieces
                await asyncio.sleep(0.05)
                if reads:
                    slow.recv(reads)
            seconds = time.monotonic() - start
        await until(lambda: descriptors() <= before + 1)
    assert ANSWER.answer <= seconds < LATE
    # What the kernel keeps for the two ends is some of it; all of it would be 655 MB.
    assert pieces * len(PIECE) < 32_000_000


# --- What is no HTTP.


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", b"400 Bad Request"),
        (b"GET /\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\n", b"501 Not Implemented"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1), b"431 Request Header Fields Too Large"),
    ],
    ids=["tls", "old", "no-host", "length", "encoding", "large"],
)
async def test_what_is_refused(request_: bytes, status: bytes) -> None:
    async with serving() as served:
        answer, _ = await served.ask(request_)
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert answer.endswith(b"\r\n\r\n" + status[4:] + b"\n")


@pytest.mark.parametrize("later", [False, True], ids=["at-once", "after-the-answer"])
async def test_a_broken_body_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture, *, later: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    caplog.set_level(logging.ERROR)
    async with serving() as served:
        answer, _ = await (served.ask(head, [b"zzz\r\n"]) if later else served.ask(head + b"zzz\r\n"))
    assert answer.startswith(b"HTTP/1.1 200 OK" if later else b"HTTP/1.1 400 Bad Request")
    assert answer.count(b"HTTP/1.1") == 1
    assert caplog.records == []


# --- Connections.


async def test_the_oldest_gives_way_and_the_new_one_is_served() -> None:
    before = descriptors()
    async with serving(Limits(connections=20, head=20)) as served:
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
            stuck[0].settimeout(5)
            assert stuck[0].recv(1000).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            writer.close()
        await until(lambda: descriptors() <= before + 1)


async def test_a_client_that_is_gone_leaves_nothing_behind() -> None:
    async with serving(Limits()) as served:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", served.port)) as client:
                client.send(GET)
                await asyncio.sleep(0.01)
                # Closed with an answer that was not read: a reset.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(nothing_is_left)


def nothing_is_left() -> bool:
    gc.collect()
    return not any(isinstance(one, Connection) for one in gc.get_objects())


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


async def test_a_handshake_that_fails_leaves_nothing_behind(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(Limits(), tls[0]) as served:
        for _ in range(10):
            await served.ask(GET)
        await until(nothing_is_left)


async def test_handshakes_are_connections_too(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    before = descriptors()
    async with serving(Limits(connections=20, head=20), tls[0]) as served:
        with ExitStack() as stack:
            stuck = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port))) for _ in range(100)]
            reader, writer = await served.open(tls[1])
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK")
            assert descriptors() <= before + 1 + 20 + len(stuck) + 1
            for connection in stuck[:80]:
                connection.settimeout(5)
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
