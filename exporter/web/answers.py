"""Answers as they are made and as they wait for clients: in turn, in pieces, and bounded in what they hold together."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UNREAD_BYTES: Final = 32 * 1024
"""Bytes of an answer that are sent at a time, and that the kernel is asked to keep. Three such pieces can wait for one
client: in the application, encrypted, and at the socket. With pieces of 128 KiB an answer of 3 MB takes 0.2 ms less
CPU, and 256 clients who do not read take 100 MiB more: above the memory that is shipped."""
MAX_HELD_BYTES: Final = 32 * 1024 * 1024
"""Most bytes of all answers that are being sent. Scrapes between two polls share theirs, which count once."""

REQUESTS_AT_ONCE: Final = 2
"""Requests that begin before everything else in the event loop has its turn. With eight, polls take twice as long while
hundreds of clients ask without a pause. With one, new connections come faster than requests begin, and take the places
of those that wait."""


def in_turn(application: ASGIApp) -> ASGIApp:
    """The application, whose requests begin in the order in which they came, some in each round of the event loop.

    However many clients ask, polls and open connections have their turn between. A connection has one request in the
    queue, even if it has sent the next ones already; if it has ended meanwhile, its request is dropped.
    """
    turns = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def begun_in_turn(scope: Scope, receive: Receive, send: Send) -> None:
        await turns.acquire()
        # Where nobody waits, the request begins at once: a client may close its half of the connection right after it.
        asyncio.get_running_loop().call_soon(turns.release)
        if scope["state"]["is_open"]():
            await application(scope, receive, send)

    return begun_in_turn


def in_pieces(application: ASGIApp, most: int = MAX_HELD_BYTES) -> ASGIApp:
    """The application, its answers sent no faster than clients take them: one who does not read costs a piece.

    But he keeps the whole in memory, and after each poll there is another to keep. Where answers hold more than `most`
    bytes, the one that was begun first ends with its connection.
    """
    held: dict[object, tuple[bytes, Callable[[HTTPStatus], None]]] = {}

    @contextmanager
    def holding(body: bytes, end: Callable[[HTTPStatus], None]) -> Iterator[None]:
        key = object()
        held[key] = (body, end)
        while len(held) > 1 and sum({id(one): len(one) for one, _ in held.values()}.values()) > most:
            held.pop(next(iter(held)))[1](HTTPStatus.SERVICE_UNAVAILABLE)
        try:
            yield
        finally:
            held.pop(key, None)

    async def sent_in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_pieces(message: Message) -> None:
            body: bytes = message.get("body", b"")
            if len(body) <= MAX_UNREAD_BYTES:
                return await send(message)
            with holding(body, scope["state"]["end"]):
                for start in range(0, len(body), MAX_UNREAD_BYTES):
                    await send({**message, "body": body[start : start + MAX_UNREAD_BYTES], "more_body": True})
            return await send({**message, "body": b""})

        await application(scope, receive, send_pieces)

    return sent_in_pieces
