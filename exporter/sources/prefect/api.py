"""Prefect's REST API as far as it is read: the contracts, paging, and the tokens of servers with CSRF protection.

Facts about the endpoints that are not in Prefect's documentation were measured on servers 3.6.22 to 3.9.1.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any, Final, NotRequired, TypeVar

from pydantic import AfterValidator, AwareDatetime, Field, GetCoreSchemaHandler, TypeAdapter, with_config
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from exporter.sources.base import Contract, Count, CountRequest, Rows, SourceConfig, SourceError, StatusError
from exporter.sources.client import Answer, Client
from exporter.sources.credentials import Credentials
from exporter.sources.login import Ask, Login
from exporter.sources.paging import MAX_PAGES, Page, overlapping

T = TypeVar("T")
R = TypeVar("R", bound="Row")

DEFAULT_PAGE_SIZE: Final = 200
_MAX_HOLDERS: Final = MAX_PAGES * DEFAULT_PAGE_SIZE
"""Most holders of one queue, of which a page has as many as the server likes."""
_SHARED_HOLDERS: Final = 5
"""Least rows that two pages of a queue's holders share: few come and go in the one queue between two of its pages."""
_MAX_SIZES: Final = 100
"""Most sizes of a page that are tried."""
_MAX_READINGS: Final = 5
"""Most readings of a listing whose rows change places."""
MAX_NAME: Final = 1_000
"""Most characters of a name that is published: it stands in each of the some 60 lines that a queue has."""
_CSRF_HEADER: Final = "Prefect-Csrf-Token"
_PAUSE: Final = 0.5
"""Length of a pause, as a part of the time that the request before it took: the server answers in one process."""
_SAME_CLOCK: Final = timedelta(seconds=5)
"""A Date that differs by less tells nothing: it is cut to seconds, and old by as long as the server was busy."""
_SAME_CENTURY: Final = timedelta(days=36_525)
"""A Date that differs by more is no time, and times a few years from it are none that Python can count."""

Seconds = Annotated[float, Field(ge=-1e15, le=1e15)]
Name = Annotated[str, AfterValidator(lambda text: text[: MAX_NAME + 1])]
"""A text that people have chosen. One that is too long to be published is cut, which its length tells: it could take
all the memory that there is."""
LimitText = Annotated[str, AfterValidator(lambda text: text[: len("tag:") + MAX_NAME + 1])]
"""The same, with a kind before it that is not published. Without its kind, a tag that was cut is still too long."""


