"""Routes below a prefix, behind nginx: for Prometheus, and in a browser."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.harness import browser
from tests.harness.exporter import Exporter, exporter
from tests.harness.nginx import nginx
from tests.harness.process import PATIENCE, free_port
from tests.harness.prometheus import PrometheusServer
from tests.harness.web import ROUTES


@dataclass(frozen=True)
class Proxied:
    """An exporter behind nginx: where the proxy presents it, and the command itself."""

    url: str
    command: Exporter

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=PATIENCE)


@pytest.fixture(scope="module", params=["as it came", "without its prefix", "with another"])
def proxied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """The proxy passes a path on as it came, or removes its prefix, or puts another in its place."""
    prefix = {"as it came": "/tools/concurrency", "without its prefix": "", "with another": "/inner"}[request.param]
    directory, port = tmp_path_factory.mktemp("proxied"), free_port()
    url = f"http://127.0.0.1:{port}/tools/concurrency"
    flags = ["--demo", f"--web.external-url={url}/"]
    if request.param != "as it came":
        flags.append(f"--web.route-prefix={prefix}/")
    with exporter(directory, *flags, prefix=prefix) as command:
        passed = (
            f"location /tools/concurrency/ {{ proxy_pass {command.url}{prefix}/; proxy_set_header Host $http_host; }}"
        )
        with nginx(directory / "nginx", f"server {{ listen 127.0.0.1:{port}; {passed} }}", port):
            yield Proxied(url, command)


def test_every_route_is_behind_the_proxy(proxied: Proxied) -> None:
    for route, (status, text) in ROUTES.items():
        response = proxied.get(route)
        assert (response.status_code, text in response.text) == (status, True), route


def test_the_links_of_the_page_lead_there_in_a_browser(proxied: Proxied) -> None:
    browser.chromium()
    page = f"{proxied.url}/"
    links = json.loads(browser.script("pages.mjs", page))[page]["links"]
    ours = {urlsplit(link).path: link for link in links if link.startswith(proxied.url)}
    assert {path.removeprefix(urlsplit(proxied.url).path) for path in ours} >= {"/", "/metrics", "/queue", "/limit"}
    seen = json.loads(browser.script("pages.mjs", *ours.values()))
    for link in ours.values():
        assert httpx.get(link, trust_env=False, timeout=PATIENCE).status_code == 200
        assert "concurrency" in seen[link]["text"]
        assert seen[link]["errors"] == []


def test_prometheus_scrapes_what_it_discovers(proxied: Proxied, tmp_path: Path) -> None:
    """Through the proxy, and from the exporter itself."""
    command = proxied.command
    urls = [proxied.url, f"{command.url}{command.prefix}"]
    jobs = [
        {"job_name": str(number), "http_sd_configs": [{"url": f"{url}/sd", "refresh_interval": "1s"}]}
        for number, url in enumerate(urls)
    ]
    with PrometheusServer(tmp_path, config={"scrape_configs": jobs}) as prometheus:

        def targets() -> list[dict[str, str]]:
            answer = httpx.get(f"{prometheus.url}/api/v1/targets", trust_env=False, timeout=PATIENCE)
            found: list[dict[str, str]] = answer.json()["data"]["activeTargets"]
            return found

        prometheus.process.wait_until(
            lambda: [one["health"] for one in targets()] == ["up"] * 4, what="4 targets are up"
        )
        scraped = {(one["scrapePool"], one["scrapeUrl"]) for one in targets()}
    names = ("prefect-demo", "cloro-demo")
    assert scraped == {(str(i), f"{url}/metrics?source={name}") for i, url in enumerate(urls) for name in names}


def test_a_redirect_stays_behind_the_proxy(proxied: Proxied) -> None:
    """As of a proxy that passes on a path without its slash."""
    command = proxied.command
    if not command.prefix:
        return
    host = proxied.url.split("/")[2]
    assert command.get("/", Host=host).headers["Location"] == "/tools/concurrency/"
    assert command.get("/").headers["Location"] == f"{command.prefix}/"


def test_https_of_the_proxy_is_the_scheme_of_the_targets(tmp_path: Path) -> None:
    with exporter(tmp_path, "--demo", "--web.external-url=https://example.com/x", prefix="/x") as command:
        for host in ("example.com", "EXAMPLE.com:443"):
            for target in command.get("/x/sd", Host=host).json():
                assert target["targets"] == [host]
                assert target["labels"]["__scheme__"] == "https"
                assert target["labels"]["__metrics_path__"] == "/x/metrics"
        for host in ("example.com:80", "example.org", command.address):
            assert all("__scheme__" not in target["labels"] for target in command.get("/x/sd", Host=host).json())
