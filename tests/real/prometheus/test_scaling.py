"""Several exporters, and several Prometheus servers: what docs/scaling.md says, on real servers."""

import json
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
from ruamel.yaml import YAML

from tests.harness.alertmanager import Webhook, alertmanager, alertmanager_config, wait_until
from tests.harness.cloro import FREE, KEY, SATURATED, Cloro
from tests.harness.dashboards import BOARDS, Variables, charts, series
from tests.harness.documents import blocks
from tests.harness.exporter import Exporter, exporter
from tests.harness.prefect import PrefectServer
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT
from tests.harness.prometheus import PrometheusServer, StartPrometheus, Vector
from tests.harness.promql import ALERTS
from tests.harness.rules import in_seconds
from tests.harness.upstream import serving

Key = tuple[str, frozenset[tuple[str, str]]]
"""Name and labels of a series."""


def rule_files(folder: Path) -> list[str]:
    """A copy of the rules that are shipped, in which minutes are seconds."""
    paths = []
    for name in ("recording-rules.yml", "thresholds.yml", "alerting-rules.yml"):
        path = folder / name
        path.write_text(in_seconds((ALERTS / name).read_text(encoding="utf-8")), encoding="utf-8")
        paths.append(str(path))
    return paths


def job(name: str, *targets: Exporter, **more: object) -> dict[str, object]:
    return {"job_name": name, "static_configs": [{"targets": [target.address for target in targets]}], **more}


