"""A real Prometheus scrapes the running command, in both text formats, and sees what the command publishes."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from exporter.metrics.exposition import render
from exporter.metrics.text import Format, joined
from exporter.model import Holder, Holders, Queue, Snapshot
from tests.harness.exporter import Exporter, exporter
from tests.harness.prefect import PrefectApi, PrefectServer, StartPrefect
from tests.harness.prometheus import StartPrometheus, promtool_check_metrics
from tests.harness.promql import ALERTS
from tests.harness.rules import FILES

CLASSIC = "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
"""What Prometheus 3 sends where `scrape_protocols` begins with PrometheusText1.0.0."""
OPENMETRICS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
"""What Prometheus 3 sends by default."""


@contextmanager
def asking_for(accept: str, behind: Exporter) -> Iterator[str]:
    """Where a scrape reaches the exporter with another Accept header: Prometheus 2.42 has no setting for it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            encoding = self.headers["Accept-Encoding"]
            with httpx.stream(
                "GET", behind.url + self.path, headers={"Accept": accept, "Accept-Encoding": encoding}, trust_env=False
            ) as answer:
                content = b"".join(answer.iter_raw())
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Encoding"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what matters."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        pytest.param(None, "application/openmetrics-text", id="as-it-asks-itself"),
        pytest.param(OPENMETRICS, "application/openmetrics-text", id="as-prometheus-3"),
        pytest.param(CLASSIC, "text/plain", id="as-prometheus-3-with-classic-text"),
    ],
)
def test_every_series_arrives(
    accept: str | None,
    media_type: str,
    prefect_server: PrefectServer,
    start_prometheus: StartPrometheus,
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        "sources:\n"
        f"- {{system: prefect, name: prefect, url: '{prefect_server.api_url}', interval: 5m}}\n"
        "- {system: cloro, name: 'down \"for\" \\tests', url: 'http://127.0.0.1:9', interval: 5m,"
        " authorization: {credentials: none}}\n"
    )
    with exporter(tmp_path, f"--config.file={config}") as running:
        assert running.get(Accept=accept or OPENMETRICS).headers["Content-Type"].startswith(media_type)
        with asking_for(accept, running) if accept else _nothing(running.address) as target:
            prometheus = start_prometheus([target])
            prometheus.wait_for("concurrency_exporter_source_up == 1")
            stored = {
                (labels.pop("__name__"), frozenset(labels.items()))
                for labels, _ in prometheus.query('{__name__=~"concurrency_.*"}')
            }
            targets = prometheus.targets()
        published = set(running.series())
    # In OpenMetrics a bound is a number, "5.0", in classic text it is what was written, which is the same.
    assert {(name, labels - set(_target_labels(labels))) for name, labels in stored} == published
    assert [target["health"] for target in targets] == ["up"]
    assert prometheus.log_problems() == []


@contextmanager
def _nothing(target: str) -> Iterator[str]:
    yield target


