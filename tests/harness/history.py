"""Days of history in a Prometheus: what the exporter, and the rules that are shipped, would have said.

Snapshots go through the exporter's own store and exposition, with clocks that are set to each moment. The rules are
evaluated by Prometheus itself, in the order of what they read; promtool writes both into its storage.
"""

import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import promql_parser

from exporter.metrics.body import Body
from exporter.metrics.exposition import render
from exporter.metrics.text import Format
from exporter.model import Snapshot
from exporter.polling.outcome import Published, Succeeded
from tests.harness.inprocess import Exporter, Time
from tests.harness.process import PATIENCE
from tests.harness.programs import program
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import ALERTS, selectors
from tests.harness.rules import load

STEP: Final = 300
"""Seconds between two samples: Prometheus takes the last one for as long."""
AHEAD: Final = 1800
"""Seconds for which the history goes on after it was made, so that there is a newest sample while tests look at it."""
TARGET: Final = 'instance="exporter:10099",job="concurrency-exporter"'

Sources = Mapping[tuple[str, str], Snapshot]
"""What a poll of each source found, by name and system of the source."""


def history(folder: Path, at: Callable[[float, float], Sources], *, days: float) -> PrometheusServer:
    """A Prometheus, to be entered, with the last `days`. `at` tells what was found so many seconds ago, and when."""
    now = time.time() // STEP * STEP
    moments = [now + seconds for seconds in range(int(-days * 86400), AHEAD + STEP, STEP)]
    backfill(folder, _scrapes(moments, lambda moment: at(now - moment, moment)))
    for rules in _layers():
        with PrometheusServer(folder) as server:
            lines = [line for rule in rules for line in _evaluated(server, rule, moments)]
        if lines:
            backfill(folder, lines)
    return PrometheusServer(folder)


def backfill(folder: Path, lines: Iterable[str]) -> None:
    text = folder / "openmetrics.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    with text.open("w", encoding="utf-8") as file:
        file.writelines(lines)
        file.write("# EOF\n")
    # It reads the whole file once for each block, so there must not be one of every two hours.
    command: list[str | Path] = [
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "--max-block-duration=162h",
        "openmetrics",
    ]
    done = subprocess.run(
        [*command, "--quiet", text, folder / "data"], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    text.unlink()


def _scrapes(moments: Iterable[float], at: Callable[[float], Sources]) -> Iterator[str]:
    """The lines of one scrape after a poll of each source, at each moment."""
    time = Time(seconds=0.0, wall=0.0)
    exporter = Exporter(time=time)
    telemetry = exporter.telemetry
    for moment in moments:
        time.seconds = moment
        for (name, system), snapshot in at(moment).items():
            if name not in {state.name for state in exporter.view.states}:
                exporter.add(name, system)
                telemetry.config_read(success=True)
            rendered = render(snapshot, source=name, system=system, max_series=100_000)
            exporter.store.poll_ended(name, Succeeded(Published(snapshot, rendered, moment - 5, moment + STEP), 0.3))
            telemetry.request_sent(name, "/flow_runs/filter" if system == "prefect" else "/v1/async/status", "200")
            telemetry.poll_ended(name, "success", 0.3, set())
        view = exporter.view
        text = b"".join(
            Body(view.live.values(), Format.OPENMETRICS).plain(telemetry.render(view, Format.OPENMETRICS))
        ).decode()
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        samples += ["up 1", "scrape_duration_seconds 0.008", f"scrape_samples_scraped {len(samples)}"]
        yield from (_at(moment, line) for line in samples)


def _at(moment: float, sample: str) -> str:
    series, _, value = sample.rpartition(" ")
    series = f"{series[:-1]},{TARGET}}}" if series.endswith("}") else f"{series}{{{TARGET}}}"
    return f"{series} {value} {moment:.0f}\n"


# --- What rules record, and the alerts that fire.


def _layers() -> list[list[dict[str, Any]]]:
    """All rules, those first that read nothing recorded, then those that read only these, and so on."""
    depth: dict[str, int] = {}
    layers: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for file in ("recording-rules.yml", "thresholds.yml", "alerting-rules.yml"):
        for group in load(ALERTS / file)["groups"]:
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                read = [depth.get(selector.name, 0) for selector in selectors(promql_parser.parse(rule["expr"]))]
                here = 1 + max(read, default=0)
                depth[name] = max(here, depth.get(name, 0))
                layers[here].append(rule)
    return [rules for _, rules in sorted(layers.items())]


def _evaluated(server: PrometheusServer, rule: dict[str, Any], moments: list[float]) -> Iterator[str]:
    # What `or` joins may differ in the name alone, which the rule replaces: then it is one series.
    found: dict[frozenset[tuple[str, str]], list[tuple[float, str]]] = defaultdict(list)
    for labels, values in server.matrix(rule["expr"], moments[0], moments[-1], STEP):
        found[frozenset((labels | rule.get("labels", {}) | {"__name__": rule.get("record", "")}).items())] += values
    for series, values in found.items():
        if "record" in rule:
            yield from (sample(dict(series), value, moment) for moment, value in sorted(values))
        else:
            active = sorted(moment for moment, _ in values)
            yield from _alerts({**dict(series), "alertname": rule["alert"]}, active, _seconds(rule.get("for", "0s")))


def _alerts(labels: Mapping[str, str], moments: list[float], seconds: float) -> Iterator[str]:
    """`ALERTS` and `ALERTS_FOR_STATE` of an alert that is active at these moments, and fires after so many seconds."""
    since = last = -float(STEP)
    for moment in moments:
        since = since if moment - last <= STEP else moment
        last = moment
        state = "firing" if moment - since >= seconds else "pending"
        yield sample({**labels, "__name__": "ALERTS", "alertstate": state}, "1", moment)
        yield sample({**labels, "__name__": "ALERTS_FOR_STATE"}, f"{since:.0f}", moment)


def _seconds(duration: str) -> float:
    return sum(
        int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", duration)
    )


def sample(labels: Mapping[str, str], value: str, moment: float) -> str:
    rest = ",".join(f'{name}="{text}"' for name, text in labels.items() if name != "__name__")
    return f"{labels['__name__']}{{{rest}}} {value} {moment:.0f}\n"
