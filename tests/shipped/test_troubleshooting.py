"""What troubleshooting says that one sees is what one sees: the line of each reason, from a real fault."""

import asyncio
import re
import shlex
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from exporter.model import FAILURE_REASONS, FailureReason, Queue, Snapshot
from exporter.shard import Shard
from exporter.sources.base import CountRequest, Source
from exporter.sources.prefect import PrefectConfig
from tests.harness.certificates import authority
from tests.harness.documents import blocks
from tests.harness.inprocess import Exporter
from tests.harness.process import free_port
from tests.harness.programs import ROOT
from tests.harness.upstream import Answer, answer, never, serve

DOCUMENT: Final = ROOT / "docs" / "troubleshooting.md"


def shown() -> dict[str, dict[str, str]]:
    """The fields of each log line that the document has, by its reason."""
    texts = [block.text for block in blocks(DOCUMENT) if block.language == "text"]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("level=")]
    fields = [dict(word.split("=", 1) for word in shlex.split(line)) for line in lines]
    return {line["reason"]: line for line in fields if line["msg"] == "poll failed"}


@asynccontextmanager
async def http(what: Answer | bytes) -> AsyncIterator[str]:
    async with serve(what if callable(what) else lambda _: what) as upstream:
        yield upstream.url


@asynccontextmanager
async def closed() -> AsyncIterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


@asynccontextmanager
async def unknown_certificate() -> AsyncIterator[str]:
    """TLS with a certificate that nobody trusts."""
    with tempfile.TemporaryDirectory() as folder:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(authority(Path(folder)), Path(folder) / "ca.key")
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Faulty(PrefectConfig):
    """A source with a fault of its own: it finds one queue twice."""

    def build(self, shard: Shard, count_request: CountRequest) -> Source:
        source = super().build(shard, count_request)

        async def poll(_: object = None) -> Snapshot:
            return Snapshot(queues=(Queue("etl", "default", active_slots=1),) * 2)

        source.poll = poll  # type: ignore[method-assign]
        return source


FAULTS: Final[dict[FailureReason, Callable[[], AbstractAsyncContextManager[str]]]] = {
    "timeout": lambda: http(never),
    "connect": closed,
    "tls": unknown_certificate,
    "auth": lambda: http(answer({"exception_message": "Unauthorized"}, 401)),
    "rate_limited": lambda: http(answer({}, 429)),
    "http_status": lambda: http(answer(b"", 502)),
    "too_large": lambda: http(answer(b" " * (17 * 1024**2))),
    "contract": lambda: http(answer(b"<html>", media_type="text/html")),
    "internal": closed,
}


async def logged(fault: FailureReason) -> dict[str, Any]:
    """What is logged of a poll of an upstream with this fault, as if that were Prefect at `prefect.example.com`."""
    kind = Faulty if fault == "internal" else PrefectConfig
    async with FAULTS[fault]() as url:
        timeout = "900ms" if fault == "timeout" else "20s"
        settings = {"name": "production", "system": "prefect", "url": f"{url}/api", "timeout": timeout}
        async with Exporter(kind.model_validate(settings)) as exporter:
            with capture_logs() as logs:
                await exporter.poller.poll("production")
        scheme = url.partition(":")[0]
        line = {"level": logs[-1].pop("log_level"), "msg": logs[-1].pop("event"), **logs[-1]}
        return {key: str(value).replace(url, f"{scheme}://prefect.example.com") for key, value in line.items()}


def test_every_reason_is_there() -> None:
    assert set(shown()) == set(FAILURE_REASONS) == set(FAULTS)


@pytest.mark.parametrize("reason", FAILURE_REASONS)
async def test_the_line_of_the_log_is_as_it_says(reason: FailureReason) -> None:
    def without_numbers(fields: dict[str, str]) -> dict[str, str]:
        return {key: re.sub(r"[0-9.]+s", "0s", value) for key, value in fields.items()}

    assert without_numbers(await logged(reason)) == without_numbers(shown()[reason])
