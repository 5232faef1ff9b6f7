"""The management API, with the paths that Prometheus has for its own: probes, and the reload."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from exporter.polling.store import View

Reload = Callable[[], Awaitable[str]]
"""Reads the configuration again. Returns what was wrong with it, or an empty string."""


async def healthy(_: Request, __: View) -> PlainTextResponse:
    """200 while the process serves requests. For liveness probes: it sends no request to an upstream server."""
    return PlainTextResponse("healthy\n")


async def ready(_: Request, view: View) -> PlainTextResponse:
    """200 once every source has been polled, successfully or not, and from then on; 503 before that."""
    if view.is_ready:
        return PlainTextResponse("ready\n")
    waiting = ", ".join(state.name for state in view.states if not state.outcome)
    return PlainTextResponse(f"not ready: no poll has ended yet of {waiting}\n", HTTPStatus.SERVICE_UNAVAILABLE)


class ReloadNow:
    """With `--web.enable-lifecycle`: reloads the configuration; 500 with the list of errors if it is invalid."""

    def __init__(self, reload: Reload) -> None:
        self._reload = reload

    async def __call__(self, _: Request, __: View) -> PlainTextResponse:
        """Reload, and answer when that has ended."""
        if mistakes := await self._reload():
            return PlainTextResponse(f"{mistakes}\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        return PlainTextResponse("reloaded\n")
