"""A fake upstream for what a real one can't be made to do: HTTP over a socket, byte for byte as it is told."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from anyio.from_thread import start_blocking_portal


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


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is done with a connection instead of speaking HTTP; it is closed afterwards."""


class Upstream:
    """A running fake: its address, the requests that it got, and what it does with the next one.

    Where `talk` is set, it has the new connections, and `answer` is not asked.
    """

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.talk: Talk | None = None
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self.tls = tls
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        """Where it serves, without a path."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return self._server is not None

    async def listen(self, port: int = 0) -> None:
        """Serve on `port` of loopback, a free one if 0, keeping connections alive."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._server:
            self._server.close()
            await self.cut()
            await self._server.wait_closed()
            self._server = None

    async def cut(self) -> None:
        """End the connections that there are, in the middle of whatever they do."""
        for task, writer in self._open.items():
            # One that has ended is here until the loop has told so; before Python 3.11.4 its TLS can't be aborted.
            if not task.done():
                writer.transport.abort()
                task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._connection(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            await (self.talk or self._http)(reader, writer)
        writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await _read(reader)
            self.requests.append(request)
            try:
                reply = self.answer(request)
                writer.write(reply if isinstance(reply, bytes) else await reply)
            except Hangup as hangup:
                writer.write(hangup.first)
                await writer.drain()
                break
            await writer.drain()


def answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None, *, media_type: str = "application/json"
) -> bytes:
    """A whole HTTP answer; `body` is JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    phrases = {known.value: known.phrase for known in HTTPStatus}
    lines = [f"HTTP/1.1 {status} {phrases.get(status, 'Unknown')}"]
    fields = {"Content-Type": media_type, "Content-Length": str(len(content))} | dict(headers or {})
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode() + content


def json_answer(text: str) -> bytes:
    """An answer with status 200, whose body is this text, JSON or not."""
    return answer(text.encode())


TOO_LARGE: Final = answer(b" " * (17 * 1024**2))
"""An answer of more bytes than are read of one."""


async def never(_: Request) -> bytes:
    """Accept the request, and never answer."""
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def serve(what: Answer, *, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Serve on `port` of loopback (a free one, unless given) until the context ends."""
    upstream = Upstream(what, tls)
    await upstream.listen(port)
    try:
        yield upstream
    finally:
        await upstream.close()


@contextmanager
def serving(what: Callable[[Request], Any]) -> Iterator[Upstream]:
    """A fake upstream in a thread of its own, for a test that waits for processes."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(what)) as upstream:
        yield upstream


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
