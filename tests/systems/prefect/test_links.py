"""Links into Prefect's UI: its address from that of the API, and the pages that each version's UI has."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from exporter.sources.prefect.links import Links

RUN: Final = "0d1b8f4e-4dfa-4c53-9a0a-9d6f0a4a1b52"
CLOUD: Final = "https://api.prefect.cloud/api/accounts/A/workspaces/W"
UI_OF: Final = {
    "http://127.0.0.1:4200/api": "http://127.0.0.1:4200",
    "http://[::1]:4200/api": "http://[::1]:4200",
    "https://prefect.example.org/prefect/api": "https://prefect.example.org/prefect",
    CLOUD: "https://app.prefect.cloud/account/A/workspace/W",
}
GUESSED: Final = [
    "http://h:4200/myapi",
    "http://h:4200",
    "http://h:4200/api/v2",
    "http://h/api/prefect/api",
    "http://h/accounts/1/api",
    "https://gateway.example.org/api/accounts/A/workspaces/W",
    "https://api.prefect.cloud.example.org/api/accounts/A/workspaces/W",
]


@pytest.mark.parametrize(("api_url", "ui_url"), UI_OF.items())
def test_the_ui_of_an_api(api_url: str, ui_url: str) -> None:
    assert Links.of(api_url, None).run(RUN) == f"{ui_url}/runs/flow-run/{RUN}"


@pytest.mark.parametrize("api_url", GUESSED)
def test_no_link_rather_than_a_wrong_one(api_url: str) -> None:
    links = Links.of(api_url, None)
    assert {links.run(RUN), links.pool("p"), links.queue("p", "q"), links.limit("tag", RUN)} == {None}
    assert Links.of(api_url, "https://ui.example.org").run(RUN) == f"https://ui.example.org/runs/flow-run/{RUN}"


def test_the_pages() -> None:
    links = Links.of("http://h/api", None)
    assert links.pool("etl") == "http://h/work-pools/work-pool/etl"
    assert links.queue("etl", "default") == "http://h/work-pools/work-pool/etl/queue/default"
    assert links.limit("tag", RUN) == f"http://h/concurrency-limits/concurrency-limit/{RUN}"
    assert links.limit("global", RUN) == links.limit("deployment", RUN) == "http://h/concurrency-limits"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("a/b", "a%2Fb"),
        ("a?b#c&d=e%20", "a%3Fb%23c%26d%3De%2520"),
        ('"><script>', "%22%3E%3Cscript%3E"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("new\nline \u202e🚦", "new%0Aline%20%E2%80%AE%F0%9F%9A%A6"),
        ("...", "..."),
    ],
)
def test_names_are_quoted(name: str, quoted: str) -> None:
    links = Links.of("http://h/api", None)
    assert links.pool(name) == f"http://h/work-pools/work-pool/{quoted}"
    assert links.queue("p", name) == f"http://h/work-pools/work-pool/p/queue/{quoted}"


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_a_browser_takes_for_a_step_has_no_link(name: str) -> None:
    links = Links.of("http://h/api", None)
    assert (links.pool(name), links.queue(name, "q"), links.queue("p", name)) == (None, None, None)


@pytest.mark.parametrize("python", [".cache/prefect", ".cache/prefect-3.6.23"])
def test_the_address_is_that_of_prefects_own_client(python: str) -> None:
    """Of each API address for which we make links, and of one with PREFECT_UI_URL."""
    program = Path(__file__).parents[3] / python / "bin" / "python"
    if not program.exists():
        pytest.skip("Prefect is not installed: make prefect-installed")
    ask = f"""
import os, sys
from prefect.settings import temporary_settings, PREFECT_API_URL, PREFECT_UI_URL
from prefect.utilities.urls import url_for
for url in sys.argv[1:]:
    with temporary_settings({{PREFECT_API_URL: url}}):
        print(url_for("flow-run", "{RUN}"))
"""
    environment = {"HOME": "/nonexistent", "PREFECT_HOME": str(Path("/nonexistent")), "PREFECT_LOGGING_LEVEL": "ERROR"}
    told = subprocess.run(
        [str(program), "-c", ask, *UI_OF], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert told == [Links.of(url, None).run(RUN) for url in UI_OF], sys.argv
