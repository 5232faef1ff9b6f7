"""The one place that talks HTTP to a server: TLS, proxy, deadline, size cap, retry, counting, and what went wrong."""

import asyncio
import html
import os
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx
from pydantic import TypeAdapter, ValidationError

from exporter import __version__
from exporter.model import RateLimit, Retirement
from exporter.sources.base import CountRequest, SourceError, StatusError
from exporter.sources.connection import Connection
from exporter.sources.credentials import Credentials

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
_MAX_ERROR_BYTES: Final = 64 * 1024
"""What of an error's body is read: its status says more than the rest would."""
_KEEPALIVE_SECONDS: Final = 4.0
"""Less than the 5 s after which a Prefect server closes an idle connection."""

# The connection broke while it was in use: most likely the server had closed it just before. Every request here only
# reads, or asks for a token, so it may be sent again.
_CONNECTION_BROKE = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with status 200. `headers` are as the server sent them, and not fit to be shown.

    `sent` is what it may repeat: who asked, also what the proxy was told.
    """

    body: bytes
    sent: Credentials
    headers: httpx.Headers
    rate_limit: RateLimit | None
    date: datetime | None
    request_id: str


class Transport:
    """Exchanges with the server at one URL, over connections that are kept.

    `request_timeout` is the seconds that one request may take from its start to the last byte of the answer. `explain`
    finds in the JSON of an error's body what the server says about it. `hint` says what to do about credentials that
    are refused.
    """

    def __init__(
        self,
        url: str,
        connection: Connection,
        *,
        request_timeout: float,
        explain: Callable[[Any], str | None],
        hint: str,
        count_request: CountRequest,
    ) -> None:
        self._request_timeout = request_timeout
        self._explain = explain
        self._hint = hint
        self._count_request = count_request
        self._proxy = connection.proxy_to(url)
        # To load what the system trusts takes 45 ms and a megabyte: not for what is not encrypted.
        tls = connection.tls_config
        self._tls = tls.context_of_server() if url.startswith("https:") else None
        self._proxy_tls = tls.context() if self._proxy and self._proxy.url.startswith("https:") else None
        self._http = self._new_connections()
        self._running = 0
        """Number of requests on their way; the callers bound it."""
        self._cancelled = False
        """Whether a request was cancelled since these connections are in use."""

    def _new_connections(self) -> httpx.AsyncClient:
        proxy = self._proxy
        return httpx.AsyncClient(
            # Uncompressed, so that the cap on an answer's bytes holds before anything is unpacked, and because
            # compressing costs the server, whose one process is the bottleneck.
            headers={"Accept-Encoding": "identity", "User-Agent": f"concurrency-exporter/{__version__}"},
            verify=self._tls or False,
            # It is trusted as the server is: httpx would ask other authorities of its own choice.
            proxy=httpx.Proxy(proxy.url, ssl_context=self._proxy_tls, headers=list(proxy.headers)) if proxy else None,
            # Each request has one deadline for all of its phases, below.
            timeout=None,  # noqa: S113
            # A limit of connections would count those that `_connections` tells of, and then wait for ever.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_SECONDS),
            follow_redirects=False,
            # None is kept: a broken upstream could send a new one with every answer.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
        )

    async def _connections(self) -> httpx.AsyncClient:
        """The connections to use: new ones, once nothing runs, where a request was cancelled.

        httpcore keeps a connection that was meant for a request that is cancelled before it is sent: it is neither used
        again nor closed.
        """
        if self._cancelled and not self._running:
            self._cancelled = False
            old, self._http = self._http, self._new_connections()
            await old.aclose()
        return self._http

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def fetch(self, method: str, url: str, endpoint: str, credentials: Credentials, **content: Any) -> Fetched:
        """Send one request; the border at which foreign errors become ours.

        `endpoint` is the route that it counts for. `content` is what httpx has for it: `params`, `json`, `data`. Raises
        `SourceError` with any reason but `internal`.
        """
        if self._proxy:
            credentials += Credentials(secrets=self._proxy.secrets)
        exchange = _Exchange(endpoint, f"{method} {url.partition('?')[0]}", credentials)
        http = await self._connections()
        headers = list(credentials.headers)
        try:
            return await self._fetch(exchange, http, http.build_request(method, url, headers=headers, **content))
        except SourceError as error:
            error.request_id = exchange.request_id
            raise

    async def _fetch(self, exchange: "_Exchange", http: httpx.AsyncClient, request: httpx.Request) -> Fetched:
        what, credentials = exchange.what, exchange.credentials
        try:
            async with asyncio.timeout(self._request_timeout):
                try:
                    response, body = await self._send(http, request, exchange)
                except _CONNECTION_BROKE:
                    response, body = await self._send(http, request, exchange)
        except TimeoutError:
            raise SourceError("timeout", f"{what}: no complete answer within {self._request_timeout:g}s") from None
        except httpx.HTTPError as error:
            raise _broken(what, error, credentials) from error
        except UnicodeError:  # httpx reads a redirect's address, even if it is not to follow
            raise SourceError("http_status", f"{what}: redirected to an invalid address") from None
        rate_limit, date = _rate_limit(response.headers), _date(response.headers.get("Date"))
        if response.status_code != HTTPStatus.OK:
            raise self._refused(exchange, response, self._detail(response, body), rate_limit)
        return Fetched(body, credentials, response.headers, rate_limit, date, exchange.request_id)

    async def _send(
        self, http: httpx.AsyncClient, request: httpx.Request, exchange: "_Exchange"
    ) -> tuple[httpx.Response, bytes]:
        code, retirement = "error", None
        what, exchange.request_id = exchange.what, ""
        self._running += 1
        try:
            response = await http.send(request, stream=True)
            code = str(response.status_code)
            exchange.request_id = _request_id(response.headers, exchange.credentials)
            retirement = _retirement(response, exchange.credentials)
            try:
                good = response.status_code == HTTPStatus.OK
                if good and response.headers.get("Content-Encoding", "identity") != "identity":
                    raise SourceError(
                        "contract", f"{what}: the answer is compressed, although the request did not allow it"
                    )
                too_large = SourceError(
                    "too_large", f"{what}: the answer is larger than {MAX_RESPONSE_BYTES >> 20} MiB"
                )
                if good and (_number(response.headers.get("Content-Length")) or 0) > MAX_RESPONSE_BYTES:
                    raise too_large
                chunks: list[bytes] = []
                size = 0
                async for chunk in response.aiter_raw():
                    size += len(chunk)
                    if not good and size > _MAX_ERROR_BYTES:
                        break
                    if size > MAX_RESPONSE_BYTES:
                        raise too_large
                    chunks.append(chunk)
                return response, b"".join(chunks)
            finally:
                await response.aclose()
        except asyncio.CancelledError:
            self._cancelled = True
            raise
        finally:
            self._running -= 1
            self._count_request(exchange.endpoint, code, retirement)

    def _detail(self, response: httpx.Response, content: bytes) -> str:
        """Return what an error's body says: the API in its JSON, or a gateway in front of it in the title of a page."""
        try:
            return self._explain(_ANY.validate_json(content)) or ""
        except ValidationError:
            title = None if response.has_redirect_location else _TITLE.search(content)
        text = html.unescape(title[1].decode(errors="replace")).strip() if title else ""
        text = text.removeprefix(f"{response.status_code} ")
        return "" if text == response.reason_phrase else text

    def _refused(
        self, exchange: "_Exchange", response: httpx.Response, detail: str, rate_limit: RateLimit | None
    ) -> StatusError:
        """An answer whose status is not 200."""
        status, credentials = response.status_code, exchange.credentials
        message = f"{exchange.what}: {status} {credentials.redact(response.reason_phrase)}".rstrip()
        if response.has_redirect_location:
            message += (
                f", redirected to {credentials.redact(response.headers['Location'])}; set url to where the API is, or"
                " http_headers or oauth2 if that is a login page"
            )
        if detail:
            message += f": {credentials.redact(detail)}"
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            message += f"; {self._hint}"
        elif "certificate" in detail:  # nginx and others have no status of its own for it
            message += "; check tls_config of the source"
        return StatusError(
            message,
            status=status,
            detail=detail,
            # A date is by upstream's clock, which its Date tells better than ours.
            retry_after=_retry_after(
                response.headers.get("Retry-After"), _date(response.headers.get("Date")) or datetime.now(UTC)
            ),
            rate_limit=rate_limit,
        )


