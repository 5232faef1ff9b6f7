"""The dashboards as a person sees them: in a real browser, rendered with Grafana's published packages.

The pictures are left in `.cache/dashboards`.
"""

import json
import re
from pathlib import Path

import pytest

from dashboards.build import BUILDERS, FOLDER
from tests.harness import browser
from tests.harness.browser import PICTURES, Expected, Page, Visit, all_faults, name_of
from tests.harness.dashboards import charts
from tests.harness.prometheus import PrometheusServer

BOARDS = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in BUILDERS}


# --- Minutes of the demo: all dashboards, in two sizes and two themes.

EMPTY_IN_MINUTES = {
    "Time to drain": "Not draining",
    "Next limit reached": "Not growing",
    "When the limit is reached": "No queue is growing",
    "Firing alerts": "No alert is firing",
    "Failures by reason": "Nothing failed",
}
"""Panels of the demo that may have nothing to show, and what they say then."""
OF_MINUTES: Expected = {
    "overview": {
        "Full, and tasks wait": r"\n\d+$",
        "Oldest wait": r"\n[\d.]+ (s|mins?|hours?)$",
        "Worst queues first": r"(?s)Utilization.*Pending.*Running.*prefect-demo.*kubernetes-prod.*\d+%",
        "Saturation over time": r"(?s)(slots free|full).*queue async \(cloro-demo\)",
        "Pools": r"(?s)kubernetes-prod.*\d+%",
        "Sources": r"(?s)(cloro|prefect)-demo.*up.*(cloro|prefect)-demo",
    },
    "queue": {
        "Utilization": r"\n[\d.]+%$",
        "Oldest holder": r"(?s)RUNNING.*[\d.]+ (hours|day)",
        "Slots": r"(?s)taken.*limit.*waiting",
        "Holders by state": r"(?s)CANCELLING.*PENDING.*RUNNING",
        "State durations": r"(?s)5 mins.*1 hour",
        "Oldest holder by state": r"(?s)RUNNING.*[\d.]+ (mins|hours)",
        "Waiting tasks by priority": r"(?s)prefect 01.*cloro \d",
        "Waiting tasks by state": r"(?s)AwaitingConcurrencySlot.*Late.*Scheduled",
        "Arrivals against drain": r"(?s)net growth.*began, at least",
        "Other limits": r"(?s)warehouse-writes.*global",
    },
    "capacity": {
        "Queues short of slots": r"\n\d+$",
        "Queues by need": r"(?s)Waits for slots.*prefect-demo.*%",
        "Demand against another limit": r"what if",
    },
    "exporter": {
        "Sources up": r"\n100%$",
        "Oldest data": r"\n[\d.]+ (ms|s)$",
        "Polls by outcome": r"(?s)failure.*partial.*skipped.*success.*ops/m",
        "Requests by route": r"/work_pools/\{name\}/workers/filter",
        "Memory": r"MiB",
        "Configuration": r"in use",
    },
}
"""What has to be legible in a panel, as a regular expression of its text."""


@pytest.fixture(scope="module")
def pages(demo_prometheus: PrometheusServer) -> list[Page]:
    visits = [
        Visit(name, theme, params={"from": "now-2m", "to": "now"}) for name in BUILDERS for theme in ("dark", "light")
    ]
    return browser.render(demo_prometheus.url, FOLDER, visits, pictures=PICTURES / "minutes")


def test_each_is_rendered_in_two_sizes_and_two_themes(pages: list[Page]) -> None:
    assert len({name_of(page) for page in pages}) == len(BUILDERS) * 4
    for page in pages:
        assert set(page["shown"]) == {panel["title"] for panel in charts(BOARDS[page["name"]])}, name_of(page)
        picture = PICTURES / "minutes" / f"{page['name']}-{page['theme']}-{page['size'][0]}.png"
        assert picture.stat().st_size > 20_000


def test_nothing_is_wrong_on_the_page(pages: list[Page]) -> None:
    """No error, nothing that Grafana does not know, no panel without data or cut off, no request to anywhere else."""
    assert all_faults(pages, EMPTY_IN_MINUTES, OF_MINUTES) == []


def test_rows_lead_to_their_queue(pages: list[Page]) -> None:
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


# --- The types that @grafana/schema publishes.


def test_the_json_is_of_grafana_s_types() -> None:
    assert "0 problem(s)" in browser.script("check_schema.mjs", *sorted(FOLDER.glob("*.json")))


def test_the_types_are_looked_at(tmp_path: Path) -> None:
    board = json.loads((FOLDER / "overview.json").read_text(encoding="utf-8"))
    board["panels"][0]["options"]["colourMode"] = "value"
    path = tmp_path / "overview.json"
    path.write_text(json.dumps(board), encoding="utf-8")
    with pytest.raises(AssertionError, match="colourMode"):
        browser.script("check_schema.mjs", path)
