"""Polls a Prefect server or workspace: reads its rows, and maps them to a snapshot."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

import structlog

from exporter.model import Part, Snapshot, Unreadable
from exporter.shard import Shard
from exporter.sources.base import CountRequest, SourceError, without_request_id
from exporter.sources.oldest import Tasks
from exporter.sources.prefect import backlog, slots, workers
from exporter.sources.prefect.api import Api, WorkPool, WorkQueue, is_unsupported
from exporter.sources.prefect.discovery import Discovery
from exporter.sources.prefect.each import each_apart
from exporter.sources.prefect.failures import raise_if_whole_server, refuse_twins, unreadable, with_fitting_names
from exporter.sources.prefect.limits import Limits
from exporter.sources.prefect.links import Links
from exporter.sources.prefect.names import Names
from exporter.sources.prefect.origins import Origins, named_holders, origins_of
from exporter.sources.prefect.reading import Backlog, Discovered, PoolWorkers, Reading, Slots
from exporter.sources.prefect.snapshot import oldest_waiting, to_snapshot
from exporter.sources.prefect.support import Support

if TYPE_CHECKING:  # the configuration builds the source
    from exporter.sources.prefect.config import PrefectConfig

log = structlog.get_logger()

T = TypeVar("T")

_REQUEST_SHARE: Final = 1 / 3
"""Part of a poll's deadline that one request may take: a queue that hangs must leave time for the others."""
_QUEUES_SHARE: Final = 0.85
"""Part of a poll's deadline after which queues that are not read yet are given up, so that the others are published."""
_POOLS_SHARE: Final = 0.9
"""The same for the workers of single pools."""
_PARTS_SHARE: Final = 0.95
"""The same for whole parts, such as a backlog that takes too long."""


@dataclass(frozen=True, slots=True)
class _Deadlines:
    """The times at which a poll gives up what it has not read yet, by the loop's clock."""

    queues: float
    pools: float
    parts: float

    @classmethod
    def of_a_poll(cls, timeout: float) -> Self:
        """Return the deadlines of a poll that starts now."""
        start = asyncio.get_running_loop().time()
        return cls(start + timeout * _QUEUES_SHARE, start + timeout * _POOLS_SHARE, start + timeout * _PARTS_SHARE)


