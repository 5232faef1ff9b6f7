"""Which requests go through a proxy, and what the proxy is told."""

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exporter.config import from_environment
from exporter.settings.reader import ConfigError
from exporter.sources.connection import Connection, is_excepted
from tests.harness.certificates import authority, certificate
from tests.harness.connections import tunnels
from tests.harness.inprocess import OneSource
from tests.harness.upstream import answer, serve

STATUS = answer({"queuedTasks": 1, "processingTasks": 0, "concurrency": None})


@pytest.mark.parametrize(
    ("no_proxy", "reached", "through"),
    [
        ("*", ["http://a", "http://10.0.0.1"], []),
        ("example.com", ["http://example.com", "https://a.example.com:8443", "http://EXAMPLE.com"], ["http://xexample.com"]),
        (".example.com", ["http://a.example.com"], ["http://example.com"]),
        ("*.example.com", ["http://a.example.com"], ["http://example.com", "http://aexample.com"]),
        ("example.com:8080", ["http://example.com:8080"], ["http://example.com", "https://example.com:8081"]),
        ("example.com:443", ["https://example.com"], ["http://example.com"]),
        ("10.0.0.1", ["http://10.0.0.1", "http://10.0.0.1:8080"], ["http://10.0.0.11", "http://10.0.0.2"]),
        ("10.0.0.1:80", ["http://10.0.0.1"], ["http://10.0.0.1:81"]),
        ("10.0.0.0/8", ["http://10.1.2.3:99"], ["http://11.0.0.1", "http://ten.example"]),
        ("10.1.2.3/8", ["http://10.9.9.9"], ["http://11.0.0.1"]),
        ("fd00::/8", ["http://[fd00::1]"], ["http://[fe80::1]", "http://10.0.0.1"]),
        ("fd00::1", ["http://[fd00:0::1]:80"], ["http://[fd00::2]"]),
        ("[fd00::1]:80", ["http://[fd00::1]"], ["http://[fd00::1]:81"]),
        (" a , ,b,", ["http://a", "http://x.b"], ["http://c"]),
        ("", ["http://localhost", "http://127.0.0.1", "http://127.9.9.9", "http://[::1]"], ["http://localhost.example"]),
        ("1.2.3.4/99, :80, a:b", [], ["http://1.2.3.4", "http://a"]),
    ],
)  # fmt: skip
def test_exceptions_are_those_of_go(no_proxy: str, reached: list[str], through: list[str]) -> None:
    """By the documentation of golang.org/x/net/http/httpproxy."""
    assert [url for url in reached if not is_excepted(url, no_proxy)] == []
    assert [url for url in through if is_excepted(url, no_proxy)] == []


