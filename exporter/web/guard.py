"""Who is let in, how often, and with which headers: the application behind what the web configuration says."""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

import bcrypt
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.clock import Clock
from exporter.threads import in_thread
from exporter.web.config import LiveWebConfig, RateLimit, WebConfig

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
_SHOWN_PASSWORD_BYTES: Final = 72
"""bcrypt looks at no more bytes of a password."""
_REMEMBERED: Final = 100
"""How many verified passwords are remembered."""
_WAITING: Final = 50
"""How many passwords may wait to be checked: who has gone meanwhile waits on, so connections do not bound them."""


def guarded(application: ASGIApp, web: LiveWebConfig | None, clock: Clock) -> ASGIApp:
    """The application behind what the web configuration says, if there is one, and behind `HEADERS`."""
    status_of = _passwords()
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
            status = await status_of(config.basic_auth_users, Headers(scope=scope))
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


def _passwords() -> Callable[[dict[str, SecretStr], Headers], Awaitable[HTTPStatus]]:
    """A function that tells by a status whether the headers of a request hold name and password of one of the users.

    A password that was found right is remembered by a digest whose key never leaves the process. One check runs at a
    time and off the event loop: a flood of wrong passwords costs one core, and those who are remembered pass it by.
    """
    secret = secrets.token_bytes(32)
    remembered: dict[bytes, None] = {}
    one_at_a_time = asyncio.Lock()
    waiting = 0

    async def status_of(users: dict[str, SecretStr], headers: Headers) -> HTTPStatus:
        nonlocal waiting
        credentials = _credentials(headers.get("Authorization", ""))
        if credentials is None:
            return HTTPStatus.UNAUTHORIZED
        name, password = credentials
        hashes = {user: hashed.get_secret_value().encode() for user, hashed in users.items()}
        hashed = hashes.get(name)
        digest = hashlib.blake2b(b"%s:%s" % (hashed or b"", password), key=secret).digest()
        if digest in remembered:
            return HTTPStatus.OK
        if waiting >= _WAITING:
            return HTTPStatus.SERVICE_UNAVAILABLE
        waiting += 1
        try:
            async with one_at_a_time:
                right = await in_thread(
                    _check, password[:_SHOWN_PASSWORD_BYTES], hashed, max(_cost(one) for one in hashes.values())
                )
        finally:
            waiting -= 1
        if not right:
            return HTTPStatus.UNAUTHORIZED
        while len(remembered) >= _REMEMBERED:
            del remembered[next(iter(remembered))]
        remembered[digest] = None
        return HTTPStatus.OK

    return status_of


def _check(password: bytes, hashed: bytes | None, greatest_cost: int) -> bool:
    """Whether the password has this hash; there is none for a name that is nobody's.

    It takes as long as one check at the greatest cost, whoever the name belongs to: time does not tell who is a user.
    Each step of the cost doubles the time, so all steps from one cost up to another make up for the difference.
    """
    right = hashed is not None and bcrypt.checkpw(password, hashed)
    done = _cost(hashed) if hashed else None
    for cost in [greatest_cost] if done is None else range(done, greatest_cost):
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
