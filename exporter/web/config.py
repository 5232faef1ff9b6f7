"""`--web.config.file`: TLS, passwords, headers and a rate limit for what is served.

The format is that of the Prometheus exporter toolkit, see docs/web-configuration.md there.
"""

import math
import re
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Protocol, Self

import bcrypt
import structlog
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.clock import Clock
from exporter.settings.base import BlankIsAbsent
from exporter.settings.files import Stamps, stamps
from exporter.settings.reader import ConfigError, read
from exporter.web.tls import TlsServerConfig, current_context

log = structlog.get_logger()

_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that can be set, and their values where only some are good."""
_RETRY_SECONDS: Final = 10.0
"""How long after a reading that failed the next one comes, although nothing has changed."""
_UNITS: Final = {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "h": 3600, "m": 60, "s": 1}


def _header_value(value: object) -> object:
    """YAML takes the 1 of X-XSS-Protection for a number; a header without a value is not set."""
    return str(value or "") if value is None or type(value) is int else value


class HttpServerConfig(BlankIsAbsent):
    """`http_server_config`."""

    http2: bool = True
    """Accepted because the toolkit has it; the exporter speaks HTTP/1.1 only."""
    headers: dict[str, Annotated[str, BeforeValidator(_header_value)]] = Field(default_factory=dict)
    """Headers that are added to answers without them: `Content-Security-Policy`, `Strict-Transport-Security`,
    `X-Content-Type-Options`, `X-Frame-Options`, `X-XSS-Protection`."""

    @model_validator(mode="after")
    def _known_headers(self) -> Self:
        for name, value in self.headers.items():
            if name not in _HEADERS:
                raise ValueError(f"headers: {name} can't be set; it is one of {', '.join(_HEADERS)}")
            if value and _HEADERS[name] and value not in _HEADERS[name]:
                raise ValueError(f"headers: {name} is not one of {', '.join(_HEADERS[name])}")
            if not re.fullmatch(r"[\x20-\x7e]*", value):
                raise ValueError(f"headers: {name} has a character that no header can carry")
        return self


def _go_seconds(value: object) -> float:
    """Seconds from a duration as Go writes it, such as 1s, 1.5h or 1m30s; the toolkit has no other kind."""
    if str(value) == "0":
        return 0.0
    number_and_unit = rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_UNITS)})"
    if not (isinstance(value, str) and re.fullmatch(f"(?:{number_and_unit})+", value)):
        raise ValueError("is not a duration; write it like 1s, 500ms or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(number_and_unit, value))


class RateLimit(BlankIsAbsent):
    """`rate_limit`: a token bucket for all requests together."""

    interval: Annotated[float, BeforeValidator(_go_seconds)] = 0.0
    """Time after which one more request is allowed; 0 means no limit."""
    burst: int = Field(default=0, ge=0)
    """How many requests may arrive at once."""

    @model_validator(mode="after")
    def _lets_some_in(self) -> Self:
        if self.interval and not self.burst:
            raise ValueError("burst is 0, which lets no request in; set it to 1 or more")
        return self


def _bcrypt_hash(value: SecretStr) -> SecretStr:
    if not _is_bcrypt_hash(value.get_secret_value()):
        raise ValueError("is not a bcrypt hash; make one with htpasswd -nBC 10")
    return value


def _is_bcrypt_hash(text: str) -> bool:
    parts = re.fullmatch(r"(\$2[abxy]\$)(?:0[4-9]|[12]\d|3[01])(\$[./A-Za-z0-9]{53})", text)
    if not parts:
        return False
    try:
        # Not all characters make a salt. The least cost is enough to see it.
        bcrypt.checkpw(b"", f"{parts[1]}04{parts[2]}".encode())
    except ValueError:
        return False
    return True


class WebConfig(BlankIsAbsent):
    """Everything that the file says."""

    tls_server_config: TlsServerConfig = TlsServerConfig()
    """TLS settings. Without them, the exporter serves plain HTTP."""
    http_server_config: HttpServerConfig = HttpServerConfig()
    """HTTP settings."""
    basic_auth_users: dict[str, Annotated[SecretStr, AfterValidator(_bcrypt_hash)]] = Field(default_factory=dict)
    """User names and the bcrypt hashes of their passwords. Without any, no password is required."""
    rate_limit: RateLimit = RateLimit()
    """Rate limit of all requests to the exporter together."""


def load(path: Path, files: set[Path] | None = None) -> WebConfig:
    """Read the file, which may be empty. Raises `ConfigError` with all of its mistakes.

    The files that it names are added to `files`, also those that can't be used.
    """
    return read(
        path,
        WebConfig,
        if_empty="has none of the keys of a web configuration; see docs/configuration.md",
        may_be_empty=True,
        files=files,
    )


class WasRead(Protocol):
    """Called when the file was read again, with whether it can be used."""

    def __call__(self, *, success: bool) -> None: ...  # noqa: D102


class LiveWebConfig:
    """The file as it is now: it is read again when it, or a file that it names, has changed.

    A file that is wrong changes nothing: what it said before stays in use, and the mistakes are logged. It is read
    again when something changes, or some seconds later: there may have been no file descriptor left to read it with.
    Not at once: that would cost time for every request and handshake.
    Whether TLS is spoken at all is decided at the start. `was_read` is called after every reading but the first.
    """

    def __init__(self, path: Path, was_read: WasRead, clock: Clock) -> None:
        """Read the file for the first time. Raises `ConfigError` with all of its mistakes."""
        self._path = path
        self._was_read = was_read
        self._clock = clock
        self._again = math.inf
        """When to read it again although nothing has changed, by the monotonic clock."""
        self._logged: list[str] = []
        self._seen = _files(path)
        self._config = load(path)

    def refresh(self) -> WebConfig:
        """Read the file again if it has changed, and return what it says: the cost is a `stat` of each file."""
        changed = stamps(self._seen) != self._seen
        if changed or self._clock.monotonic() >= self._again:
            try:
                self.read()
            except ConfigError as error:
                write = log.error if changed or error.mistakes != self._logged else log.debug
                write("web configuration not reloaded; the old one stays", mistakes=error.mistakes)
                self._logged = error.mistakes
            else:
                log.info("web configuration reloaded")
        return self._config

    def read(self) -> None:
        """Use what the file says from now on. Raises `ConfigError` with all of its mistakes, and changes nothing."""
        good = False
        try:
            self._seen = _files(self._path)
            config = load(self._path)
            if config.tls_server_config.is_enabled != self._config.tls_server_config.is_enabled:
                raise ConfigError([f"{self._path}: tls_server_config came or went, which takes a restart"])
            if self._config.model_fields_set and not config.model_fields_set:
                # Whoever writes a file may empty it first. To let everybody in, it can say `basic_auth_users: {}`.
                raise ConfigError([f"{self._path}: is empty, which would let everybody in"])
            self._config = config
            good = True
        finally:
            self._again = math.inf if good else self._clock.monotonic() + _RETRY_SECONDS
            self._was_read(success=good)

    def tls(self) -> ssl.SSLContext | None:
        """A context that serves each connection by what the file says when it comes; None for plain HTTP."""
        return current_context(self._context) if self._config.tls_server_config.is_enabled else None

    def _context(self) -> ssl.SSLContext:
        context = self.refresh().tls_server_config.context
        if context is None:
            raise RuntimeError("TLS was not configured when the exporter started")
        return context


def _files(path: Path) -> Stamps:
    """Stamps of the file and of those that it names, good or bad, to be taken before it is read.

    They are then older than what is read: a file that changes meanwhile is seen to have changed, and read again. Which
    files there are is known only when it has been read, so that is done twice.
    """
    files = {path}
    with suppress(ConfigError):  # the reading that counts says so
        load(path, files)
    return stamps(files)
