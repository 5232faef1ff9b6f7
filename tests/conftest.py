"""Real servers as fixtures; a test that asks for one is skipped where its programs are not installed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.prefect import PrefectServer
from tests.harness.prometheus import PrometheusServer
from tests.harness.scenario import PAGE_SIZE, seed_scenario

StartPrefect = Callable[..., PrefectServer]
StartPrometheus = Callable[..., PrometheusServer]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether to write golden files anew."""
    return bool(request.config.getoption("--update-golden"))


_SERVERS = {"prefect_server", "start_prefect", "start_prometheus"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a real server, so that `make check` can leave it out."""
    for item in items:
        if _SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def prefect_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's first Prefect server leaves its migrated database for those after it."""
    return tmp_path_factory.mktemp("prefect-template") / "prefect.db"


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, prefect_template: Path) -> Iterator[PrefectServer]:
    """The seeded scenario, frozen: shared by all tests, so they only read it."""
    server = PrefectServer(
        tmp_path_factory.mktemp("prefect") / "seeded",
        template=prefect_template,
        settings={"PREFECT_SERVER_API_DEFAULT_LIMIT": str(PAGE_SIZE)},
    )
    with server:
        seed_scenario(server)
        yield server


@pytest.fixture
def start_prefect(tmp_path: Path, prefect_template: Path) -> Iterator[StartPrefect]:
    """Start an empty Prefect server for one test; takes the keyword arguments of `PrefectServer`."""
    with ExitStack() as stack:
        count = 0

        def start(**options: Any) -> PrefectServer:
            nonlocal count
            count += 1
            server = PrefectServer(tmp_path / f"prefect-{count}", template=prefect_template, **options)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[StartPrometheus]:
    """Start a Prometheus for one test; takes the arguments of `PrometheusServer` after the directory."""
    with ExitStack() as stack:
        count = 0

        def start(*arguments: Any, **options: Any) -> PrometheusServer:
            nonlocal count
            count += 1
            return stack.enter_context(PrometheusServer(tmp_path / f"prometheus-{count}", *arguments, **options))

        yield start
