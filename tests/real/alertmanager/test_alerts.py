"""Who is told of an alert and what is not sent: the example that is shipped, read by Alertmanager and its tool."""

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.harness.alertmanager import alertmanager
from tests.harness.process import PATIENCE
from tests.harness.promql import ALERTS
from tests.harness.rules import BY_ALERT, EVERY_ALERT, LABELS, OF_TARGETS, README, Rule, amtool, load

CONFIG = ALERTS / "alertmanager.yml"


def receivers(config: Path, **labels: str) -> list[str]:
    """Where Alertmanager's own tool says that an alert with these labels goes."""
    pairs = [f"{name}={value}" for name, value in labels.items()]
    return amtool("config", "routes", "test", f"--config.file={config}", *pairs).split()


def test_amtool_finds_nothing_to_complain_about() -> None:
    assert "SUCCESS" in amtool("check-config", CONFIG)


@EVERY_ALERT
def test_an_alert_goes_to_the_receiver_of_its_severity(alert: Rule) -> None:
    severity = alert.labels["severity"]
    assert receivers(CONFIG, alertname=alert.name, severity=severity, source="s", queue="q") == [severity]


def with_exception(folder: Path) -> Path:
    """The example with the route that is a comment in it."""
    text = CONFIG.read_text(encoding="utf-8")
    edited = re.sub(r"(?m)^    # (- receiver: nobody|  matchers: )", r"    \1", text)
    assert edited != text
    config = folder / "alertmanager.yml"
    config.write_text(edited, encoding="utf-8")
    return config


def test_one_queue_can_be_silenced_by_a_route(tmp_path: Path) -> None:
    config = with_exception(tmp_path)
    silenced = {
        "alertname": "ConcurrencySlotsSaturated",
        "severity": "page",
        "source": "production",
        "queue": "scratch",
    }
    assert receivers(config, **silenced) == ["nobody"]
    assert receivers(CONFIG, **silenced) == ["page"]
    for label, other in (("queue", "etl"), ("source", "staging"), ("alertname", "ConcurrencyQueueStalled")):
        assert receivers(config, **silenced | {label: other}) == ["page"]


def test_a_page_that_goes_nowhere_still_silences_the_tickets_of_its_queue(tmp_path: Path) -> None:
    """As README and the comment say; who wants the tickets makes an exception of the threshold."""
    silenced = alert_of("ConcurrencySlotsSaturated", source="production", queue="scratch", resource="queue")
    ticket = alert_of("ConcurrencyNearLimit", source="production", queue="scratch", resource="queue")
    with alertmanager(tmp_path, with_exception(tmp_path)) as manager:
        assert posted(manager, [silenced, ticket])[frozenset(ticket["labels"].items())] == "suppressed"


def test_one_queue_can_be_silenced_for_a_while(tmp_path: Path) -> None:
    (command,) = re.findall(r"^ *(amtool silence add .*)$", README, re.MULTILINE)
    with alertmanager(tmp_path, CONFIG) as manager:
        _, *arguments = shlex.split(command.replace("localhost:9093", manager))
        amtool(*arguments, "--author=test")
        silenced = alert_of("ConcurrencyUsageUnknown", source="production", queue="scratch")
        other = alert_of("ConcurrencyUsageUnknown", source="production", queue="etl")
        assert set(posted(manager, [silenced, other]).items()) == {
            (frozenset(silenced["labels"].items()), "suppressed"),
            (frozenset(other["labels"].items()), "active"),
        }


def matchers_of(route: dict[str, Any]) -> list[str]:
    """Those of a route and of the routes in it."""
    return [*route.get("matchers", ()), *(one for child in route.get("routes", ()) for one in matchers_of(child))]


def test_alertmanager_matches_what_is_declared() -> None:
    config = load(CONFIG)
    matchers = matchers_of(config["route"])
    for rule in config["inhibit_rules"]:
        matchers += rule["source_matchers"] + rule["target_matchers"]
        assert set(rule["equal"]) <= LABELS
    for matcher in matchers:
        label, operator, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]
        assert label in LABELS
        if label == "alertname":
            assert any(re.fullmatch(value, name) for name in BY_ALERT)
        assert operator


def alert_of(name: str, **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, **BY_ALERT[name].labels, **labels}}


def foreign(**labels: str) -> dict[str, Any]:
    """An alert of somebody else that looks like one of ours."""
    return {"labels": {"alertname": "DiskFull", "severity": "ticket", **labels}}


def elsewhere(name: str, **labels: str) -> list[dict[str, Any]]:
    """The alert of another cluster, namespace, job, source, pool and queue."""
    return [alert_of(name, **labels | {label: "other"}) for label in (*OF_TARGETS, *labels) if label != "resource"]


Q = {"source": "s", "pool": "p", "queue": "q", "resource": "queue"}


