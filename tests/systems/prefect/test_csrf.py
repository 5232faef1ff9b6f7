"""CSRF protection of a Prefect server: a token is fetched once, and again when it is superseded."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from exporter.model import FailureReason
from tests.harness.cases import CASES
from tests.harness.inprocess import OneSource
from tests.harness.upstream import Request, answer, serve
from tests.systems.prefect.case import ONE, POOLS, THREE, TWO


class Csrf:
    """A server with CSRF protection over a good one; `at_status` is awaited when the status of a queue is asked for."""

    def __init__(self) -> None:
        self.good = CASES["prefect"].works
        self.token, self.client = "", ""
        self.fetched = 0
        self.at_status: Callable[[], Any] | None = None

    async def __call__(self, request: Request) -> bytes:
        if request.path.startswith("/api/csrf-token?client="):
            self.fetched += 1
            self.token, self.client = f"token-{self.fetched}", request.path.partition("=")[2]
            return answer({"token": self.token, "client": self.client, "expiration": "2026-11-22T00:00:00Z"})
        if request.path in {ONE, TWO, THREE} and self.at_status:
            await self.at_status()
        sent = [request.headers.get(f"prefect-csrf-{name}") for name in ("token", "client")]
        if sent[0] is None:
            return answer({"detail": "Missing CSRF token."}, 403)
        if sent[1] is None:
            return answer({"detail": "Missing client identifier."}, 403)
        if sent != [self.token, self.client]:
            return answer({"detail": "Invalid CSRF token or client identifier."}, 403)
        good = self.good(request)
        assert isinstance(good, bytes)
        return good


async def test_a_csrf_token_is_fetched_once() -> None:
    csrf = Csrf()
    async with serve(csrf) as upstream, OneSource("prefect", upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        assert [request.path.partition("?")[0] for request in upstream.requests[:3]] == [
            POOLS,
            "/api/csrf-token",
            POOLS,
        ]
        assert (await exporter.poll()).outcome == "success"
        # The first poll also asks for the server's version.
        assert (csrf.fetched, len(upstream.requests)) == (1, 6 + 3 + 6)
        client, token = csrf.client, csrf.token
        csrf.token = "of another client"
        assert (await exporter.poll()).outcome == "success"
        assert (csrf.fetched, csrf.client) == (2, client)
        assert csrf.token != token
        route = {"endpoint": "/csrf-token", "code": "200"}
        assert exporter.own("upstream_requests_total", **route) == 2


async def test_a_superseded_csrf_token_is_renewed_once_for_parallel_requests() -> None:
    csrf = Csrf()
    together = asyncio.Barrier(3)

    async def at_status() -> None:
        async with together:
            csrf.at_status = None
            csrf.token = "superseded"

    async with serve(csrf) as upstream, OneSource("prefect", upstream.url) as exporter:
        assert (await exporter.poll()).outcome == "success"
        csrf.at_status = at_status
        assert (await exporter.poll()).outcome == "success"
        assert await exporter.queues() == CASES["prefect"].queues
        assert csrf.fetched == 2


async def test_two_exporters_do_not_supersede_the_csrf_token_of_each_other() -> None:
    csrf = Csrf()
    async with serve(csrf) as upstream:
        clients = set()
        for _ in range(2):
            async with OneSource("prefect", upstream.url) as exporter:
                await exporter.poll()
                clients.add(csrf.client)
    assert len(clients) == 2


@pytest.mark.parametrize(
    ("refused", "token", "reason", "says", "requests"),
    [
        (
            "Missing CSRF token.",
            answer({"detail": "CSRF protection is disabled."}, 422),
            "http_status",
            "is disabled",
            2,
        ),
        ("Missing CSRF token.", answer({"exception_message": "Unauthorized"}, 401), "auth", "401 Unauthorized", 2),
        ("Missing CSRF token.", answer({"token": None}), "contract", "contract broken at token", 2),
        ("Missing CSRF token.", answer({"token": "tökén"}), "contract", "contract broken at token", 2),
        ("Missing CSRF token.", answer({"token": ""}), "contract", "contract broken at token", 2),
        (
            "Invalid CSRF token or client identifier.",
            answer({"token": "0123456789abcdef"}),
            "auth",
            "Invalid CSRF token",
            3,
        ),
        ("Forbidden", answer({"token": "0123456789abcdef"}), "auth", "403 Forbidden: Forbidden", 1),
    ],
    ids=["disabled", "wants-credentials", "no-token", "no-ascii", "empty-token", "refused-for-ever", "another-403"],
)
async def test_csrf_protection_that_can_not_be_met(
    refused: str, token: bytes, reason: FailureReason, says: str, requests: int
) -> None:
    def server(request: Request) -> bytes:
        return token if request.method == "GET" else answer({"detail": refused}, 403)

    async with serve(server) as upstream, OneSource("prefect", upstream.url) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, len(upstream.requests)) == (reason, requests)
        assert says in state.failure.message
