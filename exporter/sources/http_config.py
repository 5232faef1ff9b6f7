"""The parts that the configurations of sources are made of: durations, credentials, headers, OAuth 2.0."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.settings.base import FrozenDict, Settings
from exporter.settings.files import ExistingFile
from exporter.sources.connection import Connection, HeaderSecret, check_carried, check_name, check_url, in_lower_case

_DURATION = re.compile(
    r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?"
    r"(?:(?P<milliseconds>\d+)ms)?"
)
_LONGEST = timedelta(days=365)


def _seconds(value: object) -> float:
    """Seconds from a duration as Prometheus writes it; raises `ValueError` for anything else, and for 0."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match or not match[0]:
        raise ValueError("is not a duration; write it like 30s, 5m or 1h30m")
    try:
        duration = timedelta(**{unit: int(number) for unit, number in match.groupdict("0").items()})
    except (OverflowError, ValueError):  # more days, or more digits, than Python can count
        duration = timedelta.max
    if not duration:
        raise ValueError("is 0; a duration has to be longer")
    if duration > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST.days} days")
    return duration.total_seconds()


def _scheme(value: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]*", value):
        raise ValueError("is not the name of a scheme, like Bearer")
    return value


def _carried(value: str) -> str:
    check_carried(value)
    return value


def _carried_file(path: Path) -> Path:
    try:
        check_carried(read_file(path))
    except OSError as error:
        raise ValueError(f"can't read the file {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    return path


def read_file(path: Path) -> str:
    """Return a file's content, stripped of white space. Raises `OSError`, and `ValueError` if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


_RESERVED: Final = frozenset(
    {
        # Those of Prometheus.
        *("authorization", "host", "content-encoding", "content-length", "content-type", "user-agent", "connection"),
        *("keep-alive", "proxy-authenticate", "proxy-authorization", "www-authenticate", "accept-encoding"),
        *("x-prometheus-remote-write-version", "x-prometheus-remote-read-version"),
        *("x-prometheus-scrape-timeout-seconds", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"),
        # They would change how a request is framed or answered, or are the client's own.
        *("expect", "te", "trailer", "transfer-encoding", "upgrade", "prefect-csrf-token", "prefect-csrf-client"),
    }
)


def _header_name(name: str) -> str:
    check_name(name)
    if name.lower() in _RESERVED:
        raise ValueError("is a header that can't be set here")
    return name


Seconds = Annotated[float, BeforeValidator(_seconds)]
HeaderValue = Annotated[str, AfterValidator(_carried)]
HeaderFile = Annotated[ExistingFile, AfterValidator(_carried_file)]


class Authorization(Settings):
    """`authorization`, as in Prometheus."""

    type: Annotated[str, AfterValidator(_scheme)] = "Bearer"
    """Scheme of the `Authorization` header."""
    credentials: HeaderSecret | None = None
    """The credentials, inline."""
    credentials_file: HeaderFile | None = None
    """File with the credentials, read again at every poll."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.credentials is None) == (self.credentials_file is None):
            raise ValueError("set one of credentials and credentials_file")
        return self


def _user_name(value: str) -> str:
    if ":" in value:
        raise ValueError("has a colon, which would end the user name")
    return value


class BasicAuth(Settings):
    """`basic_auth`, as in Prometheus."""

    username: Annotated[str, AfterValidator(_user_name)]
    """User name."""
    password: SecretStr | None = None
    """Password; it may be empty."""
    password_file: ExistingFile | None = None
    """File with the password, read again at every poll."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("set one of password and password_file")
        return self


class HttpHeader(Settings):
    """One of `http_headers`, as in Prometheus: the header is sent once with each of these."""

    values: tuple[HeaderValue, ...] = Field(default=(), strict=False)
    """Values that may be shown."""
    secrets: tuple[HeaderSecret, ...] = Field(default=(), strict=False)
    """Values that are never shown."""
    files: tuple[HeaderFile, ...] = Field(default=(), strict=False)
    """Files with secret values, read again at every poll."""

    @model_validator(mode="after")
    def _has_a_value(self) -> Self:
        if not (self.values or self.secrets or self.files):
            raise ValueError("has no value; set values, secrets or files")
        return self


def _each_once(headers: dict[str, HttpHeader]) -> FrozenDict[HttpHeader]:
    names = [name.lower() for name in headers]
    if twice := [name for name in headers if names.count(name.lower()) > 1]:
        raise ValueError(f"has {' and '.join(twice)}, which are one header")
    return FrozenDict(headers)


HttpHeaders = Annotated[dict[Annotated[str, AfterValidator(_header_name)], HttpHeader], AfterValidator(_each_once)]
NO_HEADERS: Final[FrozenDict[HttpHeader]] = FrozenDict()


def _further(parameters: dict[str, str]) -> FrozenDict[str]:
    for name in ("grant_type", "client_id", "client_secret", "scope"):
        if name in parameters:
            raise ValueError(f"has {name}, which is set by itself")
    return FrozenDict(parameters)


EndpointParams = Annotated[dict[str, str], AfterValidator(_further)]
NO_PARAMS: Final[FrozenDict[str]] = FrozenDict()


def _token_url(value: str) -> str:
    return in_lower_case(check_url(value))


class OAuth2(Connection):
    """`oauth2`, as in Prometheus: the grant is that of client credentials (RFC 6749, 4.4)."""

    client_id: str = Field(min_length=1)
    """Client id."""
    client_secret: SecretStr | None = None
    """Client secret, inline."""
    client_secret_file: ExistingFile | None = None
    """File with the client secret, read again for each token request."""
    scopes: tuple[str, ...] = Field(default=(), strict=False)
    """Scopes of the token."""
    token_url: Annotated[str, AfterValidator(_token_url)]
    """Address of the token endpoint."""
    endpoint_params: EndpointParams = NO_PARAMS
    """Additional parameters of the token request."""

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.client_secret is not None and self.client_secret_file:
            raise ValueError("set one of client_secret and client_secret_file")
        return self
