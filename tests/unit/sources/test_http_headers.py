"""Credentials and further headers as upstream gets them, and what no header can carry."""

import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from exporter.config import from_environment, load
from exporter.settings.reader import ConfigError
from tests.harness.certificates import authority
from tests.harness.command import dry_run, source, upstream_answer
from tests.harness.inprocess import OneSource
from tests.harness.upstream import Request, answer, serve

STATUS = answer({"queuedTasks": 1, "processingTasks": 0, "concurrency": None})
URL = "PREFECT_API_URL"
GOOD = upstream_answer({"queue": 3})


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


async def test_headers_are_sent_with_each_request(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    headers = {
        "CF-Access-Client-Id": {"values": ["id"]},
        "CF-Access-Client-Secret": {"secrets": ["secret"]},
        "X-Token": {"files": ["token"]},
        "Cookie": {"secrets": ["a=b"]},
        "X-All": {"values": ["1"], "secrets": ["2"], "files": ["token"]},
    }
    async with serve(GOOD) as upstream:
        code, output = await dry_run(
            tmp_path, source("p", f"{upstream.url}/api", system="prefect", http_headers=headers)
        )
        assert code == 0, output
        assert len(upstream.requests) > 3
        for request in upstream.requests:
            got = request.headers
            assert got["authorization"] == "Bearer of-p"
            assert (got["cf-access-client-id"], got["cf-access-client-secret"]) == ("id", "secret")
            assert (got["x-token"], got["cookie"], got["x-all"]) == ("from-file", "a=b", "from-file")


async def test_a_header_may_have_several_values() -> None:
    sent: list[str] = []

    async def talk(reader: Any, writer: Any) -> None:
        sent.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(STATUS)
        await writer.drain()

    async with serve(lambda _: STATUS) as upstream:
        upstream.talk = talk
        headers = {"X-All": {"values": ["1", "2"], "secrets": ["3"]}}
        async with OneSource("cloro", upstream.url, http_headers=headers) as exporter:
            assert (await exporter.poll()).outcome == "success"
    assert [line for line in sent[0].split("\r\n") if line.startswith("X-All")] == ["X-All: 1", "X-All: 2", "X-All: 3"]


async def test_a_file_of_a_header_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    async with serve(lambda _: STATUS) as upstream:
        headers = {"X-Token": {"files": [str(file)]}}
        async with OneSource("cloro", upstream.url, http_headers=headers) as exporter:
            assert (await exporter.poll()).outcome == "success"
            file.write_text("new\n")
            assert (await exporter.poll()).outcome == "success"
            file.write_text("n\new")
            state = await exporter.poll()
            assert state.failure
            assert state.failure.reason == "auth"
            assert state.failure.message.startswith(f"http_headers.X-Token.files {file} has characters that a header")
            file.unlink()
            state = await exporter.poll()
            assert state.failure
            assert state.failure.message == f"can't read http_headers.X-Token.files {file}: No such file or directory"
    assert [request.headers["x-token"] for request in upstream.requests] == ["old", "new"]


async def test_other_headers_are_another_upstreams_data() -> None:
    """A gateway may choose by them who answers."""
    async with serve(lambda _: STATUS) as upstream:
        async with OneSource("cloro", upstream.url, http_headers={"X-Tenant": {"values": ["a"]}}) as exporter:
            await exporter.poll()
            assert await exporter.observed()
            await exporter.change(http_headers={"X-Tenant": {"values": ["b"]}})
            assert not await exporter.observed()


async def test_all_requests_of_a_poll_have_the_same_credentials(tmp_path: Path) -> None:
    """Files are read once a poll, and not while it runs."""
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("key 0")
    token.write_text("token 0")

    def rotate(request: Request) -> bytes:
        number = len(upstream.requests)
        key.write_text(f"key {number}")
        token.write_text(f"token {number}")
        return GOOD(request)

    async with serve(rotate) as upstream:
        settings = {
            "authorization": {"credentials_file": str(key)},
            "http_headers": {"X-Token": {"files": [str(token)]}},
        }
        async with OneSource("prefect", upstream.url, **settings) as exporter:
            for _ in range(2):
                before = len(upstream.requests)
                await exporter.poll()
                sent = {(got.headers["authorization"], got.headers["x-token"]) for got in upstream.requests[before:]}
                assert sent == {(f"Bearer key {before}", f"token {before}")}
                assert len(upstream.requests) >= before + 3


@pytest.mark.parametrize("place", ["authorization", "http_headers", "oauth2", "tls_config"])
async def test_a_file_that_can_not_be_read_to_its_end_is_read_once(place: str, tmp_path: Path) -> None:
    """As on a file server that does not answer; here a pipe that nobody writes to."""
    file = tmp_path / "secret"
    file.write_text("secret")
    authority(tmp_path)
    others = set(threading.enumerate())
    async with serve(lambda _: STATUS) as upstream:
        places: dict[str, dict[str, Any]] = {
            "authorization": {"authorization": {"credentials_file": str(file)}},
            "http_headers": {"http_headers": {"X-Token": {"files": [str(file)]}}},
            "oauth2": {
                "authorization": None,
                "oauth2": {"client_id": "id", "client_secret_file": str(file), "token_url": f"{upstream.url}/token"},
            },
            "tls_config": {"tls_config": {"ca_file": str(tmp_path / "ca.pem")}},
        }
        system = "prefect" if place == "oauth2" else "cloro"
        times = {"interval": "300ms", "timeout": "200ms", "stale_after": "1m"}
        url = upstream.url
        if place == "tls_config":
            file, url = tmp_path / "ca.pem", url.replace("http:", "https:")
        async with OneSource(system, url, **places[place], **times) as exporter:
            file.unlink()
            os.mkfifo(file)
            for _ in range(5):
                state = await exporter.poll()
                assert state.failure
                assert state.failure.reason == "timeout"
            reading = [one for one in threading.enumerate() if one.name == "file" and one not in others]
            assert len(reading) == 1
            with file.open("w"):  # ends the thread that reads it
                pass
            assert not upstream.requests


@pytest.mark.parametrize(
    ("username", "password"), [("user", ""), ("", "password"), ("", ""), ("úser", "pässwörd 🔑"), ("user", " a:b\n")]
)
async def test_basic_auth_carries_any_password(username: str, password: str) -> None:
    async with serve(lambda _: STATUS) as upstream:
        settings = {"authorization": None, "basic_auth": {"username": username, "password": password}}
        async with OneSource("prefect", upstream.url, **settings) as exporter:
            await exporter.poll()
    assert upstream.requests[0].headers["authorization"] == basic(f"{username}:{password}")


@pytest.mark.parametrize(
    ("content", "password"), [(b"", ""), (b"\n", ""), ("pässwörd\r\n".encode(), "pässwörd"), (b" a b\n", "a b")]
)
async def test_a_password_file_may_hold_any_text(content: bytes, password: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(content)
    async with serve(lambda _: STATUS) as upstream:
        basic_auth = {"username": "user", "password_file": str(tmp_path / "password")}
        async with OneSource("prefect", upstream.url, basic_auth=basic_auth) as exporter:
            await exporter.poll()
    assert upstream.requests[0].headers["authorization"] == basic(f"user:{password}")


def test_certificates_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("none")
    url = {URL: "https://localhost/api"}
    with pytest.raises(ConfigError) as raised:
        from_environment(url | {"PREFECT_API_SSL_CERT_FILE": str(file)})
    assert raised.value.mistakes == [
        f"environment: PREFECT_API_SSL_CERT_FILE: ca_file {file} has no certificate in PEM"
    ]
    for yes in ("true", "1", "True\n", "yes"):
        # As in Prefect's client, which then does not look at the file.
        variables = {"PREFECT_API_SSL_CERT_FILE": str(file), "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": yes}
        assert from_environment(url | variables).sources[0].tls_config.insecure_skip_verify
    assert not from_environment(url | {"PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "0"}).sources[0].tls_config.files


def test_variables_of_prefects_client_that_are_not_used_are_named_once() -> None:
    variables = {URL: "http://localhost:4200/api", "PREFECT_API_ENABLE_HTTP2": "true", "PREFECT_PROFILE": "work"}
    with capture_logs() as logs:
        from_environment(variables | {"PREFECT_LOGGING_LEVEL": "DEBUG", "PREFECT_CLIENT_MAX_RETRIES": ""})
    assert [(one["log_level"], one["variables"]) for one in logs] == [
        ("warning", "PREFECT_API_ENABLE_HTTP2,PREFECT_PROFILE")
    ]
    with capture_logs() as logs:
        from_environment({URL: "http://localhost:4200/api", "PREFECT_API_KEY": "key"})
        from_environment({"CLORO_API_KEY": "key", "PREFECT_PROFILE": "work"})
    assert not logs


UNCARRIED = "has characters that a header can't carry"
FILES = {"lines": b"a\nb", "latin": "é".encode(), "bytes": b"\xff", "empty": b" \n"}


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"authorization": {"credentials": "a\nb"}}, f"authorization.credentials: {UNCARRIED}"),
        ({"authorization": {"credentials": "é"}}, f"authorization.credentials: {UNCARRIED}"),
        ({"authorization": {"credentials": " a"}}, f"authorization.credentials: {UNCARRIED}"),
        ({"authorization": {"credentials": ""}}, "authorization.credentials: is empty"),
        (
            {"authorization": {"credentials_file": "lines"}},
            f"authorization.credentials_file: {{folder}}/lines {UNCARRIED}",
        ),
        (
            {"authorization": {"credentials_file": "latin"}},
            f"authorization.credentials_file: {{folder}}/latin {UNCARRIED}",
        ),
        (
            {"authorization": {"credentials_file": "bytes"}},
            "authorization.credentials_file: {folder}/bytes is not UTF-8",
        ),
        ({"authorization": {"credentials_file": "empty"}}, "authorization.credentials_file: {folder}/empty is empty"),
        ({"http_headers": {"X-A": {"values": ["a\x7f"]}}}, f"http_headers.X-A.values[0]: {UNCARRIED}"),
        ({"http_headers": {"X-A": {"secrets": ["a", "\r\n"]}}}, f"http_headers.X-A.secrets[1]: {UNCARRIED}"),
        ({"http_headers": {"X-A": {"files": ["lines"]}}}, f"http_headers.X-A.files[0]: {{folder}}/lines {UNCARRIED}"),
        (
            {"http_headers": {"X-A": {"files": ["none"]}}},
            "http_headers.X-A.files[0]: can't read the file {folder}/none",
        ),
        ({"http_headers": {"X-A": {}}}, "http_headers.X-A: has no value; set values, secrets or files"),
        ({"http_headers": {"X-A": {"value": ["a"]}}}, "http_headers.X-A.value: unknown key; did you mean 'values'?"),
        ({"http_headers": {"X A": {"values": ["a"]}}}, "http_headers.X A: is not the name of a header"),
        ({"http_headers": {"X-A:": {"values": ["a"]}}}, "http_headers.X-A:: is not the name of a header"),
        ({"http_headers": {"": {"values": ["a"]}}}, "http_headers.: is not the name of a header"),
        (
            {"http_headers": {"X-A": {"values": ["a"]}, "x-a": {"values": ["a"]}}},
            "http_headers: has X-A and x-a, which are one header",
        ),
        *(
            ({"http_headers": {name: {"values": ["a"]}}}, f"http_headers.{name}: is a header that can't be set here")
            for name in ("Authorization", "HOST", "content-type", "Content-Length", "User-Agent", "Transfer-Encoding")
        ),
        ({"basic_auth": {"username": "a:b", "password": ""}}, "basic_auth.username: has a colon"),
        ({"basic_auth": {"username": "a"}}, "basic_auth: set one of password and password_file"),
    ],
)
def test_what_no_header_can_carry_is_a_mistake(tmp_path: Path, settings: dict[str, Any], mistake: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "exporter.yml"
    path.write_text(json.dumps({"sources": [{"name": "a", "system": "prefect", "url": "http://x", **settings}]}))
    with pytest.raises(ConfigError) as raised:
        load(path)
    (said,) = raised.value.mistakes
    assert f"sources[0].{mistake.format(folder=tmp_path)}" in said