@contextmanager
def exporters(folder: Path, config: Path, *flags: list[str]) -> Iterator[list[Exporter]]:
    """One exporter for each list of flags."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(exporter(folder / str(number), f"--config.file={config}", *more))
            for number, more in enumerate(flags)
        ]


MOVING = ("duration:max", ":condition", "deriv15m", "drain_time", "polls_", "source_down")
"""Parts of the names of recorded series whose values depend on the moment of a poll."""


Values = dict[frozenset[tuple[str, str]], float]
"""The values of some series by their labels, apart from those of the target."""


def by_job(found: Vector) -> tuple[Values, Values]:
    """Of the one exporter, and of the shards."""
    jobs: dict[str, Values] = {"whole": {}, "shards": {}}
    for labels, value in found:
        key = frozenset((name, text) for name, text in labels.items() if name not in {"job", "instance"})
        jobs[labels["job"]][key] = value
    return jobs["whole"], jobs["shards"]


def of_both(server: PrometheusServer, expression: str, *, having: str) -> tuple[Values, Values]:
    """The values of both jobs, once they have the same series, and one of them has the label value `having`."""
    differing: list[dict[str, str]] = []

    def settled() -> tuple[Values, Values] | None:
        whole, shards = by_job(server.query(expression))
        differing[:] = [dict(labels) for labels in whole.keys() ^ shards.keys()]
        return None if differing or not any(having in dict(labels).values() for labels in whole) else (whole, shards)

    try:
        values: tuple[Values, Values] = wait_until(settled, f"the series of both jobs are the same: {expression}")
    except AssertionError as error:
        error.add_note(f"{len(differing)} are not, such as {differing[:3]}")
        raise
    return values


def differing_panels(server: PrometheusServer) -> list[str]:
    """Titles of the panels that show other series of the shards than of the one exporter."""

    def shown(target: dict[str, Any], job: str) -> set[frozenset[tuple[str, str]]]:
        return {frozenset(labels.items() - {("job", job)}) for labels in series(server, target, Variables(job=job))}

    return [
        panel["title"]
        for name, board in BOARDS.items()
        for panel in charts(board)
        # How the polls of each went is its own; so are alerts on that.
        if name != "exporter"
        and panel["title"] != "Firing alerts"
        and any(shown(target, "whole") != shown(target, "shards") for target in panel["targets"])
    ]


def test_three_shards_are_watched_as_one_exporter_is(
    prefect_server: PrefectServer, start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    config = tmp_path / "config.yml"
    times = {"interval": "2s", "timeout": "5m", "stale_after": "10m"}
    real = {"system": "prefect", "name": "real", "url": prefect_server.api_url} | times
    dead = {"system": "prefect", "name": "dead", "url": "http://127.0.0.1:9/api"} | times
    config.write_text(json.dumps({"sources": [real, dead]}))
    flags: list[list[str]] = [[], *([f"--shard={index}/3"] for index in range(3))]
    with exporters(tmp_path, config, *flags) as (whole, *shards):
        server = start_prometheus(
            config={
                "scrape_configs": [job("whole", whole), job("shards", *shards)],
                "rule_files": rule_files(tmp_path),
            }
        )
        firing = 'ALERTS{alertname!~"ConcurrencyPollsOverrun|ConcurrencySnapshotPartial", alertstate="firing", job!=""}'
        of_both(server, firing, having="ConcurrencySourceDown")
        recorded = of_both(server, '{__name__=~"concurrency:.+"}', having="concurrency:slot_utilization:p95_1d")
        steady = [
            {key: value for key, value in of_job.items() if not any(part in dict(key)["__name__"] for part in MOVING)}
            for of_job in recorded
        ]
        assert len(steady[0]) > 1_000
        assert steady[0] == steady[1]
        wait_until(lambda: not differing_panels(server), "the dashboards show the same of both")

        shards[1].process.stop()
        missing = 'ALERTS{alertname="ConcurrencyShardMissing", alertstate="firing"}'
        ((labels, _),) = server.wait_for(missing)
        assert (labels["job"], labels["source"]) == ("shards", "real")
        of_whole, of_shards = by_job(server.query(firing))
        assert {dict(one)["alertname"] for one in of_shards.keys() - of_whole.keys()} == {"ConcurrencyShardMissing"}
        assert server.log_problems() == []


# --- The configurations of docs/scaling.md, with the addresses that there are here.

DOCUMENT = ROOT / "docs" / "scaling.md"


def documented(file: str, addresses: dict[str, str]) -> dict[str, Any]:
    """The configuration of Prometheus of this name in the document, with other addresses, and without its waits."""
    (text,) = [block.text for block in blocks(DOCUMENT) if block.file == file]
    for old, new in addresses.items():
        assert old in text
        text = text.replace(old, new)
    config: dict[str, Any] = YAML(typ="safe").load(re.sub(r"(refresh_interval): \S+", r"\1: 1s", text))
    return config


def source(name: str, url: str, system: str = "cloro") -> dict[str, object]:
    whole: dict[str, object] = {"name": name, "system": system, "url": url}
    credentials: dict[str, object] = {"authorization": {"credentials": KEY}} if system == "cloro" else {}
    return whole | {"interval": "1s", "timeout": "5m", "stale_after": "10m"} | credentials


def names(server: PrometheusServer, expression: str) -> Counter[Key]:
    """How often there is each series, apart from the labels of its target."""
    return Counter(
        (labels.pop("__name__"), frozenset(labels.items() - {(one, labels.get(one)) for one in ("job", "instance")}))
        for labels, _ in server.query(expression)
    )


def test_each_source_is_a_target(start_prometheus: StartPrometheus, tmp_path: Path) -> None:
    odd = 'odd "name" & /?=#ü'
    with serving(Cloro()) as upstream:
        config = tmp_path / "config.yml"
        dead = source("dead", "http://127.0.0.1:9/api", "prefect")
        sources = [source("production", upstream.url), source(odd, upstream.url), dead]
        config.write_text(json.dumps({"sources": sources}))
        with exporter(tmp_path, f"--config.file={config}") as running:
            files = ("targets.yml", "prefect-only.yml", "by-hand.yml")
            jobs = [documented(file, {"localhost:10099": running.address})["scrape_configs"] for file in files]
            server = start_prometheus(config={"scrape_configs": [job for of_file in jobs for job in of_file]})
            server.wait_for("up == 1", lambda found: len(found) == 6)
            server.wait_for("concurrency_exporter_source_up == 1", lambda found: len(found) == 3)
            targets = {
                (target["labels"]["job"], target["labels"]["instance"]): target["scrapeUrl"]
                for target in server.targets()
            }
            assert targets == {
                ("concurrency-sources", f"{running.address}/production"): f"{running.url}/metrics?source=production",
                ("concurrency-sources", f"{running.address}/{odd}"): f"{running.url}/metrics?source={quote_plus(odd)}",
                ("concurrency-sources", f"{running.address}/dead"): f"{running.url}/metrics?source=dead",
                ("concurrency-exporter", running.address): f"{running.url}/metrics?source=",
                ("prefect", f"{running.address}/dead"): f"{running.url}/metrics?source=dead",
                ("production", running.address): f"{running.url}/metrics?source=production",
            }
            # Together the targets of targets.yml have each series once, and of each come those of its source.
            of_both = '{__name__=~"concurrency_.+", job=~"concurrency-.+"}'
            published = {(name, frozenset(label for label in labels if label[1])) for name, labels in running.series()}
            assert names(server, of_both) == Counter(published)
            assert server.query("process_resident_memory_bytes")[0][0]["instance"] == running.address
            for labels, _ in server.query(of_both):
                name = labels.get("source")
                assert labels["instance"] == (f"{running.address}/{name}" if name else running.address)

            config.write_text(json.dumps({"sources": sources[1:]}))
            running.process.send_signal(signal.SIGHUP)
            server.wait_for('absent(up{job="concurrency-sources", instance=~".+/production"})')
            server.wait_for('absent({source="production"})')
            assert {labels["job"] for labels, up in server.query("up") if not up} == {"production"}
            (by_hand,) = [target for target in server.targets() if target["labels"]["job"] == "production"]
            assert "404 Not Found" in by_hand["lastError"]
            assert len(server.query("up == 1")) == 4
            assert server.log_problems() == []


def notified(prometheus: str) -> bool:
    """Whether a Prometheus has sent an alert."""
    text = httpx.get(f"{prometheus}/metrics", trust_env=False, timeout=PATIENCE).text
    return bool(re.search(r"^prometheus_notifications_sent_total\{.*\} [1-9]", text, re.MULTILINE))


def is_page(alert: dict[str, Any]) -> bool:
    return bool(alert["receiver"] == "/page")


def test_a_pair_of_everything_sends_one_page_and_outlives_its_half(tmp_path: Path) -> None:
    full, webhook = Cloro(status=FREE), Webhook()
    config = tmp_path / "config.yml"
    with ExitStack() as stack:
        full_url = stack.enter_context(serving(full)).url
        receiver = stack.enter_context(serving(webhook)).url
        config.write_text(json.dumps({"sources": [source("full", full_url)]}))
        running = stack.enter_context(exporters(tmp_path, config, [], []))
        manager = stack.enter_context(alertmanager(tmp_path, alertmanager_config(tmp_path, receiver)))
        addresses = {
            "exporter-a:10099": running[0].address,
            "exporter-b:10099": running[1].address,
            "localhost:9093": manager,
        }
        pair = []
        for replica in ("a", "b"):
            of_document = documented("prometheus.yml", addresses)
            of_document["global"] = {
                "scrape_interval": "1s",
                "scrape_timeout": "1s",
                "evaluation_interval": "1s",
                "external_labels": {"replica": replica},
            }
            of_document["rule_files"] = rule_files(tmp_path)
            server = PrometheusServer(tmp_path / f"prometheus-{replica}", config=of_document)
            pair.append(stack.enter_context(server))
        federation = {
            "prometheus-a:9090": pair[0].url.removeprefix("http://"),
            "prometheus-b:9090": pair[1].url.removeprefix("http://"),
        }
        central = stack.enter_context(
            PrometheusServer(tmp_path / "central", config=documented("federation.yml", federation))
        )

        for server in pair:
            server.wait_for("concurrency_exporter_source_up == 1", lambda found: len(found) == 2)
        full.status = SATURATED
        firing = 'ALERTS{alertname="ConcurrencySlotsSaturated", alertstate="firing"}'
        for server in pair:
            assert len(server.wait_for(firing)) == 1
        page = webhook.wait_for("ConcurrencySlotsSaturated", "firing", "full")
        assert "replica" not in page["labels"]
        for server in pair:
            wait_until(partial(notified, server.url), "each server has told Alertmanager")

        # Of the pair, one server sees what both record, and whose it is.
        utilization = "concurrency:slot_utilization:ratio"
        federated = central.wait_for(utilization, lambda found: len(found) == 2)
        assert {labels["replica"] for labels, _ in federated} == {"a", "b"}
        assert {labels["job"] for labels, _ in federated} == {"concurrency-exporter"}
        assert central.query(f"max without (replica) ({utilization})")[0][1] == 1

        # Half of it dies: nobody is told of anything, least of all that all is well.
        running[0].process.stop()
        pair[0].stop()
        # Longer than any window, `for` or wait of the rules as they are here.
        pair[1].wait_for("count_over_time((up == 0)[30s:1s]) > 8")
        assert len(pair[1].query(firing)) == 1
        assert [(alert["labels"]["alertname"], alert["status"]) for alert in webhook.alerts if is_page(alert)] == [
            ("ConcurrencySlotsSaturated", "firing")
        ]
