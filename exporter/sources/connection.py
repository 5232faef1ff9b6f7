"""How to reach a place: its URL, the TLS settings, and the proxy in between, all as in Prometheus."""

import base64
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self
from urllib.parse import SplitResult, urlsplit

import httpx
from pydantic import AfterValidator, Field, SecretStr, model_validator

from exporter.settings.base import FrozenDict, Settings, check_unicode
from exporter.settings.files import ExistingFile
from exporter.settings.tls import TRUST, VERSIONS, Version, as_file

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def check_url(value: str, example: str = "http://host:4200/api", *, with_credentials: bool = False) -> SplitResult:
    """Take the URL of a server apart. Raises `ValueError` for what httpx or the resolver would refuse at every poll."""
    try:
        parts = urlsplit(value)
        host = httpx.URL(value).raw_host.decode("ascii").encode("idna")
        valid = parts.scheme in _DEFAULT_PORTS and host and parts.port != 0 and not re.search(r"\s", value)
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid:
        raise ValueError(f"is not a URL; write it like {example}")
    if not with_credentials and (parts.username is not None or parts.password is not None):
        raise ValueError("has credentials, which don't belong in a URL; put them under basic_auth or authorization")
    return parts


def in_lower_case(parts: SplitResult) -> str:
    """A URL with scheme and host in lower case, as they are meant: they tell whether TLS is spoken, and to whom."""
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{host.lower()}").geturl()


def _http_url(value: str) -> str:
    parts = check_url(value)
    if parts.query or parts.fragment:
        raise ValueError("has a ? or # part, which the URL of an API has not")
    return in_lower_case(parts).rstrip("/")


def _proxy_url(value: SecretStr) -> SecretStr:
    check_unicode(value.get_secret_value())
    parts = check_url(value.get_secret_value(), "http://proxy:3128", with_credentials=True)
    if parts.query or parts.fragment or parts.path.strip("/"):
        raise ValueError("has a path, which a proxy has not; write it like http://proxy:3128")
    return SecretStr(in_lower_case(parts).rstrip("/"))


HttpUrl = Annotated[str, AfterValidator(_http_url)]
ProxyUrl = Annotated[SecretStr, AfterValidator(_proxy_url)]


def check_carried(text: str) -> None:
    """Raise `ValueError` for what no header can carry, with a message that follows a key and shows no secret."""
    check_unicode(text)
    if not text:
        raise ValueError("is empty")
    if not text.isascii() or not text.isprintable() or text != text.strip(" "):
        raise ValueError("has characters that a header can't carry: it takes printable ASCII, without spaces around it")


