"""No secret comes out of the command: each place of one holds a canary of its own, and every output is searched."""

import base64
import html
import json
import re
import ssl
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest

from exporter import config
from exporter.settings.reader import ConfigError
from exporter.web import config as web_config
from tests.harness.certificates import authority, certificate
from tests.harness.cloro import error
from tests.harness.command import COMMAND, environment, outcome, upstream_answer
from tests.harness.process import PATIENCE, free_port, running
from tests.harness.programs import ROOT
from tests.harness.upstream import Request, answer, serving

PLACES = (
    "authorization.credentials",
    "credentials_file",
    "basic_auth.password",
    "password_file",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "CLORO_API_KEY",
    "proxy_url",
    "csrf-token",
    "scraper",
    "stranger",
    "custom-headers",
    "http_headers.secrets",
    "http_headers.files",
    "oauth2.client_secret",
    "client_secret_file",
    "access_token",
    "password of a proxy",
    "proxy_connect_header",
)
CANARIES = {place: f"c4n4ry<&\"+/\\{number}='%>{place.upper()[:3]}" for number, place in enumerate(PLACES)}
"""A secret for each place, of characters that every encoding writes in its own way."""
HASH = bcrypt.hashpw(CANARIES["scraper"].encode(), bcrypt.gensalt(4)).decode()


