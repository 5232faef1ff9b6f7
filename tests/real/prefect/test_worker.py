"""A real worker takes runs from a queue of limit 1: what was published meanwhile is what the runs' histories say."""

import sqlite3
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from exporter.demo.states import QUEUE_HOLDERS
from tests.harness.comparison import assert_equal_to_readings, config, published
from tests.harness.exporter import Exporter, Series, exporter
from tests.harness.moving import WAITING
from tests.harness.prefect import PrefectApi, PrefectServer, StartPrefect
from tests.harness.process import PATIENCE
from tests.harness.reader import read
from tests.harness.worker import (
    LASTING,
    Change,
    PrefectWorker,
    all_completed,
    create_nap_deployment,
    history,
    start_nap,
)

SOURCE = {"source": "prefect", "system": "prefect"}
QUEUE = SOURCE | {"pool": "pool", "queue": "single"}
RUNS = 3
LATE_SOON = {
    **LASTING,
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "3",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "1",
}


@dataclass(frozen=True)
class Sample:
    """What one poll has published of the queue."""

    begun: float
    """When the poll began; it read the server between this and `ended`."""
    ended: float
    active: float
    queued: float
    holders: Counter[str]
    waiting: Counter[str]
    longest_wait: float | None
    last_polled: float | None
    online: float
    last_heartbeat: float | None

    @property
    def figures(self) -> tuple[Counter[str], Counter[str]]:
        """What changes with the states of the runs."""
        return self.holders, self.waiting


@dataclass(frozen=True)
class Moment:
    """What the histories of the runs say of one moment."""

    holders: frozenset[tuple[str, int]]
    waiting: frozenset[tuple[str, int]]
    oldest_due: float | None


def own(found: Series, name: str) -> float:
    return found[f"concurrency_exporter_{name}", frozenset(SOURCE.items())]


def sample(found: Series, ended: float) -> Sample:
    def of_queue(name: str, **labels: str) -> float | None:
        return found.get((f"concurrency_queue_{name}", frozenset((QUEUE | labels).items())))

    def by_state(name: str, states: tuple[str, ...]) -> Counter[str]:
        return +Counter({state: int(found[f"concurrency_queue_{name}", labels_of(state)]) for state in states})

    def labels_of(state: str) -> frozenset[tuple[str, str]]:
        return frozenset((QUEUE | {"state": state}).items())

    pool = SOURCE | {"pool": "pool"}
    (queued,) = (
        value
        for (name, labels), value in found.items()
        if name == "concurrency_queue_queued_tasks" and QUEUE.items() <= dict(labels).items()
    )
    return Sample(
        begun=own(found, "last_success_timestamp_seconds"),
        ended=ended,
        active=found["concurrency_queue_active_slots", frozenset(QUEUE.items())],
        queued=queued,
        holders=by_state("slot_holders", QUEUE_HOLDERS),
        waiting=by_state("waiting_tasks", WAITING),
        longest_wait=of_queue("waiting_duration_max_seconds"),
        last_polled=of_queue("last_polled_timestamp_seconds"),
        online=found["concurrency_pool_workers", frozenset((pool | {"status": "ONLINE"}).items())],
        last_heartbeat=found.get(("concurrency_pool_last_heartbeat_timestamp_seconds", frozenset(pool.items()))),
    )


def moments(histories: list[list[Change]], due: list[float], begin: float, end: float) -> list[Moment]:
    """All that was the case between two times, in order."""
    changes = {change.at.timestamp() for changes in histories for change in changes}
    found = []
    for at in sorted({begin, *(change for change in changes if begin < change <= end)}):
        states = [next((one for one in reversed(changes) if one.at.timestamp() <= at), None) for changes in histories]
        holders = Counter(state.type for state in states if state and state.type in QUEUE_HOLDERS)
        waits = [
            (state.name, since)
            for state, since in zip(states, due, strict=True)
            if state and state.type == "SCHEDULED" and since <= at
        ]
        waiting = Counter(name for name, _ in waits)
        oldest = min((since for _, since in waits), default=None)
        found.append(Moment(frozenset(holders.items()), frozenset(waiting.items()), oldest))
    return found


def slack(server: PrefectServer) -> float:
    """More than the seconds by which a state is later than it says, of those so far.

    It has the time at which a process asked for it. The server writes it later, and commits that a little later still.
    """
    query = "SELECT max(julianday(created) - julianday(timestamp)) FROM flow_run_state"
    with closing(sqlite3.connect(server.database, timeout=PATIENCE)) as database:
        ((days,),) = database.execute(query)
    return 1 + 2 * float(days) * 86400


