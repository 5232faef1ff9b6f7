"""The end of a server: requests that run are answered, up to a limit; its sockets answer without delay."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from exporter.web.connection import Limits
from exporter.web.listeners import listen
from exporter.web.server import Server
from tests.harness.process import PATIENCE


async def is_served(client: httpx.AsyncClient, url: str) -> bool:
    try:
        await client.get(url)
    except httpx.TransportError:
        return False
    return True


async def test_a_running_request_is_answered_before_the_server_stops() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        arrived.set()
        await go_on.wait()
        return PlainTextResponse("done")

    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = Server(Starlette(routes=[Route("/", slow)]), graceful_seconds=PATIENCE)
    serving = asyncio.create_task(server.serve([listener]))
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = asyncio.create_task(client.get(url))
        await arrived.wait()
        server.stop()
        while await is_served(client, f"{url}/other"):
            pass
        assert not serving.done()
        go_on.set()
        assert (await answer).text == "done"
    await asyncio.wait_for(serving, PATIENCE)


async def test_nobody_says_for_another_what_he_has_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")

    async def asked(request: Request) -> Response:
        return PlainTextResponse(f"{request.url.scheme} {request.client and request.client.host}")

    listener = listen("127.0.0.1", 0)
    server = Server(Starlette(routes=[Route("/", asked)]), graceful_seconds=1)
    serving = asyncio.create_task(server.serve([listener]))
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        forged = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
        answer = await client.get(f"http://127.0.0.1:{listener.getsockname()[1]}", headers=forged)
    server.stop()
    await serving
    assert answer.text == "http 127.0.0.1"


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "cancelled"])
async def test_a_request_that_hangs_does_not_keep_the_server(
    caplog: pytest.LogCaptureFixture, *, stopped: bool
) -> None:
    """Its connection ends, and nothing is logged: it is no error of the application that we stop."""
    arrived = asyncio.Event()

    async def hangs(_: Request) -> Response:
        arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    listener = listen("127.0.0.1", 0)
    server = Server(Starlette(routes=[Route("/", hangs)]), graceful_seconds=1)
    serving = asyncio.create_task(server.serve([listener]))
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = asyncio.create_task(client.get(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        await arrived.wait()
        if not stopped:
            for request in server.server_state.tasks:
                request.cancel()
            with pytest.raises(httpx.TransportError):
                await answer
        server.stop()
        await asyncio.wait_for(serving, PATIENCE)
        with pytest.raises(httpx.TransportError):
            await answer
    assert caplog.messages == []


async def test_a_client_that_goes_while_its_body_is_read_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def reads(request: Request) -> Response:
        arrived.set()
        try:
            return PlainTextResponse(await request.body())
        finally:
            ended.set()

    listener = listen("127.0.0.1", 0)
    application = Starlette(routes=[Route("/", reads, methods=["POST"])])
    server = Server(application, graceful_seconds=PATIENCE, limits=Limits(keeps_bodies=True))
    serving = asyncio.create_task(server.serve([listener]))
    _, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    await arrived.wait()
    writer.close()
    await ended.wait()
    server.stop()
    await asyncio.wait_for(serving, PATIENCE)
    assert caplog.messages == []


def test_connections_do_not_wait_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_burst_of_connections_waits_to_be_accepted() -> None:
    """Linux drops the first packet of what is too much, and a scraper tries again only after a second."""
    with listen("127.0.0.1", 0) as listener, ExitStack() as opened:
        for _ in range(600):
            opened.enter_context(socket.create_connection(listener.getsockname(), timeout=60))


def test_an_empty_host_is_every_address() -> None:
    with listen("", 0) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
            socket.create_connection((host, port)).close()


@pytest.mark.parametrize("name", [None, "", "\0concurrency-exporter's test", "client"])
async def test_a_client_of_a_unix_socket_may_have_any_name(tmp_path: Path, name: str | None) -> None:
    """None, one that the kernel chooses, an abstract one, or that of a file."""

    async def asked(request: Request) -> Response:
        return PlainTextResponse(f"client {request.client}")

    path = str(tmp_path / "web.socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = Server(Starlette(routes=[Route("/", asked)]), graceful_seconds=1)
        serving = asyncio.create_task(server.serve([listener]))
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            if name is not None:
                client.bind(str(tmp_path / name) if name == "client" else name)
            client.connect(path)
            reader, writer = await asyncio.open_unix_connection(sock=client)
            writer.write(b"GET / HTTP/1.0\r\nHost: exporter\r\n\r\n")
            async with asyncio.timeout(PATIENCE):
                assert (await reader.read()).endswith(b"client None")
            writer.close()
            await writer.wait_closed()
            (tmp_path / "client").unlink(missing_ok=True)
        assert not serving.done()
        server.stop()
        await serving
