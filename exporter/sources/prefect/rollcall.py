"""A listing of runs that takes several pages, as it was at one moment.

Pages are read one after the other. If a run gives back its slot meanwhile and another takes one of the same queue, the
pages together can have both runs or neither: a number that was never true. So a roll call follows the last page: one
request for the runs that are in the listing and on no page, then some for the known runs that have changed or gone. A
queue in which none has changed had exactly the known runs at the moment of the first request. For the other queues the
call is repeated.
"""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydantic import TypeAdapter

from exporter.sources.prefect.api import COUNT, FLOW_RUNS, Api, FlowRun, WorkQueue

R = TypeVar("R", bound=FlowRun)

_MAX_CALLS: Final = 10
"""Most roll calls. Each takes some hundredths of a second, so a queue with ten changes a second passes one of them."""
_MAX_IDS: Final = 20_000
"""Most ids in a request, for a body of less than 1 MB. Each is a parameter of a statement, which has 32,767 at most."""

Filter = Mapping[str, Any]
"""A filter of flow runs, in the API's form."""
Place = uuid.UUID | str | None
"""Where a run counts: the id of its queue, or the name of its queues if it has no id."""


class Listed(NamedTuple, Generic[R]):
    """A run, and the server's time when it answered."""

    run: R
    at: datetime

    @property
    def place(self) -> Place:
        """Where it counts."""
        return self.run.work_queue_id or self.run.work_queue_name


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """Which runs are listed, and the states by which they are counted."""

    contract: TypeAdapter[list[R]]
    whole: Filter
    parts: Sequence[Filter]
    """Filters that admit together what `whole` admits, and that remain so if they are narrowed by ids."""
    admits: Callable[[R], bool]
    """Whether a run is in the listing."""
    state: Callable[[R], str]
    """The state by which a run of the listing is counted."""
    stays: Callable[[str], Filter]
    """A filter that admits what is in that state of the listing."""
    left: Callable[[str], Sequence[Filter]]
    """Filters that admit together what is not in that state of the listing any more."""


async def read(api: Api, listing: Listing[R], queues: Sequence[WorkQueue]) -> dict[uuid.UUID, list[Listed[R]]]:
    """The listed runs of each queue as they were at one moment, which differs between queues.

    A run without a queue's id is in every queue of its queue's name. If there is more than one page, a roll call costs
    a request for each part and for each state, and some more for a state that runs have left. Without it, and so of
    several moments, are the runs of a listing of more than 20,000. A queue that changes during each of ten calls is as
    in the last of them. Raises `SourceError`.
    """
    rows: dict[uuid.UUID, Listed[R]] = {}
    pages = 0
    async for page in api.sweep("/flow_runs/filter", listing.contract, {"flow_runs": listing.whole, "sort": "ID_DESC"}):
        rows |= _listed(api, page)
        pages += 1
    if pages == 1:
        return _by_queue(rows.values(), queues)
    settled: dict[uuid.UUID, list[Listed[R]]] = {}
    moving = list(queues)
    for _ in range(_MAX_CALLS):
        if not moving or len(rows) > _MAX_IDS:
            break
        at_one_moment = await _add_new(api, listing, rows)
        there = list(rows.values())
        changed = await _renew(api, listing, rows, {place for queue in moving for place in (queue.id, queue.name)})
        if at_one_moment:
            still = [queue for queue in moving if changed.isdisjoint((queue.id, queue.name))]
            settled |= _by_queue(there, still)
            moving = [queue for queue in moving if queue.id not in settled]
    return settled | _by_queue(rows.values(), moving)


async def _add_new(api: Api, listing: Listing[R], rows: dict[uuid.UUID, Listed[R]]) -> bool:
    """Add the runs that are in the listing and not known yet. Return whether they were all there at one moment."""
    known = [str(one) for one in rows]
    pages = 0
    for part in listing.parts:
        async for page in _runs(api, listing, {**part, "id": {"not_any_": known}}):
            pages += 1
            rows.update({one: row for one, row in page.items() if one not in rows})
    return pages == len(listing.parts)