def test_the_environment_has_a_proxy_for_each_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    connection = Connection(proxy_from_environment=True)
    assert connection.proxy_to("https://a") is None
    monkeypatch.setenv("HTTPS_PROXY", "secure:3128")
    monkeypatch.setenv("http_proxy", "http://user:pass@Plain:3128/")
    monkeypatch.setenv("NO_PROXY", "b")
    found = {url: connection.proxy_to(url) for url in ("https://a", "http://a", "http://b", "https://127.0.0.1")}
    assert {url: proxy.url if proxy else None for url, proxy in found.items()} == {
        "https://a": "http://secure:3128",
        "http://a": "http://user:pass@plain:3128",
        "http://b": None,
        "https://127.0.0.1": None,
    }
    assert Connection().proxy_to("https://a") is None
    environment = {"PREFECT_API_URL": "https://a/api"}
    proxy = from_environment(environment).sources[0].proxy_to("https://a")
    assert proxy
    assert proxy.url == "http://secure:3128"
    monkeypatch.setenv("HTTPS_PROXY", "socks5://canary@x:1")
    with pytest.raises(ConfigError) as raised:
        from_environment(environment)
    assert raised.value.mistakes == [
        "environment: HTTPS_PROXY of the environment is not a URL; write it like http://proxy:3128"
    ]


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"no_proxy": "a"}, "no_proxy needs a proxy_url"),
        ({"proxy_from_environment": True, "proxy_url": "http://a"}, "so proxy_url and no_proxy can't be"),
        ({"proxy_from_environment": True, "no_proxy": "a"}, "so proxy_url and no_proxy can't be"),
        ({"proxy_connect_header": {"A": ["a"]}}, "proxy_connect_header needs a proxy_url or proxy_from_environment"),
        ({"proxy_url": "http://a", "proxy_connect_header": {"A": ["a\n"]}}, "has characters that a header can't carry"),
        ({"proxy_url": "http://a", "proxy_connect_header": {"A B": ["a"]}}, "is not the name of a header"),
        ({"proxy_url": "http://a/path"}, "has a path, which a proxy has not"),
        ({"proxy_url": "socks5://a"}, "is not a URL; write it like http://proxy:3128"),
    ],
)
def test_what_makes_no_sense_is_a_mistake(settings: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Connection.model_validate(settings)
    assert mistake in str(raised.value)


async def test_a_plain_request_goes_through_with_the_proxys_password() -> None:
    async with serve(lambda _: STATUS) as proxy:
        url = proxy.url.replace("http://", "http://user:p%40ss@")
        headers = {"X-Only-For-Tunnels": ["secret"]}
        settings = {"proxy_url": url, "proxy_connect_header": headers}
        async with OneSource("cloro", "http://upstream.example", **settings) as exporter:
            state = await exporter.poll()
            assert state.outcome == "success", state.failure
            assert "p%40ss" not in f"{exporter.config!r}{await exporter.page('/')}"
        async with OneSource("cloro", proxy.url, **settings, no_proxy="other.example") as exporter:
            assert (await exporter.poll()).outcome == "success"
    through, direct = (request.headers for request in proxy.requests)
    assert through["proxy-authorization"] == f"Basic {base64.b64encode(b'user:p@ss').decode()}"
    assert through["host"] == "upstream.example"
    assert "x-only-for-tunnels" not in through
    assert "proxy-authorization" not in direct, "loopback, where there are exceptions"


async def test_the_headers_are_for_the_tunnel_alone(tmp_path: Path) -> None:
    authority(tmp_path)
    certificate(tmp_path, "server", "DNS:upstream.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    heads: list[str] = []
    async with serve(lambda _: STATUS, tls=context) as upstream, tunnels(upstream.port, heads) as proxy:
        settings = {
            "proxy_url": proxy.replace("http://", "http://user:pass@"),
            "proxy_connect_header": {"X-Ticket": ["one", "two"]},
            "tls_config": {"ca_file": str(tmp_path / "ca.pem")},
        }
        async with OneSource("cloro", "https://upstream.example", **settings) as exporter:
            state = await exporter.poll()
            assert state.outcome == "success", state.failure
    lines = heads[0].split("\r\n")
    assert lines[0] == "CONNECT upstream.example:443 HTTP/1.1"
    assert [line for line in lines if line.lower().startswith("x-ticket")] == ["X-Ticket: one", "X-Ticket: two"]
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:pass').decode()}" in lines
    assert {"x-ticket", "proxy-authorization"}.isdisjoint(upstream.requests[0].headers)


async def test_a_proxy_that_repeats_its_secrets_shows_none() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().replace("\r\n", " ")
        writer.write(f"HTTP/1.1 407 you sent {head} c4nary t1cket\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()

    async with serve(lambda _: STATUS) as proxy:
        proxy.talk = refuse
        settings = {
            "proxy_url": proxy.url.replace("http://", "http://user:c4nary@"),
            "proxy_connect_header": {"X-Ticket": ["t1cket"]},
        }
        async with OneSource("cloro", "https://upstream.example", **settings) as exporter:
            state = await exporter.poll()
    assert state.failure
    shown = f"{state.failure.message}{exporter.logs}"
    assert "407" in shown
    for secret in ("c4nary", "t1cket", base64.b64encode(b"user:c4nary").decode()):
        assert secret not in shown
