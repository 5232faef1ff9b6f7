"""Credentials of a source: no output shows them, and no other server gets them."""

from pathlib import Path
from typing import Any, Final

import pytest

from exporter.polling.store import SourceState
from exporter.sources import SYSTEMS
from tests.harness.cases import CASES
from tests.harness.cloro import error
from tests.harness.connections import hang_up
from tests.harness.inprocess import OneSource
from tests.harness.upstream import Answer, Request, answer, serve
from tests.systems.prefect.case import ONE, pool

CANARY: Final = "canary+7f3a/Z=="


def echo_in_body(request: Request) -> bytes:
    said = request.headers["authorization"]
    return answer(error("ECHO", said) | {"detail": f"sent {said}, decoded user:{CANARY}"}, 500)


def echo_as_text(request: Request) -> bytes:
    return answer({"success": False, "error": request.headers["authorization"], "exception_message": CANARY}, 401)


ECHOES: Final[dict[str, Answer]] = {
    "body": echo_in_body,
    "body-as-text": echo_as_text,
    "reason": lambda request: f"HTTP/1.1 401 {request.headers['authorization']}\r\nContent-Length: 0\r\n\r\n".encode(),
    "location": lambda request: answer({}, 302, {"Location": f"http://x/?{request.headers['authorization']}"}),
    "bad-location": lambda request: answer({}, 302, {"Location": f"http://[{request.headers['authorization']}"}),
    "media-type": lambda request: answer(b"", media_type=request.headers["authorization"]),
    "json-media-type": lambda request: answer(b"", media_type=f"x/json; {request.headers['authorization']}"),
    "first-line": lambda request: hang_up(f"{request.headers['authorization']}\r\n\r\n".encode())(request),
    "header-line": lambda request: hang_up(
        f"HTTP/1.1 200 OK\r\n\0 {request.headers['authorization']}\r\n\r\n".encode()
    )(request),
    "chunk": lambda request: hang_up(
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{request.headers['authorization']}\r\n".encode()
    )(request),
    "retry-after": lambda request: answer({}, 429, {"Retry-After": request.headers["authorization"]}),
    "value": lambda request: answer([pool(8, "a", is_paused=request.headers["authorization"])]),
}


@pytest.fixture
def canary_file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    put(path, f"{CANARY}\n".encode())
    return path


def put(file: Path, content: bytes | None) -> None:
    """Replace the content of a file, or delete it."""
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def credentials(kind: str, file: Path) -> dict[str, Any]:
    return {
        "value": {"authorization": {"credentials": CANARY}},
        "file": {"authorization": {"credentials_file": str(file)}},
        "type": {"authorization": {"type": "Token", "credentials": CANARY}},
        "basic": {"basic_auth": {"username": "user", "password": CANARY}},
        "basic-file": {"basic_auth": {"username": "user", "password_file": str(file)}},
    }[kind]


ENCODED: Final = "dXNlcjpjYW5hcnkrN2YzYS9aPT0="
"""`user:` and the canary, in base64."""


async def assert_no_canary(exporter: OneSource, state: SourceState) -> None:
    shown = [repr(exporter.logs), repr(state), repr(exporter.config), await exporter.page(), await exporter.page("/")]
    for text in shown:
        assert CANARY not in text
        assert ENCODED not in text
        assert CANARY[:10] not in text


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize(
    ("system", "kind"), [(system, kind) for system, case in CASES.items() for kind in case.credentials]
)
async def test_a_secret_that_upstream_repeats_is_not_shown(
    system: str, kind: str, echo: Answer, canary_file: Path
) -> None:
    async with serve(echo) as upstream, OneSource(system, upstream.url, **credentials(kind, canary_file)) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason != "internal"
        assert upstream.requests[0].headers["authorization"].endswith((CANARY, ENCODED))
        await assert_no_canary(exporter, state)


@pytest.mark.parametrize("kind", ["value", "basic"])
async def test_a_secret_that_is_repeated_for_one_queue_is_not_shown(kind: str, canary_file: Path) -> None:
    async with (
        serve(CASES["prefect"].failing({ONE: echo_in_body})) as upstream,
        OneSource("prefect", upstream.url, **credentials(kind, canary_file)) as exporter,
    ):
        state = await exporter.poll()
        assert state.published
        assert "<secret>" in state.published.snapshot.unreadable[0].message
        assert "&lt;secret&gt;" in await exporter.page("/")
        await assert_no_canary(exporter, state)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_no_credentials_follow_a_redirect_to_another_host(system: str, code: int, canary_file: Path) -> None:
    async with serve(CASES[system].works) as other:
        elsewhere = answer({}, code, {"Location": f"{other.url}{CASES[system].first}"})
        async with (
            serve(lambda _: elsewhere) as upstream,
            OneSource(system, upstream.url, **credentials("value", canary_file)) as exporter,
        ):
            state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "http_status"
        assert (
            f"redirected to {other.url}{CASES[system].first}; set url to where the API is, or" in state.failure.message
        )
        assert (len(upstream.requests), other.connections) == (1, 0)


@pytest.mark.parametrize(
    ("system", "kind", "prefix"),
    [("cloro", "file", "Bearer "), ("prefect", "file", "Bearer "), ("prefect", "basic-file", "Basic ")],
)
async def test_a_file_with_a_secret_is_read_again(system: str, kind: str, prefix: str, canary_file: Path) -> None:
    async with (
        serve(CASES[system].works) as upstream,
        OneSource(system, upstream.url, **credentials(kind, canary_file)) as exporter,
    ):
        assert (await exporter.poll()).outcome == "success"
        before = upstream.requests[-1].headers["authorization"]
        put(canary_file, b"rotated\n")
        assert (await exporter.poll()).outcome == "success"
        after = upstream.requests[-1].headers["authorization"]
        assert before.startswith(prefix)
        assert after == prefix + {"Bearer ": "rotated", "Basic ": "dXNlcjpyb3RhdGVk"}[prefix]
        requests = len(upstream.requests)

        put(canary_file, None)
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, len(upstream.requests)) == ("auth", requests)
        key = "basic_auth.password_file" if "basic" in kind else "authorization.credentials_file"
        assert state.failure.message == f"can't read {key} {canary_file}: No such file or directory"

        put(canary_file, b"back")
        assert (await exporter.poll()).outcome == "success"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"canary+7f3a\r\nX-Injected: 1", "has characters that a header can't carry"),
        ("canary+7f3aé".encode(), "has characters that a header can't carry"),
        (b"canary+7f3a\xff", "is not UTF-8"),
    ],
    ids=["empty", "blank", "two-lines", "not-ascii", "not-utf-8"],
)
async def test_a_file_with_what_is_no_secret(content: bytes, says: str, canary_file: Path) -> None:
    async with (
        serve(CASES["cloro"].works) as upstream,
        OneSource("cloro", upstream.url, **credentials("file", canary_file)) as exporter,
    ):
        put(canary_file, content)
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, upstream.requests) == ("auth", [])
        assert says in state.failure.message
        assert str(canary_file) in state.failure.message
        await assert_no_canary(exporter, state)
