"""Several exporters, and several Prometheus servers: what docs/scaling.md says, on real servers."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartPrometheus
from tests.harness.exporter import Exporter, exporter
from tests.harness.prefect import PrefectServer
from tests.harness.prometheus import PrometheusServer, Vector
from tests.harness.promql import ALERTS
from tests.test_alerts_end_to_end import in_seconds, wait_until
from tests.test_dashboards import PANELS, Variables, run

pytestmark = pytest.mark.servers


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


MOVING = ("duration:max", "deriv15m", "drain_time", "polls_")
"""Parts of the names of recorded series whose values depend on the moment of a poll."""


def by_job(found: Vector) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """The values of some series by their labels, apart from those of the target, for each job."""
    jobs: dict[str, dict[frozenset[tuple[str, str]], float]] = {"whole": {}, "shards": {}}
    for labels, value in found:
        key = frozenset((name, text) for name, text in labels.items() if name not in {"job", "instance"})
        jobs[labels["job"]][key] = value
    return jobs


def same(found: Vector) -> bool:
    whole, shards = by_job(found).values()
    return bool(whole) and whole.keys() == shards.keys()


def differing_panels(server: PrometheusServer) -> list[str]:
    """Titles of the panels that show other series of the shards than of the one exporter."""

    def shown(target: dict[str, Any], job: str) -> set[frozenset[tuple[str, str]]]:
        return {frozenset(labels.items() - {("job", job)}) for labels in run(server, target, Variables(job=job))}

    return [
        panel["title"]
        for name, panel in PANELS
        # How the polls of each went is its own; so are alerts on that.
        if name != "exporter"
        and panel["title"] != "Firing alerts"
        and any(shown(target, "whole") != shown(target, "shards") for target in panel["targets"])
    ]


def test_three_shards_are_watched_as_one_exporter_is(
    prefect_server: PrefectServer, start_prometheus: StartPrometheus, tmp_path: Path
) -> None:
    config = tmp_path / "config.yml"
    times = {"interval": "2s", "timeout": "10s", "stale_after": "12s"}
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
        firing = 'ALERTS{alertname!~"ConcurrencyPollsOverrun|ConcurrencySnapshotPartial", alertstate="firing"}'
        server.wait_for("concurrency:source_down:avg10m == 1", same)
        server.wait_for(firing, lambda found: same(found) and "ConcurrencySourceDown" in str(found))
        recorded = by_job(server.wait_for('{__name__=~"concurrency:.+"}', same))
        steady = {
            job: {
                key: value for key, value in of_job.items() if not any(part in dict(key)["__name__"] for part in MOVING)
            }
            for job, of_job in recorded.items()
        }
        assert len(steady["whole"]) > 1_000
        assert steady["whole"] == steady["shards"]
        wait_until(lambda: not differing_panels(server), "the dashboards show the same of both", timeout=30)
        names = {dict(key)["alertname"] for key in by_job(server.query(firing))["shards"]}
        assert not names & {"ConcurrencyShardMissing", "ConcurrencyExporterAbsent"}

        shards[1].process.stop()
        missing = 'ALERTS{alertname="ConcurrencyShardMissing", alertstate="firing"}'
        ((labels, _),) = server.wait_for(missing)
        assert (labels["job"], labels["source"]) == ("shards", "real")
        names_now = {dict(key)["alertname"] for key in by_job(server.query(firing))["shards"]}
        assert names_now - names == {"ConcurrencyShardMissing"}
        assert server.log_problems() == []
