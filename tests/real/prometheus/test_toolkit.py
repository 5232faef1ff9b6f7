"""`--web.config.file` is read as the exporter toolkit of Prometheus does it, which promtool and Prometheus hold."""

import base64
import json
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest

from exporter.clock import Clock
from exporter.settings.reader import ConfigError
from exporter.web.config import load
from exporter.web.guard import HEADERS
from tests.harness.certificates import authority, certificate
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT, program
from tests.harness.prometheus import PrometheusServer
from tests.harness.web import live, served

PASSWORD = "a pass:wörd"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
LONG = "x" * 72


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server and of clients."""
    folder = tmp_path_factory.mktemp("toolkit")
    authority(folder)
    authority(folder, "other")
    certificate(folder, "server")
    certificate(folder, "client")
    certificate(folder, "stranger", by="other")
    return folder


def tls(**more: object) -> dict[str, object]:
    return {"cert_file": "server.pem", "key_file": "server.key", **more}


# --- The example.


async def test_the_example_of_the_documentation_is_served(folder: Path, tmp_path: Path) -> None:
    """Keys, values and names of files as in docs/web-config.yml there, and the passwords of its two users."""
    shutil.copy(folder / "server.pem", tmp_path / "server.crt")
    shutil.copy(folder / "server.key", tmp_path)
    path = tmp_path / "web-config.yml"
    path.write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n\n"
        "basic_auth_users:\n"
        "  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n"
        "  bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m\n\n"
        'rate_limit:\n  interval: "1s" # time interval between two requests\n  burst: 20\n',
        encoding="utf-8",
    )
    now = 0.0
    clock = Clock(monotonic=lambda: now)
    async with served(live(path), clock) as address:
        context = ssl.create_default_context(cafile=folder / "ca.pem")
        async with httpx.AsyncClient(
            verify=context, base_url=f"https://{address}", trust_env=False, timeout=PATIENCE
        ) as client:

            async def status(auth: tuple[str, str] | None = None) -> int:
                return (await client.get("/metrics", auth=auth)).status_code

            assert await status(("alice", "alice123")) == await status(("bob", "bob123")) == 200
            assert await status() == await status(("alice", "bob123")) == 401
            assert [await status() for _ in range(20)] == [401] * 16 + [429] * 4
            now = 1.0
            assert [await status(("bob", "bob123")), await status(("bob", "bob123"))] == [200, 429]


# --- The file, as promtool reads it.

GOOD: dict[str, object] = {
    "nothing": "",
    "an empty mapping": {},
    "keys without values": "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
    "files without names": "tls_server_config:\n  cert_file:\n  key_file: ''\n",
    "tls": {"tls_server_config": tls()},
    "a version, but no tls": {"tls_server_config": {"min_version": "TLS13"}},
    "a blank client_auth_type": {"tls_server_config": tls(client_auth_type="")},
    "clients of the system's authorities": {
        "tls_server_config": tls(client_auth_type="RequireAndVerifyClientCert"),
    },
    "clients of one authority": {
        "tls_server_config": tls(client_auth_type="VerifyClientCertIfGiven", client_ca_file="ca.pem"),
    },
    "ciphers of TLS 1.3": {"tls_server_config": tls(cipher_suites=["TLS_AES_128_GCM_SHA256"])},
    "the order of the client": {"tls_server_config": tls(prefer_server_cipher_suites=False)},
    "a number as a header": {"http_server_config": {"headers": {"X-XSS-Protection": 1}}},
    "a blank header": "http_server_config:\n  headers:\n    Content-Security-Policy:\n",
    "no HTTP/2": {"http_server_config": {"http2": False}},
    **{
        f"a hash of {kind}": {"basic_auth_users": {"a": HASH.replace("$2b$", kind)}}
        for kind in ("$2a$", "$2b$", "$2y$", "$2x$")
    },
    "no users": {"basic_auth_users": {}},
}
BAD: dict[str, object] = {
    "a list": "- a\n",
    "a word": "junk\n",
    "an unknown key": "hWkNKCp3fvIX4jKnsaBI0TuEjdzNyv:\n",
    "an unknown key of tls": {"tls_server_config": tls(certfile="")},
    "a blank certificate": {"tls_server_config": {"cert_file": "", "key_file": "server.key"}},
    "a blank key": {"tls_server_config": {"cert_file": "server.pem", "key_file": ""}},
    "no certificate": {"tls_server_config": {"client_auth_type": "NoClientCert"}},
    "no such certificate": {"tls_server_config": tls(cert_file="nowhere.pem")},
    "no such authority": {"tls_server_config": tls(client_ca_file="nowhere", client_auth_type="RequireAnyClientCert")},
    "another key": {"tls_server_config": tls(key_file="client.key")},
    "an authority, but nothing asked": {"tls_server_config": tls(client_ca_file="ca.pem")},
    "an unknown client_auth_type": {"tls_server_config": tls(client_auth_type="Sometimes")},
    "an unknown cipher": {"tls_server_config": tls(cipher_suites=["TLS_RSA_WITH_RC4_128_SHA"])},
    "an unknown curve": {"tls_server_config": tls(curve_preferences=["P1"])},
    "an unknown version": {"tls_server_config": tls(min_version="SSL30")},
    "a header that can't be set": {"http_server_config": {"headers": {"Server": "a"}}},
    "a header in lower case": {"http_server_config": {"headers": {"x-frame-options": "deny"}}},
    "a value in upper case": {"http_server_config": {"headers": {"X-Frame-Options": "DENY"}}},
    "a word for http2": {"http_server_config": {"http2": "maybe"}},
    "a password": {"basic_auth_users": {"a": "secret"}},
    "a blank password": {"basic_auth_users": {"a": ""}},
    "no password": "basic_auth_users:\n  a:\n",
    "too low a cost": {"basic_auth_users": {"a": HASH.replace("$04$", "$03$")}},
    "a user twice": f"basic_auth_users: {{a: '{HASH}', a: '{HASH}'}}\n",
}
STRICTER: dict[str, object] = {
    # What Python can't do,
    "several curves": {"tls_server_config": tls(curve_preferences=["X25519", "CurveP256"])},
    "any certificate": {"tls_server_config": tls(client_auth_type="RequireAnyClientCert")},
    # what is not safe,
    "an old version": {"tls_server_config": tls(min_version="TLS10")},
    # and what would let nobody in, or fail at every request.
    "no version": {"tls_server_config": tls(min_version="TLS13", max_version="TLS12")},
    "an authority that is none": {
        "tls_server_config": tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.key")
    },
    "half a hash": {"basic_auth_users": {"a": HASH[:-1]}},
    "a salt that is none": {"basic_auth_users": {"a": f"$2b$10${'z' * 53}"}},
}


def test_promtool_takes_and_refuses_the_same_files(folder: Path) -> None:
    contents = GOOD | BAD | STRICTER
    paths = {name: folder / f"{number}.yml" for number, name in enumerate(contents)}
    for name, content in contents.items():
        paths[name].write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    command: list[str | Path] = [program("promtool"), "check", "web-config", *paths.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    theirs = {name: f"{path} SUCCESS" in done.stdout + done.stderr for name, path in paths.items()}
    assert theirs == {name: name not in BAD for name in contents}, done.stderr
    assert {name: is_good(path) for name, path in paths.items()} == {name: name in GOOD for name in contents}


def is_good(path: Path) -> bool:
    try:
        load(path)
    except ConfigError:
        return False
    return True


# --- What is served, as Prometheus serves it.

USERS = {"alice": HASH, "": HASH, "löng": bcrypt.hashpw(LONG.encode(), bcrypt.gensalt(4)).decode()}


def basic(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


RIGHT = [basic("alice", PASSWORD), basic("", PASSWORD), basic("löng", LONG), basic("löng", LONG + "more")]
WRONG = [
    *[basic("löng", LONG[1:]), basic("alice", ""), basic("alice", PASSWORD + "\0"), basic("alice", "wrong")],
    *[basic("bob", PASSWORD), basic("bob", ""), basic("", ""), basic("Alice", PASSWORD), basic("alice", HASH)],
    *[b"", b"Basic", b"Basic !", b"Basic YWxpY2U=", b"Basic gIA6gA==", b"Bearer YWxpY2U6YQ==", b"Basic \xe4\xff"],
    *[b"Basic  " + basic("alice", PASSWORD)[6:], basic("alice", PASSWORD)[6:], basic("alice", PASSWORD) + b"\xa0"],
]


async def test_prometheus_lets_the_same_users_in(tmp_path: Path) -> None:
    headers = {"Strict-Transport-Security": "max-age=60", "X-XSS-Protection": 1}
    path = tmp_path / "web.yml"
    path.write_text(json.dumps({"basic_auth_users": USERS, "http_server_config": {"headers": headers}}))

    async def ask(address: str) -> list[tuple[int, str | None, str]]:
        found = []
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=PATIENCE) as client:
            for one in RIGHT + WRONG:
                answer = await client.get("/-/healthy", headers={b"Authorization": one})
                assert answer.headers["Strict-Transport-Security"] == "max-age=60"
                assert answer.headers["X-XSS-Protection"] == "1"
                body = answer.text if answer.status_code == 401 else ""
                found.append((answer.status_code, answer.headers.get("WWW-Authenticate"), body))
        return found

    with PrometheusServer(tmp_path / "prometheus", web_config=path) as prometheus:
        theirs = await ask(prometheus.url.removeprefix("http://"))
    async with served(live(path)) as address:
        ours = await ask(address)
    assert ours == theirs
    assert [status for status, *_ in ours] == [200] * len(RIGHT) + [401] * len(WRONG)
    assert "Strict-Transport-Security" not in HEADERS


TLS: dict[str, dict[str, object]] = {
    "the defaults": {},
    "TLS 1.3": {"min_version": "TLS13"},
    "TLS 1.2": {"max_version": "TLS12"},
    "one cipher": {"cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]},
    "ciphers of TLS 1.3": {"cipher_suites": ["TLS_AES_128_GCM_SHA256"]},
    "ciphers of another key": {"cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]},
    "one curve": {"curve_preferences": ["CurveP384"]},
    "the authorities of the system": {"client_auth_type": "RequireAndVerifyClientCert"},
    "a certificate": {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"},
    "a certificate, if given": {"client_auth_type": "VerifyClientCertIfGiven", "client_ca_file": "ca.pem"},
}
CLIENTS: dict[str, dict[str, Any]] = {
    "TLS 1.3": {},
    "TLS 1.2": {"maximum_version": ssl.TLSVersion.TLSv1_2},
    "another cipher": {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE-ECDSA-CHACHA20-POLY1305"},
    "another curve": {"curve": "prime256v1"},
    "a certificate": {"certificate": "client"},
    "a certificate, over TLS 1.2": {"certificate": "client", "maximum_version": ssl.TLSVersion.TLSv1_2},
    "a strange certificate": {"certificate": "stranger"},
}


def client_context(
    folder: Path,
    certificate: str | None = None,
    ciphers: str | None = None,
    curve: str | None = None,
    maximum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.maximum_version = maximum_version
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    if ciphers:
        context.set_ciphers(ciphers)
    if curve:
        context.set_ecdh_curve(curve)
    return context


async def test_prometheus_accepts_the_same_clients(folder: Path, tmp_path: Path) -> None:
    """Both read the file for each connection, so one server of each serves all settings."""
    path = folder / "web.yml"

    async def is_served(address: str, context: ssl.SSLContext) -> bool:
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=PATIENCE) as client:
            try:
                return (await client.get(f"https://{address}/-/healthy")).status_code == 200
            except (httpx.TransportError, ssl.SSLError):  # the latter by an alert after the handshake
                return False

    contexts = {name: client_context(folder, **client) for name, client in CLIENTS.items()}
    path.write_text(json.dumps({"tls_server_config": tls()}))
    with PrometheusServer(tmp_path, web_config=path) as prometheus:
        async with served(live(path)) as ours:
            for name, settings in TLS.items():
                path.write_text(json.dumps({"tls_server_config": tls(**settings)}))
                theirs = prometheus.url.removeprefix("http://")
                accepted = [
                    {client: await is_served(address, context) for client, context in contexts.items()}
                    for address in (ours, theirs)
                ]
                assert accepted[0] == accepted[1], name
                assert (name == "the authorities of the system") != any(accepted[0].values()), name


def test_the_figures_in_the_documents_are_those_of_these_tests() -> None:
    text = " ".join((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").split())
    assert f"{len(GOOD | BAD | STRICTER)} files, good and bad" in text
    assert f"{len(RIGHT + WRONG)} `Authorization` headers" in text
    assert f"to {len(CLIENTS)} clients under each of {len(TLS)} settings" in text
    assert len(STRICTER) == 7
