"""The runs that wait for a slot: those that could be started now, and not those that are scheduled for later.

A run that waits is SCHEDULED and due. One that a deployment's limit holds back, AwaitingConcurrencySlot, waits too: the
server puts its time off again and again, so that it is never due. A queue's full limit makes no state of its own.
"""

import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from exporter.sources.prefect import costs, rollcall
from exporter.sources.prefect.api import COUNT, HISTORY, WAITING_FLOW_RUNS, Api, FlowRun, WaitingFlowRun, WorkQueue
from exporter.sources.prefect.causes import HELD_BACK
from exporter.sources.prefect.each import each
from exporter.sources.prefect.reading import Backlog, WaitingCounts, WaitingRun
from exporter.sources.prefect.rollcall import Listing

_IS_HELD_BACK: Final[dict[str, Any]] = {"state": {"name": {"any_": [HELD_BACK]}}}

_EVER: Final = timedelta(days=3650)


def _is_due(now: datetime) -> dict[str, Any]:
    """The filter of the runs that are due; a run has a next scheduled start only while it is SCHEDULED."""
    return {"next_scheduled_start_time": {"before_": now.isoformat()}}


def _waiting(now: datetime) -> dict[str, Any]:
    """The filter of the runs that wait."""
    return {"operator": "or_", **_IS_HELD_BACK, **_is_due(now)}


async def read(
    api: Api, queues: Sequence[WorkQueue], published: Sequence[WorkQueue], now: datetime, concurrency: int
) -> Backlog:
    """The backlog at `now` of the server's clock: of all queues, or only of those published. Raises `SourceError`.

    One request if nothing waits on the whole server. Else a sweep over all that waits or, if there is very much of it,
    two requests for each published queue. A run with a queue's name and no id waits in none: no worker would get it.
    """
    waiting = (await api.post("/flow_runs/count", COUNT, {"flow_runs": _waiting(now)})).content
    if not waiting:
        return Backlog(runs={queue.id: () for queue in queues})
    if sweep_is_cheaper(waiting, len(published), api.page_size):
        return Backlog(runs=await sweep(api, queues, now))
    return Backlog(counts=await read_each(api, published, now, concurrency))


def sweep_is_cheaper(waiting: int, queues: int, page_size: int) -> bool:
    """Whether to list all that waits, instead of asking for each queue: also where it costs up to a page more."""
    pages = waiting / page_size
    return costs.cheaper((pages - 1) * costs.RUNS_PAGE, queues * costs.QUEUE_BACKLOG)


async def read_each(
    api: Api, queues: Sequence[WorkQueue], now: datetime, concurrency: int
) -> dict[uuid.UUID, WaitingCounts]:
    """Count the waiting runs of each queue, with two or three requests for each. Raises `SourceError`."""
    counts = await each(queues, lambda queue: _of_queue(api, queue, now), concurrency)
    return dict(zip((queue.id for queue in queues), counts, strict=True))


async def sweep(api: Api, queues: Sequence[WorkQueue], now: datetime) -> dict[uuid.UUID, list[WaitingRun]]:
    """The runs that wait in each queue, from a listing of all that wait. Raises `SourceError`."""
    of_queue = await rollcall.read(api, _listing(now), queues)
    return {
        queue.id: [
            _waiting_run(run, at)
            for run, at in of_queue[queue.id]
            if run.work_queue_id and run.state_type == "SCHEDULED"
        ]
        for queue in queues
    }


def _listing(now: datetime) -> Listing[WaitingFlowRun]:
    def admits(run: FlowRun) -> bool:
        due = run.next_scheduled_start_time
        return run.state_name == HELD_BACK or (due is not None and due <= now)

    def stays(name: str) -> dict[str, Any]:
        return {"state": {"name": {"any_": [name]}}, **({} if name == HELD_BACK else _is_due(now))}

    def left(name: str) -> list[dict[str, Any]]:
        another: dict[str, Any] = {"state": {"name": {"not_any_": [name]}}}
        # The time of one that is held back is put off again and again.
        put_off = {"next_scheduled_start_time": {"after_": now.isoformat()}}
        return [another] if name == HELD_BACK else [another, put_off]

    return Listing(
        contract=WAITING_FLOW_RUNS,
        whole=_waiting(now),
        parts=(_IS_HELD_BACK, _is_due(now)),
        admits=admits,
        state=lambda run: run.state_name or "",
        stays=stays,
        left=left,
    )


async def _of_queue(api: Api, queue: WorkQueue, now: datetime) -> WaitingCounts:
    history = {
        "history_start": (now - _EVER).isoformat(),
        "history_end": (now + _EVER).isoformat(),
        "history_interval_seconds": 2 * _EVER.total_seconds(),
        "work_queues": {"id": {"any_": [str(queue.id)]}},
        "flow_runs": _waiting(now),
    }
    counts: Counter[str] = Counter()
    for interval in (await api.post("/flow_runs/history", HISTORY, history)).content:
        for state in interval.states:
            counts[state.state_name] += state.count_runs
    names = [name for name, count in counts.items() if count and name != HELD_BACK]
    due = {"state": {"name": {"any_": names}}, **_is_due(now)}
    oldest_due = await _oldest(api, queue, due, "NEXT_SCHEDULED_START_TIME_ASC") if names else None
    put_off = await _oldest(api, queue, _IS_HELD_BACK, "EXPECTED_START_TIME_ASC") if counts[HELD_BACK] else None
    listed = [run for run in (oldest_due, put_off) if run]
    return WaitingCounts(counts, max((run.seconds for run in listed), default=None), oldest_due, listed)


async def _oldest(api: Api, queue: WorkQueue, flow_runs: dict[str, Any], sort: str) -> WaitingRun | None:
    body = {"flow_runs": flow_runs, "work_pool_queues": {"id": {"any_": [str(queue.id)]}}, "sort": sort, "limit": 1}
    page = (await api.post("/flow_runs/filter", WAITING_FLOW_RUNS, body)).content
    return _waiting_run(page[0], api.time_of(page)) if page else None


def _waiting_run(run: WaitingFlowRun, now: datetime) -> WaitingRun:
    return WaitingRun(
        run.id,
        run.state_name or "",
        _seconds_waited(run, now),
        run.next_scheduled_start_time,
        run.deployment_id,
        run.retries_in_process,
        run.name or "",
        run.flow_id,
    )


def _seconds_waited(run: FlowRun, now: datetime) -> float:
    """Return for how long only its queue or another limit has kept the run from starting."""
    held_back = run.state_name == HELD_BACK
    since = run.expected_start_time if held_back else run.next_scheduled_start_time
    return max((now - since).total_seconds(), 0.0) if since else 0.0
