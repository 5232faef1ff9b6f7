"""uvicorn as a part of this program: on sockets of ours, stopped by us, without handlers for signals, within limits."""

import asyncio
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Final

import structlog
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.web.answers import MAX_UNREAD_BYTES, in_pieces, in_turn
from exporter.web.client import gone
from exporter.web.connection import LIMITS, READ_BYTES, Connection, Limits, Open

log = structlog.get_logger()

_RETRY_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 0.05


class Server(uvicorn.Server):
    """Serves an application until `stop`; then running requests have `graceful_seconds` to end.

    Above the limit of connections one gives way to the new one: of the client that has the most of them, that in which
    nothing has happened for the longest. So clients that hang can't lock out one that does not, and what they can take
    is bounded: see `Connection`.
    """

    def __init__(
        self,
        application: ASGIApp,
        graceful_seconds: int,
        tls: ssl.SSLContext | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                in_turn(_until_its_client_is_gone(in_pieces(application))),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Else any program of this machine, and an environment variable, could say what scheme was spoken.
                proxy_headers=False,
                timeout_keep_alive=limits.keep_alive,
                timeout_graceful_shutdown=graceful_seconds,
                ssl_context_factory=(lambda *_: tls) if tls else None,
            )
        )
        self._open: Open = {}
        self._limits = limits
        # The polls need file descriptors too.
        self._max_connections = min(limits.connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def stop(self) -> None:
        """Accept no more requests, and end when those that run have ended."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections. asyncio's own servers neither limit nor report those in their handshake."""
        self.servers = []
        for listener in sockets or []:
            # Inherited by every connection. What the kernel keeps of what one side does not read is memory of the
            # exporter's control group. By itself, Linux keeps up to 4 MB of an answer, and 32 MB that a client sends.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ_BYTES)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_UNREAD_BYTES)
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in sockets or []]
        for task in self._accepting:
            task.add_done_callback(lambda _: self.stop())
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listening sockets, then the connections. Raises what has kept us from accepting, if anything.

        uvicorn's own logs an error for each request that does not end in time, with a traceback.
        """
        for task in (*self._accepting, *self._open.values()):
            task.cancel()
        for listener in sockets or []:
            listener.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while state.connections or state.tasks:  # noqa: ASYNC110  uvicorn has no event for it
                    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        for one in list(self._open):
            one.end(HTTPStatus.SERVICE_UNAVAILABLE)
        running = list(state.tasks)
        for request in running:
            request.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for task in self._accepting:
            with suppress(asyncio.CancelledError):
                await task

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue
            except OSError as error:  # no file descriptors, or no memory
                log.warning("can't accept a connection", error=error.strerror)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            # A peer on a Unix socket has a path or, bound to an abstract name, bytes; of AF_VSOCK, a number and a port.
            self._admit(accepted, str(address[0]) if isinstance(address, tuple) else "")
            # One at a time: a flood of connections must leave time for those that are open.
            await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket, client: str) -> None:
        while len(self._open) >= self._max_connections:
            of = Counter(one.network for one in self._open)
            stuck = max(self._open, key=lambda one: of[one.network])
            self._open.pop(stuck).cancel()
            stuck.end(HTTPStatus.SERVICE_UNAVAILABLE)
        connection = Connection(self.config, self.server_state, self._limits, self._open, client)
        self._open[connection] = asyncio.create_task(self._connect(accepted, connection))

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        tls = self.config.ssl
        seconds = self._limits.head if tls else None
        is_open = False
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=tls, ssl_handshake_timeout=seconds, ssl_shutdown_timeout=seconds
            )
            is_open = True
        except OSError as error:  # no handshake came of it
            # Its frames hold the error, and the buffers: only the garbage collector would free the two.
            error.__traceback__ = None
        except Exception:
            # A bug must neither hold the place of a connection, nor keep its client waiting.
            log.exception("can't open a connection")
            accepted.close()
        finally:
            if not is_open:
                self._open.pop(connection, None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the command: several servers run in it, and each would take them from the others."""
        yield


def _until_its_client_is_gone(application: ASGIApp) -> ASGIApp:
    """The application, whose request ends without a log line if its client has gone, or if it is cancelled at a stop.

    uvicorn logs both as errors of the application, with a traceback.
    """

    async def until_gone(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await application(scope, receive, send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:
            scope["state"]["end"](HTTPStatus.SERVICE_UNAVAILABLE)
            await gone(receive)

    return until_gone
