"""The dashboards as a person sees them: in a real browser, rendered with Grafana's published packages.

The pictures are left in `.cache/dashboards`.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dashboards.build import BUILDERS, FOLDER
from tests.harness import browser
from tests.harness.programs import ROOT
from tests.harness.prometheus import PrometheusServer

PICTURES = ROOT / ".cache" / "dashboards"
MAY_BE_EMPTY = {
    "Time to drain": "Not draining",
    "Limit reached": "Not growing",
    "Firing alerts": "No alert is firing",
    "Failures by reason": "Nothing failed",
}
"""Panels of the demo that may have nothing to show, and what they say then."""
READABLE = {
    ("overview", "Full, and tasks wait"): r"\n\d+$",
    ("overview", "Oldest wait"): r"\n[\d.]+ (s|mins?|hours?)$",
    ("overview", "Worst queues first"): r"(?s)Utilization.*Oldest holder.*prefect-demo.*kubernetes-prod.*\d+%",
    ("overview", "Saturation over time"): r"(?s)cloro-demo: async \(queue\).*(slots free|full)",
    ("overview", "Pools"): r"(?s)kubernetes-prod.*\d+%",
    ("overview", "Sources"): r"(?s)(cloro|prefect)-demo.*up.*(cloro|prefect)-demo",
    ("queue", "Utilization"): r"\n[\d.]+%$",
    ("queue", "Slots"): r"(?s)taken.*limit.*waiting",
    ("queue", "Holders by state"): r"(?s)CANCELLING.*PENDING.*RUNNING",
    ("queue", "State durations"): r"(?s)300.*3600",
    ("queue", "Oldest holder by state"): r"(?s)RUNNING.*[\d.]+ (mins|hours)",
    ("queue", "Waiting tasks by priority"): r"(?s)prefect 01.*cloro \d",
    ("queue", "Waiting tasks by state"): r"(?s)AwaitingConcurrencySlot.*Late.*Scheduled",
    ("queue", "Other limits"): r"(?s)warehouse-writes.*global",
    ("capacity", "p95 utilization"): r"\n[\d.]+%$",
    ("capacity", "Queues by need"): r"(?s)Waits for slots.*prefect-demo.*%",
    ("capacity", "Demand against another limit"): r"what if",
    ("exporter", "Sources up"): r"\n100%$",
    ("exporter", "Oldest data"): r"\n[\d.]+ (ms|s)$",
    ("exporter", "Polls by outcome"): r"(?s)failure.*partial.*skipped.*success.*ops/s",
    ("exporter", "Requests by route"): r"/work_pools/\{name\}/workers/filter",
    ("exporter", "Memory"): r"MiB",
    ("exporter", "Configuration"): r"in use",
}
"""What has to be legible in a panel, as a regular expression of its text."""


@pytest.fixture(scope="module")
def seen(demo_prometheus: PrometheusServer) -> dict[str, Any]:
    return browser.render(demo_prometheus.url, FOLDER, PICTURES, list(BUILDERS), since="now-2m")


@pytest.fixture(scope="module")
def pages(seen: dict[str, Any]) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = seen["pages"]
    return pages


def name_of(page: dict[str, Any]) -> str:
    return f"{page['name']} {page['theme']} {page['size'][0]}"


def test_each_is_rendered_in_two_sizes_and_two_themes(pages: list[dict[str, Any]]) -> None:
    assert len({name_of(page) for page in pages}) == len(BUILDERS) * 4
    for page in pages:
        board = json.loads((FOLDER / f"{page['name']}.json").read_text(encoding="utf-8"))
        titles = [panel["title"] for panel in board["panels"] if panel["type"] != "row"]
        assert set(page["shown"]) == set(titles), name_of(page)
        assert (PICTURES / f"{page['name']}-{page['theme']}-{page['size'][0]}.png").stat().st_size > 20_000


def test_nothing_is_wrong_on_the_page(pages: list[dict[str, Any]]) -> None:
    """No error of a script or of a panel, nothing that Grafana does not know, no request to anywhere else."""
    for page in pages:
        assert page["errors"] == [], name_of(page)
        assert page.get("fatal") is None, name_of(page)
        assert page["ids"] == [], name_of(page)
        assert [panel["title"] for panel in page["panels"] if panel.get("error") or panel.get("loadError")] == []
        assert [query for query in page["queries"] if query["status"] != "success"] == []
        assert [query["expr"] for query in page["queries"] if re.search(r"\$\{?[a-z_]", query["expr"])] == []
        for variable in page["variables"]:
            assert variable.get("options") != [], f"{variable['name']} of {name_of(page)}"


def test_every_panel_shows_something(pages: list[dict[str, Any]]) -> None:
    for page in pages:
        for panel in page["panels"]:
            text = page["shown"][panel["title"]]["text"]
            if any(field["points"] for field in panel["fields"]):
                continue
            assert panel["title"] in MAY_BE_EMPTY, f"{panel['title']} of {name_of(page)} is empty"
            assert MAY_BE_EMPTY[panel["title"]] in text


def test_what_has_to_be_legible_is(pages: list[dict[str, Any]]) -> None:
    for page in pages:
        for (name, title), pattern in READABLE.items():
            if name == page["name"]:
                text = page["shown"][title]["text"]
                assert re.search(pattern, text), f"{title} of {name_of(page)} shows: {text}"


def test_nothing_is_cut_off(pages: list[dict[str, Any]]) -> None:
    """The page has no scroll bar to the side, and no text is shortened but names in the legend of a graph."""
    for page in pages:
        assert page["fits"], name_of(page)
        graphs = {panel["title"] for panel in page["panels"] if panel["type"] == "timeseries"}
        for title, shown in page["shown"].items():
            assert shown["left"] >= 0
            assert shown["right"] <= page["width"]
            assert title in graphs or shown["cut"] == [], f"{title} of {name_of(page)}"


def test_a_choice_in_a_drop_down_changes_the_queries(seen: dict[str, Any]) -> None:
    queries = seen["chosen"]["Source"]
    chosen = [query for query in queries if 'source=~"cloro-demo"' in query]
    assert len(chosen) > 10
    assert all('source=~"cloro-demo"' in query for query in queries if "source=~" in query)


def test_rows_lead_to_their_queue(pages: list[dict[str, Any]]) -> None:
    for page in pages:
        if page["name"] != "overview":
            continue
        links = page["shown"]["Worst queues first"]["links"]
        assert len(links) >= 5
        for link in links:
            assert link.startswith("/d/concurrency-queue?var-datasource=prom&")
            assert re.search(r"&from=now-2m&to=now", link)
        assert any(
            re.search("var-source=prefect-demo&var-pool=kubernetes-prod&var-queue=[a-z]+&", link) for link in links
        )
        assert any("var-source=cloro-demo&var-pool=&var-queue=async&" in link for link in links)


def test_the_json_is_of_grafana_s_types() -> None:
    """By the types that @grafana/schema publishes."""
    done = browser.script("check_schema.mjs", *sorted(FOLDER.glob("*.json")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_are_looked_at(tmp_path: Path) -> None:
    board = json.loads((FOLDER / "overview.json").read_text(encoding="utf-8"))
    board["panels"][0]["options"]["colourMode"] = "value"
    path = tmp_path / "overview.json"
    path.write_text(json.dumps(board), encoding="utf-8")
    done = browser.script("check_schema.mjs", path)
    assert done.returncode == 1
    assert "colourMode" in done.stdout
