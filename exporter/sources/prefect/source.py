"""Prefect's work pools, queues and limits: the settings of such a source, and a snapshot read over its REST API."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import AfterValidator, Field

from exporter.model import PARTS, Part, Pool, Queue, Snapshot, Unreadable, Workers
from exporter.settings.base import Settings
from exporter.settings.regex import FullMatch, Regex
from exporter.shard import Shard
from exporter.sources.base import CountRequest, Source, SourceConfig, SourceError
from exporter.sources.connection import HttpUrl
from exporter.sources.prefect import backlog, environment, slots, workers
from exporter.sources.prefect.about import ABOUT, POOL_STATUSES
from exporter.sources.prefect.api import Api, WorkPool, WorkQueue, is_deleted, is_unsupported
from exporter.sources.prefect.backlog import Backlog
from exporter.sources.prefect.discovery import Discovered, Discovery
from exporter.sources.prefect.each import each
from exporter.sources.prefect.failures import left_out, refuse_twins, with_fitting_names
from exporter.sources.prefect.limits import Limits
from exporter.sources.prefect.slots import Slots

T = TypeVar("T")

_REQUEST_SHARE: Final = 1 / 3
"""Part of a poll's deadline that one request may take: a queue that hangs must leave time for the others."""
_QUEUES_SHARE: Final = 0.85
"""Part of a poll's deadline after which queues that are not read yet are given up, so that the others are published."""
_POOLS_SHARE: Final = 0.9
"""The same for the workers of single pools."""
_PARTS_SHARE: Final = 0.95
"""The same for whole parts, such as a backlog that takes too long."""
_POLLS_PER_VERSION: Final = 20
"""Polls for which the server's version is taken to be the same, if none of them fails: 10 minutes, by default."""


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

    include: Regex = FullMatch(".*")
    """Names to read, as a regular expression (RE2)."""
    exclude: Regex | None = None
    """Names to leave out, as a regular expression (RE2)."""

    def admits(self, name: str) -> bool:
        """Whether to read the thing of this name."""
        return self.include.matches(name) and not (self.exclude and self.exclude.matches(name))


class PrefectConfig(SourceConfig):
    """A Prefect server, or a workspace of Prefect Cloud."""

    about: ClassVar = ABOUT
    system: Literal["prefect"]
    """Type of the upstream server: the label `system`."""
    url: Annotated[HttpUrl, AfterValidator(_api_url)]
    """Address of the API, as in `PREFECT_API_URL`; the address of a server ends in `/api`."""
    concurrency: int = Field(default=4, ge=1, le=32)
    """Requests at the same time. A server answers in one process, so more than 4 only slow its other clients down."""
    pools: NameFilter = NameFilter()
    """Work pools to read, by name."""
    queues: NameFilter = NameFilter()
    """Work queues to read, by name, in the pools that are read."""
    collect: Annotated[tuple[Part, ...], Field(strict=False, min_length=1)] = PARTS
    """Parts to read: slots of queues, waiting runs (`backlog`), pools, global, tag and deployment limits, workers."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> dict[str, Any]:
        """The settings that the variables of Prefect's own client make."""
        return environment.settings(variables)

    def part_of(self, shard: Shard) -> Shard:
        """Its pools, queues and limits are shared out."""
        return shard

    def build(self, shard: Shard, count_request: CountRequest) -> Source:
        """The source that this configures, as that shard reads it."""
        return PrefectSource(self, shard, count_request)