class _ForPeople:
    """Marks a value that is only shown to people: one that breaks the contract is not said, and costs nothing else."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_default_schema(handler(source), default=None, on_error="default")


Shown = Annotated[str | None, Field(max_length=MAX_NAME), _ForPeople()]
"""A name that is only shown. One that is too long counts as not said: to cut it would call back into Python."""
ShownId = Annotated[uuid.UUID | None, _ForPeople()]
"""The id of a thing whose name is only shown."""


class Row(Contract):
    """One item of a listing. What may be null there may be absent, by the schemas of the server.

    A limit has to be there all the same: to take it for "no limit" would be a lie.
    """

    id: uuid.UUID


class WorkPool(Row):
    """One item of `POST /work_pools/filter`. Servers before 3.6.23 have no `active_slots`."""

    name: Name
    type: Name
    is_paused: bool
    slot_limit: Count | None = Field(alias="concurrency_limit")
    active_slots: Count | None = None
    status: Name | None = None


class WorkQueue(Row):
    """One item of `POST /work_pools/{name}/queues/filter` and of `POST /work_queues/filter`."""

    name: Name
    is_paused: bool
    priority: Annotated[int, Field(ge=0, lt=2**31)]
    slot_limit: Count | None = Field(alias="concurrency_limit")
    last_polled: AwareDatetime | None = None
    work_pool_id: uuid.UUID | None = None


class Worker(Row):
    """One item of `POST /work_pools/{name}/workers/filter`."""

    status: Name
    last_heartbeat_time: AwareDatetime | None = None


class ConcurrencyLimit(Row):
    """One item of `POST /v2/concurrency_limits/filter`."""

    name: LimitText
    active: bool
    slot_limit: Count = Field(alias="limit")
    active_slots: Count
    slot_decay_per_second: Annotated[float, Field(ge=0)]


class Deployment(Row):
    """One item of `POST /deployments/filter`."""

    name: Name
    flow_id: uuid.UUID


class Flow(Row):
    """One item of `POST /flows/filter`."""

    name: Name


class State(Contract):
    """`state` of a flow run."""

    timestamp: AwareDatetime


class FlowRun(Row):
    """One item of `POST /flow_runs/filter`. The estimates are made when it is answered, by the server's clock."""

    name: Shown = None
    flow_id: ShownId = None
    deployment_id: ShownId = None
    work_queue_id: uuid.UUID | None = None
    work_queue_name: Name | None = None
    state_type: Name | None = None
    state_name: Name | None = None
    state: State | None = None
    start_time: AwareDatetime | None = None
    expected_start_time: AwareDatetime | None = None
    next_scheduled_start_time: AwareDatetime | None = None
    total_run_time: Seconds
    estimated_run_time: Seconds
    estimated_start_time_delta: Seconds

    @property
    def answered_at(self) -> datetime | None:
        """The server's time, where one of its estimates tells: of a run that is RUNNING, or late and not started."""
        try:
            if self.state_type == "RUNNING" and self.state:
                return self.state.timestamp + timedelta(seconds=self.estimated_run_time - self.total_run_time)
            if self.estimated_start_time_delta > 0 and not self.start_time and self.expected_start_time:
                return self.expected_start_time + timedelta(seconds=self.estimated_start_time_delta)
        except OverflowError:
            return None
        return None


_RunLabels = TypedDict("_RunLabels", {"prefect.worker.name": NotRequired[Shown]})


class HoldingFlowRun(FlowRun):
    """The same item with the labels, which tell the worker that has started it."""

    labels: Annotated[_RunLabels | None, _ForPeople()] = None

    @property
    def worker(self) -> str:
        """The name of the worker that has started it; empty where no label tells it."""
        return (self.labels or {}).get("prefect.worker.name") or ""


@with_config(Contract.model_config)
class EmpiricalPolicy(TypedDict):
    """`empirical_policy` of a flow run. `retry_type` is `in_process` if its own process will try it again."""

    retry_type: NotRequired[Name | None]


class WaitingFlowRun(FlowRun):
    """The same item with the fields that tell why a run waits."""

    deployment_id: uuid.UUID | None = None
    empirical_policy: EmpiricalPolicy | None = None

    @property
    def retries_in_process(self) -> bool:
        """Whether its own process, and no worker, will try it again."""
        return (self.empirical_policy or {}).get("retry_type") == "in_process"


@with_config(Contract.model_config)
class FlowRunSlotSummary(TypedDict):
    """One of `flow_runs` in `WorkQueueConcurrencyStatus`. What may be null there may be absent, by its schema.

    A dictionary, since there may be a million of them, and it is made in half the time of a model. For the same reason
    its texts are bounded, and not cut: that would call back into Python for each of them.
    """

    id: Annotated[str, Field(max_length=100)]
    name: NotRequired[Shown]
    state_type: NotRequired[Annotated[str, Field(max_length=100)] | None]
    time_in_current_state: NotRequired[Seconds | None]


class WorkQueueConcurrencyStatus(Contract):
    """The answer of `POST /work_queues/{id}/concurrency_status`.

    Its schema requires neither `concurrency_limit` nor `flow_runs`. `count` and the length of `flow_runs` come from two
    statements in the server's database and may differ.
    """

    active_slots: Count
    count: Count
    page_size: Count = Field(alias="limit")
    pages: Count
    page: Count
    slot_limit: Count | None = Field(default=None, alias="concurrency_limit")
    flow_runs: Rows[FlowRunSlotSummary] = Field(default=[])


