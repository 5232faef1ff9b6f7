"""The one place that talks HTTP to an upstream: credentials, TLS, deadline, size cap, retry, counting, error texts."""

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from exporter import __version__
from exporter.model import RateLimit, Retirement
from exporter.sources.base import CountRequest, SourceConfig, SourceError, StatusError
from exporter.sources.credentials import Credentials, read_credentials

T = TypeVar("T")

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
_MAX_VALUES: Final = 500_000
"""Most values in the JSON of an answer, about: while they are checked, and where the contract is broken, one takes some
hundred bytes. A page of Prefect's has less than a tenth of it."""
_MAX_ERROR_BYTES: Final = 64 * 1024
"""What of an error's body is read: its status says more than the rest would."""
_KEEPALIVE_SECONDS: Final = 4.0
"""Less than the 5 s after which a Prefect server closes an idle connection."""

# The connection broke while it was in use: most likely the server had closed it just before. Every request here only
# reads, so it may be sent again.
_CONNECTION_BROKE = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer with status 200: its content, its rate-limit headers, and its Date, to the second."""

    content: T
    rate_limit: RateLimit | None
    date: datetime | None


class Client:
    """Requests to one upstream, over connections that are kept.

    `request_timeout` is the seconds that one request may take from its start to the last byte of the answer. `explain`
    finds in the JSON of an error's body what upstream says about it. `tokens` are headers that upstream has handed
    out, to be sent with every request.
    """

    def __init__(
        self,
        config: SourceConfig,
        *,
        request_timeout: float,
        explain: Callable[[Any], str | None],
        count_request: CountRequest,
    ) -> None:
        self.tokens: dict[str, str] = {}
        self._config = config
        self._request_timeout = request_timeout
        self._explain = explain
        self._count_request = count_request
        # To load what the system trusts takes 45 ms and a megabyte: not for what is not encrypted.
        tls, proxy = config.tls_config, config.proxy_url or ""
        self._tls = tls.context_of_server() if config.url.startswith("https:") else None
        self._proxy_tls = tls.context() if proxy.startswith("https:") else None
        self._http = self._new_connections()
        self._running = 0
        """How many requests are on their way: as many as are sent, which is bounded by those who send them."""
        self._cancelled = False
        """Whether a request was cancelled since these connections are in use."""

    def _new_connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            # Uncompressed, so that the cap on an answer's bytes holds before anything is unpacked, and because
            # compressing costs the server, whose one process is the bottleneck.
            headers={"Accept-Encoding": "identity", "User-Agent": f"concurrency-exporter/{__version__}"},
            verify=self._tls or False,
            proxy=self._proxy(),
            # Each request has one deadline for all of its phases, below.
            timeout=None,  # noqa: S113
            # A limit of connections would count those that `_connections` tells of, and then wait for ever.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=_KEEPALIVE_SECONDS),
            follow_redirects=False,
            # None is kept: a broken upstream could send a new one with every answer.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
        )

    def _proxy(self) -> httpx.Proxy | None:
        """The proxy, which is trusted as upstream is: httpx would ask other authorities of its own choice."""
        if not (url := self._config.proxy_url):
            return None
        return httpx.Proxy(url, ssl_context=self._proxy_tls)

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

    async def get(self, endpoint: str, contract: TypeAdapter[T], **query: str) -> "Answer[T]":
        """The answer to GET `endpoint`, as `contract` validates it."""
        return await self._request("GET", endpoint, contract, query=query)

    async def post(self, endpoint: str, contract: TypeAdapter[T], body: Mapping[str, Any], **path: str) -> "Answer[T]":
        """The answer to POST `endpoint` with the JSON `body`. `{name}` in `endpoint` is filled in from `path`."""
        return await self._request("POST", endpoint, contract, path=path, body=body)

    async def _request(
        self,
        method: str,
        endpoint: str,
        contract: TypeAdapter[T],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> "Answer[T]":
        """One request, checked; the border at which foreign errors become ours.

        Raises `SourceError` with any reason but `internal`.
        """
        filled = endpoint.format(**{name: _segment(value) for name, value in (path or {}).items()})
        url = f"{self._config.url}{filled}"
        credentials = read_credentials(self._config).with_tokens(self.tokens)
        exchange = _Exchange(endpoint, f"{method} {url}", credentials)
        try:
            return await self._ask(exchange, contract, method, url, params=query or None, json=body)
        except SourceError as error:
            error.request_id = exchange.request_id
            raise

    async def _ask(
        self, exchange: "_Exchange", contract: TypeAdapter[T], method: str, url: str, **content: Any
    ) -> "Answer[T]":
        what, credentials = exchange.what, exchange.credentials
        http = await self._connections()
        request = http.build_request(method, url, headers=credentials.headers, **content)
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
            raise SourceError("http_status", f"{what}: redirected to what is no address") from None
        rate_limit = _rate_limit(response.headers)
        if response.status_code != HTTPStatus.OK:
            raise _refused(what, response, self._detail(body), credentials, rate_limit)
        if sum(body.count(before) for before in (b",", b"[", b"{")) > _MAX_VALUES:
            raise SourceError("too_large", f"{what}: the answer has more than {_MAX_VALUES:,} values")
        try:
            return Answer(contract.validate_json(body), rate_limit, _date(response.headers.get("Date")))
        except ValidationError as error:
            raise SourceError("contract", f"{what}: {_breach(error, response, credentials)}") from None

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
                    raise SourceError("contract", f"{what}: the answer is compressed, which was not asked for")
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

    def _detail(self, content: bytes) -> str:
        """What the body of an error says, in upstream's own words."""
        try:
            return self._explain(_ANY.validate_json(content)) or ""
        except ValidationError:
            return ""


