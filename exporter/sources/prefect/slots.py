"""The holders of the queues' slots: two ways to read the same values; the cheaper one is chosen.

`POST /work_queues/{id}/concurrency_status` says it of one queue, and costs the server 12 to 20 ms of its one process,
whatever the number of holders. `POST /flow_runs/filter` lists the holders of all queues, 200 on a page that costs about
120 ms. Both count by one rule: a run in PENDING, RUNNING or CANCELLING holds a slot of the queue of its id; if it has
no queue's id (its queue was deleted, or it was given a name only) it holds one of every queue of that name.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from exporter.sources.oldest import UNKNOWN, Row, Tasks
from exporter.sources.prefect import costs, rollcall
from exporter.sources.prefect.about import ABOUT
from exporter.sources.prefect.api import COUNT, HOLDING_FLOW_RUNS, WORK_QUEUES, Api, HoldingFlowRun, WorkQueue
from exporter.sources.prefect.reading import Holders, Origin, Slots
from exporter.sources.prefect.rollcall import Listed, Listing

HOLDING_STATES: Final = tuple(ABOUT.holder_states)
"""The state types whose runs hold a slot of a queue, as `concurrency_status` of the queue counts."""

_COUNTED_STATES: Final = ("PENDING", "RUNNING")
"""Those that count against the limit of a queue when runs are handed out."""
_Run = tuple[str | None, float | None, str, str | None, Origin | None]
"""State, seconds in that state, id, name and origin of a run that holds a slot, as they were read."""

_HOLDERS: Final[dict[str, Any]] = {"state": {"type": {"any_": list(HOLDING_STATES)}}}
_LISTING: Final = Listing(
    contract=HOLDING_FLOW_RUNS,
    whole=_HOLDERS,
    parts=(_HOLDERS,),
    admits=lambda run: run.state_type in HOLDING_STATES,
    state=lambda run: run.state_type or "",
    stays=lambda state: {"state": {"type": {"any_": [state]}}},
    left=lambda state: [{"state": {"type": {"not_any_": [state]}}}],
)


async def read_one(api: Api, queue: WorkQueue, named: int) -> Slots:
    """The slots of one queue from its own endpoint, and its limit from the listing if that does not tell it.

    Of each state so many holders are named. Their origins are not known. Raises `SourceError`.
    """
    status, runs = await api.concurrency_status(queue.id)
    holders = (
        None
        if runs is None
        else _holders(
            (
                (run.get("state_type"), run.get("time_in_current_state"), run["id"], run.get("name"), None)
                for run in runs
            ),
            named,
        )
    )
    slot_limit = status.slot_limit if "slot_limit" in status.model_fields_set else queue.slot_limit
    # A run without a queue's id is listed too, and nothing tells it from the others.
    taken = sum(state in _COUNTED_STATES for state in holders.state_types) if holders else None
    return Slots(status.active_slots, slot_limit, holders, taken)


async def count_holders(api: Api) -> int:
    """Count the runs of the whole server that hold a slot."""
    return (await api.post("/flow_runs/count", COUNT, {"flow_runs": _HOLDERS})).content


def sweep_is_cheaper(holders: int, queues: int, page_size: int) -> bool:
    """Whether to list the holders of all queues, instead of asking each queue."""
    pages = -(-holders // page_size)
    return costs.cheaper(pages * costs.RUNS_PAGE, queues * costs.QUEUE_SLOTS)


async def sweep(api: Api, queues: Sequence[WorkQueue], holders: int, named: int) -> dict[uuid.UUID, Slots]:
    """The slots of these queues from a listing of all holders; no request if there are none. Raises `SourceError`.

    Queues that were deleted meanwhile are left out. Of each queue and state so many holders are named. A server answers
    500 to a page with a run that has no timestamp: such a run can only be read by its queue.
    """
    of_queue = await rollcall.read(api, _LISTING, queues) if holders else {queue.id: [] for queue in queues}
    deleted = await _deleted(api, of_queue)
    origins: dict[Origin, Origin] = {}
    return {
        queue.id: Slots(
            len(rows := of_queue[queue.id]),
            queue.slot_limit,
            _holders((_run(row, origins) for row in rows), named),
            sum(bool(run.work_queue_id) and run.state_type in _COUNTED_STATES for run, _ in rows),
        )
        for queue in queues
        if queue.id not in deleted
    }


async def _deleted(api: Api, of_queue: Mapping[uuid.UUID, Sequence[Listed[HoldingFlowRun]]]) -> set[uuid.UUID]:
    """Those of the queues that exist no more, by one request for those that have runs without a queue's id.

    The runs of a queue lose its id when it is deleted, and hold no slot any more, though its name is still theirs.
    """
    suspect = {queue for queue, rows in of_queue.items() if any(run.work_queue_id is None for run, _ in rows)}
    return suspect - {
        row.id for row in await api.by_ids("/work_queues/filter", WORK_QUEUES, "work_queues", sorted(suspect))
    }


def _run(row: Listed[HoldingFlowRun], origins: dict[Origin, Origin]) -> _Run:
    """Return what is kept of a run; equal origins are one object."""
    run, at = row
    seconds = (at - run.state.timestamp).total_seconds() if run.state else None
    origin = Origin.of(run)
    return run.state_type, seconds, str(run.id), run.name, origins.setdefault(origin, origin)


def _holders(runs: Iterable[_Run], named: int) -> Holders:
    """Put the runs that hold slots of one queue into columns, and name the oldest of each state."""
    state_types: list[str] = []
    seconds: list[float | None] = []
    rows: dict[str, list[Row]] = {}
    for state_type, time, run_id, name, origin in runs:
        state = state_type if state_type in HOLDING_STATES else "unknown"
        # Negative where the clock of the server is behind that of the worker which set the state.
        age = None if time is None else max(time, 0.0)
        state_types.append(state)
        seconds.append(age)
        rows.setdefault(state, []).append((UNKNOWN if age is None else age, run_id, name or "", origin))
    return Holders(state_types, seconds, {state: Tasks.oldest(of_state, named) for state, of_state in rows.items()})
