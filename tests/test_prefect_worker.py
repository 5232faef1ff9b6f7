"""A real worker takes runs from a queue of limit 1: what was published meanwhile is what the runs' histories say."""

import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.conftest import StartPrefect
from tests.harness.exporter import Series, exporter
from tests.harness.prefect import PrefectApi
from tests.harness.reader import read
from tests.harness.worker import Change, PrefectWorker, all_completed, create_nap_deployment, history, start_nap
from tests.test_prefect import STATES, WAITING, assert_equal_to_readings, config, published

SOURCE = {"source": "prefect", "system": "prefect"}
QUEUE = SOURCE | {"pool": "pool", "queue": "single"}
INTERVAL = 1.0
RUNS = 3
LATE_SOON = {
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
        holders=by_state("slot_holders", STATES),
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
        holders = Counter(state.type for state in states if state and state.type in STATES)
        waits = [
            (state.name, since)
            for state, since in zip(states, due, strict=True)
            if state and state.type == "SCHEDULED" and since <= at
        ]
        waiting = Counter(name for name, _ in waits)
        oldest = min((since for _, since in waits), default=None)
        found.append(Moment(frozenset(holders.items()), frozenset(waiting.items()), oldest))
    return found


def assert_as_in_histories(one: Sample, histories: list[list[Change]], due: list[float]) -> bool:
    """Compares a sample with what was the case while its poll read; returns whether nothing changed meanwhile.

    A state has the time at which a process asked for it, and the server has it a little later: hence the slack.
    """
    around = moments(histories, due, one.begun - INTERVAL, one.ended)
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


def test_a_queue_that_is_saturated_while_runs_wait(start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect(services=True, settings=LATE_SOON)
    path = config(tmp_path, server.api_url, "interval: 1s", "timeout: 20s", "stale_after: 60s")
    samples: list[Sample] = []
    with closing(server.client()) as client, exporter(tmp_path, f"--config.file={path}") as running:
        api = PrefectApi(client)
        api.create_pool("pool")
        api.create_queue("pool", "single", limit=1)
        deployment = create_nap_deployment(api, "pool", "single")

        def take_sample() -> Sample | None:
            found = running.series()
            ended = time.time()
            if ("concurrency_queue_active_slots", frozenset(QUEUE.items())) not in found:
                return None
            begun = own(found, "last_success_timestamp_seconds")
            if not samples or begun > samples[-1].begun:
                samples.append(sample(found, ended))
            return samples[-1]

        running.process.wait_until(lambda: take_sample() is not None, what="the queue is there")
        started = time.time()
        runs = [start_nap(api, deployment, seconds=2) for _ in range(RUNS)]
        with PrefectWorker(server, "pool", tmp_path / "worker") as worker:
            done = all_completed(api, runs)

            def idle() -> bool:
                last = take_sample()
                return last is not None and last.active == last.queued == 0 and last.begun > started and done()

            worker.process.wait_until(idle, what="all runs are completed, and it is seen", timeout=60)
            polled = samples[-1].last_polled

            def moves_on() -> bool:
                last = take_sample()
                return bool(last and last.last_polled and polled and last.last_polled > polled)

            worker.process.wait_until(moves_on, what="the idle queue is polled", timeout=30)
            now = time.time()
        histories = [history(api, run) for run in runs]
        answers = [api.request("GET", f"/flow_runs/{run}") for run in runs]
        before = read(client)
        ended = time.time()
        running.process.wait_until(
            lambda: own(running.series(), "last_success_timestamp_seconds") > ended, what="one more poll"
        )
        assert_equal_to_readings(published(running), before, read(client))
        # On a busy machine a poll may take longer than this short interval, which is no fault.
        warnings = [line for line in running.process.log_text().splitlines() if "level=warning" in line]
        assert [line for line in warnings if "poll skipped" not in line] == []

    due = [datetime.fromisoformat(answer["expected_start_time"]).timestamp() for answer in answers]
    assert all(answer["run_count"] == 1 for answer in answers), "no run was put off"
    certain = [one for one in samples if assert_as_in_histories(one, histories, due)]
    assert {(one.active, one.queued) for one in certain} >= {(1, 1), (0, 0)}, "not only what is about to change"
    assert max(one.active for one in samples) == 1
    assert any(one.active == 1 and one.queued >= 1 for one in samples)
    assert any(one.waiting["Late"] for one in samples if one.active), "who waits for 3 s is late"
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
