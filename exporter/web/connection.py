"""One client's connection: how long it may keep us waiting, and what it is told when that is over."""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from asyncio.sslproto import SSLProtocol, _SSLProtocolTransport
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from exporter.web.client import network
from exporter.web.http import Requests

READ_BYTES: Final = 16 * 1024
"""Bytes that are read from a client at a time."""

# asyncio gives each connection with TLS a buffer of this size, before its client is known. Its own choice is 256 KiB.
SSLProtocol.max_size = READ_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be, and the seconds that each step of one may take."""

    connections: int = 256
    """Those in their handshake included. Each can cost 220 KB: for TLS, for an answer, in the kernel."""
    head: float = 10.0
    """For the handshake of TLS, and for the head of a request from its first byte, or from the start of the connection.
    A scraper sends it in one packet; Prometheus gives up a whole scrape after 10 s."""
    answer: float = 60.0
    """From the head of a request until its answer is taken: as long as the longest `scrape_timeout` in use."""
    keep_alive: int = 75
    """From an answer to the next request: more than the usual scrape interval of up to a minute, so that a scraper
    keeps its connection, and with it its TLS."""
    keeps_bodies: bool = False
    """Whether an application gets the bodies of requests. Those of strangers could fill the memory."""


LIMITS: Final = Limits()
"""Those of every server of the exporter's own pages."""

Open = dict["Connection", asyncio.Task[None]]
"""Each open connection, and the task that opens it: the one in which something happened last comes last."""


_DROP: Final = struct.pack("ii", 1, 0)
"""For SO_LINGER: to close drops what the client has not taken. Else the kernel keeps it, and tries for minutes."""
_READ = memoryview(bytearray(READ_BYTES))
"""One for all: what is in it is used before anything else is read."""


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """uvicorn's connection, which has no limit of time but that for the next request, with a deadline at each step.

    A client's bytes put off no deadline: only a whole head does, or a whole answer that was taken.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        limits: Limits,
        open_: Open,
        client: str,
    ) -> None:
        super().__init__(config, server_state, {})
        self.conn = Requests(keeps_bodies=limits.keeps_bodies)
        self.network = network(client)
        self._limits = limits
        self._open = open_
        self._deadline: asyncio.TimerHandle | None = None
        self._idle = False
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is open, its TLS as well."""
        super().connection_made(transport)
        self.app_state = {"end": self.end, "is_open": lambda: self.transport is not None}
        # While a piece of an answer waits, the application does.
        transport.set_write_buffer_limits(high=1, low=0)
        if isinstance(transport, _SSLProtocolTransport):
            # Else what is encrypted takes 64 KiB more.
            beneath = transport._ssl_protocol._transport  # type: ignore[union-attr]  # noqa: SLF001
            beneath.set_write_buffer_limits(high=0)  # type: ignore[union-attr]
            # What a client sends while its answer waits: 256 KiB by default.
            transport.set_read_buffer_limits(high=READ_BYTES)
        self._step(self._limits.head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which either side has closed."""
        self._open.pop(self, None)
        if self._deadline:
            self._deadline.cancel()
        # uvicorn does this only where there was no error, and until then the timer keeps all of this in memory.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        # Each of these leads back here, and only the garbage collector would free the connection with its TLS and its
        # buffers: after hundreds of others, since it rarely looks at what is old.
        for name in ("transport", "flow", "cycle", "scope", "app_state"):
            setattr(self, name, None)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the next bytes go."""
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        """So many are there."""
        self.data_received(bytes(_READ[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Some bytes came: of a head, of a body that nobody reads, or of the next request already."""
        if self._refused:
            return
        request = self.cycle
        super().data_received(data)
        if self.cycle is not request:
            self._step(self._limits.answer)
        elif self._idle:
            self._idle = False
            self._within(self._limits.head)

    def on_response_complete(self) -> None:
        """The last part of the answer was handed over. A request that came meanwhile is begun with here."""
        request = self.cycle
        super().on_response_complete()
        if self.transport.is_closing():
            return
        self._idle = self.cycle is request
        self._step(self._limits.keep_alive if self._idle else self._limits.answer)

    def end(self, status: HTTPStatus) -> None:
        """Close at once, with this status where a request has begun to come and was not answered.

        It waits for nothing that the client does, and leaves nothing with the kernel that the client does not read.
        """
        if self.transport is None:
            return  # in its handshake, which ends with the task that opens it; or closed
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0] and not self.transport.is_closing():
            self._refuse(status)
            # Over TLS this tells the client that it is the end, and waits for the same from there: not we.
            self.transport.close()
        else:
            accepted: socket.socket | None = self.transport.get_extra_info("socket")
            if accepted and any(fcntl.ioctl(accepted, termios.TIOCOUTQ, bytes(4))):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn has one text for all that h11 can't read
        """Refuse what is no HTTP, by the status that h11 has for it: 431 where a head is too long, else 400 or 501."""
        error = sys.exc_info()[1]
        if self.cycle and not self.cycle.response_complete:
            # It is the body that is broken: nothing that the application still sends must follow.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._refuse(HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST)))
            # To close with bytes unread is a reset, which can overtake the answer: the client or the deadline closes.
            self._refused = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
        else:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus) -> None:
        body = f"{status.phrase}\n".encode()
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": f"{len(body)}", "Connection": "close"}
        answer = h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase)
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        # What the client does not take would keep it open.
        self._within(self._limits.head)

    def _step(self, seconds: float) -> None:
        """Something has happened; the next thing has to within these seconds."""
        if self in self._open:
            self._open[self] = self._open.pop(self)
        self._within(seconds)

    def _within(self, seconds: float) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.end, HTTPStatus.REQUEST_TIMEOUT)
