"""Passwords of clients: whose is right, and whose turn it is to have one checked."""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import bcrypt
from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from exporter.threads import in_thread
from exporter.web.client import gone, network

K = TypeVar("K")
V = TypeVar("V")

_SHOWN_PASSWORD_BYTES: Final = 72
"""bcrypt looks at no more bytes of a password."""
_RIGHT: Final = 100
"""How many passwords are remembered that were right."""
_WRONG: Final = 1_000
"""How many passwords are remembered that were wrong."""
_COUNTED: Final = 4_096
"""For how many clients, and names of a client, wrong passwords are counted."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """A request whose password has to be checked."""

    client: str
    """Its address, or network."""
    user: str
    """The name; for all names that are nobody's an empty one, else who takes a new name each time would be the next."""
    digest: bytes
    turn: asyncio.Future[None]


class Passwords:
    """Checks names and passwords, one at a time and off the event loop: a flood of wrong ones costs one core.

    A password that was checked is remembered by a digest whose key never leaves the process, and costs nothing again.
    Of those that wait, the next is that of the client who had the fewest wrong ones checked; of a client's, that of the
    name with the fewest. So a flood waits for everybody else, also after a restart; behind a proxy, where all clients
    are one, it waits for other names. Of equals the newest is next: older ones have more likely been given up.
    A client that goes leaves the queue, so no more wait than there are connections.

    While clients wait, who is answered sooner can tell which names are users'. Names are no secrets.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, None] = {}
        self._wrong: dict[bytes, None] = {}
        self._failures: dict[tuple[str, ...], int] = {}
        self._waiting: list[_Waiting] = []
        self._checking: _Waiting | None = None
        """Whose turn it is."""

    async def are_right(self, users: Mapping[str, str], scope: Scope, receive: Receive) -> bool:
        """Return whether the headers hold the name of one of the users, whose hashes these are, and the password.

        It waits for its turn, and is False for a client that has gone meanwhile.
        """
        credentials = _credentials(Headers(scope=scope).get("Authorization", ""))
        if credentials is None:
            return False
        name, password = credentials
        hashed = users.get(name, "").encode()
        digest = hashlib.blake2b(b"%s:%s:%s" % (hashed, name.encode(), password), key=self._key).digest()
        if digest not in self._right and digest not in self._wrong:
            client = network(scope["client"][0] if scope["client"] else "")
            turn = asyncio.get_running_loop().create_future()
            waiting = _Waiting(client, name if hashed else "", digest, turn)
            try:
                if not await self._turn_of(waiting, receive):
                    return False
                if digest not in self._right and digest not in self._wrong:
                    cost = max(_cost(one.encode()) for one in users.values())
                    await self._check(waiting, password[:_SHOWN_PASSWORD_BYTES], hashed, cost)
            finally:
                # Also where the request is cancelled between its turn and the check: else nobody would be next.
                if self._checking is waiting:
                    self._checking = None
                    self._go_on()
        return digest in self._right

    async def _turn_of(self, waiting: _Waiting, receive: Receive) -> bool:
        """Wait until it may go on. Returns False where its client has gone before."""
        self._waiting.append(waiting)
        self._go_on()
        has_gone = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({waiting.turn, has_gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            has_gone.cancel()
            if not waiting.turn.done():
                self._waiting.remove(waiting)
        return waiting.turn.done()

    async def _check(self, waiting: _Waiting, password: bytes, hashed: bytes, greatest_cost: int) -> None:
        """Remember whether the password has this hash."""
        keys = ((waiting.client,), (waiting.client, waiting.user))
        if await in_thread(_is_right, password, hashed, greatest_cost):
            _remember(self._right, waiting.digest, None, _RIGHT)
            for key in keys:
                self._failures.pop(key, None)
        else:
            _remember(self._wrong, waiting.digest, None, _WRONG)
            for key in keys:
                _remember(self._failures, key, self._failures.pop(key, 0) + 1, _COUNTED)

    def _go_on(self) -> None:
        """Let those go on of whom is known whether they are right; and the next one, where none is being checked."""
        for one in [one for one in self._waiting if one.digest in self._right or one.digest in self._wrong]:
            self._let(one)
        if self._waiting and not self._checking:
            self._checking = min(reversed(self._waiting), key=self._failures_of)
            self._let(self._checking)

    def _let(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        waiting.turn.set_result(None)

    def _failures_of(self, waiting: _Waiting) -> tuple[int, int]:
        of = self._failures
        return of.get((waiting.client,), 0), of.get((waiting.client, waiting.user), 0)


def _remember(memory: dict[K, V], key: K, value: V, most: int) -> None:
    while len(memory) >= most:
        del memory[next(iter(memory))]
    memory[key] = value


def _is_right(password: bytes, hashed: bytes, greatest_cost: int) -> bool:
    """Whether the password has this hash, which is empty for a name that is nobody's.

    It takes as long as one check at the greatest cost for any name, so that the time does not reveal who is a user.
    Each step of the cost doubles the time, so all steps from one cost up to another make up for the difference.
    """
    right = bool(hashed) and bcrypt.checkpw(password, hashed)
    for cost in range(_cost(hashed), greatest_cost) if hashed else (greatest_cost,):
        bcrypt.checkpw(password, b"$2b$%02d$%s" % (cost, b"." * 53))
    return right


def _cost(hashed: bytes) -> int:
    return int(hashed.split(b"$")[2])


def _credentials(header: str) -> tuple[str, bytes] | None:
    """Name and password of a Basic `Authorization`."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except ValueError:  # not base64, or not UTF-8
        return None