class HistoryState(Contract):
    """Runs of one state in `POST /flow_runs/history`."""

    state_name: str
    count_runs: Count


class HistoryInterval(Contract):
    """One item of `POST /flow_runs/history`."""

    states: Rows[HistoryState]


class _CsrfToken(Contract):
    token: Annotated[str, Field(pattern=r"^[!-~]+$")]
    """What a header can carry."""


WORK_POOLS: Final = TypeAdapter(Rows[WorkPool])
WORK_QUEUES: Final = TypeAdapter(Rows[WorkQueue])
WORKERS: Final = TypeAdapter(Rows[Worker])
CONCURRENCY_LIMITS: Final = TypeAdapter(Rows[ConcurrencyLimit])
DEPLOYMENTS: Final = TypeAdapter(Rows[Deployment])
FLOWS: Final = TypeAdapter(Rows[Flow])
FLOW_RUNS: Final = TypeAdapter(Rows[FlowRun])
WAITING_FLOW_RUNS: Final = TypeAdapter(Rows[WaitingFlowRun])
HOLDING_FLOW_RUNS: Final = TypeAdapter(Rows[HoldingFlowRun])
HISTORY: Final = TypeAdapter(Rows[HistoryInterval])
COUNT: Final = TypeAdapter(Count)
VERSION: Final = TypeAdapter(Annotated[str, Field(max_length=100)])
_CONCURRENCY_STATUS: Final = TypeAdapter(WorkQueueConcurrencyStatus)
_CSRF_TOKEN: Final = TypeAdapter(_CsrfToken)


