"""A token endpoint by RFC 6749, 4.4 and 5, over a socket."""

import base64
import urllib.parse
from collections.abc import Iterable
from itertools import count

from tests.harness.upstream import Request, answer

ID, SECRET = "the client", "s3cret/+ü:&"


class TokenEndpoint:
    """Hands out `token-1`, `token-2`, … to the one client that it knows.

    `ways` are those of sending the secret that it accepts. `more` are further members of its answers; a member that is
    None is left out of them.
    """

    def __init__(self, ways: Iterable[str] = ("header", "form"), **more: object) -> None:
        self._ways = set(ways)
        self._more = more
        self._numbers = count(1)
        self.forms: list[dict[str, str]] = []

    def __call__(self, request: Request) -> bytes:
        """The answer to a request for a token."""
        if request.method != "POST" or request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return answer({"error": "invalid_request"}, 400)
        form = dict(urllib.parse.parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True))
        self.forms.append(form)
        if self._client(request, form) != (ID, SECRET):
            return answer({"error": "invalid_client", "error_description": "Unknown client"}, 401)
        if form["grant_type"] != "client_credentials":
            return answer({"error": "unsupported_grant_type"}, 400)
        content = {"access_token": f"token-{next(self._numbers)}", "token_type": "bearer", "expires_in": 3600}
        return answer({name: value for name, value in (content | self._more).items() if value is not None})

    def _client(self, request: Request, form: dict[str, str]) -> tuple[str, str] | None:
        if "client_id" in form:
            return (form["client_id"], form.get("client_secret", "")) if "form" in self._ways else None
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme != "Basic" or "header" not in self._ways:
            return None
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
        return urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(secret)