class PrefectSource:
    """Discovers the pools and their queues, then reads the parts that are to be collected, one after the other."""

    def __init__(self, config: PrefectConfig, shard: Shard, count_request: CountRequest) -> None:
        self._config = config
        self._owns = partial(shard.owns, config.name)
        self._api = Api(
            config,
            request_timeout=config.timeout * _REQUEST_SHARE,
            count_request=count_request,
        )
        self._discovery = Discovery(self._api, config.concurrency)
        self._limits = Limits(self._api, partial(self._owns, "limit"))
        self._support = _Support(self._api)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def poll(self, _memory: object = None, /) -> Snapshot:
        """Every pool, queue and limit that the configuration admits.

        A queue that was deleted meanwhile is gone; what can't be read is left out as unreadable. Raises `SourceError`
        where the fault is the server's, or no queue could be read.
        """
        try:
            return await self._poll()
        except SourceError:
            # Another version of the server may come back.
            self._support.forget()
            raise

    async def _poll(self) -> Snapshot:
        start = asyncio.get_running_loop().time()
        until = start + self._config.timeout * _QUEUES_SHARE
        missing: list[Unreadable] = []
        until_pools = start + self._config.timeout * _POOLS_SHARE
        until_parts = start + self._config.timeout * _PARTS_SHARE
        part = partial(self._part, missing, until_parts)
        await self._api.read_credentials()
        await self._support.check()
        admitted = [pool for pool in await self._discovery.pools() if self._config.pools.admits(pool.name)]
        pools, unnamed = with_fitting_names(self._api.url, "pools", admitted, lambda pool: (pool.name,))
        missing += unnamed
        refuse_twins(self._api.url, (pool.name for pool in pools), "two pools {!r}")
        found = await self._discovered(pools)
        missing += found.unreadable
        owned = {pool_id: pool for pool_id, pool in found.pools.items() if self._owns("pool", pool.name)}
        slots_of = await part("queues", lambda: self._slots(found, until)) or {}
        backlog_of = await part("backlog", lambda: self._backlog(found.queues)) or {}
        limits, unnamed = with_fitting_names(self._api.url, "limits", await part("limits", self._limits.read) or ())
        missing += unnamed
        workers_of = await part("workers", lambda: self._workers(owned, until_pools, missing)) or {}
        missing += [one for one in slots_of.values() if isinstance(one, Unreadable)]
        queues = tuple(self._queues(found, slots_of, backlog_of))
        if not queues and (first := next((one for one in missing if one.part == "queues"), None)):
            raise SourceError(first.reason, f"no queue could be read; the first: {first.message}")
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until_parts):
                await self._support.learn()
        return Snapshot(
            queues=queues,
            pools=tuple(self._pool(pool, workers_of.get(pool.id)) for pool in owned.values()),
            limits=tuple(limits),
            unreadable=tuple(missing),
            unsupported=self._support.missing_parts,
            version=self._support.version,
        )

    async def _part(
        self, missing: list[Unreadable], until: float, part: Part, read: Callable[[], Awaitable[T]]
    ) -> T | None:
        """What `read` returns; None where the part is not wanted, not supported, fails, or is not read `until` then."""
        if part not in self._config.collect or part in self._support.missing:
            return None
        try:
            async with asyncio.timeout_at(until):
                return await read()
        except TimeoutError:
            message = f"not read before the poll's timeout of {self._config.timeout:g}s"
            missing.append(Unreadable(part, "timeout", message))
            return None
        except SourceError as error:
            if is_unsupported(error):
                self._support.missing.add(part)
            else:
                missing.append(left_out(error, part))
            return None

    async def _discovered(self, pools: list[WorkPool]) -> Discovered:
        if not {"queues", "backlog"}.intersection(self._config.collect):
            return Discovered({pool.id: pool for pool in pools}, [])
        found = await self._discovery.queues(pools)
        url = self._api.url
        admitted = [
            queue
            for queue in found.queues
            if self._config.queues.admits(queue.name) and self._owns("queue", found.pool_of(queue).name, queue.name)
        ]
        queues, unnamed = with_fitting_names(
            url, "queues", admitted, lambda queue: (found.pool_of(queue).name, queue.name)
        )
        refuse_twins(
            url,
            ((queue.name, found.pool_of(queue).name) for queue in queues),
            "two queues {0[0]!r} in the pool {0[1]!r}",
        )
        return Discovered(found.pools, queues, (*found.unreadable, *unnamed))

    async def _slots(self, found: Discovered, until: float) -> dict[uuid.UUID, Slots | Unreadable | None]:
        """The slots of each queue by the cheaper plan; None of one that was deleted since the queues were listed."""
        holders = await self._holders_to_sweep(found.queues)
        if holders is not None:
            try:
                return {**await slots.sweep(self._api, found.queues, holders)}
            except SourceError as error:
                # A run without a timestamp makes the server fail; its queue's own endpoint can tell of it.
                if left_out(error, "queues").reason == "timeout" or "concurrency_status" in self._support.missing:
                    raise
        read = await each(
            found.queues, lambda queue: self._read(queue, found.pool_of(queue).name, until), self._config.concurrency
        )
        if read and all(isinstance(one, SourceError) for one in read):
            # Not one queue has such an endpoint: the server is older than 3.6.23.
            self._support.missing.add("concurrency_status")
            return await self._slots(found, until)
        return {
            queue.id: left_out(one, "queues", found.pool_of(queue).name, queue.name)
            if isinstance(one, SourceError)
            else one
            for queue, one in zip(found.queues, read, strict=True)
        }

    async def _holders_to_sweep(self, queues: list[WorkQueue]) -> int | None:
        """How many runs hold slots, if to list them is cheaper than to ask each queue, or the only way."""
        only_way = "concurrency_status" in self._support.missing
        if len(queues) < slots.PAGE_IN_QUEUES and not only_way:
            return None
        try:
            holders = await slots.count_holders(self._api)
        except SourceError as error:
            if only_way or not left_out(error, "queues"):
                raise
            return None
        return holders if only_way or slots.sweep_is_cheaper(holders, len(queues), self._api.page_size) else None

    async def _read(self, queue: WorkQueue, pool: str, until: float) -> Slots | Unreadable | SourceError | None:
        """One queue, or None if it was deleted. It is left out if not read `until` then, by the loop's clock.

        The error itself where the server has no such endpoint.
        """
        try:
            async with asyncio.timeout_at(until):
                return await slots.read_one(self._api, queue.id)
        except TimeoutError:
            message = f"queue {queue.id} was not read before the poll's timeout of {self._config.timeout:g}s"
            return Unreadable("queues", "timeout", message, pool, queue.name)
        except SourceError as error:
            if is_unsupported(error):
                return error
            return None if is_deleted(error) else left_out(error, "queues", pool, queue.name)

    async def _backlog(self, queues: list[WorkQueue]) -> dict[uuid.UUID, Backlog]:
        return await backlog.read(self._api, queues, self._api.now(), self._config.concurrency)

    async def _workers(
        self, pools: dict[uuid.UUID, WorkPool], until: float, missing: list[Unreadable]
    ) -> dict[uuid.UUID, Workers]:
        found, unreadable = await workers.read(self._api, pools, concurrency=self._config.concurrency, until=until)
        missing += unreadable
        return found

    def _queues(
        self,
        found: Discovered,
        slots_of: Mapping[uuid.UUID, Slots | Unreadable | None],
        backlog_of: Mapping[uuid.UUID, Backlog],
    ) -> Iterator[Queue]:
        read = "queues" in self._config.collect and "queues" not in self._support.missing
        for queue in found.queues:
            of_queue = slots_of.get(queue.id)
            if isinstance(of_queue, Slots) or not read:
                of_queue = of_queue if isinstance(of_queue, Slots) else None
                yield _queue(queue, found.pool_of(queue).name, of_queue, backlog_of.get(queue.id))

    def _pool(self, pool: WorkPool, workers: Workers | None) -> Pool:
        if "pools" not in self._config.collect:
            return Pool(name=pool.name, workers=workers)
        return Pool(
            name=pool.name,
            id=str(pool.id),
            kind=pool.type,
            paused=pool.is_paused,
            active_slots=pool.active_slots,
            slot_limit=pool.concurrency_limit,
            statuses=_statuses(pool),
            workers=workers,
        )


