"""`--web.config.file`: TLS, passwords, headers and a rate limit for what is served.

The format is that of the Prometheus exporter toolkit, see docs/web-configuration.md there.
"""

import asyncio
import base64
import binascii
import hashlib
import os
import re
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Self

import bcrypt
import structlog
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.clock import Clock
from exporter.settings_file import ConfigError, read
from exporter.sources.settings import ExistingFile, Seconds, Settings

log = structlog.get_logger()

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_CIPHERS: Final = {
    f"TLS_ECDHE_{key}_WITH_{name}": f"ECDHE-{key}-{openssl}"
    for key in ("ECDSA", "RSA")
    for name, openssl in {
        "AES_128_CBC_SHA": "AES128-SHA",
        "AES_256_CBC_SHA": "AES256-SHA",
        "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
        "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
        "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
    }.items()
}
"""The names of Go's tls.CipherSuites() that TLS 1.2 has, and OpenSSL's names for them."""
_CIPHERS_OF_TLS13: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that can be set, and their values where only some are good."""
_SHOWN_PASSWORD_BYTES: Final = 72
"""bcrypt looks at no more bytes of a password."""
_REMEMBERED: Final = 100
"""How many verified passwords are remembered."""


def _one_of(*words: str, not_here: tuple[str, ...] = ()) -> AfterValidator:
    def check(value: str) -> str:
        if value in not_here:
            raise ValueError(f"can't be {value}, which Python has not; use {', '.join(words)}")
        if value not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return value

    return AfterValidator(check)


_Version = Annotated[str, _one_of(*_VERSIONS, not_here=("TLS10", "TLS11"))]
_ClientAuth = Annotated[
    str, _one_of(*_CLIENT_AUTH, not_here=("RequestClientCert", "RequireClientCert", "RequireAnyClientCert"))
]


class TlsServerConfig(Settings):
    """`tls_server_config`."""

    cert_file: ExistingFile | None = None
    """Certificate of the exporter, in PEM. It and its key are read again when they change."""
    key_file: ExistingFile | None = None
    """Private key of `cert_file`."""
    cert: str | None = None
    """The certificate itself, instead of `cert_file`."""
    key: SecretStr | None = None
    """The private key itself, instead of `key_file`."""
    client_auth_type: _ClientAuth = "NoClientCert"
    """What is asked of clients: `NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`."""
    client_ca_file: ExistingFile | None = None
    """Certificates that clients' certificates have to be signed by."""
    client_ca: str | None = None
    """The same itself, instead of `client_ca_file`."""
    client_allowed_sans: tuple[str, ...] = Field(default=(), strict=False)
    """Names of which a client's certificate has to have one: DNS, IP, e-mail or URI."""
    min_version: _Version = "TLS12"
    """Least version: `TLS12` or `TLS13`."""
    max_version: _Version = "TLS13"
    """Greatest version."""
    cipher_suites: tuple[Annotated[str, _one_of(*_CIPHERS, *_CIPHERS_OF_TLS13)], ...] = Field(default=(), strict=False)
    """Cipher suites of TLS 1.2, by the names that Go has for them. Those of TLS 1.3 are not chosen."""
    prefer_server_cipher_suites: bool = True
    """Whether the order of the suites is the server's."""
    curve_preferences: tuple[Annotated[str, _one_of(*_CURVES)], ...] = Field(default=(), max_length=1, strict=False)
    """The one elliptic curve to use: `CurveP256`, `CurveP384`, `CurveP521` or `X25519`."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        for name in ("cert", "key", "client_ca"):
            if getattr(self, name) and getattr(self, f"{name}_file"):
                raise ValueError(f"set one of {name} and {name}_file")
        if not self.is_enabled:
            return self
        for name in ("cert", "key"):
            if not (getattr(self, name) or getattr(self, f"{name}_file")):
                raise ValueError(f"has no {name}_file, which TLS needs")
        if bool(self.client_ca or self.client_ca_file) != (self.client_auth_type != "NoClientCert"):
            raise ValueError("client_auth_type and client_ca_file are set together, or not at all")
        if self.client_allowed_sans and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError("client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        self.context()
        return self

    @property
    def is_enabled(self) -> bool:
        """Whether anything is set that asks for TLS."""
        files = (self.cert_file, self.key_file, self.client_ca_file)
        texts = (self.cert, self.key, self.client_ca)
        return any((*files, *texts, self.client_auth_type != "NoClientCert"))

    def context(self) -> ssl.SSLContext:
        """The settings as the standard library has them. Raises `ValueError` where the files can't be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        context.minimum_version, context.maximum_version = _VERSIONS[self.min_version], _VERSIONS[self.max_version]
        if ciphers := [_CIPHERS[name] for name in self.cipher_suites if name in _CIPHERS]:
            context.set_ciphers(":".join(ciphers))
        elif self.cipher_suites:  # none that TLS 1.2 could use
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        if not self.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        for curve in self.curve_preferences:
            context.set_ecdh_curve(_CURVES[curve])
        key = self.key.get_secret_value() if self.key else None
        try:
            with _as_file(self.cert, self.cert_file) as certificate, _as_file(key, self.key_file) as private:
                # Without a password, OpenSSL would ask the terminal for that of an encrypted key, and wait.
                context.load_cert_chain(certificate, private, password="")
        except (ssl.SSLError, OSError):
            raise ValueError(
                f"cert_file {self.cert_file or '(inline)'} and key_file {self.key_file or '(inline)'} are not a"
                " certificate and its key in PEM, the key without a passphrase"
            ) from None
        context.verify_mode = _CLIENT_AUTH[self.client_auth_type]
        if self.client_auth_type != "NoClientCert":
            try:
                context.load_verify_locations(self.client_ca_file, cadata=self.client_ca)
            except (ssl.SSLError, OSError):
                raise ValueError(
                    f"client_ca_file {self.client_ca_file or '(inline)'} has no certificate in PEM"
                ) from None
        if self.client_allowed_sans:
            context.sslobject_class = _only_from(frozenset(self.client_allowed_sans))
        return context


