"""What is sent to prove who we are, and what keeps it from ever coming out again."""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from exporter.sources.base import SourceConfig, SourceError
from exporter.sources.connection import check_carried
from exporter.sources.http_config import HttpHeader, read_file

_QUOTED_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers that go into the request, and the secrets in them, which must never come out again."""

    headers: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()

    def __add__(self, other: "Credentials") -> "Credentials":
        """All headers and all secrets of both."""
        return Credentials(self.headers + other.headers, self.secrets + other.secrets)

    def redact(self, text: str) -> str:
        """Return words of the upstream server as one short printable line, with `<secret>` for each secret in them."""
        forms = {form for secret in self.secrets if secret for form in _forms(secret)}
        for form in sorted(forms, key=len, reverse=True):
            text = re.sub(re.escape(form), "<secret>", text, flags=re.IGNORECASE)
        text = re.sub(r"\s+", " ", text)
        text = "".join(character for character in text if character.isprintable())
        return text if len(text) <= _QUOTED_CHARACTERS else f"{text[:_QUOTED_CHARACTERS]}…"


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is, and as it comes back in a URL, in a page, in JSON and from who decodes or encodes base64."""
    yield secret
    yield from (urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret))
    yield from (html.escape(secret), html.escape(secret, quote=False), json.dumps(secret)[1:-1])
    yield base64.b64encode(secret.encode()).decode()


def read_credentials(config: SourceConfig) -> Credentials:
    """The headers that prove who we are, with secrets that are read now. Raises `SourceError`, `auth`."""
    return _authorization(config) + sum(
        (_header(name, header) for name, header in config.http_headers.items()), Credentials()
    )


def _authorization(config: SourceConfig) -> Credentials:
    if authorization := config.authorization:
        secret = read_secret("authorization.credentials", authorization.credentials, authorization.credentials_file)
        secrets: tuple[str, ...] = (secret,)
        if authorization.type.lower() == "basic":
            secrets += _within_basic(secret)
        return Credentials((("Authorization", f"{authorization.type} {secret}"),), secrets)
    if basic_auth := config.basic_auth:
        secret = read_secret("basic_auth.password", basic_auth.password, basic_auth.password_file, must_fit=False)
        encoded = base64.b64encode(f"{basic_auth.username}:{secret}".encode()).decode()
        return Credentials((("Authorization", f"Basic {encoded}"),), (secret, encoded))
    return Credentials()


def _within_basic(encoded: str) -> tuple[str, ...]:
    """Return the secret part of `user:password`, encoded; all of it if there is no colon."""
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except ValueError:
        return ()
    return text, text.partition(":")[2]


def _header(name: str, header: HttpHeader) -> Credentials:
    secrets = [read_secret(f"http_headers.{name}.secrets", secret, None) for secret in header.secrets]
    secrets += [read_secret(f"http_headers.{name}.files", None, file) for file in header.files]
    return Credentials(tuple((name, value) for value in (*header.values, *secrets)), tuple(secrets))


def read_secret(key: str, value: SecretStr | None, file: Path | None, *, must_fit: bool = True) -> str:
    """A secret from the configuration or from its file; raises `SourceError` where it can't be sent.

    It `must_fit` into a header as it is, unless it is encoded first.
    """
    key = f"{key}_file" if file and not key.endswith(".files") else key
    try:
        secret = read_file(file) if file else value.get_secret_value() if value else ""
        if must_fit:
            check_carried(secret)
    except OSError as error:
        raise SourceError("auth", f"can't read {key} {file}: {error.strerror}") from None
    except ValueError as error:
        raise SourceError("auth", f"{key} {file or ''}".rstrip() + f" {error}") from None
    return secret
