"""Prefect's work pools and queues: the settings of such a source, and a snapshot read over its REST API."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field

from exporter.model import Durations, Pool, Queue, Reason, Snapshot, Unreadable
from exporter.sources.base import CountRequest, Source, SourceConfig, SourceError
from exporter.sources.prefect_api import (
    WORK_POOLS,
    WORK_QUEUES,
    Api,
    FlowRunSlotSummary,
    WorkPool,
    WorkQueue,
    is_deleted,
)
from exporter.sources.settings import HttpUrl, Regex, Settings

T = TypeVar("T")
R = TypeVar("R")

HOLDING_STATES: Final = ("PENDING", "RUNNING", "CANCELLING")
"""The state types whose runs hold a slot of a queue, as `concurrency_status` of the queue counts."""

_REQUEST_SHARE: Final = 1 / 3
"""Part of a poll's deadline that one request may take: a queue that hangs must leave time for the others."""
_READING_SHARE: Final = 0.9
"""Part of a poll's deadline after which queues that are not read yet are given up, so that the others are published."""
_WHOLE_SERVER: Final[frozenset[Reason]] = frozenset({"connect", "tls", "auth", "rate_limited"})
"""Reasons that are not the fault of one queue: to go on would only ask a server that refuses again and again."""


def _api_url(url: str) -> str:
    """Refuse the addresses of Prefect Cloud that are not its API's, as Prefect's own client warns of them."""
    if not re.match(r"https?://(app|api)\.prefect\.cloud\b", url):
        return url
    if re.fullmatch(r"https://api\.prefect\.cloud/api/accounts/[^/]+/workspaces/[^/]+", url):
        return url
    account = re.search(r"/accounts?/([^/]+)", url)
    workspace = re.search(r"/workspaces?/([^/]+)", url)
    accounts = f"/accounts/{account[1] if account else 'ACCOUNT_ID'}"
    workspaces = f"/workspaces/{workspace[1] if workspace else 'WORKSPACE_ID'}"
    raise ValueError(f"not the address of an API; did you mean https://api.prefect.cloud/api{accounts}{workspaces}?")


class NameFilter(Settings):
    """Which names to read: those that match all of `include` and not `exclude`, each anchored at both ends."""

    include: Regex = re.compile(".*", re.DOTALL)
    """Regular expression of the names to read."""
    exclude: Regex | None = None
    """Regular expression of the names to leave out."""

    def admits(self, name: str) -> bool:
        """Whether to read the thing of this name."""
        return bool(self.include.fullmatch(name)) and not (self.exclude and self.exclude.fullmatch(name))


class PrefectConfig(SourceConfig):
    """A Prefect server, or a workspace of Prefect Cloud."""

    system: Literal["prefect"]
    """The kind of upstream."""
    url: Annotated[HttpUrl, AfterValidator(_api_url)]
    """Address of the API as in `PREFECT_API_URL`; that of a server ends in `/api`."""
    concurrency: int = Field(default=4, ge=1, le=32)
    """Requests at a time. The server answers in one process: more than 4 only slow its other clients down."""
    pools: NameFilter = NameFilter()
    """Work pools to read."""
    queues: NameFilter = NameFilter()
    """Work queues to read, in the pools that are read."""

    @property
    def system_name(self) -> str:
        """`prefect`."""
        return self.system

    def build(self, count_request: CountRequest) -> Source:
        """The source that this configures."""
        return PrefectSource(self, count_request)


