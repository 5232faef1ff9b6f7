"""What stands between the exporter and an upstream: relays, tunnels, and sockets that do what a test says."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.harness.upstream import Answer, Hangup, Request, Talk, Upstream, answer


@asynccontextmanager
async def tunnels(to: int, heads: list[str]) -> AsyncIterator[str]:
    """A proxy for CONNECT that notes what it was sent, and leads all tunnels to one port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        there = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def hang_up(after: bytes = b"") -> Answer:
    """Reset the connection after these bytes."""

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
