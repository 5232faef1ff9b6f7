"""Who is let in, how often, and with which headers: the application behind what the web configuration says."""

from collections.abc import Callable
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


def guarded(application: ASGIApp, web: LiveWebConfig | None, clock: Clock) -> ASGIApp:
    """The application behind what the web configuration says, if there is one, and behind `HEADERS`."""
    passwords = Passwords()
    may_come = _token_bucket(clock)
    open_to_all = WebConfig()

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        config = web.now() if web else open_to_all
        added = HEADERS | {name: value for name, value in config.http_server_config.headers.items() if value}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in added.items():
                    found.setdefault(name, value)
            await send(message)

        status = HTTPStatus.OK
        if not may_come(config.rate_limit):
            status = HTTPStatus.TOO_MANY_REQUESTS
        elif config.basic_auth_users:
            users = {name: hashed.get_secret_value() for name, hashed in config.basic_auth_users.items()}
            if not await passwords.are_right(users, scope, receive):
                status = HTTPStatus.UNAUTHORIZED
        answer = application if status is HTTPStatus.OK else _refusal(status)
        await answer(scope, receive, send_with_headers)

    return guard


def _refusal(status: HTTPStatus) -> PlainTextResponse:
    headers = {"WWW-Authenticate": "Basic"} if status is HTTPStatus.UNAUTHORIZED else None
    return PlainTextResponse(f"{status.phrase}\n", status, headers)


def _token_bucket(clock: Clock) -> Callable[[RateLimit], bool]:
    tokens, filled_at = float("inf"), clock.monotonic()

    def may_come(limit: RateLimit) -> bool:
        nonlocal tokens, filled_at
        if not limit.interval:
            return True
        now = clock.monotonic()
        tokens, filled_at = min(tokens + (now - filled_at) / limit.interval, float(limit.burst)), now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return may_come