def _target_labels(labels: frozenset[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in labels if name in {"job", "instance"}]


def test_series_go_stale_after_a_source_has_died(
    start_prefect: StartPrefect, start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    server = start_prefect()
    with closing(server.client()) as client:
        client.post("/work_pools/", json={"name": "only", "type": "process"}).raise_for_status()
    config = tmp_path / "config.yml"
    config.write_text(
        "sources:\n"
        f"- {{system: prefect, name: mortal, url: '{server.api_url}', interval: 1s, timeout: 10s, stale_after: 12s,"
        " collect: [queues]}\n"
    )
    with exporter(tmp_path, f"--config.file={config}") as running:
        prometheus = start_prometheus([running.address])
        prometheus.wait_for('concurrency_queue_active_slots{source="mortal"}')
        server.stop()
        prometheus.wait_for('concurrency_exporter_source_up{source="mortal"} == 0')
        # Before the five minutes for which Prometheus would go on showing a series that just was not there.
        gone = '(up == 1) unless on () concurrency_queue_active_slots{source="mortal"}'
        prometheus.wait_for(gone, timeout=240)
        assert prometheus.query('{__name__=~"concurrency_(queue|pool|limit)_.+"}') == []
        prometheus.wait_for("up == 1")
        assert (
            prometheus.query('time() - concurrency_exporter_last_success_timestamp_seconds{source="mortal"}')[0][1] > 11
        )
        assert prometheus.log_problems() == []


def test_a_source_has_no_more_series_than_it_may_and_says_so(
    start_prefect: StartPrefect, start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    server = start_prefect()
    config = tmp_path / "config.yml"
    source = f"system: prefect, name: many, url: '{server.api_url}', interval: 1s, timeout: 5m, stale_after: 10m"
    with closing(server.client()) as client:
        api = PrefectApi(client)
        api.create_pool("p")
        for name in ("a", "b", "y", "z"):
            api.create_queue("p", name)
        config.write_text(f"sources: [{{{source}}}]\n")
        with exporter(tmp_path, f"--config.file={config}") as running:
            whole = {key for key in running.series() if _is_observed(key[0])}
        config.write_text(f"sources: [{{{source}, max_series: {len(whole) - 1}}}]\n")
        with exporter(tmp_path, f"--config.file={config}") as running:
            prometheus = start_prometheus(
                [running.address],
                config={"rule_files": [str(ALERTS / name) for name in FILES]},
            )

            def queues(*expected: str) -> None:
                """Wait for just these queues, each whole: as many series as without a cap, or more when tasks wait."""
                of_each = {
                    labels["queue"]: count
                    for labels, count in prometheus.wait_for(
                        'count by (queue) ({__name__=~"concurrency_queue_.+"})',
                        lambda result: {labels["queue"] for labels, _ in result} == set(expected),
                    )
                }
                for queue, count in of_each.items():
                    assert count >= len([labels for _, labels in whole if ("queue", queue) in labels])

            queues("a", "b", "default", "y")
            (firing,) = prometheus.wait_for('ALERTS{alertname="ConcurrencySeriesDropped"}')
            assert (firing[0]["source"], firing[0]["alertstate"]) == ("many", "pending")  # it waits for ten minutes
            run = api.create_run(api.create_flow(), pool="p", queue="z", state={"type": "SCHEDULED"})
            queues("a", "b", "default", "z")
            api.set_state(run, {"type": "COMPLETED"})
            prometheus.wait_for('sum(concurrency_queue_queued_tasks{queue="z"}) == 0')
            queues("a", "b", "default", "z")

            observed = '{__name__=~"concurrency_(queue|pool|limit)_.+"}'
            assert prometheus.query(f"max_over_time((count({observed}))[1m:1s])")[0][1] < len(whole)
            (there,), (dropped,) = (
                prometheus.query(f"count({observed})"),
                prometheus.query("concurrency_exporter_series_dropped"),
            )
            assert there[1] + dropped[1] == len(whole)
            assert prometheus.log_problems() == []


def _is_observed(name: str) -> bool:
    return not name.startswith("concurrency_exporter_")


def test_promtool_has_no_complaint(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with exporter(tmp_path, env={"PREFECT_API_URL": prefect_server.api_url}) as running:
        assert promtool_check_metrics(running.get().text) == []
    with exporter(tmp_path, "--demo") as running:
        assert promtool_check_metrics(running.get().text) == []


@pytest.mark.parametrize("show", [True, False], ids=["shown", "not-shown"])
def test_exemplars_name_the_oldest_holders(
    show: bool, prefect_server: PrefectServer, start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    config = tmp_path / "config.yml"
    config.write_text(
        f"sources: [{{system: prefect, name: prefect, url: '{prefect_server.api_url}', interval: 5m,"
        f" holders: {{show: {str(show).lower()}}}}}]"
    )
    durations = "concurrency_queue_state_duration_seconds_bucket"
    with exporter(tmp_path, f"--config.file={config}") as running:
        prometheus = start_prometheus([running.address], features=["exemplar-storage"])
        prometheus.wait_for(durations)
        found = {
            (series["queue"], series["state"], series["le"], exemplar["run_id"], value)
            for series, exemplar, value in prometheus.exemplars(durations)
        }
        longest = {
            (labels["queue"], labels["state"], value)
            for labels, value in prometheus.query("concurrency_queue_state_duration_max_seconds")
        }
        assert prometheus.log_problems() == []
    assert {(queue, state, value) for queue, state, _, _, value in found} == (longest if show else set())
    for _, _, bound, run, value in found:
        assert value <= float(bound)
        with closing(prefect_server.client()) as client:
            assert client.get(f"/flow_runs/{run}").status_code == 200


ODD_IDS = ['"', "\\", "\n", 'a"b\\c\nd', "é漢🚦", "{},=# ", "x" * 122]


def test_prometheus_reads_any_id_in_an_exemplar(start_prometheus: StartPrometheus) -> None:
    queues = tuple(
        Queue("p", f"q{number}", holders={"RUNNING": Holders(1, (float(number),), (Holder(odd, "", float(number)),))})
        for number, odd in enumerate(ODD_IDS)
    )
    rendered = render(Snapshot(queues), source="s", system="prefect", max_series=10_000)
    text = joined(rendered.blocks[Format.OPENMETRICS]) + Format.OPENMETRICS.value
    with answering(text, "application/openmetrics-text; version=1.0.0; charset=utf-8") as target:
        prometheus = start_prometheus([target], features=["exemplar-storage"])
        prometheus.wait_for("concurrency_queue_state_duration_seconds_bucket")
        found = prometheus.exemplars("concurrency_queue_state_duration_seconds_bucket")
        assert [one["health"] for one in prometheus.targets()] == ["up"]
    shown = {series["queue"]: (exemplar["run_id"], value) for series, exemplar, value in found}
    assert len(shown) == len(found) == len(ODD_IDS)
    for number, odd in enumerate(ODD_IDS):
        # Prometheus 2.42 leaves the values of exemplars escaped, unlike those of series.
        escaped = odd.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        assert shown[f"q{number}"] in {(odd, number), (escaped, number)}


@contextmanager
def answering(content: bytes, media_type: str) -> Iterator[str]:
    """Where a scrape gets this."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what matters."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
