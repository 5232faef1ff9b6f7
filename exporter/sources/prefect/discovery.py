"""Lists the pools and queues, at the cost of a few pages."""

import uuid
from collections.abc import Sequence

from exporter.sources.base import SourceError
from exporter.sources.prefect import costs
from exporter.sources.prefect.api import WORK_POOLS, WORK_QUEUES, Api, WorkPool, WorkQueue
from exporter.sources.prefect.each import each_apart
from exporter.sources.prefect.failures import raise_if_whole_server, unreadable
from exporter.sources.prefect.reading import Discovered


class Discovery:
    """Lists the pools and queues of a server, and remembers which there were.

    The queues of all pools come in one listing, `POST /work_queues/filter`. It is ordered by their names only, which
    repeat: on PostgreSQL its pages lose rows and repeat others, but never their number. So it tells when something has
    changed, and the queues that it lost are asked for by their ids. Only then, and at first, each pool is listed.
    """

    def __init__(self, api: Api, concurrency: int) -> None:
        self._api = api
        self._concurrency = concurrency
        self._pools: frozenset[uuid.UUID] = frozenset()
        self._queues: frozenset[uuid.UUID] = frozenset()
        self._rows: int | None = None
        """Number of all queues of the server, including those of pools that are not read."""

    async def pools(self) -> list[WorkPool]:
        """All pools of the server."""
        return await self._api.listing("/work_pools/filter", WORK_POOLS)

    async def queues(self, pools: Sequence[WorkPool]) -> Discovered:
        """The queues of these pools. Raises `SourceError` where the fault is the server's."""
        by_id = {pool.id: pool for pool in pools}
        pages = (self._rows or len(self._queues)) // self._api.page_size + 1
        if by_id.keys() == self._pools and costs.cheaper(pages * costs.QUEUES_PAGE, len(pools) * costs.POOL_QUEUES):
            try:
                queues = await self._all_at_once(by_id)
            except SourceError as error:
                raise_if_whole_server(error)
                queues = None
            if queues is not None:
                return Discovered(by_id, queues)
        return await self._pool_by_pool(by_id)

    async def _all_at_once(self, pools: dict[uuid.UUID, WorkPool]) -> list[WorkQueue] | None:
        """The queues of these pools from the one listing; None if there are others than were known."""
        found: dict[uuid.UUID, WorkQueue] = {}
        there = 0
        async for page in self._api.pages("/work_queues/filter", WORK_QUEUES, may_lose=True):
            found |= {row.id: row for row in page.rows if row.work_pool_id in pools}
            there = page.end
        changed = self._rows not in {None, there} or not found.keys() <= self._queues
        self._rows = there
        if changed:
            return None
        lost = sorted(self._queues - found.keys())
        found |= {
            row.id: row for row in await self._api.by_ids("/work_queues/filter", WORK_QUEUES, "work_queues", lost)
        }
        # If one of those is gone, another has taken its place, which the listing may have lost too.
        return list(found.values()) if found.keys() == self._queues else None

    async def _pool_by_pool(self, pools: dict[uuid.UUID, WorkPool]) -> Discovered:
        listed = await each_apart(list(pools.values()), self._queues_of, self._concurrency)
        kept = {pool_id: pool for pool_id, pool in pools.items() if pool_id in listed.read or pool_id in listed.failed}
        queues = {queue.id: queue for of_pool in listed.read.values() for queue in of_pool}
        # A pool that could not be listed has to be listed again.
        self._pools = frozenset() if listed.failed else frozenset(kept)
        self._queues = frozenset(queues)
        missing = [unreadable(error, "queues", pools[pool_id].name) for pool_id, error in listed.failed.items()]
        return Discovered(kept, list(queues.values()), missing)

    async def _queues_of(self, pool: WorkPool) -> list[WorkQueue]:
        queues = await self._api.listing("/work_pools/{name}/queues/filter", WORK_QUEUES, name=pool.name)
        return [queue.model_copy(update={"work_pool_id": pool.id}) for queue in queues]
