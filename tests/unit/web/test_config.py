"""`--web.config.file`: what is let in, over which TLS, and what a mistake in the file says and does."""

import asyncio
import base64
import json
import os
import platform
import shutil
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.clock import Clock
from exporter.settings.reader import ConfigError
from exporter.web.config import LiveWebConfig, load
from exporter.web.guard import HEADERS
from tests.harness.certificates import authority, certificate
from tests.harness.command import run
from tests.harness.process import PATIENCE, no_descriptors
from tests.harness.web import HASH, PASSWORD, live, served, trusting

ALICE = ("alice", PASSWORD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, `ca` and `other`; certificates of a server and of clients."""
    folder = tmp_path_factory.mktemp("certificates")
    authority(folder)
    authority(folder, "other")
    certificate(folder, "server")
    certificate(folder, "next")
    names = "DNS:prometheus.example,URI:spiffe://prometheus,IP:192.0.2.1,IP:2001:db8::1,email:prometheus@example.org"
    certificate(folder, "client", names)
    certificate(folder, "stranger", "DNS:prometheus.example", by="other")
    return folder


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def file(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes the file, beside copies of the certificates."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return lambda **content: write(tmp_path / "web.yml", content)


def tls(**more: object) -> dict[str, object]:
    return {"cert_file": "server.pem", "key_file": "server.key", **more}


async def get(
    address: str, context: ssl.SSLContext | None = None, path: str = "/metrics", **more: Any
) -> httpx.Response:
    """One request over a connection of its own."""
    async with httpx.AsyncClient(verify=context or False, trust_env=False, timeout=PATIENCE) as client:
        return await client.get(f"{'https' if context else 'http'}://{address}{path}", **more)


# --- Mistakes.

NO_SALT = f"$2b$10${'z' * 53}"  # of the right characters, but bcrypt can't use it
PEM = "-----BEGIN nonsense canary-pem"


@pytest.mark.parametrize(
    ("content", "mistakes"),
    [
        (
            {"tls_server_config": {"cert_file": "server.pem"}},
            ["1: tls_server_config: has no key_file, which TLS needs"],
        ),
        (
            {"tls_server_config": {"key_file": "server.key"}},
            ["1: tls_server_config: has no cert_file, which TLS needs"],
        ),
        (
            {"tls_server_config": tls(cert_file="nowhere.pem")},
            ["1: tls_server_config.cert_file: can't read the file nowhere.pem: No such file or directory"],
        ),
        (
            {"tls_server_config": tls(key_file="next.key")},
            [
                "1: tls_server_config: cert_file server.pem and key_file next.key are not a certificate and its key in"
                " PEM, the key without a passphrase"
            ],
        ),
        (
            {"tls_server_config": {"cert": PEM, "key": PEM}},
            [
                "1: tls_server_config: cert_file (inline) and key_file (inline) are not a certificate and its key in"
                " PEM, the key without a passphrase"
            ],
        ),
        ({"tls_server_config": tls(cert=PEM)}, ["1: tls_server_config: set one of cert and cert_file"]),
        (
            {"tls_server_config": tls(min_version="TLS10")},
            ["1: tls_server_config.min_version: can't be TLS10, which is no longer safe; use TLS12, TLS13"],
        ),
        (
            {"tls_server_config": tls(min_version="TLS13", max_version="TLS12")},
            ["1: tls_server_config: min_version is above max_version"],
        ),
        (
            {"tls_server_config": tls(client_auth_type="RequireAnyClientCert")},
            [
                "1: tls_server_config.client_auth_type: can't be RequireAnyClientCert, since Python"
                " verifies each certificate that it asks for; use NoClientCert, VerifyClientCertIfGiven,"
                " RequireAndVerifyClientCert"
            ],
        ),
        (
            {"tls_server_config": {"client_auth_type": "NoClientCert"}},
            ["1: tls_server_config: has no cert_file, which TLS needs"],
        ),
        (
            {"tls_server_config": tls(client_ca_file="ca.pem")},
            ["1: tls_server_config: client_ca_file needs a client_auth_type that asks for certificates"],
        ),
        (
            {"tls_server_config": tls(client_auth_type="VerifyClientCertIfGiven", client_ca_file="ca.key")},
            ["1: tls_server_config: client_ca_file ca.key has no certificate in PEM"],
        ),
        (
            {"tls_server_config": tls(client_allowed_sans=["a"])},
            ["1: tls_server_config: client_allowed_sans needs client_auth_type: RequireAndVerifyClientCert"],
        ),
        (
            {"tls_server_config": tls(client_auth_type="RequireAndVerifyClientCert", client_allowed_sans=[])},
            ["1: tls_server_config: client_allowed_sans is empty, which lets no client in"],
        ),
        (
            {"tls_server_config": tls(max_version="TLS12", cipher_suites=["TLS_AES_128_GCM_SHA256"])},
            ["1: tls_server_config: cipher_suites has none that TLS 1.2 could use, and max_version is TLS12"],
        ),
        (
            {"tls_server_config": tls(cipher_suites=["TLS_RSA_WITH_RC4_128_SHA"])},
            [
                "1: tls_server_config.cipher_suites[0]: is not one of TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,"
                " TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,"
                " TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,"
                " TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,"
                " TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,"
                " TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384,"
                " TLS_CHACHA20_POLY1305_SHA256"
            ],
        ),
        (
            {"tls_server_config": tls(curve_preferences=["X25519", "CurveP256"])},
            [
                "1: tls_server_config: curve_preferences can't have more than one curve, which is all that Python can"
                " set"
            ],
        ),
        (
            {"tls_server_config": tls(curve_preferences=["P1"])},
            ["1: tls_server_config.curve_preferences[0]: is not one of CurveP256, CurveP384, CurveP521, X25519"],
        ),
        (
            {"tls_server_confg": tls()},
            ["1: tls_server_confg: unknown key; did you mean 'tls_server_config'?"],
        ),
        (
            {"tls_server_config": tls(certfile="a")},
            ["1: tls_server_config.certfile: unknown key; did you mean 'cert_file'?"],
        ),
        ({"basic_auth_users": ["alice"]}, ["1: basic_auth_users: is not a mapping, of lines like `key: value`"]),
        (
            {"basic_auth_users": {"alice": PASSWORD, "bob": HASH, "eve": HASH[:-1], "mallory": NO_SALT, "": ""}},
            [
                "1: basic_auth_users.: is not a bcrypt hash; make one with htpasswd -nBC 10",
                "1: basic_auth_users.alice: is not a bcrypt hash; make one with htpasswd -nBC 10",
                "1: basic_auth_users.eve: is not a bcrypt hash; make one with htpasswd -nBC 10",
                "1: basic_auth_users.mallory: is not a bcrypt hash; make one with htpasswd -nBC 10",
            ],
        ),
        (
            {"http_server_config": {"headers": {"X-Powered-By": "me"}}},
            [
                "1: http_server_config: headers: X-Powered-By can't be set; it is one of Content-Security-Policy,"
                " Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection"
            ],
        ),
        (
            {"http_server_config": {"headers": {"X-Frame-Options": "allow"}}},
            ["1: http_server_config: headers: X-Frame-Options is not one of deny, sameorigin"],
        ),
        (
            {"http_server_config": {"headers": {"X-XSS-Protection": "1\r\nSet-Cookie: a"}}},
            ["1: http_server_config: headers: X-XSS-Protection has a character that no header can carry"],
        ),
        (
            {"rate_limit": {"interval": "soon", "burst": -1}},
            [
                "1: rate_limit.burst: is less than 0",
                "1: rate_limit.interval: is not a duration; write it like 1s, 500ms or 1m30s",
            ],
        ),
        (
            {"rate_limit": {"interval": "1s"}},
            ["1: rate_limit: burst is 0, which lets no request in; set it to 1 or more"],
        ),
        ([], [" has none of the keys of a web configuration; see docs/configuration.md"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_mistake_is_named(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, content: dict[str, Any] | list[Any], mistakes: list[str]
) -> None:
    path = write(file(), content)
    monkeypatch.chdir(path.parent)
    with pytest.raises(ConfigError) as raised:
        load(Path(path.name))
    assert raised.value.mistakes == [f"{path.name}:{mistake}" for mistake in mistakes]
    assert PASSWORD not in str(raised.value)
    assert HASH[:-1] not in str(raised.value)
    assert PEM not in str(raised.value)


@pytest.mark.parametrize("curve", ["CurveP256", "CurveP384", "CurveP521", "X25519"])
def test_a_curve_works_or_is_refused_by_name(file: Callable[..., Path], curve: str) -> None:
    """Older versions of Python can't set each of them."""
    path = file(tls_server_config=tls(curve_preferences=[curve]))
    try:
        load(path)
        refused = ""
    except ConfigError as error:
        refused = str(error)
    assert not refused or refused.endswith(f"curve_preferences: Python {platform.python_version()} can't use {curve}")


def test_the_check_reads_both_files(file: Callable[..., Path]) -> None:
    config = write(file().parent / "config.yml", {"sources": [{"name": "a"}]})
    bad = file(basic_auth_users={"alice": PASSWORD})
    assert run("--config.check", f"--config.file={config}", f"--web.config.file={bad}") == (
        1,
        "",
        f"{config}:1: sources[0].system: is missing; it is one of prefect, cloro\n"
        f"{bad}:1: basic_auth_users.alice: is not a bcrypt hash; make one with htpasswd -nBC 10\n",
    )


# --- Passwords.


async def test_who_is_let_in(file: Callable[..., Path]) -> None:
    long = "x" * 72
    users = {"alice": HASH, "": HASH, "löng": bcrypt.hashpw(long.encode(), bcrypt.gensalt(4)).decode()}
    async with served(live(file(basic_auth_users=users))) as address:
        for auth in (ALICE, ALICE, ("", PASSWORD), ("löng".encode(), long), ("löng".encode(), long + "more")):
            assert (await get(address, auth=auth)).text == "hello /metrics"
        for auth in (("alice", ""), ("alice", "wrong"), ("alice", PASSWORD + "\0"), ("bob", PASSWORD), ("bob", HASH)):
            answer = await get(address, auth=auth)
            assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
            assert answer.headers["WWW-Authenticate"] == "Basic"
        for header in (
            "",
            "Basic",
            "Basic !",
            "Basic YWxpY2U=",
            "Basic gIA6gA==",
            "Bearer YWxpY2U6YQ==",
            f"basic {HASH}",
            b"Basic \xe4\xff",
            b"Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()) + b"\xa0",
        ):
            assert (await get(address, headers={"Authorization": header})).status_code == 401
        assert (await get(address)).status_code == 401


def costs(checks: list[bytes]) -> int:
    """The work of these checks, in units of that at the least cost."""
    return sum(2 ** (int(hashed.split(b"$")[2]) - 4) for hashed in checks)


async def test_time_does_not_tell_who_is_a_user(file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted rather than timed: bcrypt's work doubles with each step of the cost."""
    checks: list[bytes] = []
    check = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, hashed: checks.append(hashed) or check(password, hashed))  # type: ignore[func-returns-value]
    users = {name: bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode() for name, cost in COSTS.items()}
    async with served(live(file(basic_auth_users=users))) as address:
        work = {}
        for name in (*COSTS, "nobody", ""):
            checks.clear()
            answer = await get(address, auth=(name, "wrong"))
            assert (answer.status_code, answer.text) == (401, "Unauthorized\n")
            work[name] = costs(checks)
        assert set(work.values()) == {2**4}
        checks.clear()
        for status in (200, 200, 200):
            assert (await get(address, auth=("cheap", PASSWORD))).status_code == status
        assert costs(checks) == 2**4, "what was found right once is remembered"


@asynccontextmanager
async def flood(address: str, requests: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[asyncio.Task[int]]]:
    """Statuses of so many requests with wrong passwords. One is being checked, and none ends in here."""
    check, begun, go_on = bcrypt.checkpw, threading.Event(), threading.Event()

    def held(password: bytes, hashed: bytes) -> bool:
        begun.set()
        go_on.wait()
        return check(password, hashed)

    async def status(number: int) -> int:
        return (await get(address, auth=("alice", f"wrong {number}"))).status_code

    monkeypatch.setattr(bcrypt, "checkpw", held)
    try:
        statuses = [asyncio.create_task(status(number)) for number in range(requests)]
        assert await asyncio.to_thread(begun.wait, 30)
        yield statuses
    finally:
        go_on.set()


COSTS = {"cheap": 4, "middling": 6, "dear": 8}


async def test_a_password_is_remembered_for_its_user_and_its_hash_only(file: Callable[..., Path]) -> None:
    web = live(file(basic_auth_users={"alice": HASH}))
    other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    async with served(web) as address:
        assert (await get(address, auth=ALICE)).status_code == 200
        file(basic_auth_users={"alice": other, "bob": other})
        assert (await get(address, auth=ALICE)).status_code == 401
        assert (await get(address, auth=("alice", "other"))).status_code == 200
        file(basic_auth_users={"bob": other})
        assert (await get(address, auth=("alice", "other"))).status_code == 401
        file(basic_auth_users={"alice": other, "bob": HASH})
        assert (await get(address, auth=("bob", "other"))).status_code == 401
        file(http_server_config={})
        assert (await get(address)).status_code == 200


async def test_a_flood_of_wrong_passwords_does_not_stop_who_is_remembered(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(live(file(basic_auth_users={"alice": HASH}))) as address:
        await get(address, auth=ALICE)
        async with flood(address, 20, monkeypatch) as wrong:
            assert (await get(address, auth=ALICE)).status_code == 200
            assert not any(one.done() for one in wrong)
        assert await asyncio.gather(*wrong) == [401] * 20


async def test_a_flood_of_wrong_passwords_refuses_nobody_else(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for its turn, probes too."""
    async with served(live(file(basic_auth_users={"alice": HASH, "bob": HASH}))) as address:
        async with flood(address, 200, monkeypatch) as wrong:
            others = [
                asyncio.create_task(get(address, auth=known, path=path))
                for known in (ALICE, ("bob", PASSWORD))
                for path in ("/metrics", "/-/healthy", "/-/ready")
            ]
        assert {(await one).status_code for one in others} == {200}
        assert await asyncio.gather(*wrong) == [401] * 200


# --- Headers and the rate limit.


async def test_headers_are_added_where_an_answer_has_none_of_that_name(file: Callable[..., Path]) -> None:
    headers = {
        "X-Frame-Options": "sameorigin",
        "Strict-Transport-Security": "max-age=60",
        "Content-Security-Policy": "",
        "X-Content-Type-Options": "nosniff",
    }
    web = live(file(basic_auth_users={"alice": HASH}, http_server_config={"headers": headers, "http2": True}))
    async with served(web) as address:
        let_in, refused = await get(address, auth=ALICE), await get(address)
    assert let_in.headers["X-Frame-Options"] == "deny"
    assert refused.headers["X-Frame-Options"] == "sameorigin"
    for answer in (let_in, refused):
        assert answer.headers["Strict-Transport-Security"] == "max-age=60"
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
        assert answer.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]


async def test_the_rate_limit_is_a_token_bucket(file: Callable[..., Path]) -> None:
    now = 100.0
    clock = Clock(now=lambda: 0.0, monotonic=lambda: now)
    web = live(file(rate_limit={"interval": "10s", "burst": 2}))
    async with served(web, clock) as address:

        async def statuses(requests: int) -> list[int]:
            return [(await get(address)).status_code for _ in range(requests)]

        assert await statuses(3) == [200, 200, 429]
        now += 9.9
        assert await statuses(1) == [429]
        now += 0.2
        assert await statuses(2) == [200, 429]
        now += 1000
        assert await statuses(3) == [200, 200, 429]
        file(rate_limit={"interval": "0s"})
        assert await statuses(5) == [200] * 5


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        ("0", 0),
        ("0s", 0),
        ("1s", 1),
        ("1.5s", 1.5),
        ("1m30s", 90),
        ("100ms", 0.1),
        (".5h", 1800),
        ("10µs", 1e-5),
    ],
)
def test_durations_are_those_of_go(file: Callable[..., Path], written: object, seconds: float) -> None:
    assert load(file(rate_limit={"interval": written, "burst": 1})).rate_limit.interval == pytest.approx(seconds)


@pytest.mark.parametrize("written", [1, "1", "1d", "1w", "-1s", "s", "1 s", "", True, "1,5s", ["1s"], "1" * 100_000])
def test_what_go_does_not_take_for_a_duration(file: Callable[..., Path], written: object) -> None:
    if written == "":
        assert load(file(rate_limit={"interval": written})).rate_limit.interval == 0
        return
    with pytest.raises(ConfigError, match="is not a duration"):
        load(file(rate_limit={"interval": written, "burst": 1}))


# --- TLS.


@pytest.mark.parametrize("inline", [False, True], ids=["files", "inline"])
async def test_clients_certificates(file: Callable[..., Path], folder: Path, inline: bool) -> None:
    settings = tls(client_ca_file="ca.pem", client_auth_type="RequireAndVerifyClientCert")
    if inline:
        texts = {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"}
        settings = {key: (folder / name).read_text(encoding="ascii") for key, name in texts.items()}
        settings["client_auth_type"] = "RequireAndVerifyClientCert"
    async with served(live(file(tls_server_config=settings))) as address:
        assert (await get(address, trusting(folder, "client"))).status_code == 200
        for nobody in (None, "stranger"):
            with pytest.raises(httpx.TransportError):
                await get(address, trusting(folder, nobody))


@pytest.mark.parametrize("client", [None, "client"])
async def test_a_client_s_certificate_may_be_optional(
    file: Callable[..., Path], folder: Path, client: str | None
) -> None:
    settings = tls(client_ca_file="ca.pem", client_auth_type="VerifyClientCertIfGiven")
    async with served(live(file(tls_server_config=settings))) as address:
        assert (await get(address, trusting(folder, client))).status_code == 200
        with pytest.raises(httpx.TransportError):
            await get(address, trusting(folder, "stranger"))


@pytest.mark.parametrize(
    ("names", "is_let_in"),
    [
        (["prometheus.example"], True),
        (["a", "spiffe://prometheus"], True),
        (["192.0.2.1"], True),
        (["2001:db8::1"], True),
        (["prometheus@example.org"], True),
        (["example"], False),
        (["*.example"], False),
        (["client"], False),
    ],
)
async def test_the_name_of_a_client(file: Callable[..., Path], folder: Path, names: list[str], is_let_in: bool) -> None:
    settings = tls(client_ca_file="ca.pem", client_auth_type="RequireAndVerifyClientCert", client_allowed_sans=names)
    async with served(live(file(tls_server_config=settings))) as address:
        if is_let_in:
            assert (await get(address, trusting(folder, "client"))).status_code == 200
        else:
            with pytest.raises(httpx.TransportError):
                await get(address, trusting(folder, "client"))


async def test_a_name_that_is_no_address_is_none_of_a_client_s(
    file: Callable[..., Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An IP address of three bytes, which OpenSSL lets pass, before a name of DNS."""
    certificate(folder, "malformed", "DER:30:0A:87:03:01:02:03:82:03:64:6E:73")
    settings = tls(client_ca_file="ca.pem", client_auth_type="RequireAndVerifyClientCert")
    for names in (["dns"], ["<invalid>"]):
        web = live(file(tls_server_config={**settings, "client_allowed_sans": names}))
        async with served(web) as address:
            if names == ["dns"]:
                assert (await get(address, trusting(folder, "malformed"))).status_code == 200
            else:
                with pytest.raises(httpx.TransportError):
                    await get(address, trusting(folder, "malformed"))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "version", "cipher"),
    [
        ({}, "TLSv1.3", "TLS_"),
        ({"max_version": "TLS12"}, "TLSv1.2", "ECDHE-ECDSA-"),
        (
            {"max_version": "TLS12", "cipher_suites": ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"]},
            "TLSv1.2",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
        ),
        ({"curve_preferences": ["CurveP521"], "prefer_server_cipher_suites": False}, "TLSv1.3", "TLS_"),
    ],
)
async def test_versions_and_ciphers(
    file: Callable[..., Path], folder: Path, settings: dict[str, object], version: str, cipher: str
) -> None:
    async with served(live(file(tls_server_config=tls(**settings)))) as address:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=trusting(folder))
        connection = writer.get_extra_info("ssl_object")
        assert connection.version() == version
        assert connection.cipher()[0].startswith(cipher)
        writer.close()


@pytest.mark.parametrize(("is_the_server_s", "chosen"), [(True, "AES256"), (False, "AES128")])
async def test_whose_order_of_ciphers_counts(
    file: Callable[..., Path], folder: Path, is_the_server_s: bool, chosen: str
) -> None:
    names = [f"TLS_ECDHE_ECDSA_WITH_{name}" for name in ("AES_256_GCM_SHA384", "AES_128_GCM_SHA256")]
    settings = tls(max_version="TLS12", cipher_suites=names, prefer_server_cipher_suites=is_the_server_s)
    context = trusting(folder)
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    async with served(live(file(tls_server_config=settings))) as address:
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        assert chosen in writer.get_extra_info("ssl_object").cipher()[0]
        writer.close()


@pytest.mark.parametrize("settings", [{"min_version": "TLS13"}, {"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}])
async def test_an_old_version_is_refused(file: Callable[..., Path], folder: Path, settings: dict[str, object]) -> None:
    context = trusting(folder)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with served(live(file(tls_server_config=tls(**settings)))) as address:
        with pytest.raises(httpx.TransportError):
            await get(address, context)
        assert (await get(address, trusting(folder))).status_code == 200


async def test_tls_1_2_has_no_suite_of_cbc_by_default(file: Callable[..., Path], folder: Path) -> None:
    def only(ciphers: str) -> ssl.SSLContext:
        context = trusting(folder)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
        return context

    async with served(live(file(tls_server_config=tls()))) as address:
        for good in ("ECDHE+AESGCM", "ECDHE+CHACHA20"):
            assert (await get(address, only(good))).status_code == 200
        with pytest.raises(httpx.TransportError):
            await get(address, only("ALL:!AESGCM:!CHACHA20:!AESCCM:@SECLEVEL=0"))
    chosen = live(file(tls_server_config=tls(cipher_suites=["TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"])))
    async with served(chosen) as address:
        assert (await get(address, only("ECDHE-ECDSA-AES128-SHA"))).status_code == 200


# --- What changes while it is served.


async def test_the_certificate_is_exchanged_while_connections_go_on(file: Callable[..., Path], folder: Path) -> None:
    path = file(tls_server_config=tls())
    async with served(live(path)) as address:

        async def subject() -> object:
            host, port = address.split(":")
            _, writer = await asyncio.open_connection(host, int(port), ssl=trusting(folder))
            found = writer.get_extra_info("peercert")["subject"][0][0][1]
            writer.close()
            return found

        async with httpx.AsyncClient(verify=trusting(folder), trust_env=False, timeout=PATIENCE) as client:
            await client.get(f"https://{address}/")
            assert await subject() == "server"
            with capture_logs() as logs:
                exchange(path.parent / "next.pem", path.parent / "server.pem")
                assert await subject() == "server"  # with a key that is not its own
                assert await subject() == "server"
                exchange(path.parent / "next.key", path.parent / "server.key")
                assert await subject() == "next"
            assert [entry["event"] for entry in logs] == [
                "web configuration not reloaded; the old one stays",
                "web configuration reloaded",
            ]
            assert (await client.get(f"https://{address}/")).status_code == 200


def exchange(source: Path, destination: Path) -> None:
    """Put a copy in the place of a file, as certificate managers do."""
    copy = destination.with_suffix(".new")
    shutil.copy(source, copy)
    os.replace(copy, destination)  # noqa: PTH105


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("basic_auth_users: [", "is not valid YAML"),
        ("basic_auth_users: {alice: plain}", "is not a bcrypt hash"),
        ("basic_auth_users: {}", "tls_server_config came or went, which takes a restart"),
        ("", "tls_server_config came or went, which takes a restart"),
        ("tls_server_config: {cert_file: gone.pem, key_file: server.key}", "can't read the file"),
        (None, "No such file or directory"),
    ],
)
async def test_a_mistake_leaves_all_as_it_was(
    file: Callable[..., Path], folder: Path, content: str | None, says: str
) -> None:
    path = file(tls_server_config=tls(), basic_auth_users={"alice": HASH})
    async with served(live(path)) as address:
        with capture_logs() as logs:
            path.unlink() if content is None else path.write_text(content, encoding="utf-8")
            for _ in range(3):
                assert (await get(address, trusting(folder), auth=ALICE)).status_code == 200
                assert (await get(address, trusting(folder))).status_code == 401
            assert [(entry["log_level"], says in str(entry["mistakes"])) for entry in logs] == [("error", True)]
            file(tls_server_config=tls(), basic_auth_users={"bob": HASH})
            assert (await get(address, trusting(folder), auth=("bob", PASSWORD))).status_code == 200
            assert logs[1]["event"] == "web configuration reloaded"


async def test_a_file_that_is_being_written_lets_nobody_in(file: Callable[..., Path]) -> None:
    path = file(basic_auth_users={"alice": HASH})
    async with served(live(path)) as address:
        for nothing in ("", "# basic_auth_users:\n", "basic_auth_users:\n"):
            path.write_text(nothing, encoding="utf-8")
            assert (await get(address)).status_code == 401
            assert (await get(address, auth=ALICE)).status_code == 200
        file(basic_auth_users={})
        assert (await get(address)).status_code == 200


def test_what_is_wrong_is_read_once_until_something_changes(file: Callable[..., Path]) -> None:
    path = file(tls_server_config=tls(), basic_auth_users={"alice": HASH})
    readings: list[bool] = []

    def was_read(*, success: bool) -> None:
        readings.append(success)

    web = LiveWebConfig(path, was_read, Clock())

    def becomes(*expected: bool) -> None:
        readings.clear()
        for _ in range(3):
            assert set(web.refresh().basic_auth_users) == {"alice"}
        assert readings == list(expected)

    becomes()
    away = path.rename(path.with_suffix(".away"))
    becomes(False)
    away.rename(path)
    becomes(True)  # though it is the file that was there before
    path.write_text("basic_auth_users: [", encoding="utf-8")
    becomes(False)
    path.chmod(0o600)  # as where the mistake is that we may not read it
    becomes(False)
    with pytest.raises(ConfigError):
        web.read()
    becomes()
    # A file that only what is wrong names counts as well.
    file(tls_server_config=tls(cert_file="later.pem"), basic_auth_users={"alice": HASH})
    becomes(False)
    exchange(path.parent / "server.pem", path.parent / "later.pem")
    becomes(True)


@pytest.mark.parametrize("changed", ["file", "certificate"])
def test_what_can_not_be_read_for_a_passing_reason_is_read_later(file: Callable[..., Path], changed: str) -> None:
    """Nothing changes when descriptors are to be had again, so that only time can tell."""
    seconds = 0.0
    readings: list[bool] = []

    def was_read(*, success: bool) -> None:
        readings.append(success)

    path = file(tls_server_config=tls(), basic_auth_users={"alice": HASH})
    web = LiveWebConfig(path, was_read, Clock(monotonic=lambda: seconds))
    context = web.refresh().tls_server_config.context
    if changed == "file":
        file(tls_server_config=tls(), basic_auth_users={"bob": HASH})
    else:
        exchange(path.parent / "server.pem", path.parent / "server.pem")
    with capture_logs() as logs:
        for after in (0, 9.9, 10, 19.9, 20):
            seconds = after
            with no_descriptors():
                for _ in range(3):
                    assert set(web.refresh().basic_auth_users) == {"alice"}
                    assert web.refresh().tls_server_config.context is context
        assert readings == [False] * 3, "it is not tried all the time"
        seconds = 29.9
        assert web.refresh().tls_server_config.context is context
        seconds = 30
        assert set(web.refresh().basic_auth_users) == {"bob" if changed == "file" else "alice"}
        assert web.refresh().tls_server_config.context is not context
        seconds = 1000
        web.refresh()
    assert readings == [False] * 3 + [True]
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("error", "web configuration not reloaded; the old one stays"),
        *[("debug", "web configuration not reloaded; the old one stays")] * 2,
        ("info", "web configuration reloaded"),
    ]


def test_what_changes_while_it_is_read_is_read_again(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(basic_auth_users={"alice": HASH})
    read_text, times = Path.read_text, 0

    def read_before_it_changes(self: Path, *arguments: Any, **named: Any) -> str:
        nonlocal times
        text = read_text(self, *arguments, **named)
        times += 1
        if times == 2:  # the one that counts
            file(basic_auth_users={"bob": HASH})
        return text

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", read_before_it_changes)
        web = live(path)
    assert times == 2
    assert set(web.refresh().basic_auth_users) == {"bob"}


def test_a_secret_is_not_shown(file: Callable[..., Path]) -> None:
    web = live(file(basic_auth_users={"alice": HASH}))
    assert isinstance(web.refresh().basic_auth_users["alice"], SecretStr)
    assert HASH not in repr(web.refresh()) + str(web.refresh().model_dump())


# --- The command, with Prometheus as its client.
