"""The status page in a real browser: what strangers write into it is text, and nothing of ours is blocked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from exporter.clock import Clock
from exporter.web.guard import Guard
from exporter.web.listeners import listen
from exporter.web.server import Server
from tests.harness import browser
from tests.harness.cloro import error
from tests.harness.command import cloro, prefect, upstream_answer
from tests.harness.exporter import exporter
from tests.harness.upstream import answer, serving

EVIL = (
    "<script>document.title='owned'</script><img src=/x onerror=\"document.title='owned'\">"
    "<style>main{max-width:1px}</style>'\"><a href=javascript:alert(1)>&lt;"
)
SHORT = "<script>alert(1)</script>"
OURS = {
    *("html", "head", "meta", "title", "style", "body", "main", "nav", "section", "h1", "h2", "dl", "dt", "dd", "div"),
    *("p", "a", "small", "span", "strong"),
}


def visit(*urls: str) -> dict[str, Any]:
    """What each page did, in a browser."""
    browser.chromium()
    found: dict[str, Any] = json.loads(browser.script("pages.mjs", *urls))
    return found


def test_what_upstream_and_the_configuration_name_is_text(tmp_path: Path) -> None:
    browser.chromium()
    evil = answer(error("EVIL", EVIL), 500)
    with serving(upstream_answer({EVIL: 3, f"2{EVIL}": None})) as upstream, serving(lambda _: evil) as failing:
        refused = cloro(failing.url, f"{SHORT} cloro")
        path = tmp_path / "exporter.yml"
        path.write_text(json.dumps({"sources": [prefect(upstream.url, SHORT, interval="1m"), refused]}))
        with exporter(tmp_path, "--config.file", path, "--web.enable-lifecycle") as command:
            urls = [f"{command.url}{route}" for route in ("/", "/metrics", f"/{SHORT}", f"/metrics?source={SHORT}x")]
            page, metrics, *errors = visit(*urls).values()
    for seen in (page, metrics, *errors):
        # Chromium notes the status of a page.
        assert [line for line in seen["console"] if "status of 404" not in line] == []
        assert seen["dialogs"] == seen["errors"] == []
        assert seen["title"] in {"concurrency-exporter", ""}
        assert set(seen["requests"]) <= {"/", "/metrics", "/favicon.ico", "/%3Cscript%3Ealert(1)%3C/script%3E"}
    assert set(page["elements"]) <= OURS
    assert page["width"] == "1024px", "the page's own style is in use"
    assert page["text"].count(SHORT) >= 2
    assert page["text"].count("<script>document.title=") == 2, "a queue's name, and what upstream said"
    assert EVIL in page["text"]
    assert EVIL.replace('"', '\\"') in metrics["text"]
    for seen in (metrics, *errors):
        assert set(seen["elements"]) <= {"body", "head", "html", "meta", "pre"}, "text, not a page"


async def _page(_: Request) -> Response:
    return HTMLResponse(f"<!doctype html><title>good</title><main>{EVIL}</main>")


@asynccontextmanager
async def served(application: ASGIApp) -> AsyncIterator[str]:
    listener = listen("127.0.0.1", 0)
    server = Server(application, graceful_seconds=1)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.stop()
        await task


@pytest.mark.parametrize("is_guarded", [True, False], ids=["guarded", "unguarded"])
async def test_the_policy_holds_where_nothing_is_escaped(is_guarded: bool) -> None:
    """And without the policy the browser is seen to do what it is told, so these tests would see it."""
    page = Starlette(routes=[Route("/", _page)])
    async with served(Guard(page, None, Clock()) if is_guarded else page) as url:
        seen = (await asyncio.to_thread(visit, url))[url]
    assert seen["title"] == ("good" if is_guarded else "owned")
    assert seen["width"] == ("none" if is_guarded else "1px")
    blocked = [line for line in seen["console"] if "Content Security Policy" in line]
    assert len(blocked) == (4 if is_guarded else 0), seen["console"]
