"""`oauth2`: a token is asked for, sent with each request, and renewed; what a broken token endpoint does to a poll."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from exporter.config import load
from exporter.model import FailureReason
from exporter.settings.reader import ConfigError
from tests.harness.cases import CASES
from tests.harness.certificates import authority, certificate
from tests.harness.connections import tunnels
from tests.harness.inprocess import OneSource
from tests.harness.oauth2 import ID, SECRET, TokenEndpoint
from tests.harness.upstream import Answer, Request, Upstream, answer, never, serve


class Guarded:
    """An API that accepts some tokens."""

    def __init__(self, system: str = "prefect", *accepted: str) -> None:
        self.accepted = set(accepted or {"Bearer token-1"})
        self.good = CASES[system].works
        self.seen: list[str] = []

    def __call__(self, request: Request) -> Any:
        token = request.headers.get("authorization", "")
        self.seen.append(token)
        return self.good(request) if token in self.accepted else answer({"detail": "Unauthorized"}, 401)


def oauth2(url: str, **more: Any) -> dict[str, Any]:
    return {"client_id": ID, "client_secret": SECRET, "token_url": f"{url}/token", **more}


@asynccontextmanager
async def running(
    api: Answer, tokens: Answer, more: Mapping[str, Any] = MappingProxyType({}), **settings: Any
) -> AsyncIterator[tuple[OneSource, Upstream]]:
    """An exporter that reads the API, and the token endpoint."""
    async with serve(api) as upstream, serve(tokens) as endpoint:
        whole = {"oauth2": oauth2(endpoint.url, **more), **settings}
        async with OneSource("prefect", upstream.url, **whole) as exporter:
            yield exporter, endpoint


async def test_one_token_for_all_requests_and_polls() -> None:
    api, tokens = Guarded(), TokenEndpoint()
    more = {"scopes": ["read", "write"], "endpoint_params": {"audience": "https://api/?a=b&c", "empty": ""}}
    async with running(api, tokens, more) as (exporter, _):
        for _ in range(2):
            state = await exporter.poll()
            assert state.outcome == "success", state.failure
        assert exporter.own("upstream_requests_total", endpoint="token_url", code="200") == 1
    assert set(api.seen) == {"Bearer token-1"}
    assert tokens.forms == [
        {
            "grant_type": "client_credentials",
            "scope": "read write",
            "audience": "https://api/?a=b&c",
            "empty": "",
        }
    ]


@pytest.mark.parametrize("ways", [["header"], ["form"]])
async def test_the_way_of_sending_the_secret_that_the_server_accepts(ways: list[str]) -> None:
    api, tokens = Guarded(), TokenEndpoint(ways)
    async with running(api, tokens) as (exporter, _):
        assert (await exporter.poll()).outcome == "success"
        api.accepted = {"Bearer token-2"}
        assert (await exporter.poll()).outcome == "success"
    in_form = ["client_secret" in form for form in tokens.forms]
    assert in_form == ([False, False] if ways == ["header"] else [False, True, True]), "it is learnt once"


@pytest.mark.parametrize(
    ("answered", "sent"),
    [
        ({"token_type": "Bearer"}, "Bearer token-1"),
        ({"token_type": "BEARER"}, "Bearer token-1"),
        ({"token_type": None}, "Bearer token-1"),
        ({"token_type": "DPoP"}, "DPoP token-1"),
        ({"expires_in": None}, "Bearer token-1"),
        ({"expires_in": "3600"}, "Bearer token-1"),
        ({"expires_in": 3599.5}, "Bearer token-1"),
        ({"expires_in": 0}, "Bearer token-1"),
        ({"scope": "read"}, "Bearer token-1"),
        ({"refresh_token": "refresh", "id_token": {"a": 1}}, "Bearer token-1"),
    ],
)
async def test_answers_of_all_kinds_of_servers(answered: dict[str, object], sent: str) -> None:
    api = Guarded("prefect", sent)
    async with running(api, TokenEndpoint(**answered), {"scopes": ["read", "write"]}) as (exporter, _):  # type: ignore[arg-type]
        state = await exporter.poll()
        assert state.outcome == "success", state.failure
        assert exporter.own("upstream_requests_total", endpoint="token_url", code="200") == 1


async def test_a_token_is_renewed_before_it_expires() -> None:
    """The API would accept the first for ever; the second comes although nobody refuses the first."""
    api = Guarded("prefect", "Bearer token-1", "Bearer token-2")
    async with running(api, TokenEndpoint(expires_in=1)) as (exporter, _), asyncio.timeout(60):
        while "Bearer token-2" not in api.seen:
            assert (await exporter.poll()).outcome == "success"


async def test_a_token_that_is_refused_is_renewed_once_for_all_requests() -> None:
    api = Guarded()
    async with running(api, TokenEndpoint()) as (exporter, endpoint):
        assert (await exporter.poll()).outcome == "success"
        api.accepted = {"Bearer token-2"}
        state = await exporter.poll()
        assert state.outcome == "success", state.failure
        assert len(endpoint.requests) == 2
        api.accepted = set()
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "auth"
        assert "401 Unauthorized: Unauthorized; check oauth2 of the source" in state.failure.message
        assert len(endpoint.requests) == 3, "one try"


async def test_many_that_are_refused_at_once_share_one_token() -> None:
    api, arrived = Guarded(), asyncio.Event()
    waiting = 0

    async def together(request: Request) -> Any:
        nonlocal waiting
        if request.headers["authorization"] == "Bearer token-1" and "concurrency_status" in request.path:
            waiting += 1
            if waiting == 3:
                api.accepted = {"Bearer token-2"}
                arrived.set()
            await arrived.wait()
        return api(request)

    async with running(together, TokenEndpoint()) as (exporter, endpoint):
        state = await exporter.poll()
        assert state.outcome == "success", state.failure
        assert waiting == 3
        assert len(endpoint.requests) == 2


async def test_a_csrf_token_comes_on_top_of_it() -> None:
    api = Guarded("prefect", "Bearer token-1")

    def csrf(request: Request) -> Any:
        if request.headers.get("authorization") != "Bearer token-1":
            return answer({}, 401)
        if request.path.startswith("/api/csrf-token"):
            return answer({"token": "csrf"})
        if request.headers.get("prefect-csrf-token") != "csrf":
            return answer({"detail": "Missing CSRF token"}, 403)
        return api(request)

    async with running(csrf, TokenEndpoint()) as (exporter, endpoint):
        state = await exporter.poll()
        assert state.outcome == "success", state.failure
        assert len(endpoint.requests) == 1


async def test_the_file_with_the_secret_is_read_for_each_token(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong\n")
    api, more = Guarded(), {"client_secret": None, "client_secret_file": str(file)}
    async with running(api, TokenEndpoint(), more) as (exporter, _):
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "auth"
        file.write_text(f"{SECRET}\n", encoding="utf-8")
        assert (await exporter.poll()).outcome == "success"
        api.accepted.clear()
        file.unlink()
        state = await exporter.poll()
        assert state.failure
        assert state.failure.message == f"can't read oauth2.client_secret_file {file}: No such file or directory"


async def test_the_token_endpoint_has_its_own_proxy_and_authorities(tmp_path: Path) -> None:
    """And the API has none of them."""
    authority(tmp_path)
    authority(tmp_path, "other")
    certificate(tmp_path, "tokens", "DNS:tokens.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tokens.pem", tmp_path / "tokens.key")
    heads: list[str] = []
    async with (
        serve(TokenEndpoint(), tls=context) as endpoint,
        tunnels(endpoint.port, heads) as proxy,
        serve(Guarded()) as upstream,
    ):
        for name, outcome in (("other", "failure"), ("ca", "success")):
            way = {"proxy_url": proxy, "tls_config": {"ca_file": str(tmp_path / f"{name}.pem")}}
            settings = {"oauth2": oauth2("https://tokens.example", **way)}
            async with OneSource("prefect", upstream.url, **settings) as exporter:
                state = await exporter.poll()
                assert state.outcome == outcome, state.failure
                if state.failure:
                    assert state.failure.reason == "tls"
                    assert state.failure.message.startswith("POST https://tokens.example/token: TLS failed: ")
                    assert not upstream.requests
    assert [head.split("\r\n")[0] for head in heads] == ["CONNECT tokens.example:443 HTTP/1.1"] * 2
    assert len(endpoint.requests) == 1
    assert len(upstream.requests) > 3


LONG = b"x" * 17_000_000
FAULTS: dict[str, tuple[Answer, FailureReason, str]] = {
    "unknown": (lambda _: answer({"error": "invalid_client"}, 400), "auth", "invalid_client; check oauth2 of"),
    "refused": (lambda _: answer({"error": "x", "error_description": "y"}, 401), "auth", "401 Unauthorized: x: y; "),
    "forbidden": (lambda _: answer(b"", 403), "auth", "403 Forbidden; check oauth2 of the source"),
    "absent": (lambda _: answer({}, 404), "http_status", "404 Not Found"),
    "broken": (lambda _: answer({"error": "server_error"}, 500), "http_status", "500 Internal Server Error: server_"),
    "limited": (lambda _: answer({}, 429, {"Retry-After": "5"}), "rate_limited", "429 Too Many Requests"),
    "redirects": (lambda _: answer({}, 302, {"Location": "http://elsewhere/"}), "http_status", "302 Found, redirec"),
    "html": (lambda _: answer(b"<html>", media_type="text/html"), "contract", "the answer is not a token"),
    "empty": (lambda _: answer(b""), "contract", "the answer is not a token"),
    "list": (lambda _: answer([1]), "contract", "the answer is not a token"),
    "null": (lambda _: answer(None), "contract", "the answer is not a token"),
    "nested": (lambda _: answer(b"[" * 50_000), "contract", "the answer is not a token"),
    "not utf-8": (lambda _: answer(b"\xff"), "contract", "the answer is not a token"),
    "no token": (lambda _: answer({"token_type": "bearer"}), "contract", "the answer is not a token"),
    "no text": (lambda _: answer({"access_token": 5, "token_type": "x"}), "contract", "the answer is not a token"),
    "injection": (lambda _: answer({"access_token": "a\r\nb: c"}), "contract", "the answer is not a token"),
    "type": (lambda _: answer({"access_token": "a", "token_type": "x y"}), "contract", "the answer is not a token"),
    "negative": (lambda _: answer({"access_token": "a", "expires_in": -5}), "contract", "the answer is not a token"),
    "for ever": (lambda _: answer(b'{"access_token": "a", "expires_in": 1e400}'), "contract", "is not a token"),
    "scope": (lambda _: answer({"access_token": "a", "scope": {"a": 5}}), "contract", "the answer is not a token"),
    "error": (lambda _: answer({"error": "invalid_grant"}), "contract", "the answer is not a token"),
    "huge": (lambda _: answer(LONG), "too_large", "larger than 16 MiB"),
    "many values": (lambda _: answer([0] * 40_000), "too_large", "larger than 64 KiB"),
    "slow": (never, "timeout", "no complete answer within"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_broken_token_endpoint_fails_the_poll_in_its_own_name(fault: str) -> None:
    reply, reason, says = FAULTS[fault]
    api = Guarded()
    times: dict[str, Any] = {"timeout": "900ms", "interval": "1s", "stale_after": "1m"} if fault == "slow" else {}
    async with running(api, reply, **times) as (exporter, endpoint):
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, api.seen) == (reason, []), state.failure.message
        assert state.failure.message.startswith(f"POST {endpoint.url}/token: ")
        assert says in state.failure.message
        assert SECRET not in f"{state.failure.message}{exporter.logs}"
        # It recovers.
        endpoint.answer = TokenEndpoint()
        assert (await exporter.poll()).outcome == "success"


@pytest.mark.parametrize(
    ("changed", "mistake"),
    [
        ({"client_id": ""}, "oauth2.client_id: is empty"),
        ({"token_url": "x"}, "oauth2.token_url: is not a URL"),
        ({"client_secret_file": "exporter.yml"}, "oauth2: set one of client_secret and client_secret_file"),
        ({"endpoint_params": {"grant_type": "x"}}, "oauth2.endpoint_params: has grant_type, which is set by itself"),
        ({"grant_type": "x"}, "oauth2.grant_type: unknown key"),
        ({"no_proxy": "x"}, "oauth2: no_proxy needs a proxy_url"),
        ({"tls_config": {"ca_file": "none"}}, "oauth2.tls_config.ca_file: can't read the file"),
    ],
)
def test_mistakes(tmp_path: Path, changed: dict[str, Any], mistake: str) -> None:
    path = tmp_path / "exporter.yml"
    source = {"name": "a", "system": "prefect", "url": "http://x", "oauth2": oauth2("http://t") | changed}
    path.write_text(json.dumps({"sources": [source]}))
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert f"sources[0].{mistake}" in str(raised.value)
