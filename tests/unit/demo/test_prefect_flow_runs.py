import math
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest

from exporter.demo.rows import ident
from exporter.demo.scenario import K8S, QUEUES, WAREHOUSE
from tests.harness.demo import RECORDED, Clock, assert_like, post, run_in

EVER = timedelta(days=3650)
HELD_BACK = {"name": {"any_": ["AwaitingConcurrencySlot"]}}


def bucket(clock: Clock) -> dict[str, Any]:
    """One interval that holds every run."""
    return {
        "history_start": (clock() - EVER).isoformat(),
        "history_end": (clock() + EVER).isoformat(),
        "history_interval_seconds": 2 * EVER.total_seconds(),
    }


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SCHEDULED", "AwaitingConcurrencySlot"])
async def test_flow_runs_have_the_fields_of_the_real_ones(prefect: httpx.AsyncClient, clock: Clock, state: str) -> None:
    real, ours = RECORDED["flow_runs"][state], await run_in(prefect, clock, state)
    assert_like(real, ours)
    for field in ("next_scheduled_start_time", "start_time", "end_time", "run_count"):
        if field == "run_count":
            assert ours[field] == real[field]
        else:
            assert (ours[field] is None) == (real[field] is None), field


async def test_durations_and_timestamps_are_the_servers(prefect: httpx.AsyncClient, clock: Clock) -> None:
    clock.move(seconds=0.25)
    waiting = await run_in(prefect, clock, "Late")
    expected = datetime.fromisoformat(waiting["expected_start_time"])
    assert waiting["estimated_start_time_delta"] == (clock() - expected).total_seconds() > 15
    running = await run_in(prefect, clock, "RUNNING")
    since = datetime.fromisoformat(running["state"]["timestamp"])
    assert running["estimated_run_time"] == running["total_run_time"] + (clock() - since).total_seconds()
    assert running["estimated_run_time"] % 1 == 0.25
    cancelling = await run_in(prefect, clock, "CANCELLING")
    started, since = (
        datetime.fromisoformat(text) for text in (cancelling["start_time"], cancelling["state"]["timestamp"])
    )
    assert cancelling["estimated_run_time"] == cancelling["total_run_time"] == (since - started).total_seconds() > 0
    expected = datetime.fromisoformat(cancelling["expected_start_time"])
    assert cancelling["estimated_start_time_delta"] == (started - expected).total_seconds() > 0
    assert running["start_time"].endswith(".143650Z")
    clock.move(seconds=0.85635)
    whole = await post(prefect, "/work_queues/filter", limit=1)
    assert whole[0]["last_polled"] == "2026-11-21T23:24:26.143650Z"


async def test_flow_runs_are_filtered_and_counted(prefect: httpx.AsyncClient, clock: Clock) -> None:
    everything = await post(prefect, "/flow_runs/filter")
    assert len(everything) == await post(prefect, "/flow_runs/count") < 200
    queue, now = str(ident("queue", K8S, "etl")), clock().isoformat().replace("+00:00", "Z")
    filters: list[tuple[dict[str, Any], Any]] = [
        ({"work_pool_queues": {"id": {"any_": [queue]}}}, lambda run: run["work_queue_id"] == queue),
        ({"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}, lambda run: run["state_type"] == "RUNNING"),
        ({"flow_runs": {"state": {"name": {"any_": ["Late"]}}}}, lambda run: run["state_name"] == "Late"),
        (
            {"flow_runs": {"next_scheduled_start_time": {"before_": now}}},
            lambda run: run["next_scheduled_start_time"] and run["next_scheduled_start_time"] <= now,
        ),
        (
            {
                "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": ["Scheduled"]}}},
                "work_pool_queues": {"id": {"any_": [queue]}},
            },
            lambda run: run["state_name"] == "Scheduled" and run["work_queue_id"] == queue,
        ),
    ]
    for body, wanted in filters:
        runs = await post(prefect, "/flow_runs/filter", **body)
        assert runs == [run for run in everything if wanted(run)], body
        assert 0 < len(runs) < len(everything)
        assert await post(prefect, "/flow_runs/count", **body) == len(runs)


async def test_the_future_is_scheduled_but_not_due(prefect: httpx.AsyncClient, clock: Clock) -> None:
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    due = {**scheduled, "next_scheduled_start_time": {"before_": clock().isoformat()}}
    counts = [await post(prefect, "/flow_runs/count", flow_runs=runs) for runs in (scheduled, due)]
    assert 0 < counts[1] < counts[0]