@dataclass(slots=True)
class _Exchange:
    """One request in words, and the id of the last answer to it, which may have come without its body."""

    endpoint: str
    what: str
    credentials: Credentials
    request_id: str = ""


def _segment(name: str) -> str:
    """A name as one segment of a path; those of dots alone would be taken for steps in it."""
    return name.replace(".", "%2E") if name in {".", ".."} else quote(name, safe="")


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
    text = credentials.quote(str(error).partition(": bytearray(")[0]) or type(error).__name__
    if isinstance(error, httpx.LocalProtocolError):
        # Only its type: h11 quotes the header that it refuses, and that may be the one with the credentials.
        text = type(error).__name__
    return SourceError("connect", f"{what}: {text}")


def _refused(
    what: str, response: httpx.Response, detail: str, credentials: Credentials, rate_limit: RateLimit | None
) -> StatusError:
    """An answer whose status is not 200."""
    status = response.status_code
    message = f"{what}: {status} {credentials.quote(response.reason_phrase)}".rstrip()
    if response.has_redirect_location:
        message += f", redirected to {credentials.quote(response.headers['Location'])}; set url to where the API is"
    if detail:
        message += f": {credentials.quote(detail)}"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        message += "; check authorization or basic_auth of the source"
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


def _breach(error: ValidationError, response: httpx.Response, credentials: Credentials) -> str:
    """What in the answer breaks the contract, by field and without the values, which are not ours to print."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        media_type = credentials.quote(response.headers.get("Content-Type", "no Content-Type"))
        if "json" in media_type:
            return f"{first['msg']}; its Content-Type is {media_type}"
        return f"the answer is not JSON but {media_type}; is url the address of the API?"
    field = ".".join(str(part) for part in first["loc"]) or "the answer"
    more = f" (and {len(others)} more)" if others else ""
    # Some of pydantic's words quote the character that they do not expect.
    return f"contract broken at {field}: {credentials.quote(first['msg'])}{more}"


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
    word = re.sub(r"[^!-'*-~]", "", credentials.quote(headers.get("X-Request-ID", "")))
    # What was dropped may have stood within a secret.
    return credentials.quote(word).removesuffix("…")


def _retirement(response: httpx.Response, credentials: Credentials) -> Retirement | None:
    """What the headers `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) announce; what is no date counts as absent."""
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
    return Retirement(deprecation, sunset, credentials.quote(next(links, "")))


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
    try:
        when = parsedate_to_datetime(header or "")
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
