"""A fake upstream for what a real one can't be made to do: HTTP over a socket, byte for byte as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as it came; the names of its headers in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


Answer = Callable[[Request], bytes | Awaitable[bytes]]
"""Returns the bytes to send, all of them: see `answer`. Where it raises `Hangup`, the connection is reset."""


class Hangup(Exception):  # noqa: N818  not an error: an order
    """Reset the connection after having sent `first`, instead of answering."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__()
        self.first = first


@dataclass
class Upstream:
    """A running fake: its address, the requests that it got, and what it does with the next one."""

    url: str
    answer: Answer
    requests: list[Request] = field(default_factory=list)
    connections: int = 0


def answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None, *, media_type: str = "application/json"
) -> bytes:
    """A whole HTTP answer; `body` is JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    phrases = {known.value: known.phrase for known in HTTPStatus}
    lines = [f"HTTP/1.1 {status} {phrases.get(status, 'Unknown')}"]
    fields = {"Content-Type": media_type, "Content-Length": str(len(content))} | dict(headers or {})
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode() + content


async def never(_: Request) -> bytes:
    """Accept the request, and never answer."""
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def serve(what: Answer, *, port: int = 0) -> AsyncIterator[Upstream]:
    """Serve on `port` of loopback (a free one, unless given), keeping connections alive, until the context ends."""
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                request = await _read(reader)
                upstream.requests.append(request)
                try:
                    reply = upstream.answer(request)
                    writer.write(reply if isinstance(reply, bytes) else await reply)
                except Hangup as hangup:
                    writer.write(hangup.first)
                    await writer.drain()
                    break
                await writer.drain()
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(connection(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    upstream = Upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", what)
    try:
        yield upstream
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
