"""Where credentials go: to the upstream of their own source, and to nobody else."""

import asyncio
import json
import os
import shutil
import signal
import ssl
from pathlib import Path
from typing import Any

from tests.harness.certificates import authority, certificate
from tests.harness.command import dry_run, source, upstream_answer
from tests.harness.connections import tunnels
from tests.harness.exporter import Exporter as RunningExporter
from tests.harness.exporter import exporter as running_exporter
from tests.harness.inprocess import OneSource
from tests.harness.process import no_descriptors
from tests.harness.programs import ROOT
from tests.harness.upstream import Request, Upstream, answer, serve, serving

GOOD = upstream_answer({"queue": 3})


def sent(upstream: Upstream) -> set[str]:
    """The credentials that an upstream got."""
    return {request.headers.get("authorization", "none") for request in upstream.requests}


async def test_each_upstream_gets_those_of_its_own_source(tmp_path: Path) -> None:
    async with serve(GOOD) as one, serve(GOOD) as other:
        prefect = source("c", f"{other.url}/api", system="prefect")
        code, output = await dry_run(tmp_path, source("a", one.url), source("b", other.url), prefect)
        assert code == 0, output
        assert sent(one) == {"Bearer of-a"}
        assert sent(other) == {"Bearer of-b", "Bearer of-c"}
        of_c = {request.headers["authorization"] for request in other.requests if request.path.startswith("/api")}
        assert of_c == {"Bearer of-c"}


WAYS = [
    (status, where)
    for status in (300, 301, 302, 303, 305, 307, 308)
    for where in ("http://{other}/", "//{other}/", "http://x@{other}/", "/\\{other}/")
]


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    """In one process for all ways, by as many sources."""
    async with serve(GOOD) as other:
        host = other.url.removeprefix("http://")

        def redirect(request: Request) -> bytes:
            status, where = WAYS[int(request.headers["authorization"].rpartition("-")[2])]
            return answer({}, status, {"Location": where.format(other=host), "Refresh": f"0; url=http://{host}/"})

        async with serve(redirect) as upstream:
            sources = [source(str(number), upstream.url) for number in range(len(WAYS))]
            code, output = await dry_run(tmp_path, *sources)
        assert code == 1
        assert output.count("failed (http_status)") == len(WAYS) == len(upstream.requests)
        assert (other.connections, other.requests) == (0, [])


def test_the_documents_count_them() -> None:
    assert f" {len(WAYS)} redirects are not followed" in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


async def test_the_environment_sends_them_nowhere_else(tmp_path: Path) -> None:
    """Neither to a proxy that is not configured, nor does a .netrc add others."""
    async with serve(GOOD) as upstream, serve(GOOD) as proxy:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login netrc password canary\n")
        names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
        variables = {**dict.fromkeys(names, proxy.url), "HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")}
        code, output = await dry_run(tmp_path, source("a", upstream.url), **variables)
        assert code == 0, output
        assert sent(upstream) == {"Bearer of-a"}
        assert proxy.connections == 0


async def test_a_proxy_sees_nothing_of_what_goes_through_its_tunnel(tmp_path: Path) -> None:
    authority(tmp_path)
    certificate(tmp_path, "server", "DNS:cloro.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    requests: list[str] = []

    async def secure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer({"queuedTasks": 1, "processingTasks": 0, "concurrency": None}))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(secure, "127.0.0.1", 0, ssl=context)
    heads: list[str] = []
    async with server, tunnels(server.sockets[0].getsockname()[1], heads) as proxy:
        tls: dict[str, Any] = {"tls_config": {"ca_file": str(tmp_path / "ca.pem")}}
        code, output = await dry_run(tmp_path, source("a", "https://cloro.example", proxy_url=proxy, **tls))
    assert code == 0, output
    assert "Authorization: Bearer of-a" in requests[0]
    assert [head.split("\r\n")[0] for head in heads] == ["CONNECT cloro.example:443 HTTP/1.1"]
    assert "of-a" not in heads[0]
    assert "authorization" not in heads[0].lower()


