"""What the exporter serves through, by a file for `--web.config.file` that a test writes."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import bcrypt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exporter.clock import Clock
from exporter.web.config import LiveWebConfig
from exporter.web.guard import Guard
from exporter.web.listeners import listen
from exporter.web.server import Server

PASSWORD = "canary-pa55word:with a colon"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def live(path: Path) -> LiveWebConfig:
    """The file as a server has it: read again when it changes."""
    return LiveWebConfig(path, lambda *, success: None, Clock())  # noqa: ARG005


async def _answer(request: Request) -> Response:
    return PlainTextResponse(f"hello {request.url.path}", headers={"X-Frame-Options": "deny"})


@asynccontextmanager
async def served(web: LiveWebConfig, clock: Clock | None = None) -> AsyncIterator[str]:
    """An application behind the file, over a socket: its address without the scheme."""
    application = Starlette(routes=[Route("/{path:path}", _answer)])
    listener = listen("127.0.0.1", 0)
    server = Server(Guard(application, web, clock or Clock()), graceful_seconds=1, tls=web.tls())
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        await task


def trusting(folder: Path, client: str | None = None) -> ssl.SSLContext:
    """TLS of a client that trusts `ca.pem`, and shows the certificate of this name."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if client:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return context


ROUTES = {
    "/": (200, "concurrency-exporter</title>"),
    "/metrics": (200, "concurrency_exporter_build_info"),
    "/sd": (200, "__param_source"),
    "/-/healthy": (200, "healthy"),
    "/-/ready": (200, "ready"),
}
"""Status of each route, and a part of its answer."""
