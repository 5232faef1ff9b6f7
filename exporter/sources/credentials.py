"""What is sent to prove who we are, and what keeps it from ever coming out again."""

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from exporter.sources.base import SourceConfig, SourceError

_QUOTED_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Credentials:
    """What goes into the request, and what must never come out again."""

    headers: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def with_tokens(self, tokens: Mapping[str, str]) -> "Credentials":
        """Further headers that are to be sent, and to be kept as secret."""
        return Credentials(self.headers | dict(tokens), (*self.secrets, *tokens.values()))

    def quote(self, text: str) -> str:
        """Upstream's words, which may repeat ours: in one short line of printable characters, without the secrets."""
        forms = {form for secret in self.secrets for form in _forms(secret)}
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
    """The `Authorization` header, if any, from secrets that are read now. Raises `SourceError`, `auth`."""
    if authorization := config.authorization:
        secret = _secret("authorization.credentials", authorization.credentials, authorization.credentials_file)
        return Credentials({"Authorization": f"{authorization.type} {secret}"}, (secret,))
    if basic_auth := config.basic_auth:
        secret = _secret("basic_auth.password", basic_auth.password, basic_auth.password_file)
        encoded = base64.b64encode(f"{basic_auth.username}:{secret}".encode()).decode()
        return Credentials({"Authorization": f"Basic {encoded}"}, (secret, encoded))
    return Credentials()


def _secret(key: str, value: SecretStr | None, file: Path | None) -> str:
    """A secret from the configuration or from its file; raises `SourceError` where it can't be sent."""
    try:
        secret = file.read_text(encoding="utf-8").strip() if file else value.get_secret_value() if value else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SourceError("auth", f"can't read {key}_file {file}: {reason}") from None
    if not secret or not secret.isprintable() or not secret.isascii():
        where = f"{key}_file {file}" if file else key
        raise SourceError("auth", f"{where} is empty, or has characters that a header can't carry")
    return secret
