"""The JSON of the API as the series that the metrics have of the same things."""

from collections.abc import Iterable
from typing import Any

from tests.harness.exporter import Exporter, Series

_FIELDS = {
    "concurrency_queue_active_slots": ("active_slots",),
    "concurrency_queue_slot_limit": ("slot_limit",),
    "concurrency_queue_paused": ("paused",),
    "concurrency_queue_queued_tasks": ("queued", "by_priority", "priority"),
    "concurrency_queue_waiting_tasks": ("queued", "by_state", "state"),
    "concurrency_queue_blocked_tasks": ("queued", "by_reason", "reason"),
    "concurrency_queue_waiting_duration_max_seconds": ("queued", "longest_wait_seconds"),
    "concurrency_queue_slot_holders": ("holders", "by_state", "state"),
    "concurrency_limit_active_slots": ("active_slots",),
    "concurrency_limit_slots": ("slot_limit",),
    "concurrency_limit_active": ("active",),
    "concurrency_limit_slot_decay_per_second": ("slot_decay_per_second",),
}


_LONGEST = "concurrency_queue_state_duration_max_seconds"


def of_those(series: Series) -> Series:
    """The series that the JSON has, too."""
    return {key: value for key, value in series.items() if key[0] in {*_FIELDS, _LONGEST}}


def in_json(items: Iterable[dict[str, Any]]) -> Series:
    """The series that the metrics have of these objects, which are queues and limits."""
    found: Series = {}
    for item in items:
        found |= _series(item)
    return found


def _series(item: dict[str, Any]) -> Series:
    thing = "limit" if "limit" in item else "queue"
    labels: dict[str, str] = {
        name: item[name] for name in ("source", "system", "pool", "queue", "limit", "kind") if name in item
    }
    found: Series = {}
    for name, path in _FIELDS.items():
        if name.split("_")[1] == thing:
            value: Any = item
            for key in path[:2]:
                value = value[key]
            if len(path) == 3:
                for text, number in (value or {}).items():
                    found[name, frozenset({**labels, path[2]: text}.items())] = number
            elif value is not None:
                found[name, frozenset(labels.items())] = value
    longest: dict[str, float] = {}
    for holder in (item["holders"]["oldest"] or []) if thing == "queue" else ():
        if holder["seconds"] is None:
            continue
        longest[holder["state"]] = max(longest.get(holder["state"], 0.0), holder["seconds"])
    return found | {(_LONGEST, frozenset({**labels, "state": state}.items())): most for state, most in longest.items()}


def every(running: Exporter, route: str) -> list[dict[str, Any]]:
    """All that a list of the API has, on all of its pages."""
    found: list[dict[str, Any]] = []
    number, pages = 0, 1
    while number < pages:
        number += 1
        answer = running.get(f"/api/v1/{route}?page={number}")
        assert answer.status_code == 200
        content = answer.json()
        assert content["missing"] == []
        found += content[route]
        pages = content["pages"]
    return found
