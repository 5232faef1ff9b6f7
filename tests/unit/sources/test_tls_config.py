"""`tls_config` of a source: what the server is asked for, and what is shown to it."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from exporter.sources.connection import TlsConfig
from tests.harness.certificates import authority, certificate
from tests.harness.connections import tunnels
from tests.harness.inprocess import OneSource
from tests.harness.upstream import answer, serve

STATUS = {"queuedTasks": 1, "processingTasks": 0, "concurrency": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority(tmp_path)
    certificate(tmp_path, "server", "DNS:inside.example")
    certificate(tmp_path, "client")
    return tmp_path


@asynccontextmanager
async def server(folder: Path, **attributes: Any) -> AsyncIterator[tuple[str, list[str | None], list[str]]]:
    """Its address, the names that it was asked for, and the names of the clients' certificates."""
    asked: list[str | None] = []
    shown: list[str] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.load_verify_locations(folder / "ca.pem")
    for name, value in attributes.items():
        setattr(context, name, value)
    context.sni_callback = lambda _, name, __: asked.append(name)
    async with serve(lambda _: answer(STATUS), tls=context) as upstream:
        yield upstream.url, asked, shown


async def test_the_name_stands_for_the_host(folder: Path) -> None:
    """In SNI and in the certificate: directly, and through a proxy's tunnel."""
    ca = str(folder / "ca.pem")
    async with server(folder) as (url, asked, _):
        async with OneSource("cloro", url, tls_config={"ca_file": ca}) as exporter:
            state = await exporter.poll()
            assert state.failure
            assert state.failure.reason == "tls"
            assert "IP address mismatch" in state.failure.message
        named = {"ca_file": ca, "server_name": "inside.example"}
        async with OneSource("cloro", url, tls_config=named) as exporter:
            assert (await exporter.poll()).outcome == "success"
        assert asked == [None, "inside.example"]
        heads: list[str] = []
        async with tunnels(int(url.rpartition(":")[2]), heads) as proxy:
            async with OneSource("cloro", url, tls_config=named, proxy_url=proxy) as exporter:
                assert (await exporter.poll()).outcome == "success"
        assert heads
        assert asked[2:] == ["inside.example"]
        async with OneSource("cloro", url, tls_config=named | {"server_name": "other.example"}) as exporter:
            state = await exporter.poll()
            assert state.failure
            assert "'other.example'" in state.failure.message


async def test_pem_may_stand_in_the_configuration(folder: Path) -> None:
    text = {name: (folder / name).read_text() for name in ("ca.pem", "client.pem", "client.key")}
    inline = {"ca": "# Authority of Zürich\n" + text["ca.pem"], "cert": text["client.pem"], "key": text["client.key"]}
    inline["server_name"] = "inside.example"
    async with server(folder, verify_mode=ssl.CERT_REQUIRED) as (url, _, _):
        async with OneSource("cloro", url, tls_config=inline) as exporter:
            assert (await exporter.poll()).outcome == "success"
            assert text["client.key"] not in repr(exporter.config)


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ({"min_version": "TLS13"}, {"maximum_version": ssl.TLSVersion.TLSv1_2}, "failure"),
        ({"max_version": "TLS12"}, {"minimum_version": ssl.TLSVersion.TLSv1_3}, "failure"),
        ({"max_version": "TLS12"}, {}, "success"),
        ({"min_version": "TLS13"}, {}, "success"),
    ],
)
async def test_the_versions_are_bounds(
    folder: Path, ours: dict[str, str], theirs: dict[str, Any], outcome: str
) -> None:
    settings = {"ca_file": str(folder / "ca.pem"), "server_name": "inside.example"}
    async with server(folder, **theirs) as (url, _, _):
        async with OneSource("cloro", url, tls_config=settings | ours) as exporter:
            assert (await exporter.poll()).outcome == outcome


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"ca": "x", "ca_file": "{ca}"}, "set one of ca and ca_file"),
        ({"cert": "x", "cert_file": "{ca}"}, "set one of cert and cert_file"),
        ({"key": "x", "key_file": "{ca}"}, "set one of key and key_file"),
        ({"cert_file": "{ca}"}, "a certificate needs its key; set key_file or key"),
        ({"key": "x"}, "a key needs its certificate; set cert_file or cert"),
        ({"ca": "x"}, "ca_file (inline) has no certificate in PEM"),
        ({"ca": ""}, "ca_file (inline) has no certificate in PEM"),
        ({"ca": "\u00e9"}, "ca_file (inline) has no certificate in PEM"),
        ({"cert_file": "{ca}", "key": "x"}, "and key_file (inline) are not a certificate and its key in PEM"),
        ({"min_version": "TLS13", "max_version": "TLS12"}, "min_version is above max_version"),
        ({"min_version": "TLS10"}, "can't be TLS10, which is no longer safe"),
        ({"min_version": "1.2"}, "is not one of TLS12, TLS13"),
    ],
)
def test_what_makes_no_sense_is_a_mistake(folder: Path, settings: dict[str, str], mistake: str) -> None:
    filled = {key: value.format(ca=folder / "ca.pem") for key, value in settings.items()}
    with pytest.raises(ValidationError) as raised:
        TlsConfig.model_validate(filled)
    assert mistake in str(raised.value)
