"""Routes below a prefix and behind a proxy, as Prometheus has them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from exporter.settings.reader import ConfigError
from exporter.web.location import Base, location
from tests.harness import browser
from tests.harness.command import run
from tests.harness.exporter import Exporter, exporter
from tests.harness.nginx import nginx
from tests.harness.process import PATIENCE, free_port
from tests.harness.prometheus import PrometheusServer

ROUTES = {
    "/": (200, "<title>concurrency-exporter</title>"),
    "/metrics": (200, "concurrency_exporter_build_info"),
    "/sd": (200, "__param_source"),
    "/-/healthy": (200, "healthy"),
    "/-/ready": (200, "ready"),
}


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "prefix", "external", "host"),
    [
        (None, None, "", Base("", ""), ""),
        (None, "/", "", Base("", ""), ""),
        (None, "", "", Base("", ""), ""),
        (None, "a", "/a", Base("", ""), ""),
        (None, "//a/b//", "/a/b", Base("", ""), ""),
        ("http://example.com", None, "", Base("http", ""), "example.com"),
        ("https://Example.com:443/a/", None, "/a", Base("https", "/a"), "example.com"),
        ("http://[::1]:8080/a/b", "/", "", Base("http", "/a/b"), "[::1]:8080"),
        ("http://example.com:80/a", "/c", "/c", Base("http", "/a"), "example.com"),
        ("http://example.com:443/-/x_y.z~", None, "/-/x_y.z~", Base("http", "/-/x_y.z~"), "example.com:443"),
    ],
)
def test_what_the_flags_mean(
    external_url: str | None, route_prefix: str | None, prefix: str, external: Base, host: str
) -> None:
    found = location(external_url, route_prefix)
    assert (found.prefix, found.external, found.external_host) == (prefix, external, host)


URL = "is not a URL like https://example.com/concurrency"
PATH = "is not a path like /concurrency"


@pytest.mark.parametrize(
    ("external_url", "route_prefix", "mistakes"),
    [
        ("", None, [f"--web.external-url=: {URL}"]),
        ("example.com/a", None, [f"--web.external-url=example.com/a: {URL}"]),
        ("ftp://example.com", None, [f"--web.external-url=ftp://example.com: {URL}"]),
        ("http://", None, [f"--web.external-url=http://: {URL}"]),
        ("http://example.com:x/", None, [f"--web.external-url=http://example.com:x/: {URL}"]),
        ("http://[::1/a", None, [f"--web.external-url=http://[::1/a: {URL}"]),
        ("http://u:p@example.com/", None, [f"--web.external-url=http://u:p@example.com/: {URL}"]),
        ("http://example.com/?a", None, [f"--web.external-url=http://example.com/?a: {URL}"]),
        ('"http://example.com/"', None, [f'--web.external-url="http://example.com/": {URL}']),
        ("http://example.com/a b", None, [f"--web.external-url=http://example.com/a b: {PATH}"]),
        (None, "/a/../b", [f"--web.route-prefix=/a/../b: {PATH}"]),
        (None, "/a//b", [f"--web.route-prefix=/a//b: {PATH}"]),
        (None, "/{a}", [f"--web.route-prefix=/{{a}}: {PATH}"]),
        ("http:", "é", [f"--web.external-url=http:: {URL}", f"--web.route-prefix=é: {PATH}"]),
    ],
)
def test_what_they_can_not_mean(external_url: str | None, route_prefix: str | None, mistakes: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        location(external_url, route_prefix)
    assert raised.value.mistakes == mistakes


def test_the_check_looks_at_them() -> None:
    assert run("--demo", "--config.check", "--web.route-prefix=/a b") == (1, "", f"--web.route-prefix=/a b: {PATH}\n")


def test_all_is_below_the_prefix_and_nothing_elsewhere(tmp_path: Path) -> None:
    flags = ("--demo", "--web.route-prefix=/a/b", "--web.enable-lifecycle")
    with exporter(tmp_path, *flags, prefix="/a/b") as command:
        for route, (status, text) in ROUTES.items():
            response = command.get(f"/a/b{route}")
            assert (response.status_code, text in response.text) == (status, True), route
            if route != "/":
                assert command.get(route).status_code == 404
        for beginning in ("/a/b/", "/A/b", "/a", "/a/bc", "/a/b%2f", "/a%2fb", "//a/b", "/x/a/b"):
            assert command.get(f"{beginning}/metrics").status_code == 404, beginning
        for path in ("/", "/a/b"):
            response = command.get(path)
            assert (response.status_code, response.headers["Location"]) == (302, "/a/b/")
            assert response.headers["Cache-Control"] == "no-store", "the headers of every answer"
            assert httpx.post(f"{command.url}{path}", trust_env=False, timeout=PATIENCE).status_code == 404
        assert httpx.post(f"{command.url}/a/b/-/reload", trust_env=False, timeout=PATIENCE).text == "reloaded\n"
        for target in command.get("/a/b/sd").json():
            assert (target["targets"], target["labels"]["__metrics_path__"]) == ([command.address], "/a/b/metrics")


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
    assert {link.removeprefix(proxied.url) for link in links} >= {"/metrics", "/-/healthy", "/-/ready"}
    seen = json.loads(browser.script("pages.mjs", *links))
    for link in links:
        assert ROUTES[link.removeprefix(proxied.url)][1] in seen[link]["text"]
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
