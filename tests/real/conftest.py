"""Real servers as fixtures; a test that asks for one is skipped where its programs are not installed."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness.exporter import Exporter, exporter
from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import PrefectServer, PrefectTemplates, StartPrefect
from tests.harness.prometheus import PrometheusServer, StartPrometheus
from tests.harness.promql import ALERTS
from tests.harness.scenario import PAGE_SIZE, seed_scenario


@pytest.fixture(scope="session")
def prefect_templates(tmp_path_factory: pytest.TempPathFactory) -> PrefectTemplates:
    return PrefectTemplates(tmp_path_factory.mktemp("prefect-templates"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL for the databases of all tests."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def prefect_server(
    tmp_path_factory: pytest.TempPathFactory, prefect_templates: PrefectTemplates
) -> Iterator[PrefectServer]:
    """The seeded scenario, frozen: shared by all tests, so they only read it."""
    server = PrefectServer(
        tmp_path_factory.mktemp("prefect") / "seeded",
        template=prefect_templates.sqlite(None),
        settings={
            "PREFECT_SERVER_API_DEFAULT_LIMIT": str(PAGE_SIZE),
            # What would change the scenario after minutes has to do so in the first test that reads it.
            "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "1",
        },
    )
    with server:
        seed_scenario(server)
        yield server


@pytest.fixture
def start_prefect(tmp_path: Path, prefect_templates: PrefectTemplates) -> Iterator[StartPrefect]:
    """Start an empty Prefect server for one test; takes the keyword arguments of `PrefectServer`.

    With `postgres=cluster` its database is a new one in that cluster.
    """
    with ExitStack() as stack:
        count = 0

        def start(*, postgres: PostgresCluster | None = None, **options: Any) -> PrefectServer:
            nonlocal count
            count += 1
            version = options.get("version")
            if postgres:
                options["database_url"] = prefect_templates.postgres(postgres, version)
            else:
                options["template"] = prefect_templates.sqlite(version)
            return stack.enter_context(PrefectServer(tmp_path / f"prefect-{count}", **options))

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


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """The command with `--demo`."""
    with exporter(tmp_path_factory.mktemp("demo"), "--demo") as command:
        yield command


@pytest.fixture(scope="session")
def demo_prometheus(demo: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus that has scraped the demo for a while, with the rules that are shipped."""
    folder = tmp_path_factory.mktemp("demo-prometheus")
    rules = []
    for name in ("recording-rules.yml", "thresholds.yml", "alerting-rules.yml"):
        rules.append(str(folder / name))
        # The windows of a day are recorded every two minutes: so long nobody wants to wait here.
        text = (ALERTS / name).read_text(encoding="utf-8").replace("interval: 2m", "interval: 10s")
        Path(rules[-1]).write_text(text, encoding="utf-8")
    with PrometheusServer(folder, [demo.address], config={"rule_files": rules}) as server:
        # What is recorded last: with it there is data for the windows of all queries.
        server.wait_for("concurrency:slot_utilization:p95_1d")
        server.wait_for("count_over_time(concurrency:waiting_tasks:deriv15m[2m]) > 20")
        yield server