class _Support:
    """The server's version, and what this server does not have, until there is reason to ask again.

    `missing` holds parts, and `concurrency_status`, without which the slots are read by a sweep. `version` is empty
    where it is not known: Prefect Cloud does not tell.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._polls_left = 0
        """Polls until the version is asked for again."""
        self.version = ""
        self.missing: set[str] = set()

    @property
    def missing_parts(self) -> tuple[Part, ...]:
        """The parts that can't be had."""
        return tuple(part for part in PARTS if part in self.missing)

    def forget(self) -> None:
        """Ask for everything again: what comes back after a failure may be another server."""
        self.missing.clear()
        self._polls_left = 0

    async def check(self) -> None:
        """Ask for everything again if the server has another version now. One request, while something is missing."""
        if self.missing:
            before, self.version = self.version, await self._ask()
            if self.version != before:
                self.missing.clear()

    async def learn(self) -> None:
        """Ask for the version, where that was not done for a while. One request; if it fails, nothing else does.

        It comes last in a poll, so that a server that is down is not asked twice.
        """
        if self._polls_left <= 0:
            self.version = ""
            with suppress(SourceError):
                self.version = await self._ask()
        self._polls_left -= 1

    async def _ask(self) -> str:
        self._polls_left = _POLLS_PER_VERSION
        try:
            return await self._api.version()
        except SourceError as error:
            if not is_unsupported(error):
                raise
            return ""


def _statuses(pool: WorkPool) -> dict[str, bool]:
    if not pool.status:
        return {}
    has = pool.status if pool.status in POOL_STATUSES else "unknown"
    return {status: status == has for status in dict.fromkeys((*POOL_STATUSES, has))}


def _queue(queue: WorkQueue, pool: str, of_queue: Slots | None, waiting: Backlog | None) -> Queue:
    holders = of_queue.holders or {} if of_queue else {}
    return Queue(
        pool=pool,
        name=queue.name,
        usage_known=True if of_queue else None,
        active_slots=of_queue.active if of_queue else None,
        slot_limit=of_queue.limit if of_queue else queue.concurrency_limit,
        processing=holders["RUNNING"].holders if holders else None,
        holders=holders,
        queued={str(queue.priority): sum(waiting.by_state.values())} if waiting else {},
        waiting=waiting.by_state if waiting else {},
        longest_wait=waiting.longest if waiting else None,
        paused=queue.is_paused,
        last_polled=queue.last_polled.timestamp() if queue.last_polled else None,
        id=str(queue.id),
        priority=queue.priority,
    )