def forms(secret: str) -> Iterator[str]:
    """How a secret may look in an output."""
    yield secret
    yield from (urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret))
    yield from (html.escape(secret), html.escape(secret, quote=False))
    yield from (json.dumps(secret)[1:-1], repr(secret)[1:-1], repr(json.dumps(secret)[1:-1])[1:-1])
    yield secret.encode().hex()
    for before in range(3):  # where the secret is not at the start of what is encoded
        encoded = base64.b64encode(b"x" * before + secret.encode()).decode()
        yield encoded[before + 1 : len(encoded) // 4 * 4 - 4]


def found(text: str, secrets: dict[str, str]) -> list[str]:
    """The places whose secrets are in a text, in whatever form."""
    lower = text.lower()
    return [place for place, secret in secrets.items() if any(form.lower() in lower for form in forms(secret))]


def test_a_secret_is_found_in_every_form() -> None:
    secret = CANARIES["scraper"]
    for shown in (
        f"x {secret} x",
        urllib.parse.quote(secret).lower(),
        html.escape(secret),
        json.dumps({"a": secret}),
        repr(json.dumps({"a": secret})),
        base64.b64encode(f"user:{secret}".encode()).decode(),
        base64.b64encode(f"u:{secret}!".encode()).decode(),
    ):
        assert found(shown, CANARIES) == ["scraper"], shown
    assert found("Authorization: Basic", CANARIES) == []


# --- Upstreams that repeat what they were sent.


SECRET_HEADERS = ("authorization", "proxy-authorization", "x-secret")


def said(request: Request) -> str:
    """The secret of a request, decoded: that of `X-Secret`, or of the proxy, where it has such."""
    if secret := request.headers.get("x-secret"):
        return secret
    scheme, _, sent = request.headers.get("proxy-authorization", request.headers.get("authorization", "")).partition(
        " "
    )
    return base64.b64decode(sent).decode().partition(":")[2] if scheme == "Basic" else sent


def echoes() -> list[Callable[[Request], bytes]]:
    """Each thing that an answer can carry, with the secret in each form."""

    def raw(text: str) -> bytes:
        return text.encode("latin-1", "replace")

    def carrying(repeat: Callable[[Request], str]) -> list[Callable[[Request], bytes]]:
        return [
            lambda request: answer({"detail": f"you sent {repeat(request)}"}, 500),
            lambda request: answer(error("ECHO", repeat(request)), 401),
            lambda request: answer({"exception_message": repeat(request)}, 403),
            lambda request: answer({"detail": f"CSRF {repeat(request)}"}, 403),
            lambda request: answer(f"<html>{repeat(request)}</html>".encode(), media_type="text/html"),
            lambda request: answer([{"id": repeat(request), repeat(request): 1}]),
            lambda request: answer({"queuedTasks": repeat(request), repeat(request): {}}),
            lambda request: raw(f"HTTP/1.1 500 {repeat(request)}\r\nContent-Length: 0\r\n\r\n"),
            lambda request: answer({}, 302, {"Location": f"http://x/?{repeat(request)}"}),
            lambda request: answer({}, 302, {"Location": f"http://[{repeat(request)}"}),
            lambda request: answer({}, 429, {"Retry-After": repeat(request)}),
            lambda request: answer(b"", headers={"Content-Type": repeat(request)}),
            lambda request: answer(b"", headers={"Content-Type": f"x/json; a={repeat(request)}"}),
            lambda request: answer(b"[]", headers={"Content-Encoding": repeat(request)}),
            lambda request: raw(f"{repeat(request)}\r\n\r\n"),
            lambda request: raw(f"HTTP/1.1 200 OK\r\n\0 {repeat(request)}\r\n\r\n"),
            lambda request: raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{repeat(request)}\r\n"),
            lambda request: raw(f"HTTP/1.1 200 OK\r\nContent-Length: {repeat(request)}\r\n\r\n"),
        ]

    ways: list[Callable[[Request], str]] = [
        lambda request: " ".join(request.headers.get(name, "") for name in SECRET_HEADERS),
        said,
        lambda request: urllib.parse.quote(said(request)),
        lambda request: html.escape(said(request)),
        lambda request: json.dumps(said(request))[1:-1],
        lambda request: base64.b64encode(said(request).encode()).decode(),
    ]
    return [one for repeat in ways for one in carrying(repeat)]


class Echo:
    """An upstream that goes through all of `echoes` again and again, and hands out a CSRF token now and then."""

    def __init__(self) -> None:
        self.asked = count()
        self.echoes = echoes()
        self.tokens: set[str] = set()
        self.good = upstream_answer({"queue": 3})

    def __call__(self, request: Request) -> bytes:
        if request.path.startswith("/token"):
            return self.token(request)
        token = request.headers.get("prefect-csrf-token")
        if token:
            self.tokens.add(token)
        if request.path.startswith("/api/csrf-token"):
            return answer({"token": CANARIES["csrf-token"]})
        number = next(self.asked)
        if number % 5 == 0:
            return self.good(request)
        if token and number % 5 == 1:
            return answer({"detail": f"{token} {request.headers['authorization']}"}, 500)
        return self.echoes[number % len(self.echoes)](request)

    def token(self, request: Request) -> bytes:
        """An OAuth 2.0 token, now and then; else what came in the form and in the header."""
        number = next(self.asked)
        if number % 3:
            return answer(
                {"access_token": CANARIES["access_token"].replace(" ", ""), "token_type": "bearer", "expires_in": 1}
            )
        form = urllib.parse.unquote_plus(request.body.decode())
        sent = f"{request.headers.get('authorization', '')} {form} {urllib.parse.unquote_plus(said(request))}"
        return answer({"error": sent, "error_description": request.body.decode()}, 400)


# --- The command.


def sources(folder: Path, url: str) -> list[dict[str, Any]]:
    for place in ("credentials_file", "password_file", "http_headers.files", "client_secret_file"):
        (folder / place).write_text(f"{CANARIES[place]}\n")
    key = {"credentials": CANARIES["authorization.credentials"]}
    oauth2 = {"client_id": "client", "token_url": f"{url}/token?x={CANARIES['oauth2.client_secret'][:2]}"}
    kinds: dict[str, dict[str, Any]] = {
        "key": {"authorization": key},
        "key-file": {"authorization": {"credentials_file": "credentials_file"}},
        "password": {"basic_auth": {"username": "user", "password": CANARIES["basic_auth.password"]}},
        "password-file": {"basic_auth": {"username": "user", "password_file": "password_file"}},
        "header": {"authorization": key, "http_headers": {"X-Secret": {"secrets": [CANARIES["http_headers.secrets"]]}}},
        "oauth2": {"oauth2": {**oauth2, "client_secret": CANARIES["oauth2.client_secret"]}},
        "oauth2-file": {"oauth2": {**oauth2, "client_secret_file": "client_secret_file"}},
        "through-proxy": {
            "url": "http://x/api",
            "proxy_url": url.replace("://", f"://user:{urllib.parse.quote(CANARIES['password of a proxy'], safe='')}@"),
        },
        "through-tunnel": {
            "url": "https://x/api",
            "proxy_url": url.replace("://", f"://user:{urllib.parse.quote(CANARIES['password of a proxy'], safe='')}@"),
            "proxy_connect_header": {"X-Secret": [CANARIES["proxy_connect_header"]]},
        },
        "header-file": {"authorization": key, "http_headers": {"X-Secret": {"files": ["http_headers.files"]}}},
    }
    times = {"interval": "50ms", "timeout": "10s", "stale_after": "1m"}
    return [
        *({"name": kind, "system": "prefect", "url": f"{url}/api", **times, **more} for kind, more in kinds.items()),
        {"name": "cloro", "system": "cloro", "url": url, **times, "authorization": key},
        {"name": "proxied", "system": "cloro", "url": "http://x", "proxy_url": url, **times, "authorization": key},
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority(tmp_path)
    certificate(tmp_path, "server")
    return tmp_path


def secrets(folder: Path) -> dict[str, str]:
    """Every secret that the command gets: also the hash, and the lines of the key."""
    key = max((folder / "server.key").read_text().splitlines(), key=len)
    return CANARIES | {"hash": HASH, "key": key}


API = ("queues", "limits", "sources", "queue?source=key&queue=async", "headroom?source=key&queue=async", "openapi.json")
ROUTES = (
    *("/", "/metrics", "/metrics?source=key", "/sd", "/-/healthy", "/-/ready", "/-/reload", "/nowhere", "/metrics/"),
    *(f"/api/v1/{route}" for route in API),
    *("/?source=key", "/queue?source=key&queue=async", "/pool?source=key&pool=p", "/limit?source=key&kind=tag&limit=l"),
)


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_no_output_holds_a_secret(folder: Path, log_format: str) -> None:
    """Log, pages, metrics, headers and the command line, while every upstream repeats what it was sent."""
    port = free_port()
    web = folder / "web.yml"
    tls = {name: (folder / f"server.{ending}").read_text() for name, ending in (("cert", "pem"), ("key", "key"))}
    good_web = json.dumps({"tls_server_config": tls, "basic_auth_users": {"scraper": HASH}})
    web.write_text(good_web)
    path = folder / "exporter.yml"
    echo = Echo()
    with serving(echo) as upstream:
        kept = sources(folder, upstream.url)
        good = json.dumps({"sources": kept})
        path.write_text(good)
        flags = [f"--web.listen-address=127.0.0.1:{port}", "--log.level=debug", f"--log.format={log_format}"]
        flags += ["--web.enable-lifecycle", f"--config.file={path}", f"--web.config.file={web}"]
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        shown: list[str] = []
        with (
            running([*COMMAND, *flags], log=folder / "log", env=environment()) as process,
            httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=PATIENCE
            ) as client,
        ):
            process.wait_until(lambda: "listening" in process.log_text(), what="it listens")

            def visit() -> None:
                for auth in (("scraper", CANARIES["scraper"]), ("scraper", CANARIES["stranger"]), None):
                    for method, path in [("GET", path) for path in ROUTES] + [("POST", "/-/reload"), ("PUT", "/")]:
                        response = client.request(method, path, auth=auth, headers={"X-Secret": CANARIES["stranger"]})
                        shown.append(f"{response.status_code} {response.headers!r} {response.text}")

            for number in range(7):
                # With other settings each is polled at once, and not ever later since its polls fail.
                path.write_text(json.dumps({"sources": [one | {"max_series": 10_000 + number} for one in kept]}))
                wanted = len(upstream.requests) + len(echo.echoes) // 3
                visit()
                process.wait_until(lambda wanted=wanted: len(upstream.requests) > wanted, what="polls go on")  # type: ignore[misc]
            for broken in MISPLACED:
                path.write_text(broken % {"secret": CANARIES["authorization.credentials"]})
                web.write_text(broken % {"secret": HASH})
                shown.append(client.post("/-/reload", auth=("scraper", CANARIES["scraper"])).text)
            visit()
            web.write_text(json.dumps({"tls_server_config": {"cert": tls["cert"], "key": f"{tls['key'][:-40]}"}}))
            path.write_text(good)
            visit()
            title = [Path(f"/proc/{process.pid}/{name}").read_text() for name in ("cmdline", "comm", "status")]
        log = process.log_text()
    assert echo.tokens == {CANARIES["csrf-token"]}, "the token was used"
    statuses = {text.split(" ")[0] for text in shown}
    assert statuses >= {"200", "401", "404", "405", "500"}
    assert log.count("poll failed") > 100
    assert log.count("configuration not reloaded") >= len(MISPLACED)
    assert "Traceback" not in log
    assert "<secret>" in log
    planted = secrets(folder)
    everything = "\n".join((log, *shown, *title))
    assert found(everything, planted) == [], [line for line in everything.splitlines() if found(line, planted)][:5]


MISPLACED = [
    "%(secret)s",
    "sources: %(secret)s",
    "sources:\n- %(secret)s",
    "sources:\n- name: a\n  system: '%(secret)s'",
    "sources:\n- {name: a, system: cloro, authorization: '%(secret)s'}",
    "sources:\n- {name: a, system: cloro, authorization: {credentials: ['%(secret)s']}}",
    "sources:\n- {name: a, system: cloro, authorization: {credentials: {a: '%(secret)s'}}}",
    "sources:\n- {name: a, system: cloro, authorization: {credentials: '%(secret)s', credentials_file: exporter.yml}}",
    "sources:\n- {name: a, system: cloro, authorization: {credentials: '%(secret)s', type: '%(secret)s'}}",
    "sources:\n- {name: a, system: cloro, basic_auth: {username: a, password: '%(secret)s'}}",
    "sources:\n- {name: a, system: cloro, http_headers: '%(secret)s'}",
    "sources:\n- {name: a, system: cloro, http_headers: {X-A: '%(secret)s'}}",
    "sources:\n- {name: a, system: cloro, http_headers: {X-A: {secrets: '%(secret)s'}}}",
    "sources:\n- {name: a, system: cloro, http_headers: {X-A: {secrets: ['%(secret)s\u00e9']}}}",
    "sources:\n- {name: a, system: cloro, http_headers: {Cookie: {secrets: ['%(secret)s'], a: '%(secret)s'}}}",
    "sources:\n- {name: a, system: cloro, http_headers: {Host: {secrets: ['%(secret)s']}}}",
    "sources:\n- {name: a, system: cloro, oauth2: '%(secret)s'}",
    "sources:\n- {name: a, system: cloro, oauth2: {client_secret: ['%(secret)s']}}",
    "sources:\n- {name: a, system: cloro, oauth2: {client_secret: '%(secret)s', client_secret_file: exporter.yml}}",
    "sources:\n- {name: a, system: cloro, oauth2: {token_url: 'http://user:%(secret)s@x'}}",
    "sources:\n- {name: a, system: cloro, oauth2: {endpoint_params: '%(secret)s'}}",
    "sources:\n- {name: a, system: cloro, proxy_connect_header: {A: '%(secret)s'}}",
    "sources:\n- {name: a, system: cloro, proxy_connect_header: {A: ['%(secret)s']}}",
    "sources:\n- {name: a, system: cloro, proxy_url: 'socks5://user:%(secret)s@x'}",
    "sources:\n- {name: a, system: cloro, tls_config: {cert: '%(secret)s', key: '%(secret)s'}}",
    "sources:\n- {name: a, system: cloro, tls_config: {key: ['%(secret)s']}}",
    "sources:\n- {name: a, system: cloro, url: 'http://user:%(secret)s@x'}",
    "sources:\n- {name: a, system: cloro, proxy_url: 'http://user:%(secret)s@x'}",
    "sources:\n- {name: a, system: cloro, proxy_url: 'http://user:%(secret)s@x/?'}",
    "sources:\n- {name: a, system: cloro, interval: '%(secret)s', max_series: '%(secret)s'}",
    "sources:\n- {name: a, system: prefect, url: http://x, pools: {include: '(%(secret)s'}}",
    "sources:\n- {name: a, system: prefect, url: http://x, pools: {include: '[%(secret)s'}}",
    "sources:\n- {name: a, system: prefect, url: http://x, queues: {exclude: '(?P<%(secret)s'}}",
    "sources:\n- name: a\n  authorization:\n    credentials: '%(secret)s'\n   bad: indent",
    "sources:\n- name: a\n  authorization: {credentials: '%(secret)s', credentials: '%(secret)s'}",
    "sources:\n- name: a\n  authorization: {credentials: *%(secret)s}",
    "sources:\n- name: a\n  authorization: {credentials: &a '%(secret)s', credentials: *b}",
    "sources:\n- name: a\n\tauthorization: {credentials: '%(secret)s'}",
    "sources:\n- name: a\n  authorization: {credentials: !!int '%(secret)s'}",
    'sources:\n- name: a\n  authorization: {credentials: "%(secret)s}',
    "basic_auth_users: '%(secret)s'",
    "basic_auth_users: ['%(secret)s']",
    "basic_auth_users: {a: ['%(secret)s']}",
    "basic_auth_users: {a: '%(secret)s!'}",
    "tls_server_config: {key: '%(secret)s', cert: '%(secret)s'}",
    "tls_server_config: {key: ['%(secret)s']}",
    "tls_server_config: {client_auth_type: '%(secret)s'}",
    "http_server_config: {headers: {X-Frame-Options: '%(secret)s'}}",
    "rate_limit: {interval: '%(secret)s', burst: '%(secret)s'}",
]
"""Files with a mistake at, in or beside a secret."""


@pytest.mark.parametrize("broken", MISPLACED)
def test_no_mistake_shows_a_secret(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text(broken % {"secret": CANARIES["proxy_url"].replace("'", "''")})
    for read in (config.load, web_config.load):
        with pytest.raises(ConfigError) as raised:
            read(path)
        # As they are, printed, and logged in both formats.
        assert found("\n".join((str(raised.value), repr(raised.value.mistakes))), CANARIES) == []


VARIABLES = {
    "PREFECT_API_KEY": CANARIES["PREFECT_API_KEY"],
    "CLORO_API_KEY": CANARIES["CLORO_API_KEY"],
    "PREFECT_API_AUTH_STRING": f"user:{CANARIES['PREFECT_API_AUTH_STRING']}",
    "PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps({"X-Secret": CANARIES["custom-headers"]}),
}


@pytest.mark.parametrize(
    "variables",
    [
        VARIABLES | {"PREFECT_API_URL": f"http://user:{CANARIES['PREFECT_API_KEY']}@x/api"},
        VARIABLES
        | {"PREFECT_API_URL": "http://x", "PREFECT_API_AUTH_STRING": "\ud800" + CANARIES["PREFECT_API_AUTH_STRING"]},
        VARIABLES | {"PREFECT_API_URL": "http://x", "PREFECT_CLIENT_CUSTOM_HEADERS": CANARIES["custom-headers"]},
        VARIABLES
        | {
            "PREFECT_API_URL": "http://x",
            "PREFECT_CLIENT_CUSTOM_HEADERS": json.dumps({"X-A": CANARIES["custom-headers"] + "\n"}),
        },
        VARIABLES | {"PREFECT_API_URL": "http://x", "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": CANARIES["custom-headers"]},
        {"CLORO_API_KEY": "\ud800" + CANARIES["CLORO_API_KEY"]},
        {"PREFECT_API_URL": "http://x", "PREFECT_API_KEY": "\ud800" + CANARIES["PREFECT_API_KEY"]},
    ],
)
def test_no_mistake_in_the_environment_shows_a_secret(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        config.from_environment(variables)
    assert found(repr(raised.value.mistakes), CANARIES) == []


@pytest.mark.parametrize(
    "flags",
    [["--help"], ["--nonsense"], ["--dry-run"], ["--dry-run", "with the key"], ["--dry-run", "without a colon"]],
)
def test_the_environment_is_not_shown(flags: list[str]) -> None:
    with serving(Echo()) as upstream:
        variables = VARIABLES | {"PREFECT_API_URL": f"{upstream.url}/api"}
        if flags[0] == "--dry-run":
            del variables["CLORO_API_KEY"]  # cloro's own address is not to be asked
        if flags[1:] == ["with the key"]:
            del variables["PREFECT_API_AUTH_STRING"]
        elif flags[1:]:
            variables["PREFECT_API_AUTH_STRING"] = CANARIES["PREFECT_API_AUTH_STRING"]
        _, output = outcome("--log.level=debug", flags[0], **variables)
    assert output
    assert found(output, CANARIES) == []
    assert "Traceback" not in output


FAULTY = """
import sys, httpx
from exporter import cli

async def fault(self, request, **more):
    secret = request.headers["authorization"]
    raise RuntimeError("a fault of ours")

httpx.AsyncClient.send = fault
sys.exit(cli.main())
"""


@pytest.mark.parametrize("log_format", ["logfmt", "json"])
def test_the_traceback_of_a_fault_of_ours_shows_no_secret(folder: Path, log_format: str) -> None:
    path = folder / "exporter.yml"
    path.write_text(json.dumps({"sources": sources(folder, "http://127.0.0.1:1")}))
    command = [sys.executable, "-c", FAULTY, "--dry-run", f"--log.format={log_format}", f"--config.file={path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment(), check=False)
    output = done.stdout + done.stderr
    assert re.search("Traceback.*RuntimeError: a fault of ours", output, re.DOTALL)
    assert found(output, CANARIES) == []


def test_the_figures_in_the_documents_are_those_of_these_tests() -> None:
    text = " ".join((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").split())
    assert f"in {len(echoes()) // 6} places of an answer" in text
    assert f"Files with {len(MISPLACED)} errors" in text