class Api:
    """Prefect's REST API: paging, and the tokens that a server with CSRF protection wants."""

    def __init__(self, config: SourceConfig, *, request_timeout: float, count_request: CountRequest) -> None:
        self._client = Client(
            config,
            request_timeout=request_timeout,
            explain=_explain,
            count_request=count_request,
            login=_CsrfLogin(),
        )
        self.url = config.url
        self.page_size = DEFAULT_PAGE_SIZE
        self._ahead = timedelta()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def read_credentials(self) -> None:
        """Read the files with credentials, for all requests until the next call. Raises `SourceError`, `auth`."""
        await self._client.read_credentials()

    async def version(self) -> str:
        """The server's version. Prefect Cloud does not tell: `StatusError` 404."""
        return (await self._client.get("/admin/version", VERSION)).content

    def pages(
        self,
        endpoint: str,
        contract: TypeAdapter[list[R]],
        body: Mapping[str, Any] | None = None,
        *,
        may_lose: bool = False,
        **path: str,
    ) -> AsyncIterator[Page[R]]:
        """All pages of a listing, which overlap: see `overlapping`. No row is lost where rows keep their order."""

        async def read(offset: int) -> Page[R]:
            while True:
                size = self.page_size
                asked = {**(body or {}), "limit": size, "offset": offset}
                try:
                    return Page(offset, size, (await self.post(endpoint, contract, asked, **path)).content)
                except StatusError as error:
                    # The greatest limit is a setting of the server (PREFECT_SERVER_API_DEFAULT_LIMIT).
                    self.page_size = _greatest_limit(error, size)

        return overlapping(read, lambda row: row.id, f"POST {self.url}{endpoint}", may_lose=may_lose)

    async def sweep(
        self, endpoint: str, contract: TypeAdapter[list[R]], body: Mapping[str, Any]
    ) -> AsyncIterator[list[R]]:
        """The rows of all pages of a listing that costs the server much, with a pause for its other clients after each.

        Rows that two pages share are there twice; the later is the newer.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        async for page in self.pages(endpoint, contract, body):
            took = loop.time() - started
            yield page.rows
            await asyncio.sleep(took * _PAUSE)
            started = loop.time()

    async def listing(
        self,
        endpoint: str,
        contract: TypeAdapter[list[R]],
        body: Mapping[str, Any] | None = None,
        **path: str,
    ) -> list[R]:
        """All rows of a listing, each once, also where rows change places: by a name, a priority or a heartbeat.

        A row that moves from a page that is to come to one that was read is in neither. So the rows are counted: the
        last page tells how many there are. Equal numbers prove nothing yet, since a row that was read may have gone
        when another was lost. So a listing of more than a page is read until a reading brings no row that was not known
        before. Raises `SourceError` where that never comes.
        """
        known: dict[uuid.UUID, R] = {}
        there = 0
        for _ in range(_MAX_READINGS):
            rows: dict[uuid.UUID, R] = {}
            pages = 0
            async for page in self.pages(endpoint, contract, body, may_lose=False, **path):
                rows |= {row.id: row for row in page.rows}
                there = page.end
                pages += 1
            is_settled = pages == 1 or rows.keys() <= known.keys()
            known |= rows
            if len(known) > there:
                known = rows  # some of the others have gone, nobody knows which
            if is_settled and len(known) == there:
                return list(known.values())
        raise SourceError(
            "contract",
            f"POST {self.url}{endpoint}: {_MAX_READINGS} readings have found other rows than the {there} that it has:"
            " they change places faster than they can be read",
        )

    async def by_ids(
        self, endpoint: str, contract: TypeAdapter[list[R]], table: str, ids: Sequence[uuid.UUID] | Sequence[str]
    ) -> list[R]:
        """The rows of these ids: so many at a time that they fit on a page, which nothing can be lost from."""
        rows = []
        fits = max(self.page_size - 1, 1)
        for start in range(0, len(ids), fits):
            some = [str(one) for one in ids[start : start + fits]]
            rows += await self.listing(endpoint, contract, {table: {"id": {"any_": some}}})
        return rows

    async def concurrency_status(
        self, queue: uuid.UUID
    ) -> tuple[WorkQueueConcurrencyStatus, list[FlowRunSlotSummary] | None]:
        """The last page of a queue's status, and the holders of all pages, or None where upstream lists none."""
        endpoint = "/work_queues/{id}/concurrency_status"
        what = f"POST {self.url}{endpoint} of queue {queue}"
        status = WorkQueueConcurrencyStatus(active_slots=0, count=0, limit=0, pages=0, page=0)
        greatest = 0

        async def read(offset: int) -> Page[FlowRunSlotSummary]:
            nonlocal status, greatest
            while True:
                number, size = _numbered_page(offset, greatest)
                # Before it is known, the server's own choice is the greatest.
                body = {"page": number, "limit": size} if size else {"page": number}
                try:
                    status = (await self.post(endpoint, _CONCURRENCY_STATUS, body, id=str(queue))).content
                except StatusError as error:
                    greatest = _greatest_limit(error, size)
                    continue
                greatest = greatest or status.page_size
                size = size or status.page_size
                return Page((number - 1) * size, size, status.flow_runs)

        runs: dict[str, FlowRunSlotSummary] = {}
        async for page in overlapping(read, itemgetter("id"), what, overlap=_SHARED_HOLDERS):
            runs |= {run["id"]: run for run in page.rows}
            if len(runs) > _MAX_HOLDERS:
                raise SourceError("too_large", f"{what}: more than {_MAX_HOLDERS:,} holders")
        return status, list(runs.values()) if "flow_runs" in status.model_fields_set else None

    async def post(self, endpoint: str, contract: TypeAdapter[T], body: Mapping[str, Any], **path: str) -> Answer[T]:
        """One request."""
        answer = await self._client.post(endpoint, contract, body, **path)
        if answer.date and abs(ahead := answer.date - datetime.now(UTC)) < _SAME_CENTURY:
            self._ahead = ahead
        return answer

    def now(self) -> datetime:
        """The server's time: ours, unless the Date of its answers says that the clocks differ."""
        return datetime.now(UTC) + (self._ahead if abs(self._ahead) > _SAME_CLOCK else timedelta())

    def time_of(self, page: Sequence[FlowRun]) -> datetime:
        """The server's time when it answered: to the microsecond where one of the runs tells it."""
        return next((moment for run in page if (moment := run.answered_at)), None) or self.now()


