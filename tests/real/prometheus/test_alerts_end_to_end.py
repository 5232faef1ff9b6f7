"""From an upstream that runs out of slots to the page that somebody gets: every part real but the two upstreams."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests.harness.alertmanager import alertmanager
from tests.harness.cloro import KEY, Cloro, error
from tests.harness.exporter import exporter
from tests.harness.process import PATIENCE
from tests.harness.prometheus import PrometheusServer
from tests.harness.upstream import Answer, Request, Upstream, answer, serve

ALERTS = Path(__file__).parents[3] / "alerts"
FREE = {
    "queuedTasks": 0,
    "processingTasks": 1,
    "priorityBreakdown": [],
    "concurrency": {"used": 1, "max": 5},
}
SATURATED = {
    "queuedTasks": 7,
    "processingTasks": 5,
    "priorityBreakdown": [{"priority": 9, "count": 7}],
    "concurrency": {"used": 5, "max": 5},
}


@contextmanager
def serving(what: Answer) -> Iterator[Upstream]:
    """A fake in a thread of its own, since these tests wait for processes."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(what)) as upstream:
        yield upstream


def in_seconds(rules: str) -> str:
    """The rules with their windows and waits shortened: minutes, hours and days to 6 seconds at most."""
    rules = re.sub(r"\[\d+[smhd]\]", "[6s]", rules)
    rules = re.sub(r"offset \d+[smhd]", "offset 1s", rules)
    rules = re.sub(r"(?m)^( +(?:for|interval):) \d+[smhd]$", r"\1 1s", rules)
    # Polls of what is down come ever later, so that seconds may have none.
    rules = re.sub(r"(poll_errors_total\{%s\})\[6s\]", r"\1[60s]", rules)
    assert not re.search(r"\b\d+[mhd]\b", re.sub(r"#.*", "", rules)), "a duration that was not shortened"
    return rules


class Webhook:
    """What Alertmanager sends to one receiver."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> bytes:
        """Take one notification."""
        self.alerts += [{"receiver": request.path, **alert} for alert in request.json["alerts"]]
        return answer({})

    def names(self, receiver: str) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.alerts if alert["receiver"] == receiver}

    def wait_for(self, name: str, status: str, source: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            for alert in self.alerts:
                labels = alert["labels"]
                if (labels["alertname"], alert["status"], labels.get("source")) == (name, status, source):
                    return alert
            return None

        result: dict[str, Any] = wait_until(found, f"{name} is {status} for {source}; there were {self.alerts}")
        return result


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.1)
    return result


def descriptions(prometheus: PrometheusServer, name: str) -> list[str]:
    """What the alerts of this name say now."""
    rules = [rule for group in prometheus.rule_groups() for rule in group["rules"] if rule["name"] == name]
    return [alert["annotations"]["description"] for rule in rules for alert in rule["alerts"]]


@pytest.fixture
def rule_files(tmp_path: Path) -> list[str]:
    """A copy of the rules that are shipped, in which minutes are seconds."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for name in ("recording-rules.yml", "thresholds.yml", "alerting-rules.yml"):
        (folder / name).write_text(in_seconds((ALERTS / name).read_text(encoding="utf-8")), encoding="utf-8")
    return [str(path) for path in sorted(folder.iterdir())]


def alertmanager_config(folder: Path, webhook: str) -> Path:
    """The example that is shipped, with another receiver and without its waits."""
    text = (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    text, receivers = re.subn(r"http://localhost:9099/", f"{webhook}/", text)
    text, waits = re.subn(r"(?m)^( *group_(?:wait|interval):) \w+$", r"\1 1s", text)
    assert (receivers, waits) == (2, 2)
    path = folder / "alertmanager.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_page_comes_and_is_taken_back(tmp_path: Path, rule_files: list[str]) -> None:
    full, dying, webhook = Cloro(status=FREE), Cloro(status=SATURATED), Webhook()
    with serving(full) as full_url, serving(dying) as dying_url, serving(webhook) as webhook_url:
        sources = [
            {
                "name": name,
                "system": "cloro",
                "url": upstream.url,
                "interval": "1s",
                "authorization": {"credentials": KEY},
            }
            for name, upstream in (("full", full_url), ("dying", dying_url))
        ]
        config = tmp_path / "config.yml"
        config.write_text(json.dumps({"sources": sources}), encoding="utf-8")
        with (
            exporter(tmp_path, "--config.file", config) as command,
            alertmanager(tmp_path, alertmanager_config(tmp_path, webhook_url.url)) as manager,
            PrometheusServer(
                tmp_path,
                [command.address],
                config={
                    "rule_files": rule_files,
                    "alerting": {"alertmanagers": [{"static_configs": [{"targets": [manager]}]}]},
                },
            ) as prometheus,
        ):
            # What dies has all of its slots taken: it would page if its last data went on being believed.
            dying.refusal = (500, error("INTERNAL_ERROR", "it is gone"), {})
            prometheus.wait_for('concurrency_exporter_source_up{source="full"} == 1')
            down = webhook.wait_for("ConcurrencySourceDown", "firing", "dying")
            assert down["receiver"] == "/page"
            assert down["labels"]["severity"] == "page"
            # With the second sample of the errors that were counted; on a slow machine the alert may fire before it.
            wait_until(
                lambda: any("http_status" in text for text in descriptions(prometheus, "ConcurrencySourceDown")),
                "the text names the reason",
            )

            full.status = SATURATED
            page = webhook.wait_for("ConcurrencySlotsSaturated", "firing", "full")
            assert page["receiver"] == "/page"
            assert page["labels"] == {
                "alertname": "ConcurrencySlotsSaturated",
                "job": "test",
                "queue": "async",
                "resource": "queue",
                "severity": "page",
                "source": "full",
                "system": "cloro",
            }
            text = page["annotations"]["description"]
            assert "queue async" in text
            assert re.search(r"\b5 slots\b", text)
            assert re.search(r"Waiting now: 7\b", text)
            assert page["annotations"]["runbook_url"].endswith("/ConcurrencySlotsSaturated.md")
            assert "/d/concurrency-queue?" in page["annotations"]["dashboard_url"]
            assert "var-source=full" in page["annotations"]["dashboard_url"]

            dying.refusal, dying.status = None, FREE
            full.status = FREE
            webhook.wait_for("ConcurrencySlotsSaturated", "resolved", "full")
            webhook.wait_for("ConcurrencySourceDown", "resolved", "dying")

            saturated = [a for a in webhook.alerts if a["labels"]["alertname"] == "ConcurrencySlotsSaturated"]
            assert {alert["labels"]["source"] for alert in saturated} == {"full"}
            for alert in webhook.alerts:
                for text in alert["annotations"].values():
                    assert not re.search(r"<error|no value|\{\{|%!", text), alert
            health = {
                (rule["name"], rule["health"], rule.get("lastError"))
                for group in prometheus.rule_groups()
                for rule in group["rules"]
            }
            assert {state for _, state, _ in health} == {"ok"}, health
            assert prometheus.log_problems() == []