_ANY: Final = TypeAdapter[Any](Any)
_TITLE: Final = re.compile(rb"<title[^>]{0,100}>([^<]{1,200})</title>", re.IGNORECASE)


@dataclass(slots=True)
class _Exchange:
    """One request in words, and the id of the last answer to it, which may have come without its body."""

    endpoint: str
    what: str
    credentials: Credentials
    request_id: str = ""


def _broken(what: str, error: httpx.HTTPError, credentials: Credentials) -> SourceError:
    """A connection that could not be made, or broke."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", None) or cause.reason
            return SourceError("tls", f"{what}: TLS failed: {reason}; check tls_config of the source")
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            # asyncio and anyio say no more than that the attempt failed.
            return SourceError("connect", f"{what}: {os.strerror(cause.errno)}")
    # h11 quotes the bytes that it does not understand.
    text = credentials.redact(str(error).partition(": bytearray(")[0]) or type(error).__name__
    if isinstance(error, httpx.LocalProtocolError):
        # Only its type: h11 quotes the header that it refuses, and that may be the one with the credentials.
        text = type(error).__name__
    return SourceError("connect", f"{what}: {text}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # Where a host has several addresses, what failed with each is in a group.
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error.__context__


def _number(text: str | None) -> int | None:
    """A count in a header; anything that is not one is as good as absent."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 15 else None


