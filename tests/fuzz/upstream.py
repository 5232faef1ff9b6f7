"""Upstreams that answer what a fuzzer wants, without sockets: only the TCP connection is not real.

httpcore reads and writes through a network backend. Here that is a function from the bytes of a request to the bytes of
its answer; HTTP, its client, contracts, sources, poller, exposition and routes are those that run in production.
"""

import json
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import httpcore

from exporter.model import Part

Reply = Callable[[bytes], bytes]
"""From the bytes of a request to those of its answer, after which the connection is kept; empty to close it."""

MOST_REQUESTS: Final = 250
"""After these an upstream hangs up: what is looked for is found before, and the next input waits."""

KINDS: Final[dict[str, str]] = {
    "A": r"/v1/async/status",
    "P": r"/work_pools/filter",
    "Q": r"/work_queues/filter|/work_pools/[^/]*/queues/filter",
    "S": r"/work_queues/[^/]+/concurrency_status",
    "C": r"/flow_runs/count",
    "F": r"/flow_runs/filter",
    "H": r"/flow_runs/history",
    "L": r"/v2/concurrency_limits/filter",
    "D": r"/deployments/filter",
    "N": r"/flows/filter",
    "W": r"/work_pools/[^/]*/workers/filter",
    "T": r"/csrf-token\?.*",
    "V": r"/admin/version",
}
"""The routes that are asked, each by a letter: of cloro the first, of Prefect the others."""

_PARTS: Final[dict[str, tuple[Part, ...]]] = {
    "S": ("queues",),
    "C": ("queues", "backlog"),
    "F": ("queues", "backlog"),
    "H": ("backlog",),
    "L": ("limits",),
    "D": ("limits",),
    "N": ("limits",),
    "W": ("workers",),
}


def parts(changed: Iterable[str]) -> set[Part]:
    """What has to be collected for these routes to be asked; a poll that reads all takes far longer."""
    return {part for kind in changed for part in _PARTS.get(kind, ("queues", "pools"))}


def ident(number: int) -> str:
    """An id like a server's."""
    return f"00000000-0000-4000-8000-{number:012}"


GOOD: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))
"""The answer of each route where all is well."""


def ok(body: object, *headers: str) -> bytes:
    """A whole answer with status 200; the body is JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def replying(changed: Mapping[str, bytes]) -> Reply:
    """An upstream whose routes answer as they do where all is well, but for those that are changed."""
    left = MOST_REQUESTS

    def reply(request: bytes) -> bytes:
        nonlocal left
        left -= 1
        if left < 0:
            return b""
        path = request.split(b" ", 2)[1].decode().removeprefix("/api")
        kind = next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, path)), "")
        if not kind:
            return ok({"detail": "Not Found"}).replace(b"200 OK", b"404 Not Found", 1)
        if kind in changed:
            return changed[kind]
        body = GOOD[kind]
        if pool := re.fullmatch(r"/work_pools/([ab])/queues/filter", path):
            body = [queue for queue in body if queue["work_pool_id"] == ident(" ab".index(pool[1]))]
        return ok(body)

    return reply


class _Connection(httpcore.AsyncNetworkStream):
    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._request = b""
        self._answer = b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109  as httpcore has it
        self._request += buffer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109
        if self._request:
            self._answer += self._reply(self._request)
            self._request = b""
        chunk, self._answer = self._answer[:max_bytes], self._answer[max_bytes:]
        return chunk

    async def aclose(self) -> None:
        pass

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError

    def get_extra_info(self, info: str) -> Any:
        return bool(self._answer) if info == "is_readable" else None


@contextmanager
def network(reply: Reply) -> Iterator[None]:
    """Every connection that httpcore opens leads to this upstream, until the context ends."""

    async def connect_tcp(*_: object, **__: object) -> httpcore.AsyncNetworkStream:
        return _Connection(reply)

    backend: Any = import_module("httpcore._backends.auto").AutoBackend
    real, backend.connect_tcp = backend.connect_tcp, connect_tcp
    try:
        yield
    finally:
        backend.connect_tcp = real


def encode(changed: Mapping[str, bytes]) -> bytes:
    """An input of the fuzzer: the letter of a route, how the answer is framed (see `decode`), and the answer."""
    return SEPARATOR.join(
        kind.encode() + (b"=" if raw.startswith(b"HTTP/") else b":") + raw for kind, raw in changed.items()
    )


SEPARATOR: Final = b"\n~~\n"


def decode(data: bytes) -> dict[str, bytes]:
    """The whole answers of the routes that an input names: as it has them (`=`), or with a head of ours (`:`)."""
    found = {}
    for block in data.split(SEPARATOR):
        kind = chr(block[0]) if block else ""
        if kind in KINDS:
            found[kind] = block[2:] if block[1:2] == b"=" else ok(block[2:])
    return found


def seeds() -> Iterable[bytes]:
    """Inputs to begin with: each route's good answer, framed by us and whole, and some pairs that lead further in."""
    for kind, body in GOOD.items():
        content = json.dumps(body).encode()
        yield encode({kind: content})
        yield encode(
            {kind: ok(body, "Date: Sat, 21 Nov 2026 23:24:25 GMT", "X-RateLimit-Limit: 9", "X-RateLimit-Remaining: 3")}
        )
    many = json.dumps(10**6).encode()
    yield encode({"C": many, "S": json.dumps(GOOD["S"]).encode()})
    yield encode({"C": many, "H": json.dumps(GOOD["H"]).encode(), "F": json.dumps(GOOD["F"][2:]).encode()})
    for status in ("403 Forbidden", "404 Not Found", "429 Too Many Requests", "500 Internal Server Error"):
        detail = {"detail": "CSRF token is missing", "exception_message": "limit must be less than or equal to 50"}
        yield encode({"P": ok(detail, "Retry-After: 9").replace(b"200 OK", status.encode(), 1)})
        yield encode({"A": ok({"error": {"code": "X", "message": "y"}}).replace(b"200 OK", status.encode(), 1)})
