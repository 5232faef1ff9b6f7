"""The flow, deployment and worker of each named holder.

A listing of runs has them. A queue's own endpoint does not: its runs are asked for by their ids, once.
"""

import uuid
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import nsmallest
from typing import Final

from exporter.sources.oldest import Tasks
from exporter.sources.prefect import costs
from exporter.sources.prefect.api import HOLDING_FLOW_RUNS, Api
from exporter.sources.prefect.reading import Origin, Slots

_MOST: Final = 10_000
"""Most different origins that are remembered."""


def named_holders(slots: Mapping[uuid.UUID, Slots]) -> Iterator[Tasks]:
    """The named holders of each queue and state."""
    for of_queue in slots.values():
        if of_queue.holders:
            yield from of_queue.holders.oldest.values()


def origins_of(tasks: Iterable[Tasks]) -> list[Origin]:
    """The origins of these tasks that are known, each once."""
    each = dict.fromkeys(origin for some in tasks for origin in some.origins)
    return [origin for origin in each if isinstance(origin, Origin)]


class Origins:
    """Remembers the origins of the holders that were named by the poll before: those of others are of no use."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._before: Mapping[uuid.UUID, Mapping[str, Tasks]] = {}
        self._learned: dict[str, Origin] = {}
        """Origins by run, which no poll has used yet."""
        self._same: dict[Origin, Origin] = {}
        """One object for all origins that are equal."""

    async def learn(self, slots: Mapping[uuid.UUID, Slots]) -> None:
        """Ask for the origins that are not known, if this costs little beside reading the slots of so many queues.

        Those that have been in their state for longest come first; the others are asked for at the next polls. Raises
        `SourceError`.
        """
        most = costs.pages_beside(len(slots) * costs.QUEUE_SLOTS) * (self._api.page_size - 1)
        runs = list(dict.fromkeys(run for _, run in nsmallest(most, self._unknown(slots))))
        if runs:
            found = await self._api.by_ids("/flow_runs/filter", HOLDING_FLOW_RUNS, "flow_runs", runs)
            if len(self._same) > _MOST:
                self._same.clear()
            self._learned |= dict.fromkeys(runs, Origin(None, None))
            for run in found:
                origin = Origin.of(run)
                self._learned[str(run.id)] = self._same.setdefault(origin, origin)

    def complete(self, slots: Mapping[uuid.UUID, Slots]) -> dict[uuid.UUID, Slots]:
        """Return the same slots with all origins that are known now."""
        whole: dict[uuid.UUID, Slots] = {}
        for queue, of_queue in slots.items():
            holders = of_queue.holders
            if holders and any(None in tasks.origins for tasks in holders.oldest.values()):
                known = self._known(queue)
                oldest = {
                    state: tasks.with_origins(
                        origin or known.get(run) or self._learned.get(run)
                        for run, origin in zip(tasks.ids(), tasks.origins, strict=True)
                    )
                    for state, tasks in holders.oldest.items()
                }
                whole[queue] = replace(of_queue, holders=replace(holders, oldest=oldest))
            else:
                whole[queue] = of_queue
        self._before = {queue: of_queue.holders.oldest for queue, of_queue in whole.items() if of_queue.holders}
        self._learned = {}
        return whole

    def _unknown(self, slots: Mapping[uuid.UUID, Slots]) -> Iterator[tuple[int, str]]:
        """The runs without an origin, and how many of their queue and state have been in it for longer."""
        for queue, of_queue in slots.items():
            for tasks in (of_queue.holders.oldest if of_queue.holders else {}).values():
                if None in tasks.origins:
                    known = self._known(queue)
                    for place, (run, origin) in enumerate(zip(tasks.ids(), tasks.origins, strict=True)):
                        if origin is None and run not in known:
                            yield place, run

    def _known(self, queue: uuid.UUID) -> Mapping[str, Hashable]:
        """The origins of the runs of a queue that were named before."""
        return {
            run: origin
            for tasks in self._before.get(queue, {}).values()
            for run, origin in zip(tasks.ids(), tasks.origins, strict=True)
            if origin is not None
        }