INHIBITED = {
    "a source that is down silences what follows from it": (
        alert_of("ConcurrencySourceDown", source="s"),
        [
            alert_of("ConcurrencySlotsSaturated", **Q),
            alert_of("ConcurrencyDataExpired", source="s"),
            alert_of("ConcurrencyPollsOverrun", source="s"),
        ],
        [
            *elsewhere("ConcurrencyPollsOverrun", source="s"),
            alert_of("ConcurrencySourceDown", source="u"),
            alert_of("ConcurrencyExporterAbsent", job="j", instance="i"),
            alert_of("ConcurrencyReloadFailed", job="j", instance="i"),
            foreign(source="s"),
        ],
    ),
    "data that has expired silences the tickets": (
        alert_of("ConcurrencyDataExpired", source="s"),
        [alert_of("ConcurrencyPollsOverrun", source="s"), alert_of("ConcurrencyNearLimit", **Q)],
        [
            *elsewhere("ConcurrencyPollsOverrun", source="s"),
            alert_of("ConcurrencySlotsSaturated", **Q),
            foreign(source="s"),
        ],
    ),
    "a page silences the tickets of its queue": (
        alert_of("ConcurrencySlotsSaturated", **Q),
        [alert_of("ConcurrencyNearLimit", **Q), alert_of("ConcurrencySlotHolderStuck", **Q, state="RUNNING")],
        [
            *elsewhere("ConcurrencyNearLimit", **Q),
            alert_of("ConcurrencyNearLimit", source="s", pool="p", resource="pool"),
            alert_of("ConcurrencyNearLimit", source="s", limit="l", kind="tag", resource="limit"),
            alert_of("ConcurrencyOldestTaskWaitsTooLong", **Q),
            alert_of("ConcurrencyPollsOverrun", source="s"),
            foreign(**Q),
        ],
    ),
    "the page of somebody else silences none of ours": (
        foreign(**Q | {"severity": "page"}),
        [],
        [alert_of("ConcurrencyNearLimit", **Q)],
    ),
    "a page of a pool silences the tickets of the pool": (
        alert_of("ConcurrencySlotsSaturated", source="s", pool="p", resource="pool"),
        [alert_of("ConcurrencyNearLimit", source="s", pool="p", resource="pool")],
        [alert_of("ConcurrencyNearLimit", **Q), alert_of("ConcurrencySlotsSaturated", **Q | {"queue": "r"})],
    ),
    "no worker explains why nothing starts": (
        alert_of("ConcurrencyNoWorker", **Q),
        [
            alert_of("ConcurrencyQueueStalled", **Q),
            alert_of("ConcurrencyOldestTaskWaitsTooLong", **Q),
            alert_of("ConcurrencySlotsSaturated", **Q),
        ],
        [
            *elsewhere("ConcurrencyQueueStalled", **Q),
            alert_of("ConcurrencySlotsSaturated", source="s", pool="p", resource="pool"),
        ],
    ),
    "that nothing starts explains why tasks wait": (
        alert_of("ConcurrencyQueueStalled", **Q),
        [alert_of("ConcurrencyOldestTaskWaitsTooLong", **Q), alert_of("ConcurrencySlotsSaturated", **Q)],
        [
            *elsewhere("ConcurrencyOldestTaskWaitsTooLong", **Q),
            *elsewhere("ConcurrencySlotsSaturated", **Q),
        ],
    ),
    "without any exporter all that is left is old": (
        alert_of("ConcurrencyExporterAbsent"),
        [
            alert_of("ConcurrencySlotsSaturated", **Q, job="j"),
            alert_of("ConcurrencySourceDown", source="s", job="j", namespace="n"),
        ],
        [alert_of("ConcurrencySourceDown", source="s", cluster="other"), foreign(source="s")],
    ),
    "without one of several exporters the others are believed": (
        alert_of("ConcurrencyExporterAbsent", job="j", instance="i"),
        [],
        [alert_of("ConcurrencySlotsSaturated", **Q), alert_of("ConcurrencySourceDown", source="t")],
    ),
}


LAST = [alert_of(name, source="last", case="last") for name in ("ConcurrencySourceDown", "ConcurrencySlotsSaturated")]


def posted(manager: str, alerts: Sequence[dict[str, Any]]) -> dict[frozenset[tuple[str, str]], str]:
    """Whether an Alertmanager has each of these alerts as `active` or as `suppressed`, by its labels.

    Inhibitions learn of an alert after the answer to its post, one alert after the other: none is missing when the
    second of the last two is suppressed by the first.
    """
    url = f"http://{manager}/api/v2/alerts"
    for some in (alerts, LAST):
        httpx.post(url, json=list(some), trust_env=False, timeout=PATIENCE).raise_for_status()

    def states() -> dict[frozenset[tuple[str, str]], str]:
        answer = httpx.get(url, trust_env=False, timeout=PATIENCE).raise_for_status().json()
        return {frozenset(alert["labels"].items()): str(alert["status"]["state"]) for alert in answer}

    cause, follows = (frozenset(alert["labels"].items()) for alert in LAST)
    deadline = time.monotonic() + PATIENCE
    while states()[follows] != "suppressed":
        assert time.monotonic() < deadline, states()
        time.sleep(0.1)
    found = states()  # anew: the states in one answer are not all of one moment
    del found[cause], found[follows]
    return found


