"""The workers of each pool: those that are at work, since a server never deletes a dead one."""

import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from exporter.model import Unreadable
from exporter.sources.prefect.api import WORKERS, Api, WorkPool
from exporter.sources.prefect.each import each_apart
from exporter.sources.prefect.failures import unreadable
from exporter.sources.prefect.reading import PoolWorkers

_ENDPOINT: Final = "/work_pools/{name}/workers/filter"
ONLINE: Final = "ONLINE"
"""The status of a worker that is at work."""
_RECENT: Final = timedelta(days=1)
"""No worker that is at work is silent for so long: it sends a heartbeat each 30 s, unless it is told otherwise."""


async def read(
    api: Api, pools: Mapping[uuid.UUID, WorkPool], *, concurrency: int, until: float
) -> tuple[dict[uuid.UUID, PoolWorkers], list[Unreadable]]:
    """The workers of these pools, and those pools whose workers can't be read: a pool costs no other one its workers.

    One that is not read `until` then, by the loop's clock, is given up; one that was deleted meanwhile is in neither.
    Raises `SourceError` where the fault is the server's, or where it has no such endpoint.
    """
    found = await each_apart(
        list(pools.values()),
        lambda pool: _of_pool(api, pool.name),
        concurrency,
        until=until,
        late=lambda pool: f"the workers of pool {pool.id} were not read before the poll's timeout",
    )
    if found.unsupported:
        raise found.unsupported
    # Where others have it, the server only can't find a pool by its path, such as one with a newline in its name.
    missing = [unreadable(error, "workers", pools[pool_id].name) for pool_id, error in found.failed.items()]
    return found.read, missing


async def _of_pool(api: Api, pool: str) -> PoolWorkers:
    """One request for each page of workers at work; two where there is none."""
    # A server whose services do not run goes on saying ONLINE of a dead worker, for ever.
    since = (api.now() - _RECENT).isoformat()
    at_work = {"status": {"any_": [ONLINE]}, "last_heartbeat_time": {"after_": since}}
    if rows := await api.listing(_ENDPOINT, WORKERS, {"workers": at_work}, name=pool):
        return PoolWorkers(rows)
    # The newest heartbeat comes first.
    return PoolWorkers((), (await api.post(_ENDPOINT, WORKERS, {"limit": 1}, name=pool)).content)
