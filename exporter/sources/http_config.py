"""The parts that the configurations of sources are made of: durations, URLs, files, credentials, TLS."""

import re
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.settings.base import ExistingFile, Settings, check_unicode
from exporter.settings.tls import TRUST, VERSIONS, Version, as_file

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


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        # What httpx and the resolver refuse would fail every poll.
        host = httpx.URL(value).raw_host.decode("ascii").encode("idna")
        valid = parts.scheme in {"http", "https"} and host and parts.port != 0 and not re.search(r"\s", value)
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid:
        raise ValueError("is not a URL; write it like http://host:4200/api")
    if parts.username is not None or parts.password is not None:
        raise ValueError("has credentials, which don't belong in a URL; put them under basic_auth or authorization")
    if parts.query or parts.fragment:
        raise ValueError("has a ? or # part, which the URL of an API has not")
    # Scheme and host in lower case, as they are meant: whether TLS is spoken, and to whom, is told by them.
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}".rstrip("/")


def check_carried(text: str) -> None:
    """Raise `ValueError` for what no header can carry, with a message that follows a key and shows no secret."""
    check_unicode(text)
    if not text:
        raise ValueError("is empty")
    if not text.isascii() or not text.isprintable() or text != text.strip(" "):
        raise ValueError("has characters that a header can't carry: it takes printable ASCII, without spaces around it")


def _carried(value: str) -> str:
    check_carried(value)
    return value


def _carried_secret(value: SecretStr) -> SecretStr:
    check_carried(value.get_secret_value())
    return value


def _carried_file(path: Path) -> Path:
    try:
        check_carried(read_secret(path))
    except OSError as error:
        raise ValueError(f"can't read the file {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    return path


def read_secret(path: Path) -> str:
    """What a file says, without the white space around it. Raises `OSError`, and `ValueError` if it is not UTF-8."""
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
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise ValueError("is not the name of a header")
    if name.lower() in _RESERVED:
        raise ValueError("is a header that can't be set here")
    return name


Seconds = Annotated[float, BeforeValidator(_seconds)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
HeaderValue = Annotated[str, AfterValidator(_carried)]
HeaderSecret = Annotated[SecretStr, AfterValidator(_carried_secret)]
HeaderFile = Annotated[ExistingFile, AfterValidator(_carried_file)]


class Authorization(Settings):
    """`authorization`, as in Prometheus."""

    type: Annotated[str, AfterValidator(_scheme)] = "Bearer"
    """Scheme of the `Authorization` header."""
    credentials: HeaderSecret | None = None
    """The credentials themselves."""
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
    """Files with such values, read again at every poll."""

    @model_validator(mode="after")
    def _has_a_value(self) -> Self:
        if not (self.values or self.secrets or self.files):
            raise ValueError("has no value; set values, secrets or files")
        return self


class _Headers(dict[str, HttpHeader]):
    """Can be hashed, as the settings that it belongs to."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def _each_once(headers: dict[str, HttpHeader]) -> _Headers:
    names = [name.lower() for name in headers]
    if twice := [name for name in headers if names.count(name.lower()) > 1]:
        raise ValueError(f"has {' and '.join(twice)}, which are one header")
    return _Headers(headers)


HttpHeaders = Annotated[dict[Annotated[str, AfterValidator(_header_name)], HttpHeader], AfterValidator(_each_once)]
NO_HEADERS: Final = _Headers()


class TlsConfig(Settings):
    """`tls_config`, as in Prometheus."""

    ca_file: ExistingFile | None = None
    """Certificates to trust, in PEM: authorities, intermediates or the server's own. The system's authorities when
    absent. It is read again when it changes."""
    ca: str | None = None
    """The certificates themselves, instead of `ca_file`."""
    cert_file: ExistingFile | None = None
    """Certificate of the exporter, for an upstream that wants one. It and its key are read again when they change."""
    cert: str | None = None
    """The certificate itself, instead of `cert_file`."""
    key_file: ExistingFile | None = None
    """Private key of `cert_file`."""
    key: SecretStr | None = None
    """The private key itself, instead of `key_file`."""
    server_name: str | None = Field(default=None, min_length=1)
    """Name that the server's certificate must have, and that the server is asked for (SNI); the host of the URL when
    absent. A proxy is not asked for it."""
    min_version: Version = "TLS12"
    """Lowest version: `TLS12` or `TLS13`."""
    max_version: Version = "TLS13"
    """Highest version."""
    insecure_skip_verify: bool = False
    """Accept any certificate. For tests."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        for name in ("ca", "cert", "key"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file"):
                raise ValueError(f"set one of {name} and {name}_file")
        if (self.cert_file or self.cert) and not (self.key_file or self.key):
            raise ValueError("a certificate needs its key; set key_file or key")
        if (self.key_file or self.key) and not (self.cert_file or self.cert):
            raise ValueError("a key needs its certificate; set cert_file or cert")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            self._load_authorities(context)
        except (ssl.SSLError, OSError):
            raise ValueError(f"ca_file {self.ca_file or '(inline)'} has no certificate in PEM") from None
        try:
            self._load_certificate(context)
        except (ssl.SSLError, OSError):
            raise ValueError(
                f"cert_file {self.cert_file or '(inline)'} and key_file {self.key_file or '(inline)'} are not a"
                " certificate and its key in PEM, the key without a passphrase"
            ) from None
        return self

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is made of, which are read again when they change."""
        return tuple(file for file in (self.ca_file, self.cert_file, self.key_file) if file)

    def context(self) -> ssl.SSLContext:
        """The settings as the standard library has them. Raises `OSError` where a file can't be used."""
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def context_of_server(self) -> ssl.SSLContext:
        """The same, but `server_name` stands for the name of whichever host is connected to."""
        return self._filled(_asking_for(self.server_name)) if self.server_name else self.context()

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.verify_flags = TRUST
        context.minimum_version, context.maximum_version = VERSIONS[self.min_version], VERSIONS[self.max_version]
        if self.ca_file or self.ca is not None:
            self._load_authorities(context)
        else:
            context.load_default_certs()
        self._load_certificate(context)
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        if self.ca_file or self.ca is not None:
            with as_file(self.ca, self.ca_file) as authorities:
                context.load_verify_locations(authorities)

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        if self.cert_file or self.cert:
            key = self.key.get_secret_value() if self.key else None
            with as_file(self.cert, self.cert_file) as certificate, as_file(key, self.key_file) as private:
                # Without a password, OpenSSL would ask the terminal for that of an encrypted key, and wait.
                context.load_cert_chain(certificate, private, password="")


def _asking_for(name: str) -> ssl.SSLContext:
    """A context that puts `name` in the place of the host: httpx has no setting for it that holds behind a proxy."""

    class AskingFor(ssl.SSLContext):
        def wrap_bio(
            self,
            incoming: ssl.MemoryBIO,
            outgoing: ssl.MemoryBIO,
            server_side: bool = False,
            server_hostname: str | bytes | None = None,  # noqa: ARG002
            session: ssl.SSLSession | None = None,
        ) -> ssl.SSLObject:
            return super().wrap_bio(incoming, outgoing, server_side, name, session)

    return AskingFor(ssl.PROTOCOL_TLS_CLIENT)