@contextmanager
def _as_file(text: str | None, path: Path | None) -> Iterator[str]:
    """A path under which `text` can be read, which is never on a disk; or `path`. Raises `OSError`."""
    if text is None:
        yield str(path)
        return
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _only_from(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    class OnlyFrom(ssl.SSLObject):
        """Ends the handshake of a client whose verified certificate has none of the allowed names."""

        def do_handshake(self) -> None:
            super().do_handshake()
            certificate: dict[str, Any] = self.getpeercert() or {}
            if allowed.isdisjoint(name for _, name in certificate.get("subjectAltName", ())):
                raise ssl.SSLCertVerificationError("the client's certificate has none of client_allowed_sans")

    return OnlyFrom


class HttpServerConfig(Settings):
    """`http_server_config`."""

    http2: bool = True
    """Accepted since the toolkit has it; the exporter speaks HTTP/1.1."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers to add to answers that do not have them: `Content-Security-Policy`, `Strict-Transport-Security`,
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


def _no_limit(value: object) -> object:
    return None if value in {0, "0", "0s"} else value


class RateLimit(Settings):
    """`rate_limit`: a token bucket for all requests together."""

    interval: Annotated[Seconds | None, BeforeValidator(_no_limit)] = None
    """Time in which one more request is allowed; 0 for no limit."""
    burst: int = Field(default=0, ge=0)
    """How many requests may come at once."""


def _bcrypt_hash(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"\$2[abxy]?\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}", value.get_secret_value()):
        raise ValueError("is not a bcrypt hash; make one with htpasswd -nBC 10")
    return value


class WebConfig(Settings):
    """Everything that the file says."""

    tls_server_config: TlsServerConfig = TlsServerConfig()
    """TLS; without it, the exporter serves plain HTTP."""
    http_server_config: HttpServerConfig = HttpServerConfig()
    """How HTTP is spoken."""
    basic_auth_users: dict[str, Annotated[SecretStr, AfterValidator(_bcrypt_hash)]] = Field(default_factory=dict)
    """Users and their passwords, hashed by bcrypt; without any, everybody is let in."""
    rate_limit: RateLimit = RateLimit()
    """How often the exporter may be asked."""


def load(path: Path) -> WebConfig:
    """Read the file. Raises `ConfigError` with all of its mistakes."""
    return read(path, WebConfig, if_empty="has none of the keys of a web configuration; see README")


class LiveWebConfig:
    """The file as it is now: it is read again when it, or a file that it names, has changed.

    A file that is wrong changes nothing: what it said before stays in use, and the mistakes are logged once. Whether
    TLS is spoken at all is decided at the start.
    """

    def __init__(self, path: Path) -> None:
        """Read the file for the first time. Raises `ConfigError` with all of its mistakes."""
        self._path = path
        self._config = load(path)
        self._tls = self._config.tls_server_config.is_enabled
        self._mistakes: list[str] = []
        self._use(self._config)

    def now(self) -> WebConfig:
        """What the file says."""
        if self._stamp() != self._seen:
            try:
                self._use(load(self._path))
            except ConfigError as error:
                if error.mistakes != self._mistakes:
                    self._mistakes = error.mistakes
                    log.error(  # noqa: TRY400  a user's mistake, not a fault
                        "web configuration not reloaded; the old one stays", mistakes=error.mistakes
                    )
            else:
                self._mistakes = []
                log.info("web configuration reloaded")
        return self._config

    def _use(self, config: WebConfig) -> None:
        if config.tls_server_config.is_enabled != self._tls:
            raise ConfigError([f"{self._path}: tls_server_config came or went, which takes a restart"])
        self._context = config.tls_server_config.context() if self._tls else None
        self._config = config
        self._seen = self._stamp()

    def tls(self) -> ssl.SSLContext | None:
        """A context that serves each connection by what the file says when it comes; None for plain HTTP."""
        return _CurrentContext.of(self._current_context) if self._tls else None

    def _current_context(self) -> ssl.SSLContext:
        self.now()
        if self._context is None:
            raise RuntimeError("TLS was not configured when the exporter started")
        return self._context

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        tls = self._config.tls_server_config
        return tuple(_stamp(path) for path in (self._path, tls.cert_file, tls.key_file, tls.client_ca_file) if path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class _CurrentContext(ssl.SSLContext):
    """Hands each connection on to the context of the moment: asyncio takes one context for the life of a server."""

    current: Callable[[], ssl.SSLContext]

    @classmethod
    def of(cls, current: Callable[[], ssl.SSLContext]) -> Self:
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.current = current
        return context

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self.current().wrap_bio(*arguments, **named)


def guarded(application: ASGIApp, web: LiveWebConfig, clock: Clock) -> ASGIApp:
    """The application behind the rate limit, the passwords and the headers of the file."""
    is_known = _passwords()
    may_come = _token_bucket(clock)

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        config = web.now()
        headers = {name: value for name, value in config.http_server_config.headers.items() if value}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                found = MutableHeaders(scope=message)
                for name, value in headers.items():
                    found.setdefault(name, value)
            await send(message)

        if not may_come(config.rate_limit):
            answer: ASGIApp = _refusal(HTTPStatus.TOO_MANY_REQUESTS)
        elif config.basic_auth_users and not await is_known(config.basic_auth_users, Headers(scope=scope)):
            answer = _refusal(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Basic"})
        else:
            answer = application
        await answer(scope, receive, send_with_headers)

    return guard


def _refusal(status: HTTPStatus, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{status.phrase}\n", status, {"X-Content-Type-Options": "nosniff", **(headers or {})})


def _token_bucket(clock: Clock) -> Callable[[RateLimit], bool]:
    tokens, filled_at = float("inf"), clock.monotonic()

    def may_come(limit: RateLimit) -> bool:
        nonlocal tokens, filled_at
        if limit.interval is None:
            return True
        now = clock.monotonic()
        tokens, filled_at = min(tokens + (now - filled_at) / limit.interval, float(limit.burst)), now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return may_come


def _passwords() -> Callable[[dict[str, SecretStr], Headers], Awaitable[bool]]:
    """A function that tells whether the headers of a request hold the name and the password of one of the users.

    A password that was found right is remembered by a digest whose key never leaves the process. One bcrypt runs at a
    time and off the event loop: a flood of wrong passwords costs one core, and those who are remembered pass it by.
    """
    secret = secrets.token_bytes(32)
    remembered: dict[bytes, None] = {}
    one_at_a_time = asyncio.Lock()

    async def is_known(users: dict[str, SecretStr], headers: Headers) -> bool:
        credentials = _credentials(headers.get("Authorization", ""))
        if credentials is None:
            return False
        name, password = credentials
        user = users.get(name)
        hashed = (user or _nobody(users)).get_secret_value().encode()
        digest = hashlib.blake2b(b"\0".join((name.encode(), hashed, password)), key=secret).digest()
        if digest in remembered:
            return True
        async with one_at_a_time:
            right = await asyncio.to_thread(bcrypt.checkpw, password[:_SHOWN_PASSWORD_BYTES], hashed)
        if not (user and right):
            return False
        while len(remembered) >= _REMEMBERED:
            del remembered[next(iter(remembered))]
        remembered[digest] = None
        return True

    return is_known


def _nobody(users: dict[str, SecretStr]) -> SecretStr:
    """A hash that takes as long to check as the dearest of the users', so that time does not tell who is one."""
    cost = max(hashed.get_secret_value().split("$")[2] for hashed in users.values())
    return SecretStr(f"$2b${cost}${'.' * 53}")


def _credentials(header: str) -> tuple[str, bytes] | None:
    """Name and password of a Basic `Authorization`."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None
