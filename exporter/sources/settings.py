"""The parts that the configurations of sources are made of: durations, URLs, files, credentials, TLS."""

import re
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    model_validator,
)

_DURATION = re.compile(
    r"(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?"
    r"(?:(?P<milliseconds>\d+)ms)?"
)


def _seconds(value: object) -> float:
    """Seconds from a duration as Prometheus writes it; raises `ValueError` for anything else, and for 0."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and len(value) < 20 else None
    if not match or not match[0]:
        raise ValueError(f"{value!r} is not a duration; write it like 30s, 5m or 1h30m")
    seconds = timedelta(**{unit: int(number) for unit, number in match.groupdict("0").items()}).total_seconds()
    if not seconds:
        raise ValueError("a duration of 0 makes no sense here")
    return seconds


def _regex(value: object) -> re.Pattern[str]:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a regular expression")  # noqa: TRY004  pydantic collects ValueErrors
    try:
        # A dot matches a newline too, as in Prometheus: names may hold one.
        return re.compile(value, re.DOTALL)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    """A path that is relative is meant from the configuration file's folder, as in Prometheus."""
    path = (info.context or {}).get("folder", Path()) / path
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"can't read the file {path}: {error.strerror}") from None


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("not a URL; write it like http://host:4200/api")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials don't belong in the URL; put them under basic_auth or authorization")
    if parts.query or parts.fragment:
        raise ValueError("the URL of an API has no ? or # part")
    return value.rstrip("/")


Seconds = Annotated[float, BeforeValidator(_seconds)]
Regex = Annotated[re.Pattern[str], BeforeValidator(_regex)]
ExistingFile = Annotated[Path, Field(strict=False), AfterValidator(_existing_file)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class Settings(BaseModel):
    """A part of the configuration: unknown keys are errors, and a value never shows a secret."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True, strict=True
    )


class Authorization(Settings):
    """`authorization`, as in Prometheus."""

    type: str = Field(default="Bearer", pattern=r"^[A-Za-z][A-Za-z0-9-]*$")
    """Scheme of the `Authorization` header."""
    credentials: SecretStr | None = None
    """The credentials themselves."""
    credentials_file: ExistingFile | None = None
    """File with the credentials, read again at every poll."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.credentials is None) == (self.credentials_file is None):
            raise ValueError("set one of credentials and credentials_file")
        return self


class BasicAuth(Settings):
    """`basic_auth`, as in Prometheus."""

    username: str
    """User name."""
    password: SecretStr | None = None
    """Password."""
    password_file: ExistingFile | None = None
    """File with the password, read again at every poll."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("set one of password and password_file")
        return self


class TlsConfig(Settings):
    """`tls_config`, as in Prometheus."""

    ca_file: ExistingFile | None = None
    """Certificates to trust, in PEM; the system's own when absent."""
    cert_file: ExistingFile | None = None
    """Certificate of the exporter, for an upstream that wants one."""
    key_file: ExistingFile | None = None
    """Private key of `cert_file`."""
    insecure_skip_verify: bool = False
    """Accept any certificate. For tests."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file are set together, or not at all")
        try:
            self.context()
        except (ssl.SSLError, OSError) as error:
            raise ValueError(f"a certificate or key can't be used: {error}") from None
        return self

    def context(self) -> ssl.SSLContext:
        """The settings as the standard library has them."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file:
            context.load_cert_chain(self.cert_file, self.key_file)
        if self.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
