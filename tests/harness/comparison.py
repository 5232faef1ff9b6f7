"""What the exporter publishes of a Prefect server, compared with an independent reading of it."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from exporter.demo.states import QUEUE_HOLDERS
from tests.harness.exporter import Exporter, Series
from tests.harness.handing_out import FREE, reasons
from tests.harness.moving import WAITING
from tests.harness.reader import Reading

DURATIONS = ("_bucket", "_gsum", "duration_max_seconds")
"""Endings of the names of series whose values grow while time passes."""

REASONS = "concurrency_queue_blocked_tasks"


def published(exporter_: Exporter) -> Series:
    """What it observed: all but the metrics about itself."""
    return {key: value for key, value in exporter_.series().items() if not key[0].startswith("concurrency_exporter_")}


def expected(reading: Reading) -> Series:
    """Every series that the reading stands for, apart from those whose values grow while time passes."""
    found: Series = {}

    def add(name: str, value: float | None, **labels: str) -> None:
        if value is not None:
            present = {name: text for name, text in labels.items() if text}
            found[name, frozenset((present | {"source": "prefect", "system": "prefect"}).items())] = value

    for pool in reading.pools.values():
        add("concurrency_pool_active_slots", pool.active_slots if pool.limit is not None else None, pool=pool.name)
        add("concurrency_pool_slot_limit", pool.limit, pool=pool.name)
        add("concurrency_pool_paused", pool.is_paused, pool=pool.name)
        add("concurrency_pool_info", 1, pool=pool.name, id=pool.id, pool_type=pool.type)
        for status in ("READY", "NOT_READY", "PAUSED") if pool.status else ():
            add("concurrency_pool_status", status == pool.status, pool=pool.name, status=status)
        # A server whose services do not run says so of a dead worker too.
        recent = reading.at - timedelta(days=1)
        online = sum(
            worker.status == "ONLINE" and worker.last_heartbeat is not None and worker.last_heartbeat > recent
            for worker in pool.workers.values()
        )
        add("concurrency_pool_workers", online, pool=pool.name, status="ONLINE")
        beats = [worker.last_heartbeat.timestamp() for worker in pool.workers.values() if worker.last_heartbeat]
        add("concurrency_pool_last_heartbeat_timestamp_seconds", max(beats, default=None), pool=pool.name)
    for queue in reading.queues.values():
        name = {"pool": queue.pool, "queue": queue.name}
        add("concurrency_queue_active_slots", queue.active_slots, **name)
        add("concurrency_queue_slot_limit", queue.limit, **name)
        add("concurrency_queue_usage_known", 1, **name)
        add("concurrency_queue_processing_tasks", queue.holders.get("RUNNING", 0), **name)
        add("concurrency_queue_paused", queue.is_paused, **name)
        add("concurrency_queue_info", 1, **name, id=queue.id, priority=str(queue.priority))
        waiting = sum(map(len, queue.waiting.values()))
        add("concurrency_queue_queued_tasks", waiting, **name, priority=str(queue.priority))
        for state in dict.fromkeys((*WAITING, *queue.waiting)):
            add("concurrency_queue_waiting_tasks", len(queue.waiting.get(state, ())), **name, state=state)
        polled = queue.last_polled.timestamp() if queue.last_polled else None
        add("concurrency_queue_last_polled_timestamp_seconds", polled, **name)
        for state in QUEUE_HOLDERS:
            add("concurrency_queue_slot_holders", queue.holders.get(state, 0), **name, state=state)
    for labels, seconds in ages(reading).items():
        found["concurrency_queue_state_duration_seconds_gcount", labels] = len(seconds)
    for limit in reading.limits.values():
        kind, _, rest = limit.name.partition(":")
        of = {"kind": kind, "limit": rest} if rest else {"kind": "global", "limit": limit.name}
        if limit.deployment:
            of["limit"] = f"{limit.deployment.flow}/{limit.deployment.name}"
        add("concurrency_limit_active_slots", limit.active_slots, **of)
        add("concurrency_limit_slots", limit.limit, **of)
        add("concurrency_limit_slot_decay_per_second", limit.slot_decay_per_second, **of)
        add("concurrency_limit_active", limit.active, **of)
        add("concurrency_limit_info", 1, **of, id=limit.id)
    return found


def ages(reading: Reading) -> dict[frozenset[tuple[str, str]], list[float]]:
    """The seconds of every holder that has some, none of them negative, by the labels of its queue and state."""
    found = {}
    for queue in reading.queues.values():
        of = {"source": "prefect", "system": "prefect", "pool": queue.pool, "queue": queue.name}
        for state, of_state in queue.ages.items():
            seconds = [max(0.0, age.time_in_current_state) for age in of_state if age.time_in_current_state is not None]
            if seconds:
                found[frozenset((of | {"state": state}).items())] = seconds
    return found


def assert_equal_to_readings(found: Series, before: Reading, after: Reading, *, counted: bool = False) -> None:
    """What was published between two readings of a frozen server is what both say; durations lie between the two.

    `counted` is whether the runs that wait may have been counted by the exporter, and not listed.
    """
    steady = {key: value for key, value in found.items() if not key[0].endswith((*DURATIONS, REASONS))}
    assert steady == expected(before) == expected(after)
    assert_reasons_of_readings(found, before, after, counted=counted)
    for queue in before.queues.values():
        of = {"source": "prefect", "system": "prefect", "pool": queue.pool, "queue": queue.name}
        wait = found.get(("concurrency_queue_waiting_duration_max_seconds", frozenset(of.items())))
        if queue.oldest_due is None:
            assert wait is None
        else:
            assert wait is not None
            least, most = ((reading.at - queue.oldest_due).total_seconds() for reading in (before, after))
            assert max(least, 0) <= wait <= max(most, 0)
    older = ages(after)
    for labels, seconds in ages(before).items():
        greatest = found["concurrency_queue_state_duration_max_seconds", labels]
        total = found["concurrency_queue_state_duration_seconds_gsum", labels]
        assert max(seconds) <= greatest <= max(older[labels])
        assert sum(seconds) <= total <= sum(older[labels])
        for bound in (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, float("inf")):
            le = "+Inf" if bound == float("inf") else str(bound)
            count = found["concurrency_queue_state_duration_seconds_bucket", labels | {("le", le)}]
            assert sum(age <= bound for age in older[labels]) <= count <= sum(age <= bound for age in seconds)
    of_states = {labels for name, labels in found if name.endswith("state_duration_max_seconds")}
    assert of_states == set(ages(before))


def assert_reasons_of_readings(found: Series, before: Reading, after: Reading, *, counted: bool = False) -> None:
    """Each reason has as many runs as it has in the order of handing out; a worker's last poll may grow old meanwhile.

    The server does not tell its database. So it may be unknown what a paused queue leaves of its pool's slots. Of runs
    that were only counted, any reason may be unknown, and none may be wrong.
    """
    assert_reasons({key: reasons_of(found, *key) for key in before.queues}, before, after, counted=counted)


def assert_reasons(
    found: Mapping[tuple[str, str], Mapping[str, int]], before: Reading, after: Reading, *, counted: bool = False
) -> None:
    """Compare the reasons of each queue, by the names of pool and queue, with those of two readings."""
    each = [reasons(reading) for reading in (before, after)]
    for key, queue in before.queues.items():
        of_queue = dict(found[key])
        assert sum(of_queue.values()) == len(queue.runs), queue.name
        free = of_queue.pop("just_now") + of_queue.pop("none")
        unknown = of_queue.pop("unknown")
        pool = before.pools[queue.pool]
        paused = [one for one in before.queues.values() if one.pool == queue.pool and one.is_paused and one.taken]
        assert counted or not unknown or (pool.limit is not None and paused), queue.name
        for reason, runs in {**of_queue, FREE: free}.items():
            numbers = [of_reading[key][reason] for of_reading in each]
            assert min(numbers) - unknown <= runs <= max(numbers), (key, reason)


def reasons_of(found: Series, pool: str, queue: str) -> dict[str, int]:
    """How many tasks of a queue wait for each reason."""
    return {
        labels["reason"]: int(value)
        for (name, pairs), value in found.items()
        if name.endswith(REASONS) and (labels := dict(pairs))["pool"] == pool and labels["queue"] == queue
    }


def config(directory: Path, url: str, *lines: str) -> Path:
    """A configuration file with one Prefect source."""
    path = directory / "config.yml"
    first = ["sources:", "- system: prefect", "  name: prefect", f"  url: {url}"]
    path.write_text("\n".join([*first, *(f"  {line}" for line in lines)]))
    return path


def successes(found: Series) -> float:
    labels = frozenset({"source": "prefect", "system": "prefect", "outcome": "success"}.items())
    return found["concurrency_exporter_polls_total", labels]


def steady(found: Series) -> Series:
    """Without what the reading by runs has not: ages, and with them what is growing; and active slots of pools."""
    left_out = (*DURATIONS, REASONS, "_duration_seconds_gcount", "concurrency_pool_active_slots")
    return {key: value for key, value in found.items() if not key[0].endswith(left_out)}
