"""uvicorn as a part of this program: on sockets of ours, stopped by us, and without handlers for signals."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; on all addresses where `host` is empty. Raises `OSError`, `OverflowError`."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512, dualstack_ipv6=both)
    # Inherited by every connection. asyncio sets it only on sockets that it makes itself, and without it each answer
    # waits 40 ms for the acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


class Server(uvicorn.Server):
    """Serves an application until `stop`; then running requests have `graceful_seconds` to end."""

    def __init__(self, application: ASGIApp, graceful_seconds: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=graceful_seconds,
                ssl_context_factory=(lambda *_: tls) if tls else None,
            )
        )

    def stop(self) -> None:
        """Accept no more requests, and end when those that run have ended."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the command: several servers run in it, and each would take them from the others."""
        yield
