"""The workers of each pool: those that are at work, since a server never deletes a dead one."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from exporter.model import Unreadable, Workers
from exporter.sources.base import SourceError
from exporter.sources.prefect.api import WORKERS, Api, WorkPool, is_deleted, is_unsupported
from exporter.sources.prefect.each import each
from exporter.sources.prefect.failures import left_out

_ENDPOINT: Final = "/work_pools/{name}/workers/filter"
_ONLINE: Final = "ONLINE"
_RECENT: Final = timedelta(days=1)
"""No worker that is at work is silent for so long: it sends a heartbeat each 30 s, unless it is told otherwise."""


async def read(
    api: Api, pools: Mapping[uuid.UUID, WorkPool], *, concurrency: int, until: float
) -> tuple[dict[uuid.UUID, Workers], list[Unreadable]]:
    """The workers of these pools, and those pools whose workers can't be read: a pool costs no other one its workers.

    One that is not read `until` then, by the loop's clock, is given up; one that was deleted meanwhile is in neither.
    Raises `SourceError` where the fault is the server's, or where it has no such endpoint.
    """

    async def of(pool: WorkPool) -> Workers | SourceError | None:
        try:
            async with asyncio.timeout_at(until):
                return await _of_pool(api, pool.name)
        except TimeoutError:
            return SourceError("timeout", f"the workers of pool {pool.id} were not read before the poll's timeout")
        except SourceError as error:
            left_out(error, "workers")
            return None if is_deleted(error) else error

    found = dict(zip(pools, await each(list(pools.values()), of, concurrency), strict=True))
    errors = {pool_id: one for pool_id, one in found.items() if isinstance(one, SourceError)}
    if errors and len(errors) == len(found) and all(is_unsupported(error) for error in errors.values()):
        raise next(iter(errors.values()))
    # Where others have it, the server only can't find a pool by its path, such as one with a newline in its name.
    missing = [left_out(error, "workers", pools[pool_id].name) for pool_id, error in errors.items()]
    return {pool_id: one for pool_id, one in found.items() if isinstance(one, Workers)}, missing


async def _of_pool(api: Api, pool: str) -> Workers:
    """One request for each page of workers at work; two where there is none."""
    # A server whose services do not run goes on saying ONLINE of a dead worker, for ever.
    since = (api.now() - _RECENT).isoformat()
    at_work = {"status": {"any_": [_ONLINE]}, "last_heartbeat_time": {"after_": since}}
    rows = await api.listing(_ENDPOINT, WORKERS, {"workers": at_work}, name=pool)
    # The newest heartbeat comes first.
    beats = rows or (await api.post(_ENDPOINT, WORKERS, {"limit": 1}, name=pool)).content
    counts = Counter(row.status if row.status in {_ONLINE, "OFFLINE"} else "unknown" for row in rows)
    del counts["OFFLINE"]
    return Workers(
        {_ONLINE: 0, **counts},
        max((row.last_heartbeat_time.timestamp() for row in beats if row.last_heartbeat_time), default=None),
    )