async def test_flow_runs_are_sorted(prefect: httpx.AsyncClient) -> None:
    ids = [run["id"] for run in await post(prefect, "/flow_runs/filter", sort="ID_DESC")]
    assert ids == sorted(ids, reverse=True)
    rows = await post(prefect, "/flow_runs/filter", sort="EXPECTED_START_TIME_ASC")
    expected = [run["expected_start_time"] for run in rows]
    assert expected == sorted(expected)
    assert await post(prefect, "/flow_runs/filter", sort="EXPECTED_START_TIME_ASC", limit=1) == rows[:1]
    rows = await post(prefect, "/flow_runs/filter", sort="NEXT_SCHEDULED_START_TIME_ASC")
    assert await post(prefect, "/flow_runs/filter", sort="NEXT_SCHEDULED_START_TIME_ASC", limit=1) == rows[:1]
    due = [run["next_scheduled_start_time"] for run in rows]
    known = [moment for moment in due if moment is not None]
    assert due == sorted(known) + [None] * (len(due) - len(known))
    assert (await prefect.post("/flow_runs/filter", json={"sort": "NOPE"})).status_code == 422


async def test_criteria_are_combined_by_the_operator(prefect: httpx.AsyncClient, clock: Clock) -> None:
    await run_in(prefect, clock, "AwaitingConcurrencySlot")
    everything = await post(prefect, "/flow_runs/filter")
    now = clock().isoformat().replace("+00:00", "Z")
    due = {"before_": now}

    def is_held_back(run: Any) -> bool:
        return bool(run["state_name"] == "AwaitingConcurrencySlot")

    def is_due(run: Any) -> bool:
        return run["next_scheduled_start_time"] is not None and run["next_scheduled_start_time"] <= now

    filters: list[tuple[dict[str, Any], Callable[[Any], bool]]] = [
        ({"state": HELD_BACK, "next_scheduled_start_time": due}, lambda run: is_held_back(run) and is_due(run)),
        (
            {"operator": "or_", "state": HELD_BACK, "next_scheduled_start_time": due},
            lambda run: is_held_back(run) or is_due(run),
        ),
        (
            {"state": {"operator": "or_", **HELD_BACK, "type": {"any_": ["RUNNING"]}}},
            lambda run: is_held_back(run) or run["state_type"] == "RUNNING",
        ),
        (
            {
                "operator": "or_",
                "state": {**HELD_BACK, "type": {"any_": ["RUNNING"]}},
                "next_scheduled_start_time": due,
            },
            is_due,
        ),
        ({"operator": "or_", "state": None, "next_scheduled_start_time": due}, is_due),
        ({"operator": "or_", "state": {}, "next_scheduled_start_time": due}, lambda _: True),
        ({"operator": "or_", "state": HELD_BACK, "next_scheduled_start_time": {}}, lambda _: True),
        ({"operator": "or_"}, lambda _: True),
        (
            {"expected_start_time": {"after_": now}},
            lambda run: run["expected_start_time"] >= now,
        ),
        (
            {"next_scheduled_start_time": {"after_": now}},
            lambda run: run["next_scheduled_start_time"] is not None and run["next_scheduled_start_time"] >= now,
        ),
    ]
    found = []
    for flow_runs, wanted in filters:
        runs = await post(prefect, "/flow_runs/filter", flow_runs=flow_runs)
        assert runs == [run for run in everything if wanted(run)], flow_runs
        assert await post(prefect, "/flow_runs/count", flow_runs=flow_runs) == len(runs)
        answer = await post(prefect, "/flow_runs/history", **bucket(clock), flow_runs=flow_runs)
        assert sum(state["count_runs"] for state in answer[0]["states"]) == len(runs)
        found.append(len(runs))
    assert found[0] < found[4] < found[1] < found[5] == len(everything)


async def test_the_operator_combines_criteria_not_filters(prefect: httpx.AsyncClient, clock: Clock) -> None:
    await run_in(prefect, clock, "AwaitingConcurrencySlot")
    queue = str(ident("queue", WAREHOUSE, "dbt"))
    flow_runs = {
        "operator": "or_",
        "state": HELD_BACK,
        "next_scheduled_start_time": {"before_": clock().isoformat()},
    }
    in_queue = {"id": {"any_": [queue]}}
    of_queue = await post(prefect, "/flow_runs/filter", flow_runs=flow_runs, work_pool_queues=in_queue)
    assert {run["work_queue_id"] for run in of_queue} == {queue}
    assert len(of_queue) < await post(prefect, "/flow_runs/count", flow_runs=flow_runs)