class PrefectSource:
    """Discovers the pools and their queues, then reads the parts that are to be collected, one after the other."""

    def __init__(self, config: "PrefectConfig", shard: Shard, count_request: CountRequest) -> None:
        self._config = config
        self._owns = partial(shard.owns, config.name)
        self._api = Api(
            config,
            request_timeout=config.timeout * _REQUEST_SHARE,
            count_request=count_request,
        )
        self._discovery = Discovery(self._api, config.concurrency)
        self._names = Names(self._api)
        self._origins = Origins(self._api)
        self._limits = Limits(self._api, self._names, partial(self._owns, "limit"))
        self._support = Support(self._api)
        self._links = Links.of(config.url, config.ui_url)
        self._unnamed: list[str] = []
        """Why names could not be read at the last poll."""

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def poll(self, memory: object = None, /) -> Snapshot:
        """Every pool, queue and limit that the configuration admits.

        A queue that was deleted meanwhile is gone; what can't be read is left out as unreadable. Raises `SourceError`
        where the fault is the server's, or no queue could be read.
        """
        try:
            reading = await self._read()
        except SourceError:
            # Another version of the server may come back.
            self._support.forget()
            raise
        return to_snapshot(reading, self._config.collect, memory, self._links, is_cloud=self._config.is_cloud)

    async def _read(self) -> Reading:
        """Send the requests of a poll. Raises `SourceError`."""
        deadlines = _Deadlines.of_a_poll(self._config.timeout)
        missing: list[Unreadable] = []
        part = partial(self._part, missing, deadlines.parts)
        await self._api.read_credentials()
        await self._support.check()
        found = await self._discovered(missing)
        at = self._api.now()
        pools = {pool_id: pool for pool_id, pool in found.pools.items() if self._owns("pool", pool.name)}
        queues = self._to_publish(found, missing)
        of_queues: list[Unreadable] = []
        slots_of = await part("queues", lambda: self._slots(found, queues, deadlines.queues, of_queues))
        waiting = await part("backlog", lambda: self._backlog(found, queues))
        limits, named, unnamed = await part("limits", self._limits.read) or (None, (), ())
        missing += unnamed
        workers_of = await part("workers", lambda: self._workers(pools, deadlines.pools, missing))
        missing += of_queues
        if self._is_read("queues"):
            queues = [queue for queue in queues if queue.id in (slots_of or {})]
        if not queues and (first := next((one for one in missing if one.part == "queues"), None)):
            raise SourceError(first.reason, f"no queue could be read; the first: {first.message}")
        of_ours = {queue.id: slots_of[queue.id] for queue in queues if queue.id in slots_of} if slots_of else {}
        oldest = oldest_waiting(waiting, queues, self._config.holders.named) if waiting else {}
        of_waiting = [tasks for of_queue in oldest.values() for tasks in of_queue.values()]
        with_origins, details = await self._named(of_ours, of_waiting, missing, deadlines.parts)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadlines.parts):
                await self._support.learn()
        return Reading(
            at=at,
            found=found,
            published=frozenset(pools) | {queue.id for queue in queues},
            slots=None if slots_of is None else {**slots_of, **with_origins},
            backlog=waiting,
            waiting=oldest,
            limits=limits,
            limit_names={one.id: one for one in named},
            workers=workers_of,
            details=details,
            unreadable=missing,
            unsupported=self._support.missing_parts,
            version=self._support.version,
        )

    def _is_read(self, part: Part) -> bool:
        return part in self._config.collect and part not in self._support.missing

    async def _part(
        self, missing: list[Unreadable], until: float, part: Part, read: Callable[[], Awaitable[T]]
    ) -> T | None:
        """Return the result of `read`, or None if the part is not selected, not supported, fails, or takes too long."""
        if not self._is_read(part):
            return None
        try:
            async with asyncio.timeout_at(until):
                return await read()
        except TimeoutError:
            message = f"not read before the poll's timeout of {self._config.timeout:g}s"
            missing.append(Unreadable(part, "timeout", message))
        except SourceError as error:
            if is_unsupported(error):
                self._support.missing.add(part)
            else:
                raise_if_whole_server(error)
                missing.append(unreadable(error, part))
        return None

    async def _named(
        self, slots: Mapping[uuid.UUID, Slots], waiting: Iterable[Tasks], missing: list[Unreadable], until: float
    ) -> tuple[dict[uuid.UUID, Slots], Mapping[Hashable, Mapping[str, str]]]:
        """Return the slots with the origins of the named holders, and the details of these and of the waiting tasks.

        What is not known of them is asked for. A failure costs nothing else.
        """
        failures: list[str] = []

        async def ask(learn: Awaitable[None]) -> None:
            try:
                async with asyncio.timeout_at(until):
                    await learn
            except TimeoutError:
                failures.append(f"not read before the poll's timeout of {self._config.timeout:g}s")
            except SourceError as error:
                failures.append(str(error))

        await ask(self._origins.learn(slots))
        named = self._origins.complete(slots)
        origins = origins_of((*waiting, *named_holders(named)))
        await ask(
            self._names.learn(
                (origin.deployment_id for origin in origins if origin.deployment_id),
                (origin.flow_id for origin in origins if origin.flow_id),
                most=self._api.page_size - 1,
            )
        )
        # Limits have names of deployments too: what has failed for them is reported already.
        failures = [without_request_id(one) for one in failures if one not in {part.message for part in missing}]
        for failure in failures:
            write = log.debug if failure in self._unnamed else log.warning
            write("tasks lack the names of flows, deployments or workers", source=self._config.name, error=failure)
        self._unnamed = failures
        return named, {origin: self._names.details(origin) for origin in origins}

    async def _discovered(self, missing: list[Unreadable]) -> Discovered:
        """Return the pools that the configuration admits, and all of their queues if those are wanted."""
        admitted = [pool for pool in await self._discovery.pools() if self._config.pools.admits(pool.name)]
        pools, unnamed = with_fitting_names(self._api.url, "pools", admitted, lambda pool: (pool.name,))
        missing += unnamed
        refuse_twins(self._api.url, (pool.name for pool in pools), "two pools {!r}")
        if not {"queues", "backlog"}.intersection(self._config.collect):
            return Discovered({pool.id: pool for pool in pools}, [])
        found = await self._discovery.queues(pools)
        missing += found.unreadable
        return found

    def _to_publish(self, found: Discovered, missing: list[Unreadable]) -> list[WorkQueue]:
        """Return the queues that this exporter publishes."""
        admitted = [
            queue
            for queue in found.queues
            if self._config.queues.admits(queue.name) and self._owns("queue", found.pool_of(queue).name, queue.name)
        ]
        queues, unnamed = with_fitting_names(
            self._api.url, "queues", admitted, lambda queue: (found.pool_of(queue).name, queue.name)
        )
        missing += unnamed
        refuse_twins(
            self._api.url,
            ((queue.name, found.pool_of(queue).name) for queue in queues),
            "two queues {0[0]!r} in the pool {0[1]!r}",
        )
        return queues

    async def _slots(
        self, found: Discovered, queues: Sequence[WorkQueue], until: float, missing: list[Unreadable]
    ) -> Mapping[uuid.UUID, Slots]:
        """Return the slots of these queues, by the cheaper plan; without those of deleted and unreadable queues."""
        if "concurrency_status" not in self._support.missing:
            swept = await self._swept_if_cheaper(found, len(queues))
            if swept is not None:
                return swept
            of_queue = await each_apart(
                queues,
                lambda queue: slots.read_one(self._api, queue, self._config.holders.named),
                self._config.concurrency,
                until=until,
                late=lambda queue: (
                    f"queue {queue.id} was not read before the poll's timeout of {self._config.timeout:g}s"
                ),
            )
            if not of_queue.unsupported:
                missing += [
                    unreadable(error, "queues", found.pool_of(queue).name, queue.name)
                    for queue in queues
                    if (error := of_queue.failed.get(queue.id))
                ]
                return of_queue.read
            # The server is older than 3.6.23.
            self._support.missing.add("concurrency_status")
        holders = await slots.count_holders(self._api)
        return await slots.sweep(self._api, found.queues, holders, self._config.holders.named)

    async def _swept_if_cheaper(self, found: Discovered, queues: int) -> Mapping[uuid.UUID, Slots] | None:
        """Return the slots of all queues by a sweep, if it is cheaper than asking so many queues, and succeeds."""
        if not slots.sweep_is_cheaper(1, queues, self._api.page_size):
            return None
        try:
            holders = await slots.count_holders(self._api)
        except SourceError as error:
            raise_if_whole_server(error)
            return None
        if not slots.sweep_is_cheaper(holders, queues, self._api.page_size):
            return None
        try:
            return await slots.sweep(self._api, found.queues, holders, self._config.holders.named)
        except SourceError as error:
            # A run without a timestamp makes the server fail; its queue's own endpoint can tell of it.
            raise_if_whole_server(error)
            if error.reason == "timeout":
                raise
            return None

    async def _backlog(self, found: Discovered, queues: Sequence[WorkQueue]) -> Backlog:
        return await backlog.read(self._api, found.queues, queues, self._api.now(), self._config.concurrency)

    async def _workers(
        self, pools: Mapping[uuid.UUID, WorkPool], until: float, missing: list[Unreadable]
    ) -> Mapping[uuid.UUID, PoolWorkers]:
        found, unread = await workers.read(self._api, pools, concurrency=self._config.concurrency, until=until)
        missing += unread
        return found