def check_name(name: str) -> None:
    """Raise `ValueError` for what is not the name of a header."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        raise ValueError("is not the name of a header")


def _carried_secret(value: SecretStr) -> SecretStr:
    check_carried(value.get_secret_value())
    return value


HeaderSecret = Annotated[SecretStr, AfterValidator(_carried_secret)]


def _proxy_headers(headers: dict[str, tuple[SecretStr, ...]]) -> FrozenDict[tuple[SecretStr, ...]]:
    for name in headers:
        check_name(name)
    return FrozenDict(headers)


_ProxyHeaders = Annotated[
    dict[str, Annotated[tuple[HeaderSecret, ...], Field(strict=False)]], AfterValidator(_proxy_headers)
]
_NO_HEADERS: Final[FrozenDict[tuple[SecretStr, ...]]] = FrozenDict()


class TlsConfig(Settings):
    """`tls_config`, as in Prometheus."""

    ca_file: ExistingFile | None = None
    """Trusted certificates in PEM: CAs, intermediates or the server's own certificate. The system's CAs if absent. The
    file is read again when it changes."""
    ca: str | None = None
    """The trusted certificates inline, instead of `ca_file`."""
    cert_file: ExistingFile | None = None
    """Client certificate, for a server that requires one. It and its key are read again when they change."""
    cert: str | None = None
    """The client certificate inline, instead of `cert_file`."""
    key_file: ExistingFile | None = None
    """Private key of `cert_file`."""
    key: SecretStr | None = None
    """The private key inline, instead of `key_file`."""
    server_name: str | None = Field(default=None, min_length=1)
    """Name that the server's certificate must have, and that is sent as SNI; the host of the URL if absent. Not for a
    proxy."""
    min_version: Version = "TLS12"
    """Lowest TLS version: `TLS12` or `TLS13`."""
    max_version: Version = "TLS13"
    """Highest TLS version."""
    insecure_skip_verify: bool = False
    """Accept any certificate. For tests only."""

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


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy to use; `headers` are for its CONNECT alone."""

    url: str
    headers: tuple[tuple[str, str], ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the secrets, which must never be shown."""
        parts = httpx.URL(self.url)
        encoded = base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode() if parts.userinfo else ""
        return tuple(secret for secret in (parts.password, encoded, *(value for _, value in self.headers)) if secret)


class Connection(Settings):
    """The settings for reaching a server."""

    tls_config: TlsConfig = TlsConfig()
    """TLS settings for an `https` upstream server and an `https` proxy."""
    proxy_url: ProxyUrl | None = None
    """Proxy for all requests; it may have a user name and a password."""
    no_proxy: str = ""
    """Hosts that are reached without the proxy, separated by commas: names with their subdomains, addresses,
    networks, or `*` for all. A name or an address may have a port."""
    proxy_from_environment: bool = False
    """Use the proxy of the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, also in lower case."""
    proxy_connect_header: _ProxyHeaders = _NO_HEADERS
    """Headers, each with a list of values, for the CONNECT requests to the proxy, if the server's URL is `https`."""

    @model_validator(mode="after")
    def _one_proxy(self) -> Self:
        if self.proxy_from_environment and (self.proxy_url or self.no_proxy):
            raise ValueError("proxy_from_environment is set, so proxy_url and no_proxy can't be")
        if self.no_proxy and not self.proxy_url:
            raise ValueError("no_proxy needs a proxy_url")
        if self.proxy_connect_header and not (self.proxy_url or self.proxy_from_environment):
            raise ValueError("proxy_connect_header needs a proxy_url or proxy_from_environment")
        if self.proxy_from_environment:
            for scheme in _DEFAULT_PORTS:
                _of_environment(scheme)
        return self

    def proxy_to(self, url: str) -> Proxy | None:
        """The proxy through which `url` is reached; None if it is reached without one."""
        scheme = urlsplit(url).scheme
        proxy = _of_environment(scheme) if self.proxy_from_environment else self.proxy_url
        excepted = _variable("NO_PROXY")[1] if self.proxy_from_environment else self.no_proxy
        # Loopback is excepted too, but not where only a proxy is set: so it is in Prometheus.
        if not proxy or ((self.proxy_from_environment or excepted) and is_excepted(url, excepted)):
            return None
        values = (
            (name, value.get_secret_value()) for name, some in self.proxy_connect_header.items() for value in some
        )
        return Proxy(proxy.get_secret_value(), tuple(values) if scheme == "https" else ())


def _variable(name: str) -> tuple[str, str]:
    """Name and value of a variable that may be written in lower case."""
    found = next((form for form in (name, name.lower()) if os.environ.get(form)), name)
    return found, os.environ.get(found, "")


def _of_environment(scheme: str) -> SecretStr | None:
    """The proxy for URLs of a scheme. Raises `ValueError`, with the variable's name."""
    name, value = _variable(f"{scheme.upper()}_PROXY")
    if not value:
        return None
    try:
        return _proxy_url(SecretStr(value if "://" in value else f"http://{value}"))
    except ValueError as error:
        raise ValueError(f"{name} of the environment {error}") from None


def is_excepted(url: str, no_proxy: str) -> bool:
    """Whether a host is reached without a proxy, by the rules of Go's `httpproxy`, which are Prometheus'."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    return any(_matches(entry, host, address, port) for entry in _entries(no_proxy))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _entries(no_proxy: str) -> Iterator[str]:
    return (entry for part in no_proxy.split(",") if (entry := part.strip().lower()))


def _matches(entry: str, host: str, address: _Address | None, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    # With a port: name:80, 10.0.0.1:80, [::1]:80. An IPv6 address without brackets has none.
    match = re.fullmatch(r"(?:\[(.+)\]|([^:]*)):([0-9]+)", entry)
    name, wanted = (match[1] or match[2], int(match[3])) if match else (entry.strip("[]"), port)
    if not name or wanted != port:
        return False
    if found := _address(name):
        return found == address
    name = name.removeprefix("*") if name.startswith("*.") else name
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
