"""OAuth 2.0 client credentials (RFC 6749, 4.4): a token that is asked for, sent, and renewed.

oauthlib writes the request and reads the answer. It does no I/O, so that the deadline, the cap on bytes, the counting
and the rules for secrets are those of every other request.
"""

import asyncio
import base64
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import quote_plus, urlencode

from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error
from pydantic import Field, TypeAdapter

from exporter.sources.base import Contract, CountRequest, SourceError, StatusError
from exporter.sources.credentials import Credentials, read_secret
from exporter.sources.http_config import OAuth2
from exporter.sources.login import Ask, Login
from exporter.sources.transport import Fetched, Transport
from exporter.threads import Reader

ENDPOINT: Final = "token_url"
"""What requests for a token count as."""
_EARLY: Final = 10.0
"""Seconds before its end at which a token is renewed: it has to last until the answer has begun. Go has the same."""
_MAX_BYTES: Final = 64 * 1024
"""Largest answer that is read for a token, which has to fit into a header: where all of 16 MiB are values of JSON, they
take gigabytes."""
_HINT: Final = "check oauth2 of the source"
_REFUSED: Final = frozenset({400, 401, 403})
"""Statuses by which servers refuse a client."""


class TokenSource(Login):
    """The token of an `oauth2` configuration."""

    def __init__(self, config: OAuth2, *, request_timeout: float, count_request: CountRequest) -> None:
        super().__init__()
        self._config = config
        self._transport = Transport(
            config.token_url,
            config,
            request_timeout=request_timeout,
            explain=_explain,
            hint=_HINT,
            count_request=count_request,
        )
        self._secret = Reader(
            partial(
                read_secret, "oauth2.client_secret", config.client_secret, config.client_secret_file, must_fit=False
            )
        )
        self._credentials: Credentials | None = None
        self._ends: float | None = None
        self._in_header: bool | None = None
        """Whether the server accepts the secret in the header, as it should, or in the form; None until one was."""

    @property
    def held(self) -> Credentials | None:
        """The header with the token, unless it has none or is about to expire."""
        expired = self._ends is not None and asyncio.get_running_loop().time() >= self._ends
        return None if expired else self._credentials

    def is_asked_for_by(self, error: StatusError) -> bool:
        """401."""
        return error.status == 401

    async def renew(self, ask: Ask) -> Credentials:  # noqa: ARG002  it is not the API that is asked
        """Ask for a token."""
        started = asyncio.get_running_loop().time()
        # One that was refused or has expired is not to be sent again, whatever comes of this.
        self._credentials = None
        try:
            fetched = await self._ask()
        except StatusError as error:
            raise _ours(error) from None
        header, token, seconds = self._parsed(fetched)
        self._ends = None if seconds is None else started + seconds - min(_EARLY, seconds / 2)
        self._credentials = Credentials((("Authorization", header),), (token,))
        return self._credentials

    async def close(self) -> None:
        """Close the connections to the token endpoint."""
        await self._transport.close()

    async def _ask(self) -> Fetched:
        """The answer to a request for a token, by the way of sending the secret that this server accepts."""
        secret = await self._secret.read()
        if self._in_header is not None:
            return await self._post(secret, in_header=self._in_header)
        try:
            fetched = await self._post(secret, in_header=True)
            self._in_header = True
        except StatusError as error:
            if error.status not in _REFUSED:
                raise
            try:
                fetched = await self._post(secret, in_header=False)
            except StatusError:
                raise error from None
            self._in_header = False
        return fetched

    async def _post(self, secret: str, *, in_header: bool) -> Fetched:
        config, headers = self._config, [("Content-Type", "application/x-www-form-urlencoded")]
        both = f"{quote_plus(config.client_id)}:{quote_plus(secret)}"
        encoded = base64.b64encode(both.encode()).decode()
        parameters = urlencode(config.endpoint_params)
        if in_header:
            headers.append(("Authorization", f"Basic {encoded}"))
            form = _client(config).prepare_request_body(parameters, list(config.scopes))
        else:
            form = _client(config).prepare_request_body(
                parameters, list(config.scopes), include_client_id=True, client_secret=secret
            )
        credentials = Credentials(tuple(headers), (secret, quote_plus(secret), encoded))
        return await self._transport.fetch("POST", config.token_url, ENDPOINT, credentials, content=form.encode())

    def _parsed(self, fetched: Fetched) -> tuple[str, str, float | None]:
        """The header that carries the token, the token, and the seconds that it lasts. Raises `SourceError`."""
        what = f"POST {self._config.token_url.partition('?')[0]}"
        if len(fetched.body) > _MAX_BYTES:
            error = SourceError("too_large", f"{what}: the answer is larger than {_MAX_BYTES >> 10} KiB")
            error.request_id = fetched.request_id
            raise error
        try:
            token = _client(self._config).parse_request_body_response(fetched.body.decode())
            answer = _TOKEN.validate_python(dict(token))
        except (OAuth2Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            # oauthlib takes it for granted that the answer is an object, and its values of the right types and finite.
            error = SourceError("contract", f"{what}: the answer is not a token; is token_url the token endpoint?")
            error.request_id = fetched.request_id
            raise error from None
        kind = "Bearer" if answer.token_type.lower() == "bearer" else answer.token_type
        return f"{kind} {answer.access_token}", answer.access_token, answer.expires_in


class _Token(Contract):
    """A token as oauthlib hands it on. Not all servers name its type, which is then Bearer.

    It leaves out an `expires_in` of 0, which means, as in Go, that the token does not expire.
    """

    access_token: Annotated[str, Field(pattern=r"^[!-~]+$")]
    token_type: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] = "Bearer"  # noqa: S105
    expires_in: Annotated[float, Field(gt=0, le=1e12)] | None = None


_TOKEN: Final = TypeAdapter(_Token)


def _client(config: OAuth2) -> BackendApplicationClient:
    return BackendApplicationClient(config.client_id)


def _ours(error: StatusError) -> SourceError:
    """The same as an error that no caller takes for an answer of the API."""
    if error.reason == "rate_limited":
        return error
    message: str = error.args[0]
    if error.status in _REFUSED:
        ours = SourceError("auth", message if _HINT in message else f"{message}; {_HINT}")
    else:
        ours = SourceError("http_status", message)
    ours.request_id = error.request_id
    return ours


def _explain(body: Any) -> str | None:
    """The code and the description of an error (RFC 6749, 5.2)."""
    match body:
        case {"error": str(code), "error_description": str(description)}:
            return f"{code}: {description}"
        case {"error": str(code)}:
            return code
    return None
