"""Requests to an upstream's API: who asks, what is asked, and answers that keep their contract."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from exporter.model import RateLimit
from exporter.sources.base import CountRequest, SourceConfig, SourceError, StatusError
from exporter.sources.credentials import Credentials, read_credentials
from exporter.sources.login import Login
from exporter.sources.oauth2 import TokenSource
from exporter.sources.transport import Fetched, Transport
from exporter.threads import Reader

T = TypeVar("T")

_MAX_VALUES: Final = 500_000
"""Most values in the JSON of an answer, about: while they are checked, and where the contract is broken, one takes some
hundred bytes. A page of Prefect's has less than a tenth of it."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer with status 200: its content, its rate-limit headers, and its Date, to the second."""

    content: T
    rate_limit: RateLimit | None
    date: datetime | None


class Client:
    """Requests to one upstream.

    `request_timeout` is the seconds that one request may take from its start to the last byte of the answer. `explain`
    finds in the JSON of an error's body what upstream says about it. `login` is what upstream hands out itself.
    """

    def __init__(
        self,
        config: SourceConfig,
        *,
        request_timeout: float,
        explain: Callable[[Any], str | None],
        count_request: CountRequest,
        login: Login | None = None,
    ) -> None:
        self._config = config
        self._transport = Transport(
            config.url,
            config,
            request_timeout=request_timeout,
            explain=explain,
            hint=f"check {_places(config)} of the source",
            count_request=count_request,
        )
        token_source = (
            TokenSource(config.oauth2, request_timeout=request_timeout, count_request=count_request)
            if config.oauth2
            else None
        )
        self._logins = tuple(one for one in (token_source, login) if one)
        """Outermost first: to renew one, those before it are needed."""
        self._files = Reader(partial(read_credentials, config))
        self._credentials: Credentials | None = None

    async def read_credentials(self) -> Credentials:
        """Read the files with credentials, for all requests until the next call: a poll begins with it.

        Raises `SourceError`, `auth`.
        """
        self._credentials = await self._files.read()
        return self._credentials

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()
        for login in self._logins:
            await login.close()

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
        logins: tuple[Login, ...] | None = None,
    ) -> "Answer[T]":
        """One request with what the `logins` hold (all of them if None), checked.

        Raises `SourceError` with any reason but `internal`.
        """
        filled = endpoint.format(**{name: _segment(value) for name, value in (path or {}).items()})
        url = f"{self._config.url}{filled}"
        send = partial(self._transport.fetch, method, url, endpoint, params=query or None, json=body)
        sent = self._credentials or await self.read_credentials()
        fetched = await self._logged_in(send, sent, self._logins if logins is None else logins)
        try:
            return _checked(contract, fetched, f"{method} {url}")
        except SourceError as error:
            error.request_id = fetched.request_id
            raise

    async def _logged_in(
        self, send: Callable[[Credentials], Awaitable[Fetched]], sent: Credentials, logins: tuple[Login, ...]
    ) -> Fetched:
        """Send with what the logins hold, and once more with what was renewed where the answer asks for it."""
        if not logins:
            return await send(sent)
        *outer, login = logins
        before = tuple(outer)
        ask = partial(self._request, logins=before)
        held = login.held
        if held is None:
            return await self._logged_in(send, sent + await login.renewed(None, ask), before)
        try:
            return await self._logged_in(send, sent + held, before)
        except StatusError as error:
            if not login.is_asked_for_by(error):
                raise
        return await self._logged_in(send, sent + await login.renewed(held, ask), before)


def _places(config: SourceConfig) -> str:
    """Name the settings whose credentials may be wrong."""
    if config.oauth2:
        return "oauth2 and http_headers" if config.http_headers else "oauth2"
    return "authorization, basic_auth and http_headers" if config.http_headers else "authorization or basic_auth"


def _segment(name: str) -> str:
    """A name as one segment of a path; those of dots alone would be taken for steps in it."""
    return name.replace(".", "%2E") if name in {".", ".."} else quote(name, safe="")


def _checked(contract: TypeAdapter[T], fetched: Fetched, what: str) -> Answer[T]:
    """The answer, if it keeps the contract. Raises `SourceError`, `too_large` or `contract`."""
    if sum(fetched.body.count(before) for before in (b",", b"[", b"{")) > _MAX_VALUES:
        raise SourceError("too_large", f"{what}: the answer has more than {_MAX_VALUES:,} values")
    try:
        return Answer(contract.validate_json(fetched.body), fetched.rate_limit, fetched.date)
    except ValidationError as error:
        raise SourceError("contract", f"{what}: {_breach(error, fetched)}") from None


def _breach(error: ValidationError, fetched: Fetched) -> str:
    """Describe what breaks the contract, by field and without the values, which are not ours to print."""
    credentials = fetched.sent
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        media_type = credentials.redact(fetched.headers.get("Content-Type", "no Content-Type"))
        if "json" in media_type:
            return f"{first['msg']}; its Content-Type is {media_type}"
        return f"the answer is not JSON but {media_type}; is url the address of the API?"
    field = ".".join(str(part) for part in first["loc"]) or "the answer"
    more = f" (and {len(others)} more)" if others else ""
    # Some of pydantic's words quote the character that they do not expect.
    return f"contract broken at {field}: {credentials.redact(first['msg'])}{more}"