class PrefectSource:
    """Discovers the pools and their queues, then reads the concurrency status of each queue."""

    def __init__(self, config: PrefectConfig, count_request: CountRequest) -> None:
        self._config = config
        self._api = Api(
            config,
            request_timeout=config.timeout * _REQUEST_SHARE,
            concurrency=config.concurrency,
            count_request=count_request,
        )

    async def poll(self) -> Snapshot:
        """Every pool and queue that the configuration admits.

        A queue that was deleted meanwhile is gone; one that can't be read is left out as unreadable. Raises
        `SourceError` where the fault is the server's, or no queue could be read.
        """
        reading_ends = asyncio.get_running_loop().time() + self._config.timeout * _READING_SHARE
        listed = [
            pool
            async for pool in self._api.listing("/work_pools/filter", WORK_POOLS)
            if self._config.pools.admits(pool.name)
        ]
        _refuse_twins((pool.name for pool in listed), "two pools {!r}")
        found = await self._each(listed, self._queues_of)
        pools = [pool for pool, queues in zip(listed, found, strict=True) if queues is not None]
        queues = [queue for of_pool in found if isinstance(of_pool, list) for queue in of_pool]
        read = await self._each(queues, partial(self._read, reading_ends))
        unreadable = tuple(one for one in (*found, *read) if isinstance(one, Unreadable))
        readable = tuple(one for one in read if isinstance(one, Queue))
        _refuse_twins(((queue.name, queue.pool) for queue in readable), "two queues {0[0]!r} in the pool {0[1]!r}")
        if unreadable and not readable:
            raise SourceError(unreadable[0].reason, f"no queue could be read; the first: {unreadable[0].message}")
        return Snapshot(queues=readable, pools=tuple(_pool(pool) for pool in pools), unreadable=unreadable)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def _each(self, items: Sequence[T], read: Callable[[T], Awaitable[R]]) -> list[R]:
        """What `read` returns for every item, in order, some items at a time.

        The first `SourceError` ends all; of several that come at once any is as good as the others.
        """
        results: dict[int, R] = {}
        waiting = iter(enumerate(items))

        async def worker() -> None:
            for index, item in waiting:
                results[index] = await read(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._config.concurrency, len(items))):
                    group.create_task(worker())
        except* SourceError as errors:
            raise errors.exceptions[0] from None
        return [results[index] for index in range(len(items))]

    async def _queues_of(self, pool: WorkPool) -> list[tuple[WorkPool, WorkQueue]] | Unreadable | None:
        """The queues of a pool, or None if it was deleted since the pools were listed."""
        try:
            return [
                (pool, queue)
                async for queue in self._api.listing("/work_pools/{name}/queues/filter", WORK_QUEUES, name=pool.name)
                if self._config.queues.admits(queue.name)
            ]
        except SourceError as error:
            return None if is_deleted(error) else _unreadable(error, pool.name, "")

    async def _read(self, until: float, item: tuple[WorkPool, WorkQueue]) -> Queue | Unreadable | None:
        """One queue with all of its holders, or None if it was deleted since the queues were listed.

        What is not read `until` then, by the event loop's clock, is left out.
        """
        pool, queue = item
        try:
            async with asyncio.timeout_at(until):
                status, runs = await self._api.concurrency_status(queue.id)
        except TimeoutError:
            message = f"queue {queue.id} was not read before the poll's timeout of {self._config.timeout:g}s"
            return Unreadable(pool.name, queue.name, "timeout", message)
        except SourceError as error:
            return None if is_deleted(error) else _unreadable(error, pool.name, queue.name)
        holders = _holders(runs) if runs is not None else {}
        return Queue(
            pool=pool.name,
            name=queue.name,
            active_slots=status.active_slots,
            slot_limit=status.concurrency_limit,
            processing=holders["RUNNING"].holders if holders else None,
            holders=holders,
            paused=queue.is_paused,
            id=str(queue.id),
            priority=queue.priority,
        )


def _refuse_twins(names: Iterable[T], message: str) -> None:
    """Raise `SourceError` where two things have one name: it is what tells their series apart."""
    seen: set[T] = set()
    for name in names:
        if name in seen:
            raise SourceError("contract", f"the server lists {message.format(name)}")
        seen.add(name)


def _unreadable(error: SourceError, pool: str, queue: str) -> Unreadable:
    if error.reason in _WHOLE_SERVER:
        raise error
    return Unreadable(pool, queue, error.reason, str(error))


def _pool(pool: WorkPool) -> Pool:
    return Pool(
        name=pool.name,
        id=str(pool.id),
        kind=pool.type,
        paused=pool.is_paused,
        active_slots=pool.active_slots,
        slot_limit=pool.concurrency_limit,
    )


def _holders(runs: Iterable[FlowRunSlotSummary]) -> dict[str, Durations]:
    """Holders by state: all the states that hold slots, and any other that upstream lists as `unknown`."""
    by_state: dict[str, list[float | None]] = {state: [] for state in HOLDING_STATES}
    for run in runs:
        state = run.get("state_type")
        times = by_state.setdefault(state if state in HOLDING_STATES else "unknown", [])
        times.append(run.get("time_in_current_state"))
    return {
        state: Durations(
            holders=len(times),
            # Negative where the clock of the server is behind that of the worker which set the state.
            seconds=tuple(max(time, 0.0) for time in times if time is not None),
        )
        for state, times in by_state.items()
    }
