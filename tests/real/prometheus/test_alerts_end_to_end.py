"""From an upstream that runs out of slots to the page that somebody gets: every part real but the two upstreams."""

import json
import re
from pathlib import Path

import pytest

from tests.harness.alertmanager import Webhook, alertmanager, alertmanager_config, wait_until
from tests.harness.cloro import FREE, KEY, SATURATED, Cloro, error
from tests.harness.exporter import exporter
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import ALERTS
from tests.harness.rules import in_seconds
from tests.harness.upstream import serving


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
            assert re.search(r"\(slots: 5\)", text)
            assert re.search(r"\b7 of 7 tasks wait for the limit of the queue\.", text)
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