def _rate_limit(headers: httpx.Headers) -> RateLimit | None:
    limit = _number(headers.get("X-RateLimit-Limit"))
    remaining = _number(headers.get("X-RateLimit-Remaining"))
    return None if limit is None and remaining is None else RateLimit(limit, remaining)


def _request_id(headers: httpx.Headers, credentials: Credentials) -> str:
    """`X-Request-ID` as one word that fits into parentheses; empty where there is none."""
    word = re.sub(r"[^!-'*-~]", "", credentials.redact(headers.get("X-Request-ID", "")))
    # What was dropped may have stood within a secret.
    return credentials.redact(word).removesuffix("…")


def _retirement(response: httpx.Response, credentials: Credentials) -> Retirement | None:
    """Read the headers `Deprecation` (RFC 9745) and `Sunset` (RFC 8594); anything but a date counts as absent."""
    # A structured date; what follows a semicolon are its parameters, of which none is known.
    seconds = re.fullmatch(r" *@(-?[0-9]{1,15}) *(;.*)?", response.headers.get("Deprecation", ""))
    try:
        deprecation = datetime.fromtimestamp(int(seconds[1]), UTC) if seconds else None
    except (ValueError, OverflowError, OSError):
        deprecation = None
    sunset = _date(response.headers.get("Sunset"))
    if not deprecation and not sunset:
        return None
    links = (response.links[relation]["url"] for relation in ("deprecation", "sunset") if relation in response.links)
    return Retirement(deprecation, sunset, credentials.redact(next(links, "")))


def _retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that `Retry-After` asks to wait, in either of its forms (RFC 9110, 10.2.3); not negative."""
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,30}(\.[0-9]{1,30})?", header):
        return float(header)
    when = _date(header)
    return max(0.0, (when - now).total_seconds()) if when else None


def _date(header: str | None) -> datetime | None:
    """An HTTP date; what is none is as good as absent."""
    if header is None or re.search(r" 00[0-9]{2} ", header):
        # Go writes the year 0001 where it has no time, which the library takes for 2001.
        return None
    try:
        when = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
