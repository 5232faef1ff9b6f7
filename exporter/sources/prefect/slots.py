"""Who holds the slots of the queues: two ways to read the same figures, of which the cheaper is chosen.

`POST /work_queues/{id}/concurrency_status` says it of one queue, and costs the server 12 to 20 ms of its one process,
whatever the number of holders. `POST /flow_runs/filter` lists the holders of all queues, 200 on a page that costs about
120 ms. Both count by one rule: a run in PENDING, RUNNING or CANCELLING holds a slot of the queue of its id; if it has
no queue's id (its queue was deleted, or it was given a name only) it holds one of every queue of that name.
"""

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from exporter.model import Durations
from exporter.sources.prefect.about import ABOUT
from exporter.sources.prefect.api import COUNT, FLOW_RUNS, Api, FlowRun, WorkQueue

HOLDING_STATES: Final = tuple(ABOUT.holder_states)
"""The state types whose runs hold a slot of a queue, as `concurrency_status` of the queue counts."""

PAGE_IN_QUEUES: Final = 4
"""How many queues could be read one by one for what one more page of the sweep costs the server, given that these
queues' own pages of holders cost about half as much."""
_HOLDERS: Final[dict[str, Any]] = {"state": {"type": {"any_": list(HOLDING_STATES)}}}


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of one queue. `holders` is None where upstream does not list them."""

    active: int
    limit: int | None
    holders: dict[str, Durations] | None


async def read_one(api: Api, queue: uuid.UUID) -> Slots:
    """The slots of one queue from its own endpoint. Raises `SourceError`."""
    status, runs = await api.concurrency_status(queue)
    holders = (
        None if runs is None else by_state([(run.get("state_type"), run.get("time_in_current_state")) for run in runs])
    )
    return Slots(status.active_slots, status.concurrency_limit, holders)


async def count_holders(api: Api) -> int:
    """How many runs of the whole server hold a slot."""
    return (await api.post("/flow_runs/count", COUNT, {"flow_runs": _HOLDERS})).content


def sweep_is_cheaper(holders: int, queues: int, page_size: int) -> bool:
    """Whether to list the holders of all queues, instead of asking each queue."""
    return -(-holders // page_size) * PAGE_IN_QUEUES <= queues


async def sweep(api: Api, queues: Sequence[WorkQueue], holders: int) -> dict[uuid.UUID, Slots]:
    """The slots of these queues from a listing of all holders; no request if there are none. Raises `SourceError`.

    A server answers 500 to a page with a run that has no timestamp: such a run can only be read by its queue.
    """
    runs = await _holding_runs(api) if holders else []
    ids_by_name: defaultdict[str | None, list[uuid.UUID]] = defaultdict(list)
    for queue in queues:
        ids_by_name[queue.name].append(queue.id)
    of_queue: dict[uuid.UUID, list[tuple[str | None, float | None]]] = {queue.id: [] for queue in queues}
    for run, seconds in runs:
        for queue_id in [run.work_queue_id] if run.work_queue_id else ids_by_name.get(run.work_queue_name, []):
            if queue_id in of_queue:
                of_queue[queue_id].append((run.state_type, seconds))
    return {
        queue.id: Slots(len(of_queue[queue.id]), queue.concurrency_limit, by_state(of_queue[queue.id]))
        for queue in queues
    }


async def _holding_runs(api: Api) -> list[tuple[FlowRun, float | None]]:
    """Every run that holds a slot, once, and the seconds for which it has been in its state by the server's clock."""
    runs: dict[uuid.UUID, tuple[FlowRun, float | None]] = {}
    async for page in api.sweep("/flow_runs/filter", FLOW_RUNS, {"flow_runs": _HOLDERS, "sort": "ID_DESC"}):
        now = api.time_of(page)
        for run in page:
            runs[run.id] = (run, (now - run.state.timestamp).total_seconds() if run.state else None)
    return list(runs.values())


def by_state(holders: Iterable[tuple[str | None, float | None]]) -> dict[str, Durations]:
    """Holders by state: all the states that hold slots, and any other that upstream lists as `unknown`."""
    of_state: dict[str, list[float | None]] = {state: [] for state in HOLDING_STATES}
    for state, seconds in holders:
        of_state.setdefault(state if state in HOLDING_STATES else "unknown", []).append(seconds)
    return {
        state: Durations(
            holders=len(times),
            # Negative where the clock of the server is behind that of the worker which set the state.
            seconds=tuple([time if time > 0 else 0.0 for time in times if time is not None]),
        )
        for state, times in of_state.items()
    }
