"""The server's version, and which endpoints it lacks."""

from contextlib import suppress
from typing import Final, Literal

from exporter.model import PARTS, Part
from exporter.sources.base import SourceError
from exporter.sources.prefect.api import Api, is_unsupported

_POLLS_PER_VERSION: Final = 20
"""Polls for which the server's version is taken to be the same, if none of them fails: 10 minutes, by default."""


class Support:
    """The server's version, and what this server does not have, until there is reason to ask again.

    `missing` holds parts, and `concurrency_status`, without which the slots are read by a sweep. `version` is empty
    where it is not known: Prefect Cloud does not tell.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._polls_left = 0
        """Polls until the version is asked for again."""
        self.version = ""
        self.missing: set[Part | Literal["concurrency_status"]] = set()

    @property
    def missing_parts(self) -> tuple[Part, ...]:
        """The parts that can't be had."""
        return tuple(part for part in PARTS if part in self.missing)

    def forget(self) -> None:
        """Ask for everything again: what comes back after a failure may be another server."""
        self.missing.clear()
        self._polls_left = 0

    async def check(self) -> None:
        """Ask for everything again if the server has another version now. One request, while something is missing."""
        if self.missing:
            before, self.version = self.version, await self._ask()
            if self.version != before:
                self.missing.clear()

    async def learn(self) -> None:
        """Ask for the version, where that was not done for a while. One request; if it fails, nothing else does.

        The version that was known stays then, and it is asked for again at the next poll. It comes last in a poll, so
        that a server that is down is not asked twice.
        """
        if self._polls_left <= 0:
            with suppress(SourceError):
                self.version = await self._ask()
        self._polls_left -= 1

    async def _ask(self) -> str:
        try:
            version = await self._api.version()
        except SourceError as error:
            if not is_unsupported(error):
                raise
            version = ""
        self._polls_left = _POLLS_PER_VERSION
        return version
