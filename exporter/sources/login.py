"""Credentials that a server hands out and takes back."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

from exporter.sources.base import StatusError
from exporter.sources.credentials import Credentials

Ask = Callable[..., Awaitable[Any]]
"""`Client.request` without this login and those after it: method, endpoint, contract, and the parts of a request."""


class Login(ABC):
    """Headers that are sent with each request, and renewed when the server refuses them or they expire.

    All requests share one renewal: those that come meanwhile wait for it.
    """

    def __init__(self) -> None:
        self._renewal = asyncio.Lock()

    @property
    @abstractmethod
    def held(self) -> Credentials | None:
        """Return the headers to send now; None if they have to be renewed first."""

    @abstractmethod
    def is_asked_for_by(self, error: StatusError) -> bool:
        """Whether this answer says that what was sent is no longer accepted."""

    @abstractmethod
    async def renew(self, ask: Ask) -> Credentials:
        """Get what `held` returns from then on, and return it. Raises `SourceError`."""

    async def renewed(self, refused: Credentials | None, ask: Ask) -> Credentials:
        """Return new headers instead of the refused ones. Raises `SourceError`."""
        async with self._renewal:
            # Another request may have renewed it meanwhile.
            held = self.held
            return await self.renew(ask) if held is None or held is refused else held

    async def close(self) -> None:  # noqa: B027  most have none
        """Close the connections that are its own."""