class _CsrfLogin(Login):
    """The token that a server with CSRF protection first asks for, and again when it has expired."""

    def __init__(self) -> None:
        super().__init__()
        # A token belongs to a client id, and a new one ends the old: no two processes may share the id.
        self._client = str(uuid.uuid4())
        self._held = Credentials()

    @property
    def held(self) -> Credentials:
        """The headers with the token; none until the server has asked for it."""
        return self._held

    def is_asked_for_by(self, error: StatusError) -> bool:
        """403, with the words that Prefect has for it."""
        return error.status == HTTPStatus.FORBIDDEN and bool(re.search("CSRF|client identifier", error.detail))

    async def renew(self, ask: Ask) -> Credentials:
        """Ask for a token."""
        answer: Answer[_CsrfToken] = await ask("GET", "/csrf-token", _CSRF_TOKEN, query={"client": self._client})
        headers = ((_CSRF_HEADER, answer.content.token), ("Prefect-Csrf-Client", self._client))
        self._held = Credentials(headers, tuple(value for _, value in headers))
        return self._held


def _greatest_limit(error: StatusError, asked: int) -> int:
    """The greatest page that the server gives, where that is why it refuses one; raises the error again otherwise."""
    greatest = re.search(r"must be less than or equal to ([0-9]{1,9})\b", error.detail)
    if not greatest or not 0 < int(greatest[1]) < asked:
        raise error
    return int(greatest[1])


def _numbered_page(offset: int, greatest: int) -> tuple[int, int]:
    """Number and size of the page that reaches furthest, of those that begin at the offset or before it.

    Where pages have numbers, they begin at multiples of their size: page 2 of 195 rows begins with the last five of
    page 1 of 200. It costs a tenth more pages at most.
    """
    sizes = range(max(greatest // 2, greatest - _MAX_SIZES, 1), greatest + 1)
    size = max(sizes, key=lambda size: (offset // size + 1) * size, default=0)
    return (offset // size + 1, size) if size else (1, 0)


def is_deleted(error: SourceError) -> bool:
    """Whether this is how a server says that there is no such queue or pool; a wrong path is only `Not Found`."""
    return (
        isinstance(error, StatusError)
        and error.status == HTTPStatus.NOT_FOUND
        # The quotes differ between endpoints.
        and re.fullmatch(r"Work queue not found\.|Work pool (['\"]).*\1 not found\.", error.detail, re.DOTALL)
        is not None
    )


def is_unsupported(error: SourceError) -> bool:
    """Whether this is how a server says that it has no such endpoint."""
    return isinstance(error, StatusError) and (
        error.status == HTTPStatus.METHOD_NOT_ALLOWED
        or (error.status == HTTPStatus.NOT_FOUND and error.detail.startswith("Not Found"))
    )


def _explain(body: Any) -> str | None:
    """Return the message of an error's body, in the forms that Prefect and FastAPI have."""
    match body:
        case {"detail": "Not Found"}:
            return "Not Found (is url the address of the API, and the server Prefect 3.6.23 or newer?)"
        case {"detail": str(text)}:
            return text
        case {"exception_message": str(text), "exception_detail": [{"loc": list(location), "msg": str(message)}, *_]}:
            return f"{text} {'.'.join(str(part) for part in location)}: {message}"
        case {"exception_message": str(text)}:
            return text
    return None