async def test_a_csrf_token_goes_to_its_server_only(tmp_path: Path) -> None:
    def wants_a_token(token: str) -> Any:
        def reply(request: Request) -> bytes:
            if request.path.startswith("/api/csrf-token"):
                return answer({"token": token})
            if request.headers.get("prefect-csrf-token") != token:
                return answer({"detail": "Missing CSRF token"}, 403)
            return GOOD(request)

        return reply

    async with serve(wants_a_token("one")) as one, serve(wants_a_token("two")) as two:
        sources = [source(name, f"{up.url}/api", system="prefect") for name, up in (("a", one), ("b", two))]
        await dry_run(tmp_path, *sources)
    for upstream, token, credentials in ((one, "one", "Bearer of-a"), (two, "two", "Bearer of-b")):
        tokens = {request.headers.get("prefect-csrf-token") for request in upstream.requests}
        assert tokens == {None, token}
        assert sent(upstream) == {credentials}, "to ask for a token too"


async def test_certificates_are_read_again_when_they_change(tmp_path: Path) -> None:
    """That of the exporter and whom it trusts, as whoever renews them writes them: one file after the other."""
    authority(tmp_path)
    authority(tmp_path, "other")
    for name in ("server", "old", "renewed"):
        certificate(tmp_path, name)
    used = tmp_path / "used"
    used.mkdir()

    def exchange(**files: str) -> None:
        for name, content in files.items():
            shutil.copy(tmp_path / content, used / f"{name}.new")
            (used / f"{name}.new").replace(used / name)

    exchange(ca="other.pem", cert="old.pem", key="old.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    shown: list[str] = []

    async def secure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        shown.append(writer.get_extra_info("peercert")["subject"][0][0][1])
        writer.write(answer({"queuedTasks": 1, "processingTasks": 0, "concurrency": None}))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(secure, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = {f"{name}_file": str(used / name) for name in ("ca", "cert", "key")}
    async with server, OneSource("cloro", url, tls_config=settings) as exporter:
        assert (await exporter.poll()).outcome == "failure", "the server is not trusted"
        exchange(ca="ca.pem")
        assert (await exporter.poll()).outcome == "success"
        exchange(cert="renewed.pem")
        for _ in range(2):
            assert (await exporter.poll()).outcome == "success", "the key is still that of the old one"
        exchange(key="renewed.key")
        with no_descriptors():
            assert (await exporter.poll()).outcome == "failure"
        # Nothing has changed since but that there are descriptors again.
        assert (await exporter.poll()).outcome == "success"
    assert shown == ["old", "old", "old", "renewed"]
    told = "tls_config can't be read again; the old one stays"
    assert [one["log_level"] for one in exporter.logs if one["event"] == told] == ["warning", "debug", "warning"]


def test_a_file_that_can_not_be_read_to_its_end_stops_nothing_else(tmp_path: Path) -> None:
    """Neither another source, nor a scrape that is compressed, nor the page, nor the end amid a reload."""
    file, path = tmp_path / "key", tmp_path / "exporter.yml"
    file.write_text("key")

    def polls(exporter: RunningExporter, name: str, outcome: str) -> float:
        series = exporter.series("concurrency_exporter_polls_total")
        labels = {"source": name, "system": "cloro", "outcome": outcome}
        return series["concurrency_exporter_polls_total", frozenset(labels.items())]

    with serving(lambda _: answer({"queuedTasks": 1, "processingTasks": 0, "concurrency": None})) as upstream:
        times = {"interval": "1s", "timeout": "900ms", "stale_after": "20m"}
        hanging = source("a", upstream.url, authorization={"credentials_file": str(file)}, **times)
        other = source("b", upstream.url, interval="1s", timeout="10m", stale_after="20m")
        path.write_text(json.dumps({"sources": [hanging, other]}))
        with running_exporter(tmp_path, f"--config.file={path}") as exporter:
            file.unlink()
            os.mkfifo(file)
            wait, failed = exporter.process.wait_until, polls(exporter, "a", "failure")
            wait(lambda: polls(exporter, "a", "failure") >= failed + 5, what="five polls have failed")
            before = polls(exporter, "b", "success")
            wait(lambda: polls(exporter, "b", "success") > before, what="the other source is polled")
            scrape = exporter.get(**{"Accept-Encoding": "gzip"})
            assert (scrape.status_code, scrape.headers["content-encoding"]) == (200, "gzip")
            assert exporter.get("/").status_code == 200
            exporter.process.send_signal(signal.SIGHUP)
            exporter.process.send_signal(signal.SIGTERM)
            assert exporter.process.wait_for_exit() == 0
