"""A real Prometheus for tests, and promtool's opinion of an exposition."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.harness.process import PATIENCE, Process, accepts, answers, free_port
from tests.harness.programs import program

Vector = list[tuple[dict[str, str], float]]
"""Labels and value of each series of an instant query; a scalar has no labels."""
Matrix = list[tuple[dict[str, str], list[tuple[float, str]]]]
"""Labels of each series of a range query, and its values as Prometheus writes them, each with its time."""


class PrometheusServer:
    """One Prometheus on loopback that scrapes `targets` (`host:port`); a context manager.

    `scrape` is merged into its one scrape config, called `test` (`params`, `basic_auth`, `metrics_path`), and
    `config` into the configuration's top level (`rule_files`, `alerting`). `features` are names for
    `--enable-feature`. Durations are as Prometheus writes them. Without a `port` it takes a free one. With a
    `web_config` it may be behind TLS and passwords, and is only asked for by its `port`.

    Entering raises `ProcessError` when it does not come up, as with a wrong configuration. The first scrape comes
    some five seconds later: Prometheus takes new targets in at that pace.
    """

    def __init__(
        self,
        directory: Path,
        targets: Sequence[str] = (),
        *,
        scrape_interval: str = "1s",
        scrape: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        features: Sequence[str] = (),
        port: int | None = None,
        web_config: Path | None = None,
    ) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._features = features
        self._web_config = web_config
        self._config = {
            "global": {
                "scrape_interval": scrape_interval,
                "scrape_timeout": scrape_interval,
                "evaluation_interval": scrape_interval,
            },
            "scrape_configs": [{"job_name": "test", "static_configs": [{"targets": list(targets)}], **(scrape or {})}],
            **(config or {}),
        }
        self._process: Process | None = None
        self._client = httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False)

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "prometheus.yml"
        config.write_text(json.dumps(self._config, indent=2))  # JSON is YAML
        command: list[str | Path] = [
            program("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        if self._features:
            command.append(f"--enable-feature={','.join(self._features)}")
        if self._web_config:
            command.append(f"--web.config.file={self._web_config}")
        self._process = Process(command, log=self.directory / "prometheus.log")
        ready = accepts(self.port) if self._web_config else answers(f"{self.url}/-/ready")
        try:
            self._process.wait_until(ready, what="Prometheus is ready")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server; afterwards its log can still be read."""
        self._client.close()
        if self._process:
            self._process.stop()

    @property
    def process(self) -> Process:
        """The running server; `RuntimeError` before it was entered."""
        if self._process is None:
            raise RuntimeError("Prometheus was not started")
        return self._process

    def query(self, expression: str) -> Vector:
        """Result of an instant query now; `ValueError` when Prometheus refuses the expression."""
        result = self._get("/api/v1/query", {"query": expression})
        if result["resultType"] == "scalar":
            return [({}, float(result["result"][1]))]
        return [(series["metric"], float(series["value"][1])) for series in result["result"]]

    def samples(self, selector: str) -> list[tuple[float, float]]:
        """Time and value of each sample that is stored of what a range selector (`name[1m]`) matches."""
        series = self._get("/api/v1/query", {"query": selector})["result"]
        return [(float(at), float(value)) for one in series for at, value in one["values"]]

    def query_range(self, expression: str, *, seconds: float, step: float) -> list[dict[str, str]]:
        """The labels of the series of a range query up to now; `ValueError` when Prometheus refuses it."""
        now = time.time()
        return [labels for labels, _ in self.matrix(expression, now - seconds, now, step)]

    def matrix(self, expression: str, start: float, end: float, step: float) -> Matrix:
        """Result of a range query; `ValueError` when Prometheus refuses it."""
        times = {"start": str(start), "end": str(end), "step": str(step)}
        result = self._get("/api/v1/query_range", {"query": expression, **times})["result"]
        return [(series["metric"], series["values"]) for series in result]

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values that a label has among the series that the selector matches."""
        return list(self._get(f"/api/v1/label/{label}/values", {"match[]": selector}))

    def exemplars(self, selector: str) -> list[tuple[dict[str, str], dict[str, str], float]]:
        """Labels of the series, labels of the exemplar, and its value, of each that is stored of the last hour."""
        now = time.time()
        times = {"start": str(now - 3600), "end": str(now + 60)}
        found = self._get("/api/v1/query_exemplars", {"query": selector, **times})
        return [
            (series["seriesLabels"], one["labels"], float(one["value"]))
            for series in found
            for one in series["exemplars"]
        ]

    def targets(self) -> list[dict[str, Any]]:
        """The active targets as the API has them: `health` is `up`, `down` or `unknown`; `lastError`."""
        return list(self._get("/api/v1/targets", {"state": "active"})["activeTargets"])

    def rule_groups(self) -> list[dict[str, Any]]:
        """The groups of rules as the API has them, each rule with its `health` and `lastError`."""
        return list(self._get("/api/v1/rules", {})["groups"])

    def wait_for(
        self, expression: str, predicate: Callable[[Vector], object] = bool, *, timeout: float = PATIENCE
    ) -> Vector:
        """Query until `predicate` holds of the result (by default: there is one), and return that result.

        Raises `AssertionError` with the last result when `timeout` (seconds) passes.
        """
        deadline = time.monotonic() + timeout
        while not predicate(result := self.query(expression)):
            if time.monotonic() >= deadline:
                problems = [f"{target['scrapeUrl']}: {target['lastError']}" for target in self.targets()]
                raise AssertionError(
                    f"not within {timeout:g} s: {expression}\nlast result: {result}\ntargets: {problems}"
                    f"\nlog: {self.log_problems()}"
                )
            time.sleep(0.1)
        return result

    def log_problems(self) -> list[str]:
        """The log's lines of level warning or error, without the one that says that it is being stopped."""
        lines = self.process.log_text().splitlines()
        return [line for line in lines if re.search("level=(warn|error)", line) and "SIGTERM" not in line]

    def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        answer = (
            self._client.post(path, data=dict(parameters)).json()
            if path.endswith(("query", "query_range"))
            else self._client.get(path, params=dict(parameters)).json()
        )
        if answer["status"] != "success":
            raise ValueError(f"{answer['errorType']}: {answer['error']}")
        return answer["data"]


def promtool_check_metrics(text: str) -> list[str]:
    """What `promtool check metrics` has to say about an exposition in the text format; empty if nothing.

    It sees neither duplicate series nor OpenMetrics.
    """
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode and not complaints:
        complaints.append(f"exit code {done.returncode}")
    return complaints


StartPrometheus = Callable[..., PrometheusServer]