async def _renew(
    api: Api, listing: Listing[R], rows: dict[uuid.UUID, Listed[R]], places: Collection[Place]
) -> set[Place]:
    """Bring the rows of these places up to date, without those that have left. Return the places of the changes."""
    known: defaultdict[tuple[str, bool], dict[uuid.UUID, Listed[R]]] = defaultdict(dict)
    for one, row in rows.items():
        if row.place in places:
            known[listing.state(row.run), row.run.work_queue_id is None][one] = row
    changed: dict[uuid.UUID, Listed[R] | None] = {}
    for (state, _), of_state in known.items():
        changed |= await _changed(api, listing, state, of_state)
    moved: set[Place] = set()
    for one, new in changed.items():
        moved.add(rows.pop(one).place)
        if new:
            rows[one] = new
            moved.add(new.place)
    return moved


async def _changed(
    api: Api, listing: Listing[R], state: str, rows: Mapping[uuid.UUID, Listed[R]]
) -> dict[uuid.UUID, Listed[R] | None]:
    """Those of these runs that are not in this state of the listing any more, as they are now; None if they have left.

    One request if there are none. The runs all have a queue's id, or none has.
    """
    if await _count(api, rows.values(), listing.stays(state)) == len(rows):
        return {}
    changed: dict[uuid.UUID, Listed[R] | None] = {}
    for left in listing.left(state):
        async for page in _runs(api, listing, {**left, "id": {"any_": [str(one) for one in rows]}}):
            for one, now in page.items():
                is_in = listing.admits(now.run)
                if one in rows and not (is_in and listing.state(now.run) == state):
                    changed[one] = now if is_in else None
    return changed | dict.fromkeys(await _gone(api, list(rows.values())))


async def _gone(api: Api, rows: Sequence[Listed[R]]) -> list[uuid.UUID]:
    """Those of these runs that were deleted, or whose queue was. One request if there are none."""
    if await _count(api, rows) == len(rows):
        return []
    fits = max(api.page_size - 1, 1)
    if len(rows) > fits:
        return [one for start in range(0, len(rows), fits) for one in await _gone(api, rows[start : start + fits])]
    asked = {**_of(rows), "sort": "ID_DESC"}
    found = {run.id async for page in api.pages("/flow_runs/filter", FLOW_RUNS, asked) for run in page.rows}
    return [run.id for run, _ in rows if run.id not in found]


async def _count(api: Api, rows: Collection[Listed[R]], flow_runs: Filter | None = None) -> int:
    """Return how many of these runs are in their queues still, and meet the filter."""
    return (await api.post("/flow_runs/count", COUNT, _of(rows, flow_runs))).content


def _of(rows: Collection[Listed[R]], flow_runs: Filter | None = None) -> dict[str, Filter]:
    """The filters that admit only these runs, and only while the queues exist whose ids they have."""
    asked: dict[str, Filter] = {"flow_runs": {**(flow_runs or {}), "id": {"any_": [str(run.id) for run, _ in rows]}}}
    if queues := {str(run.work_queue_id) for run, _ in rows if run.work_queue_id}:
        asked["work_pool_queues"] = {"id": {"any_": sorted(queues)}}
    return asked


async def _runs(api: Api, listing: Listing[R], flow_runs: Filter) -> AsyncIterator[dict[uuid.UUID, Listed[R]]]:
    """The pages of these runs, without pauses: the less changes between two requests, the fewer calls it takes."""
    async for page in api.pages("/flow_runs/filter", listing.contract, {"flow_runs": flow_runs, "sort": "ID_DESC"}):
        yield _listed(api, page.rows)


def _listed(api: Api, page: Sequence[R]) -> dict[uuid.UUID, Listed[R]]:
    at = api.time_of(page)
    return {run.id: Listed(run, at) for run in page}


def _by_queue(rows: Iterable[Listed[R]], queues: Sequence[WorkQueue]) -> dict[uuid.UUID, list[Listed[R]]]:
    """The rows of each of these queues."""
    at: defaultdict[Place, list[Listed[R]]] = defaultdict(list)
    for row in rows:
        at[row.place].append(row)
    return {queue.id: [*at.get(queue.id, ()), *at.get(queue.name, ())] for queue in queues}
