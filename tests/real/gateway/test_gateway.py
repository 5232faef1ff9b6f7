"""Upstream servers behind a real gateway: headers, client certificates, SNI, TLS versions, logins, OAuth 2.0."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import authority, certificate
from tests.harness.command import outcome, upstream_answer
from tests.harness.inprocess import OneSource
from tests.harness.nginx import nginx
from tests.harness.oauth2 import ID, SECRET, TokenEndpoint
from tests.harness.prefect import PrefectServer
from tests.harness.process import free_port
from tests.harness.upstream import Request, answer, serve, serving

CLIENT, CLIENT_SECRET = "0123abc.access", "5ecret-of-the-gateway"
WRONG = "wr0ng-5ecret"
GOOD = upstream_answer({"queue": 3})
FORBIDDEN = "; check authorization, basic_auth and http_headers of the source"
LOGIN = "https://login.example.com/authorize?client_id=1&redirect_uri=https%3A%2F%2Fprefect.example.com"


def by_headers(port: int, upstream: str) -> str:
    """A gateway that lets a service token through, as Cloudflare Access does."""
    return f"""
server {{
  listen 127.0.0.1:{port};
  add_header X-Request-ID $request_id always;
  if ($http_cf_access_client_id != "{CLIENT}") {{ return 403; }}
  if ($http_cf_access_client_secret != "{CLIENT_SECRET}") {{ return 403; }}
  location / {{ proxy_pass {upstream}; }}
}}
"""


@dataclass(frozen=True)
class Gateways:
    """Where each gateway is, and the folder with the certificates."""

    folder: Path
    ports: Mapping[str, int]

    def cases(self) -> dict[str, tuple[str, dict[str, Any], str, str]]:
        """By name of the source: the gateway, the settings, the reason of the failure (none: it succeeds), and what a
        regular expression finds in its message."""
        path = {name: str(self.folder / name) for name in ("ca.pem", "other.pem", "client.pem", "client.key")}
        text = {name: (self.folder / name).read_text() for name in ("ca.pem", "client.pem", "client.key")}
        trusting = {"ca_file": path["ca.pem"]}
        pair = {"cert_file": path["client.pem"], "key_file": path["client.key"]}
        strange = {name: file.replace("client.", "stranger.") for name, file in pair.items()}
        named = trusting | {"server_name": "inside.example"}
        inline = {"ca": text["ca.pem"], "cert": text["client.pem"], "key": text["client.key"]}
        tls, ours = "; check tls_config of the source", "; check authorization or basic_auth of the source"

        def token(secret: str) -> dict[str, Any]:
            headers = {"CF-Access-Client-Id": {"values": [CLIENT]}, "CF-Access-Client-Secret": {"secrets": [secret]}}
            return {"http_headers": headers}

        def oauth2(secret: str, authority: str = "other.pem") -> dict[str, Any]:
            where = f"https://127.0.0.1:{self.ports['tokens']}/token"
            way = {"token_url": where, "tls_config": {"ca_file": path[authority]}}
            return {"oauth2": {"client_id": ID, "client_secret": secret, **way}}

        return {
            "headers": ("headers", token(CLIENT_SECRET), "", ""),
            "headers-wrong": ("headers", token(WRONG), "auth", f"403 Forbidden{FORBIDDEN}"),
            "headers-none": ("headers", {}, "auth", f"403 Forbidden{ours}"),
            "certificate": ("mtls", {"tls_config": trusting | pair}, "", ""),
            "certificate-inline": ("mtls", {"tls_config": inline}, "", ""),
            "certificate-none": (
                *("mtls", {"tls_config": trusting}, "http_status"),
                f"400 Bad Request: No required SSL certificate was sent{tls}",
            ),
            "certificate-strange": (
                *("mtls", {"tls_config": trusting | strange}, "http_status"),
                f"400 Bad Request: The SSL certificate error{tls}",
            ),
            "authority-none": ("mtls", {}, "tls", f"TLS failed: .*certificate.*{tls}"),
            "name": ("sni", {"tls_config": named}, "", ""),
            "name-none": ("sni", {"tls_config": trusting}, "tls", f"TLS failed: IP address mismatch.*{tls}"),
            "name-other": (
                *("sni", {"tls_config": named | {"server_name": "other.example"}}, "tls"),
                f"TLS failed: .*'other.example'.*{tls}",
            ),
            "version": ("sni", {"tls_config": named | {"max_version": "TLS12"}}, "", ""),
            "version-too-high": (
                *("sni", {"tls_config": named | {"min_version": "TLS13"}}, "tls"),
                f"TLS failed: .*PROTOCOL.VERSION{tls}",
            ),
            "login": (
                *("login", {}, "http_status"),
                f"302 .*, redirected to {re.escape(LOGIN)}; set url to where the API is, or http_headers or oauth2 if"
                " that is a login page",
            ),
            "oauth2": ("oauth2", oauth2(SECRET), "", ""),
            "oauth2-wrong": (
                "oauth2",
                oauth2(WRONG),
                "auth",
                "/token: 401 .*invalid_client.*; check oauth2 of the source",
            ),
            "oauth2-authority": ("oauth2", oauth2(SECRET, "ca.pem"), "tls", f"/token: TLS failed: .*{tls}"),
            "oauth2-none": ("oauth2", {}, "auth", f"/api/.*: 401 .*{ours}"),
            "absent": ("absent", {}, "http_status", "502 Bad Gateway"),
        }


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    """One nginx with all gateways, in front of a look-alike of Prefect."""
    folder = tmp_path_factory.mktemp("gateways")
    authority(folder)
    authority(folder, "other")
    certificate(folder, "server")
    certificate(folder, "tokens", by="other")
    certificate(folder, "inside", "DNS:inside.example")
    certificate(folder, "client")
    certificate(folder, "stranger", by="other")
    tokens = TokenEndpoint()

    def upstream_and_tokens(request: Request) -> bytes:
        if request.path == "/token":
            return tokens(request)
        if request.path == "/introspect":
            return answer({}, 200 if request.headers.get("authorization", "").startswith("Bearer token-") else 401)
        return GOOD(request)

    names = ("headers", "mtls", "sni", "login", "oauth2", "tokens", "absent")
    ports = {name: free_port() for name in names}
    nobody = free_port()
    with serving(upstream_and_tokens) as upstream:
        servers = f"""
  map $ssl_server_name $is_inside {{ inside.example 1; default 0; }}
{by_headers(ports["headers"], upstream.url)}
  server {{
    listen 127.0.0.1:{ports["mtls"]} ssl;
    add_header X-Request-ID $request_id always;
    ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.key;
    ssl_client_certificate {folder}/ca.pem; ssl_verify_client on;
    location / {{ proxy_pass {upstream.url}; }}
  }}
  server {{
    listen 127.0.0.1:{ports["sni"]} ssl;
    ssl_certificate {folder}/inside.pem; ssl_certificate_key {folder}/inside.key;
    ssl_protocols TLSv1.2;
    if ($is_inside = 0) {{ return 421; }}
    location / {{ proxy_pass {upstream.url}; }}
  }}
  server {{
    listen 127.0.0.1:{ports["login"]};
    add_header X-Request-ID $request_id always;
    location / {{ return 302 {LOGIN}; }}
  }}
  server {{
    listen 127.0.0.1:{ports["oauth2"]};
    add_header X-Request-ID $request_id always;
    location / {{ auth_request /introspect; proxy_pass {upstream.url}; }}
    location = /introspect {{
      internal; proxy_pass {upstream.url}; proxy_pass_request_body off; proxy_set_header Content-Length "";
    }}
  }}
  server {{
    listen 127.0.0.1:{ports["tokens"]} ssl;
    ssl_certificate {folder}/tokens.pem; ssl_certificate_key {folder}/tokens.key;
    location / {{ proxy_pass {upstream.url}; }}
  }}
  server {{
    listen 127.0.0.1:{ports["absent"]};
    add_header X-Request-ID $request_id always;
    location / {{ proxy_pass http://127.0.0.1:{nobody}; }}
  }}
"""
        with nginx(folder / "nginx", servers, ports["absent"]):
            yield Gateways(folder, ports)


@pytest.fixture(scope="module")
def output(gateways: Gateways) -> str:
    """What the command says that polls once through each gateway with each settings."""
    sources = [
        {
            "name": name,
            "system": "prefect",
            "url": f"http{'s' if gateway in {'mtls', 'sni'} else ''}://127.0.0.1:{gateways.ports[gateway]}/api",
            **settings,
        }
        for name, (gateway, settings, _, _) in gateways.cases().items()
    ]
    path = gateways.folder / "exporter.yml"
    path.write_text(json.dumps({"sources": sources}))
    code, output = outcome("--dry-run", f"--config.file={path}")
    assert code == 1, output
    return output


def test_what_a_gateway_requires_is_sent_and_what_it_refuses_is_said(gateways: Gateways, output: str) -> None:
    found = dict(re.findall(r"^(\S+) +prefect +(success|failure) ", output, re.MULTILINE))
    cases = gateways.cases()
    assert found == {name: "failure" if reason else "success" for name, (_, _, reason, _) in cases.items()}, output
    for name, (gateway, _, reason, message) in cases.items():
        said = [line for line in output.splitlines() if line.startswith(f"{name} failed (")]
        assert len(said) == bool(reason)
        for line in said:
            assert re.match(rf"{name} failed \({reason}\): (GET|POST) https?://127\.0\.0\.1:\d+/\S+: ", line)
            # What no gateway has answered has no id, nor has what is not of this gateway.
            has_id = reason != "tls" and gateway != "sni" and "/token" not in line
            assert re.search(message + (r" \(X-Request-ID [0-9a-f]{32}\)$" if has_id else ""), line), line


def test_no_message_shows_a_secret(output: str) -> None:
    assert not [secret for secret in (CLIENT_SECRET, WRONG, SECRET, "PRIVATE KEY") if secret in output]


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("<title>Access denied</title>", ": Access denied"),
        ("<TITLE lang='en'>\n  Sign in &middot; A&amp;B\n</TITLE>", ": Sign in · A&B"),
        ("<title>502 Bad Gateway</title>", ""),
        ("<title>Bad Gateway</title>", ""),
        ("<title>502 No server</title>", ": No server"),
        (f"<title>You sent {WRONG}</title>", ": You sent <secret>"),
        ("<title>\x1b[31m</title>", ": [31m"),
        ("<title></title>", ""),
        (f"<title>{'x' * 300}</title>", ""),
        ("<title>never closed", ""),
        ("<title" * 10_000, ""),
        ("no page", ""),
    ],
)
async def test_the_title_of_an_error_page_is_said(title: str, said: str) -> None:
    page = answer(f"<html><head>{title}</head></html>".encode(), 502, media_type="text/html")
    async with serve(lambda _: page) as upstream:
        headers = {"X-Token": {"secrets": [WRONG]}}
        async with OneSource("prefect", upstream.url, http_headers=headers) as exporter:
            state = await exporter.poll()
    assert state.failure
    assert state.failure.message == f"POST {upstream.url}/api/work_pools/filter: 502 Bad Gateway{said}"


def test_a_real_server_behind_required_headers(prefect_server: PrefectServer, tmp_path: Path) -> None:
    """By the variable that Prefect's own client reads."""
    port = free_port()
    api = prefect_server.api_url.removesuffix("/api")
    with nginx(tmp_path, by_headers(port, api), port):
        for secret, status in ((CLIENT_SECRET, 0), (WRONG, 1)):
            headers = {"CF-Access-Client-Id": CLIENT, "CF-Access-Client-Secret": secret}
            code, output = outcome(
                "--dry-run",
                PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
                PREFECT_CLIENT_CUSTOM_HEADERS=json.dumps(headers),
            )
            assert code == status, output
            assert secret not in output
    assert f"403 Forbidden{FORBIDDEN} (X-Request-ID " in output