def assert_as_in_histories(one: Sample, histories: list[list[Change]], due: list[float], late: float) -> bool:
    """Compares a sample with what was the case while its poll read; returns whether nothing changed meanwhile.

    The server has a state up to `late` seconds later than it says.
    """
    around = moments(histories, due, one.begun - late, one.ended)
    assert frozenset(one.holders.items()) in {moment.holders for moment in around}, one
    assert frozenset(one.waiting.items()) in {moment.waiting for moment in around}, one
    assert one.active in {sum(number for _, number in moment.holders) for moment in around}, one
    assert one.queued in {sum(number for _, number in moment.waiting) for moment in around}, one
    possible = {moment.oldest_due for moment in around}
    if one.longest_wait is None:
        assert None in possible, one
    else:
        # One that is due has been so since before the poll began, by less than the slack.
        assert any(
            one.begun - oldest - 0.1 <= one.longest_wait <= one.ended - oldest + 0.1
            for oldest in possible
            if oldest is not None
        ), (one, sorted(due))
    return len(set(around)) == 1


@dataclass
class Watched:
    """The exporter of a server, and a sample of each of its polls that was seen."""

    server: PrefectServer
    exporter: Exporter
    samples: list[Sample] = field(default_factory=list)
    since: float = 0.0
    """When the last sample's figures were seen first."""

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    def look(self) -> bool:
        """Take a sample, if there was another poll; returns whether there is one."""
        found, ended = self.exporter.series(), time.time()
        if ("concurrency_queue_active_slots", frozenset(QUEUE.items())) in found:
            before = self.samples[-1:]
            if not before or own(found, "last_success_timestamp_seconds") > before[0].begun:
                self.samples.append(sample(found, ended))
                if not before or before[0].figures != self.last.figures:
                    self.since = ended
        return bool(self.samples)

    def stays(self) -> bool:
        """Whether the last sample's figures have been there for longer than a state may be late."""
        return self.look() and self.last.begun > self.since + slack(self.server)

    def is_saturated(self) -> bool:
        return self.stays() and self.last.holders == {"RUNNING": 1} and self.last.waiting == {"Late": RUNS - 1}

    def is_idle(self) -> bool:
        return self.stays() and (self.last.active, self.last.queued) == (0, 0)


def test_a_queue_that_is_saturated_while_runs_wait(start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect(services=True, settings=LATE_SOON)
    path = config(tmp_path, server.api_url, "interval: 1s", "timeout: 5m", "stale_after: 10m")
    with closing(server.client()) as client, exporter(tmp_path, f"--config.file={path}") as running:
        api = PrefectApi(client)
        api.create_pool("pool")
        api.create_queue("pool", "single", limit=1)
        deployment = create_nap_deployment(api, "pool", "single")
        watched = Watched(server, running)
        running.process.wait_until(watched.look, what="the queue is there")
        started = time.time()
        go_on = tmp_path / "go on"
        runs = [start_nap(api, deployment, seconds=0, until=go_on) for _ in range(RUNS)]
        with PrefectWorker(server, "pool", tmp_path / "worker") as worker:
            worker.process.wait_until(watched.is_saturated, what="one runs, and the others are late")
            go_on.touch()
            done = all_completed(api, runs)
            worker.process.wait_until(lambda: watched.look() and done(), what="all runs are completed")
            worker.process.wait_until(watched.is_idle, what="it is seen that nothing is left")
            polled = watched.last.last_polled
            assert polled
            worker.process.wait_until(
                lambda: watched.look() and (watched.last.last_polled or 0) > polled, what="the idle queue is polled"
            )
            now = time.time()
        samples = watched.samples
        histories = [history(api, run) for run in runs]
        answers = [api.request("GET", f"/flow_runs/{run}") for run in runs]
        before = read(client)
        ended, late = time.time(), slack(server)
        running.process.wait_until(
            lambda: own(running.series(), "last_success_timestamp_seconds") > ended, what="one more poll"
        )
        assert_equal_to_readings(published(running), before, read(client))
        # On a busy machine a poll may take longer than this short interval, which is no fault.
        warnings = [line for line in running.process.log_text().splitlines() if "level=warning" in line]
        assert [line for line in warnings if "poll skipped" not in line] == []

    due = [datetime.fromisoformat(answer["expected_start_time"]).timestamp() for answer in answers]
    assert all(answer["run_count"] == 1 for answer in answers), "no run was put off"
    certain = [one for one in samples if assert_as_in_histories(one, histories, due, late)]
    assert {(one.active, one.queued) for one in certain} >= {(1, RUNS - 1), (0, 0)}, "not only what is about to change"
    assert max(one.active for one in samples) == 1
    assert (samples[-1].active, samples[-1].queued, samples[-1].longest_wait) == (0, 0, None)

    assert_worker_is_seen(samples, started, now)


def assert_worker_is_seen(samples: list[Sample], started: float, now: float) -> None:
    """It was started at the one time, and polled and was heard of until the other."""
    assert samples[0].last_polled is None
    polls = [one.last_polled for one in samples if one.last_polled]
    assert polls == sorted(polls)
    assert len(set(polls)) >= 2
    assert started < polls[-1] <= now
    assert (samples[0].online, samples[0].last_heartbeat) == (0, None)
    assert samples[-1].online == 1
    assert samples[-1].last_heartbeat
    assert started < samples[-1].last_heartbeat <= now