def test_what_follows_from_another_alert_is_not_sent(tmp_path: Path) -> None:
    """All cases at once in one Alertmanager: `case` is a label that all inhibitions are made to compare as well."""
    text = CONFIG.read_text(encoding="utf-8")
    text, equal = re.subn(r"equal: \[", "equal: [case, ", text)
    assert equal == len(load(CONFIG)["inhibit_rules"])
    config = tmp_path / "alertmanager.yml"
    config.write_text(text, encoding="utf-8")
    expected = {
        frozenset({**alert["labels"], "case": case}.items()): state
        for case, (cause, silent, heard) in INHIBITED.items()
        for state, alerts in (("suppressed", silent), ("active", [cause, *heard]))
        for alert in alerts
    }
    with alertmanager(tmp_path, config) as manager:
        assert posted(manager, [{"labels": dict(labels)} for labels in expected]) == expected


GROUPS = [
    # One queue, whatever is wrong with it: each has slots of its own. A page and a ticket go to two receivers.
    ("page", [alert_of("ConcurrencySlotsSaturated", **Q), alert_of("ConcurrencyOldestTaskWaitsTooLong", **Q)]),
    ("page", [alert_of("ConcurrencySlotsSaturated", **Q | {"queue": "r"})]),
    ("page", [alert_of("ConcurrencySlotsSaturated", source="s", pool="p", resource="pool")]),
    (
        "ticket",
        [
            alert_of("ConcurrencyNearLimit", **Q),
            alert_of("ConcurrencySlotHolderStuck", **Q, state="PENDING"),
            alert_of("ConcurrencySlotHolderStuck", **Q, state="RUNNING"),
        ],
    ),
    # The queues of one pool, which have the same workers.
    (
        "page",
        [
            alert_of("ConcurrencyNoWorker", **Q),
            alert_of("ConcurrencyNoWorker", **Q | {"queue": "r"}),
            alert_of("ConcurrencyQueueStalled", **Q | {"queue": "t"}),
        ],
    ),
    ("page", [alert_of("ConcurrencyNoWorker", **Q | {"pool": "o"})]),
    # The queues of one pool, which may be paused as a whole.
    (
        "ticket",
        [
            alert_of("ConcurrencyQueuePausedWithWork", **Q | {"queue": "u"}),
            alert_of("ConcurrencyQueuePausedWithWork", **Q | {"queue": "v"}),
        ],
    ),
    # One source.
    (
        "page",
        [
            alert_of("ConcurrencySourceDown", source="v", job="j"),
            alert_of("ConcurrencyDataExpired", source="v", job="j"),
        ],
    ),
    ("page", [alert_of("ConcurrencySourceDown", source="v", job="k")]),
    # One exporter that had a whole source and a part of two.
    (
        "page",
        [
            alert_of("ConcurrencyExporterAbsent", job="j", instance="i"),
            alert_of("ConcurrencyShardMissing", job="j", source="s"),
            alert_of("ConcurrencyShardMissing", job="j", source="w"),
        ],
    ),
]
"""Who is told of which alerts in one notification."""


def test_one_notification_tells_of_one_cause(tmp_path: Path) -> None:
    expected = {(to, frozenset(named(alert["labels"]) for alert in alerts)) for to, alerts in GROUPS}
    with alertmanager(tmp_path, CONFIG) as manager:
        url = f"http://{manager}/api/v2/alerts"
        alerts = [alert for _, some in GROUPS for alert in some]
        httpx.post(url, json=alerts, trust_env=False, timeout=PATIENCE).raise_for_status()

        def groups() -> set[tuple[str, frozenset[str]]]:
            answer = httpx.get(f"{url}/groups", trust_env=False, timeout=PATIENCE).raise_for_status().json()
            return {
                (group["receiver"]["name"], frozenset(named(alert["labels"]) for alert in group["alerts"]))
                for group in answer
            }

        deadline = time.monotonic() + PATIENCE
        while sum(len(found) for _, found in groups()) < len(alerts):
            assert time.monotonic() < deadline, groups()
            time.sleep(0.1)
        assert groups() == expected


def named(labels: dict[str, str]) -> str:
    """An alert, by its labels, as one text."""
    return " ".join(f"{name}={labels[name]}" for name in sorted(labels))
