"""The command with a route prefix and an external URL."""

from pathlib import Path

import httpx

from tests.harness.command import run
from tests.harness.exporter import exporter
from tests.harness.process import PATIENCE
from tests.harness.web import ROUTES


def test_the_check_looks_at_them() -> None:
    outcome = run("--demo", "--config.check", "--web.route-prefix=/a b")
    assert outcome == (1, "", "--web.route-prefix=/a b: is not a path like /concurrency\n")


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
