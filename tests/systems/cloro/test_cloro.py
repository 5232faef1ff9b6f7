"""What cloro refuses and how, and its rate limit; what it publishes is in test_golden.py."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from exporter.metrics.text import Format
from exporter.model import FailureReason, RateLimit
from exporter.shard import WHOLE
from exporter.sources.base import StatusError
from exporter.sources.cloro import CloroConfig
from tests.harness.cloro import KEY, PUBLISHED, Cloro, error
from tests.harness.inprocess import Exporter
from tests.harness.upstream import Request, Upstream, answer, serve


@pytest.fixture
async def cloro() -> AsyncIterator[tuple[Cloro, Upstream]]:
    fake = Cloro()
    async with serve(fake) as upstream:
        yield fake, upstream


def config(upstream: Upstream, **settings: Any) -> CloroConfig:
    settings = {"authorization": {"credentials": KEY}} | settings
    return CloroConfig.model_validate({"name": "c", "system": "cloro", "url": upstream.url} | settings)


async def refusal(config: CloroConfig) -> StatusError:
    source = config.build(WHOLE, lambda *_: None)
    try:
        with pytest.raises(StatusError) as refused:
            await source.poll()
    finally:
        await source.close()
    return refused.value


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        ({"type": "Basic", "credentials": KEY}, "INVALID_API_KEY_FORMAT: Invalid API key format"),
        ({"credentials": "not-a-key"}, "INVALID_API_KEY_FORMAT: Invalid API key format"),
        ({"credentials": "sk_live_revoked"}, "INVALID_OR_EXPIRED_API_KEY: Invalid or expired API key"),
    ],
    ids=["scheme", "format", "revoked"],
)
async def test_a_key_that_is_refused(cloro: tuple[Cloro, Upstream], authorization: dict[str, str], said: str) -> None:
    refused = await refusal(config(cloro[1], authorization=authorization))
    assert (refused.reason, refused.status, refused.detail) == ("auth", 401, said)
    assert str(refused) == (
        f"GET {cloro[1].url}/v1/async/status: 401 Unauthorized: {said}; check authorization or basic_auth of the source"
    )


async def test_a_key_that_a_proxy_drops(cloro: tuple[Cloro, Upstream]) -> None:
    fake, upstream = cloro
    upstream.answer = lambda request: fake(Request(request.method, request.path, {}, request.body))
    refused = await refusal(config(upstream))
    assert (refused.reason, refused.detail) == ("auth", "MISSING_API_KEY: API key is required")


async def test_the_request_is_the_documented_one(cloro: tuple[Cloro, Upstream]) -> None:
    _, upstream = cloro
    source = config(upstream).build(WHOLE, lambda *_: None)
    await source.poll()
    await source.close()
    (request,) = upstream.requests
    assert (request.method, request.path, request.body) == ("GET", "/v1/async/status", b"")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("status", "body", "reason", "said"),
    [
        (403, error("INSUFFICIENT_PERMISSIONS", "no"), "auth", "INSUFFICIENT_PERMISSIONS: no"),
        (403, error("INSUFFICIENT_CREDITS", "buy more"), "auth", "INSUFFICIENT_CREDITS: buy more"),
        (404, error("NOT_FOUND", "no such route"), "http_status", "NOT_FOUND: no such route"),
        (429, error("RATE_LIMITED", "slow down"), "rate_limited", "RATE_LIMITED: slow down"),
        (499, error("CLIENT_CLOSED_REQUEST", "gone"), "http_status", "CLIENT_CLOSED_REQUEST: gone"),
        (500, error("INTERNAL", "oops"), "http_status", "INTERNAL: oops"),
        (500, {"success": False, "error": "database is away"}, "http_status", "database is away"),
        (500, {"success": False, "error": "x", "details": {"y": 1}}, "http_status", "x"),
        (500, {"error": {"code": "BARE"}}, "http_status", "BARE"),
        (500, {"error": {"message": "no code"}}, "http_status", ""),
        (500, ["error"], "http_status", ""),
        (502, b"<html>bad gateway</html>", "http_status", ""),
        (500, {"error": "two\nlines\u202e \x1b[31mred"}, "http_status", "two lines [31mred"),
        (500, {"error": "x" * 5000}, "http_status", "x" * 200 + "…"),
    ],
    ids=[
        "403-permissions", "403-credits", "404", "429", "499", "500-coded", "500-text", "500-details", "500-code-only",
        "500-message-only", "500-list", "502-html", "500-control-characters", "500-long",
    ],
)  # fmt: skip
async def test_an_error(
    cloro: tuple[Cloro, Upstream], status: int, body: object, reason: FailureReason, said: str
) -> None:
    fake, upstream = cloro
    fake.refusal = (status, body, {})
    refused = await refusal(config(upstream))
    assert (refused.reason, refused.status, refused.retry_after) == (reason, status, None)
    assert str(refused).isprintable()
    assert f"{status} " in str(refused)
    assert said in str(refused)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("0", 0, 0),
        ("30", 30, 30),
        ("0.519", 0.519, 0.519),
        ("999999999", 999999999, 999999999),
        ("in an hour", 3000, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0, 0),
    ],
    ids=["zero", "seconds", "fraction", "large", "date", "past", "no-zone"],
)
async def test_retry_after(cloro: tuple[Cloro, Upstream], header: str, least: float, most: float) -> None:
    fake, upstream = cloro
    # Not when the tests are collected, which can be many minutes ago.
    header = header.replace("in an hour", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))
    fake.refusal = (429, error("RATE_LIMITED", "slow down"), {"Retry-After": header})
    refused = await refusal(config(upstream))
    assert refused.retry_after is not None
    assert least <= refused.retry_after <= most


@pytest.mark.parametrize(
    "header",
    [
        "", "-1", "soon", "1e9", "0x10", "NaN", "Infinity", "9" * 400, "1.", "1 2", "Mon, 99 Foo 2024 00:00:00 GMT",
        "Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999",
    ],
)  # fmt: skip
async def test_a_retry_after_that_is_none(cloro: tuple[Cloro, Upstream], header: str) -> None:
    fake, upstream = cloro
    fake.refusal = (429, error("RATE_LIMITED", "slow down"), {"Retry-After": header})
    refused = await refusal(config(upstream))
    assert (refused.reason, refused.retry_after) == ("rate_limited", None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-RateLimit-Limit": "500", "X-RateLimit-Remaining": "0"}, RateLimit(500, 0)),
        ({"X-RateLimit-Limit": "1000"}, RateLimit(1000, None)),
        ({"x-ratelimit-remaining": "7"}, RateLimit(None, 7)),
        ({"X-RateLimit-Limit": "-1", "X-RateLimit-Remaining": "1e3"}, None),
        ({"X-RateLimit-Limit": "9" * 5000, "X-RateLimit-Remaining": "²"}, None),
        ({}, None),
    ],
    ids=["both", "limit", "remaining", "no-numbers", "no-decimals", "none"],
)
@pytest.mark.parametrize("status", [200, 429])
async def test_rate_limit_headers(headers: Mapping[str, str], status: int, expected: RateLimit | None) -> None:
    async with serve(lambda _: answer(PUBLISHED, status, headers)) as upstream:
        if status == 429:
            assert (await refusal(config(upstream))).rate_limit == expected
            return
        source = config(upstream).build(WHOLE, lambda *_: None)
        assert (await source.poll()).rate_limit == expected
        await source.close()


def published(exporter: Exporter) -> list[str]:
    lines = exporter.telemetry.render(exporter.view, Format.CLASSIC).decode().splitlines()
    return [line for line in lines if line.startswith("concurrency_exporter_upstream_ratelimit")]


async def test_the_rate_limit_is_published_even_when_it_is_exceeded(cloro: tuple[Cloro, Upstream]) -> None:
    fake, upstream = cloro
    async with Exporter(config(upstream)) as exporter:
        assert published(exporter) == []
        await exporter.poll("c")
        assert published(exporter) == [
            'concurrency_exporter_upstream_ratelimit_limit{source="c",system="cloro"} 1000.0',
            'concurrency_exporter_upstream_ratelimit_remaining{source="c",system="cloro"} 999.0',
        ]
        fake.remaining, fake.limit = 1, 500
        fake.refusal = (429, error("RATE_LIMITED", "slow down"), {"Retry-After": "1"})
        await exporter.poll("c")
        assert published(exporter) == [
            'concurrency_exporter_upstream_ratelimit_limit{source="c",system="cloro"} 500.0',
            'concurrency_exporter_upstream_ratelimit_remaining{source="c",system="cloro"} 0.0',
        ]
        upstream.answer = lambda _: answer(PUBLISHED)
        await exporter.poll("c")
        assert published(exporter) == []


async def test_why_tasks_wait_over_several_polls(cloro: tuple[Cloro, Upstream]) -> None:
    fake, upstream = cloro
    source = config(upstream).build(WHOLE, lambda *_: None)
    memory: object = None

    async def reasons(queued: int, used: int | None, slots: int | None = 5) -> dict[str, int]:
        nonlocal memory
        fake.status = {"queuedTasks": queued, "processingTasks": 0, "concurrency": {"used": used, "max": slots}}
        snapshot = await source.poll(memory)
        memory = snapshot.memory
        (queue,) = snapshot.queues
        assert sum(queue.blocked.values()) == queued
        assert list(queue.blocked) == ["queue_limit", "just_now", "none", "unknown"]
        return {reason: tasks for reason, tasks in queue.blocked.items() if tasks}

    assert await reasons(0, 5) == {}
    assert await reasons(7, 5) == {"queue_limit": 7}
    assert await reasons(7, 9) == {"queue_limit": 7}, "also above the limit"
    assert await reasons(7, 3) == {"queue_limit": 5, "just_now": 2}, "two fit"
    assert await reasons(7, 3) == {"queue_limit": 5, "just_now": 2}, "a slot is only free until the next task takes it"
    assert await reasons(2, 3) == {"just_now": 2}
    assert await reasons(2, 3) == {"none": 2}
    assert await reasons(4, 0) == {"just_now": 2, "none": 2}
    assert await reasons(4, None) == {"unknown": 4}
    assert await reasons(4, 0) == {"just_now": 4}
    assert await reasons(4, 0, None) == {"unknown": 4}
    assert await reasons(4, 0, 0) == {"queue_limit": 4}
    await source.close()


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"queuedTasks": None}, "queuedTasks"),
        ({"processingTasks": -1}, "processingTasks"),
        ({"concurrency": {"used": -1, "max": 2}}, "concurrency.used"),
        ({"concurrency": {"used": 1, "max": "2"}}, "concurrency.max"),
        ({"concurrency": []}, "concurrency"),
        ({"priorityBreakdown": None}, "priorityBreakdown"),
        ({"priorityBreakdown": {"5": 2}}, "priorityBreakdown"),
        ({"priorityBreakdown": [{"priority": 0, "count": 1}]}, "priorityBreakdown.0.priority"),
        ({"priorityBreakdown": [{"priority": 11, "count": 1}]}, "priorityBreakdown.0.priority"),
        ({"priorityBreakdown": [{"priority": "5", "count": 1}]}, "priorityBreakdown.0.priority"),
        ({"priorityBreakdown": [{"priority": 5, "count": 1}, {"priority": 5, "count": 2}]}, "priority 5 twice"),
    ],
    ids=str,
)
async def test_a_breach_of_the_contract_is_named(
    cloro: tuple[Cloro, Upstream], changed: dict[str, object], where: str
) -> None:
    fake, upstream = cloro
    fake.status = PUBLISHED | changed
    async with Exporter(config(upstream)) as exporter:
        state = await exporter.poll("c")
    assert state.failure
    assert state.failure.reason == "contract"
    assert f"GET {upstream.url}/v1/async/status: contract broken at " in state.failure.message
    assert where in state.failure.message
