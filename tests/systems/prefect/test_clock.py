"""The server's clock: what is due, waits and durations are by it, and not by ours."""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final

import pytest

from exporter.demo.rows import Queue, Run
from tests.harness.inprocess import OneSource
from tests.harness.lookalike import ALL, COUNT, OF_BACKLOG, RUNS, asked, flow_run, small, snapshot_of
from tests.harness.upstream import Request, answer, serve

CLOCKS: Final = [timedelta(hours=-1), timedelta(), timedelta(hours=1)]
each_clock = pytest.mark.parametrize("ahead", CLOCKS, ids=["behind", "same", "ahead"])


@each_clock
async def test_what_is_due_is_by_the_clock_of_the_server(ahead: timedelta) -> None:
    fake = small(ahead=ahead)
    minutes = {31: -30, 32: -1, 33: 1, 34: 30}
    began = time.monotonic()
    fake.runs = [
        flow_run(number, "Scheduled", fake.queues[1], fake.now + timedelta(minutes=minute))
        for number, minute in minutes.items()
    ]
    for count in (None, 1000):
        fake.faults = {COUNT + OF_BACKLOG: answer(count)} if count else {}
        async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["backlog"]) as exporter:
            snapshot = snapshot_of(await exporter.poll())
            late = time.monotonic() - began
            times = {
                request.json["flow_runs"]["next_scheduled_start_time"]["before_"]
                for request in upstream.requests
                if request.path.startswith("/api/flow_runs")
            }
            (before,) = times
            assert abs(datetime.fromisoformat(before) - fake.now) < timedelta(seconds=3 + late)
        (of_queue,) = (one for one in snapshot.queues if one.name == "q1")
        assert of_queue.waiting["Scheduled"].count == 2
        assert of_queue.longest_wait == pytest.approx(1800, abs=3 + late)


Q0: Final = Queue("a", "q0", limit=4)


def held(number: int, state: str, told: datetime, ago: float, **changed: object) -> Run:
    return flow_run(number, state, Q0, told - timedelta(seconds=ago), **changed)


def before(told: datetime, seconds: float) -> datetime:
    return told - timedelta(seconds=seconds)


Runs = Callable[[datetime], list[Run]]

TELLS: Final[dict[str, tuple[Runs, Mapping[str, float], float]]] = {
    "running": (
        lambda told: [
            held(23, "Cancelling", told, 40.25),
            held(22, "Running", told, 10.25, started=before(told, 13.25)),
            held(21, "Pending", told, 5.5, started=None),
        ],
        {"CANCELLING": 40.25, "RUNNING": 10.25, "PENDING": 5.5},
        1e-3,
    ),
    "not-started": (
        lambda told: [
            held(23, "Cancelling", told, 40.25),
            held(21, "Pending", told, 5.5, started=None, expected_start=before(told, 70)),
        ],
        {"CANCELLING": 40.25, "PENDING": 5.5},
        1e-3,
    ),
    "none": (
        lambda told: [
            held(23, "Cancelling", told, 40.25, expected_start=before(told, 49.25)),
            held(21, "Pending", told, 5.5),
        ],
        {"CANCELLING": 40.25, "PENDING": 5.5},
        2.5,
    ),
    "no-state": (
        lambda told: [held(22, "Running", told, 0), held(23, "Cancelling", told, 40.25)],
        {"CANCELLING": 40.25},
        2.5,
    ),
}


@each_clock
@pytest.mark.parametrize("tells", TELLS)
async def test_durations_are_by_the_clock_of_the_server(tells: str, ahead: timedelta) -> None:
    """To the second by its Date; exactly where a run tells. So what the runs tell is a little off the Date here."""
    runs, durations, within = TELLS[tells]
    exact = within < 1
    fake = small(ahead=ahead)
    if exact:
        fake.stands_at = fake.now - timedelta(minutes=5)
    fake.queues[0] = Q0
    fake.runs = runs(fake.stands_at or fake.now)

    async def without_state(request: Request) -> bytes:
        rows = (await fake.ask(request)).json()
        date = {"Date": format_datetime(fake.now, usegmt=True)}
        return answer([row | {"state": None} if row["state_type"] == "RUNNING" else row for row in rows], 200, date)

    if tells == "no-state":
        fake.faults = {RUNS: without_state}
    began = time.monotonic()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert RUNS in asked(upstream)
    if not exact:
        within += time.monotonic() - began
    holders = next(one.holders for one in snapshot.queues if one.name == "q0")
    found = {state: of_state.seconds[0] for state, of_state in holders.items() if of_state.seconds}
    assert found == {state: pytest.approx(seconds, abs=within) for state, seconds in durations.items()}


@each_clock
async def test_waits_are_by_the_clock_of_the_server(ahead: timedelta) -> None:
    fake = small(ahead=ahead)
    fake.stands_at = told = fake.now - timedelta(minutes=5)
    start = before(told, 70.5)
    fake.runs = [
        flow_run(31, "Late", fake.queues[1], before(told, 300.25), started=start),
        flow_run(30, "Late", fake.queues[2], told, expected_start=start),
    ]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["backlog"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    waits = {one.name: one.longest_wait for one in snapshot.queues if one.longest_wait is not None}
    assert waits == {"q1": pytest.approx(300.25), "q2": pytest.approx(0)}


async def test_a_server_without_date_is_read_by_our_clock() -> None:
    fake = small(ahead=timedelta(hours=1), dated=False)
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["backlog"]) as exporter:
        begun = datetime.now(UTC)
        await exporter.poll()
        ended = datetime.now(UTC)
        (request,) = (one for one in upstream.requests if one.path == f"/api{COUNT}")
    assert begun <= datetime.fromisoformat(request.json["flow_runs"]["next_scheduled_start_time"]["before_"]) <= ended


@pytest.mark.parametrize("count", [None, 1000], ids=["sweep", "each"])
@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2300",
    ],
)
async def test_a_date_that_is_no_time_is_none(date: str, count: int | None) -> None:
    fake = small()
    if count:
        fake.faults = {COUNT + OF_BACKLOG: answer(count)}

    async def dated(request: Request) -> bytes:
        head, blank, body = (await fake(request)).partition(b"\r\n\r\n")
        return re.sub(rb"Date: [^\r]*", f"Date: {date}".encode(), head) + blank + body

    async with serve(dated) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        # By the second poll, the first has read the dates.
        waits = [snapshot_of(await exporter.poll()).queues[1].longest_wait for _ in range(2)]
    assert waits == [pytest.approx(60, abs=5)] * 2
