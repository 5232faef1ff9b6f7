"""The pages in a browser: what strangers write into them is text, they fit, and everybody can read and use them."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from exporter.clock import Clock
from exporter.web.guard import Guard
from exporter.web.location import location
from tests.harness import browser
from tests.harness.board import HOSTILE, MARKUP, Board, hostile, night, on_loopback
from tests.harness.cloro import error
from tests.harness.command import cloro, prefect, upstream_answer
from tests.harness.exporter import exporter
from tests.harness.nginx import nginx
from tests.harness.process import free_port
from tests.harness.upstream import answer, serving

SHORT = "<script>alert(1)</script>"
OURS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "h1", "h2", "h3"),
    *("dl", "dt", "dd", "div", "p", "a", "small", "span", "strong", "bdi", "ul", "li", "data", "code", "svg", "rect"),
    *("form", "label", "input", "select", "option", "button"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


def visit(*urls: str) -> dict[str, Any]:
    """What each page did, in a browser."""
    browser.chromium()
    found: dict[str, Any] = json.loads(browser.script("pages.mjs", *urls))
    return found


def test_what_upstream_and_the_configuration_name_is_text(tmp_path: Path) -> None:
    browser.chromium()
    evil = answer(error("EVIL", MARKUP), 500)
    with serving(upstream_answer({MARKUP: 3, f"2{MARKUP}": None})) as upstream, serving(lambda _: evil) as failing:
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
        assert seen["title"] in {"Queues · concurrency-exporter", ""}
        assert set(seen["requests"]) <= {"/", "/metrics", "/favicon.ico", "/%3Cscript%3Ealert(1)%3C/script%3E"}
    assert set(page["elements"]) <= OURS
    assert page["width"] == "1440px", "the page's own style is in use"
    assert page["text"].count(SHORT) >= 2
    assert page["text"].count("<script>document.title=") >= 3, "the names of queues, and what upstream said"
    assert MARKUP in page["text"]
    assert MARKUP.replace('"', '\\"') in metrics["text"]
    for seen in (metrics, *errors):
        assert set(seen["elements"]) <= {"body", "head", "html", "meta", "pre"}, "text, not a page"


async def _page(_: Request) -> Response:
    return HTMLResponse(f"<!doctype html><title>good</title><main>{MARKUP}</main>")


@pytest.mark.parametrize("is_guarded", [True, False], ids=["guarded", "unguarded"])
async def test_the_policy_holds_where_nothing_is_escaped(is_guarded: bool) -> None:
    """And without the policy the browser is seen to do what it is told, so these tests would see it."""
    page = Starlette(routes=[Route("/", _page)])
    async with on_loopback(Guard(page, None, Clock()) if is_guarded else page) as url:
        seen = (await asyncio.to_thread(visit, url))[url]
    assert seen["title"] == ("good" if is_guarded else "owned")
    assert seen["width"] == ("none" if is_guarded else "1px")
    blocked = [line for line in seen["console"] if "Content Security Policy" in line]
    assert len(blocked) == (4 if is_guarded else 0), seen["console"]


# --- Everybody can read and use them.


def _paths() -> Iterator[str]:
    """Pages of a bad night."""
    yield from ("", "?text=nothing", "?source=staging", "?refresh=off&full=true")
    yield "queue?source=production&pool=kubernetes-prod&queue=etl"
    yield "queue?source=scraper&queue=async"
    yield "pool?source=production&pool=ecs-ml"
    yield "limit?source=production&kind=tag&limit=database"
    yield from ("queue?source=staging&pool=p&queue=q", "queue?source=nope&queue=q", "queue")


def _hostile_paths() -> Iterator[str]:
    yield ""
    for name in HOSTILE:
        yield f"queue?{urlencode({'source': MARKUP, 'pool': name, 'queue': name})}"
    yield f"pool?{urlencode({'source': MARKUP, 'pool': HOSTILE[4]})}"
    yield f"limit?{urlencode({'source': MARKUP, 'kind': HOSTILE[5], 'limit': HOSTILE[5]})}"


WIDTHS = {"dark": (1440, 375), "light": (1920, 768, 375)}


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("names", ["good", "hostile"])
async def test_everybody_can_read_the_pages(names: str, theme: str) -> None:
    """The rules of axe find nothing, nothing is wider than the window, and the Tab key leads to all there is to use."""
    board, paths = night(), list(_paths())
    if names == "hostile":
        board, paths = Board(), list(_hostile_paths())
        board.add(MARKUP)
        board.publish(MARKUP, hostile())
        board.fail(MARKUP, MARKUP)
    async with on_loopback(board.application) as url:
        visits = [
            {"url": f"{url}{path}", "theme": theme, "widths": WIDTHS[theme], "tabs": theme == "dark"} for path in paths
        ]
        seen = json.loads(await asyncio.to_thread(browser.script, "look.mjs", job={"visits": visits}))
    assert len(seen) == len(paths) * len(WIDTHS[theme])
    for one in seen:
        where = f"{one['url']} at {one['width']}"
        assert one["passes"] > 20, where
        assert one["violations"] == [], where
        # Text that has scrolled out of its table is not seen; at the greatest width, all of it is.
        assert [text for text in one["incomplete"] if not text.startswith("color-contrast:")] == [], where
        assert one["overflow"] == 0, where
        assert [line for line in one["faults"] if not line.startswith("Failed to load resource")] == [], where
        assert [stop for stop in one["tabs"] if not stop["seen"]] == [], where
    for one in seen if theme == "dark" else ():
        if one["width"] == 1440:
            assert one["tabs"][0] == {"element": "a", "text": "Skip to the content", "seen": True}
            assert len(one["tabs"]) == one["usable"], one["url"]


async def test_contrast_is_enough_at_full_width() -> None:
    async with on_loopback(night().application) as url:
        visits = [
            {"url": f"{url}{path}", "theme": theme, "widths": [1920]}
            for path in _paths()
            for theme in ("dark", "light")
        ]
        seen = json.loads(await asyncio.to_thread(browser.script, "look.mjs", job={"visits": visits}))
    assert [one["incomplete"] for one in seen] == [[]] * len(visits)


async def test_the_form_is_sent_behind_a_proxy_below_a_path(tmp_path: Path) -> None:
    """The policy lets it be sent, its address is relative, and the filter is in the address that comes of it."""
    board = night(location(None, "/a/b"))
    port = free_port()
    async with on_loopback(board.application) as url:
        blocks = f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; }} }}"
        with nginx(tmp_path, blocks, port):
            visits = [
                {
                    "url": f"http://127.0.0.1:{port}/a/b/?source=production",
                    "theme": "light",
                    "widths": [1440],
                    "fill": ["#text", "ETL & co"],
                    "press": "Filter",
                },
                {"url": f"http://127.0.0.1:{port}/a/b/", "theme": "light", "widths": [1440], "press": "etl"},
            ]
            seen = json.loads(await asyncio.to_thread(browser.script, "look.mjs", job={"visits": visits}))
    assert seen[0]["then"] == (
        f"http://127.0.0.1:{port}/a/b/?text=ETL+%26+co&source=production&system=&full=&waiting=&paused="
    )
    assert seen[1]["then"] == f"http://127.0.0.1:{port}/a/b/queue?source=production&pool=kubernetes-prod&queue=etl"
    assert [one["faults"] for one in seen] == [[], []]


async def test_a_page_comes_again_by_itself() -> None:
    board = night()
    async with on_loopback(board.application) as url:
        seen = json.loads(
            await asyncio.to_thread(
                browser.script,
                "look.mjs",
                job={"visits": [{"url": f"{url}?full=true", "theme": "dark", "widths": [1440], "again": True}]},
            )
        )
    assert seen[0]["again"] == f"{url}?full=true"