@pytest.mark.parametrize("operator", [None, "xor_"])
async def test_other_operators_are_refused(prefect: httpx.AsyncClient, operator: str | None) -> None:
    for flow_runs, where in (
        ({"operator": operator}, ["flow_runs", "operator"]),
        ({"state": {"operator": operator}}, ["flow_runs", "state", "operator"]),
    ):
        response = await prefect.post("/flow_runs/count", json={"flow_runs": flow_runs})
        assert response.status_code == 422
        [wrong] = response.json()["exception_detail"]
        assert (wrong["type"], wrong["loc"]) == ("enum", ["body", *where])
        assert wrong["msg"] == "Input should be 'and_' or 'or_'"


async def test_history_counts_the_runs_of_one_queue_by_state(prefect: httpx.AsyncClient, clock: Clock) -> None:
    clock.move(seconds=0.5)
    states = set()
    for queue in QUEUES:
        wanted = {"id": {"any_": [str(queue.id)]}}
        answer = await post(prefect, "/flow_runs/history", **bucket(clock), work_queues=wanted)
        assert [sorted(interval) for interval in answer] == [["interval_end", "interval_start", "states"]]
        if answer[0]["states"]:
            assert_like(RECORDED["history"][0], answer[0])
        runs = await post(prefect, "/flow_runs/filter", work_pool_queues=wanted)
        names = sorted({(run["state_type"], run["state_name"]) for run in runs})
        assert [(state["state_type"], state["state_name"]) for state in answer[0]["states"]] == names
        for state in answer[0]["states"]:
            assert_like(RECORDED["history"][0]["states"][0], state)
            rows = [run for run in runs if run["state_name"] == state["state_name"]]
            assert state["count_runs"] == len(rows)
            for sum_of, field in (
                ("sum_estimated_run_time", "estimated_run_time"),
                ("sum_estimated_lateness", "estimated_start_time_delta"),
            ):
                assert math.isclose(state[sum_of], sum(run[field] for run in rows))
        states.update(names)
    assert {name for _, name in states} >= {"Running", "Cancelling", "Late", "Scheduled"}


async def test_history_is_cut_into_intervals(prefect: httpx.AsyncClient, clock: Clock) -> None:
    start, now = clock() - timedelta(minutes=10), clock()
    body = {"history_start": start.isoformat(), "history_end": now.isoformat(), "history_interval_seconds": "240"}
    answer = await post(prefect, "/flow_runs/history", **body)
    bounds = [start + number * timedelta(minutes=4) for number in range(4)]
    assert [interval["interval_start"] for interval in answer] == [
        moment.isoformat().replace("+00:00", "Z") for moment in bounds[:-1]
    ]
    assert [interval["interval_end"] for interval in answer] == [
        moment.isoformat().replace("+00:00", "Z") for moment in bounds[1:]
    ]
    expected = [datetime.fromisoformat(run["expected_start_time"]) for run in await post(prefect, "/flow_runs/filter")]
    assert [sum(state["count_runs"] for state in interval["states"]) for interval in answer] == [
        sum(first <= moment < last for moment in expected) for first, last in pairwise(bounds)
    ]
    for end in (start, start - timedelta(seconds=5)):
        assert await post(prefect, "/flow_runs/history", **body | {"history_end": end.isoformat()}) == []
    most = await post(prefect, "/flow_runs/history", **body | {"history_interval_seconds": 1})
    assert len(most) == 500


@pytest.mark.parametrize(
    ("change", "code", "answer"),
    [
        ({"history_start": None}, 422, [("missing", "history_start", "Field required")]),
        (
            {"history_start": "nope", "history_end": None, "history_interval_seconds": "x"},
            422,
            [
                ("value_error", "history_start", "Value error, Unable to parse string [nope]"),
                ("missing", "history_end", "Field required"),
                (
                    "float_parsing",
                    "history_interval_seconds",
                    "Input should be a valid number, unable to parse string as a number",
                ),
            ],
        ),
        (
            {"history_interval_seconds": [1]},
            422,
            [("float_type", "history_interval_seconds", "Input should be a valid number")],
        ),
        ({"history_interval_seconds": 0.5}, 422, {"detail": "History interval must not be less than 1 second."}),
        ({"history_interval_seconds": 1e12}, 500, {"exception_message": "Internal Server Error"}),
        ({"history_interval_seconds": 1e18}, 500, {"exception_message": "Internal Server Error"}),
    ],
)
async def test_history_refuses_as_the_server_does(
    prefect: httpx.AsyncClient, clock: Clock, change: dict[str, Any], code: int, answer: Any
) -> None:
    response = await prefect.post("/flow_runs/history", json=bucket(clock) | change)
    assert response.status_code == code
    if isinstance(answer, list):
        details = response.json()["exception_detail"]
        assert [(wrong["type"], wrong["loc"][1], wrong["msg"]) for wrong in details] == answer
    else:
        assert response.json() == answer
