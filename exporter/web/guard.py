"""Who is let in, how often, and with which headers: the application behind what the web configuration says."""

import math
from http import HTTPStatus
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.clock import Clock
from exporter.web.config import LiveWebConfig, RateLimit, WebConfig
from exporter.web.passwords import Passwords

HEADERS: Final = {
    # A browser shows what is served, and does nothing else with it.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # What is seen with a password must not stay in a cache without one.
    "Cache-Control": "no-store",
}
"""Added to every answer that has none of that name; the web configuration can set others."""


class TokenBucket:
    """Counts requests against a rate limit, which may be another one at each request."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens = math.inf
        self._filled_at = clock.monotonic()

    def admits(self, limit: RateLimit) -> bool:
        """Return whether one more request may come now, and count it if so."""
        if not limit.interval:
            return True
        now = self._clock.monotonic()
        self._tokens = min(self._tokens + (now - self._filled_at) / limit.interval, float(limit.burst))
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Guard:
    """The application behind `web`, the web configuration if there is one, and behind `HEADERS`."""

    def __init__(self, application: ASGIApp, web: LiveWebConfig | None, clock: Clock) -> None:
        self._application = application
        self._web = web
        self._passwords = Passwords()
        self._bucket = TokenBucket(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or refuse it with 429 or 401."""
        config = self._web.refresh() if self._web else _OPEN_TO_ALL
        added = HEADERS | {name: value for name, value in config.http_server_config.headers.items() if value}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in added.items():
                    found.setdefault(name, value)
            await send(message)

        status = await self._status(config, scope, receive)
        answer = self._application if status is HTTPStatus.OK else _refusal(status)
        await answer(scope, receive, send_with_headers)

    async def _status(self, config: WebConfig, scope: Scope, receive: Receive) -> HTTPStatus:
        """Return the status to refuse the request with; `OK` for one that is let in."""
        if not self._bucket.admits(config.rate_limit):
            return HTTPStatus.TOO_MANY_REQUESTS
        users = {name: hashed.get_secret_value() for name, hashed in config.basic_auth_users.items()}
        if users and not await self._passwords.are_right(users, scope, receive):
            return HTTPStatus.UNAUTHORIZED
        return HTTPStatus.OK


_OPEN_TO_ALL: Final = WebConfig()


def _refusal(status: HTTPStatus) -> PlainTextResponse:
    headers = {"WWW-Authenticate": "Basic"} if status is HTTPStatus.UNAUTHORIZED else None
    return PlainTextResponse(f"{status.phrase}\n", status, headers)
