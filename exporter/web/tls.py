"""TLS of the web server: `tls_server_config`, and the standard library's contexts that it makes."""

import ipaddress
import platform
import ssl
from collections.abc import Callable
from typing import Annotated, Any, Final, Self

from pydantic import Field, PrivateAttr, SecretStr, model_validator

from exporter.settings.base import BlankIsAbsent
from exporter.settings.files import ExistingFile
from exporter.settings.tls import TRUST, VERSIONS, Version, as_file, one_of

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
_DEFAULT_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of them that authenticate what they encrypt. Python's own default has CBC, too."""
_CIPHERS_OF_TLS13: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_KINDS_OF_NAMES: Final = {"DNS", "IP Address", "email", "URI"}


_ClientAuth = Annotated[
    str,
    one_of(
        *_CLIENT_AUTH,
        refused=dict.fromkeys(
            ("RequestClientCert", "RequireClientCert", "RequireAnyClientCert"),
            "since Python verifies each certificate that it asks for",
        ),
    ),
]


class TlsServerConfig(BlankIsAbsent):
    """`tls_server_config`."""

    cert_file: ExistingFile | None = None
    """Certificate of the exporter, in PEM. It and its key are read again when they change."""
    key_file: ExistingFile | None = None
    """Private key of `cert_file`."""
    cert: str | None = None
    """The certificate inline, instead of `cert_file`."""
    key: SecretStr | None = None
    """The private key inline, instead of `key_file`."""
    client_auth_type: _ClientAuth = "NoClientCert"
    """Policy for client certificates: `NoClientCert`, `VerifyClientCertIfGiven` or `RequireAndVerifyClientCert`."""
    client_ca_file: ExistingFile | None = None
    """CAs that must have signed the client certificates; the system's CAs if absent."""
    client_ca: str | None = None
    """The CAs inline, instead of `client_ca_file`."""
    client_allowed_sans: tuple[str, ...] | None = Field(default=None, strict=False)
    """The client certificate must have at least one of these names (DNS, IP, e-mail or URI)."""
    min_version: Version = "TLS12"
    """Lowest TLS version: `TLS12` or `TLS13`."""
    max_version: Version = "TLS13"
    """Highest TLS version."""
    cipher_suites: tuple[Annotated[str, one_of(*_CIPHERS, *_CIPHERS_OF_TLS13)], ...] = Field(default=(), strict=False)
    """Cipher suites of TLS 1.2, by their Go names; by default those with AES-GCM and ChaCha20-Poly1305. The setting
    does not select cipher suites of TLS 1.3."""
    prefer_server_cipher_suites: bool = True
    """Whether the server's order of cipher suites takes precedence."""
    curve_preferences: tuple[Annotated[str, one_of(*_CURVES)], ...] = Field(default=(), strict=False)
    """The one elliptic curve to use: `CurveP256`, `CurveP384`, `CurveP521` or `X25519`."""
    _context: ssl.SSLContext | None = PrivateAttr(None)

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
        if (self.client_ca or self.client_ca_file) and self.client_auth_type == "NoClientCert":
            raise ValueError("client_ca_file needs a client_auth_type that asks for certificates")
        if self.client_allowed_sans is not None and self.client_auth_type != "RequireAndVerifyClientCert":
            raise ValueError("client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert")
        if self.client_allowed_sans == ():
            raise ValueError("client_allowed_sans is empty, which lets no client in")
        if self.min_version > self.max_version:
            raise ValueError("min_version is above max_version")
        if self.max_version == "TLS12" and self.cipher_suites and not _CIPHERS.keys() & set(self.cipher_suites):
            raise ValueError("cipher_suites has none that TLS 1.2 could use, and max_version is TLS12")
        if len(self.curve_preferences) > 1:
            raise ValueError("curve_preferences can't have more than one curve, which is all that Python can set")
        self._context = self._new_context()
        return self

    @property
    def is_enabled(self) -> bool:
        """Whether anything is set that asks for TLS."""
        asks = {"cert_file", "key_file", "client_ca_file", "cert", "key", "client_ca", "client_auth_type"}
        return bool(asks & self.model_fields_set)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The settings as the standard library has them, with the files as they were when these were read."""
        return self._context

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        context.minimum_version, context.maximum_version = VERSIONS[self.min_version], VERSIONS[self.max_version]
        if ciphers := [_CIPHERS[name] for name in self.cipher_suites if name in _CIPHERS]:
            context.set_ciphers(":".join(ciphers))
        elif self.cipher_suites:  # none that TLS 1.2 could use
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        else:
            context.set_ciphers(_DEFAULT_CIPHERS)
        if not self.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        for curve in self.curve_preferences:
            try:
                context.set_ecdh_curve(_CURVES[curve])
            except (ssl.SSLError, ValueError):  # X25519, in older versions of Python
                raise ValueError(f"curve_preferences: Python {platform.python_version()} can't use {curve}") from None
        key = self.key.get_secret_value() if self.key else None
        try:
            with as_file(self.cert, self.cert_file) as certificate, as_file(key, self.key_file) as private:
                # Without a password, OpenSSL would ask the terminal for that of an encrypted key, and wait.
                context.load_cert_chain(certificate, private, password="")
        except (ssl.SSLError, OSError):
            raise ValueError(
                f"cert_file {self.cert_file or '(inline)'} and key_file {self.key_file or '(inline)'} are not a"
                " certificate and its key in PEM, the key without a passphrase"
            ) from None
        context.verify_mode = _CLIENT_AUTH[self.client_auth_type]
        context.verify_flags = TRUST
        if self.client_ca or self.client_ca_file:
            try:
                with as_file(self.client_ca, self.client_ca_file) as authorities:
                    context.load_verify_locations(authorities)
            except (ssl.SSLError, OSError):
                raise ValueError(
                    f"client_ca_file {self.client_ca_file or '(inline)'} has no certificate in PEM"
                ) from None
        elif self.client_auth_type != "NoClientCert":
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        if self.client_allowed_sans:
            context.sslobject_class = _only_from(frozenset(self.client_allowed_sans))
        return context


def _only_from(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    class OnlyFrom(ssl.SSLObject):
        """Ends the handshake of a client whose verified certificate has none of the allowed names."""

        def do_handshake(self) -> None:
            super().do_handshake()
            certificate: dict[str, Any] = self.getpeercert() or {}
            names = (_name(kind, name) for kind, name in certificate.get("subjectAltName", ()))
            if allowed.isdisjoint(names):
                raise ssl.SSLCertVerificationError("the client's certificate has none of client_allowed_sans")

    return OnlyFrom


def _name(kind: str, name: str) -> str | None:
    """A name as people write it; None for one that is malformed, or of a kind that is not compared."""
    if kind == "IP Address":
        try:
            return str(ipaddress.ip_address(name.strip()))  # OpenSSL writes 2001:DB8:0:0:0:0:0:1
        except ValueError:  # "<invalid>": of another length than an address has
            return None
    return name if kind in _KINDS_OF_NAMES else None


def current_context(current: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context that hands each connection on to that of the moment: asyncio takes one for the life of a server."""

    class CurrentContext(ssl.SSLContext):
        def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
            return current().wrap_bio(*arguments, **named)

    return CurrentContext(ssl.PROTOCOL_TLS_SERVER)
