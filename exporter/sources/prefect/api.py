"""Prefect's REST API as far as it is read: the contracts, paging, and the tokens of servers with CSRF protection.

Facts about the endpoints that are not in Prefect's documentation were measured on servers 3.6.22 to 3.8.8.
"""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, NotRequired, TypeVar

from pydantic import Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from exporter.sources.base import Contract, Count, CountRequest, SourceConfig, SourceError, StatusError
from exporter.sources.client import Client

T = TypeVar("T")
L = TypeVar("L", "WorkPool", "WorkQueue")

MAX_PAGES: Final = 1_000
_DEFAULT_PAGE_SIZE: Final = 200
_CSRF_HEADER: Final = "Prefect-Csrf-Token"


class WorkPool(Contract):
    """One item of `POST /work_pools/filter`."""

    id: uuid.UUID
    name: str
    type: str
    is_paused: bool
    concurrency_limit: Count | None
    active_slots: Count | None


class WorkQueue(Contract):
    """One item of `POST /work_pools/{name}/queues/filter`."""

    id: uuid.UUID
    name: str
    is_paused: bool
    priority: Annotated[int, Field(ge=0, lt=2**31)]


@with_config(Contract.model_config)
class FlowRunSlotSummary(TypedDict):
    """One of `flow_runs` in `WorkQueueConcurrencyStatus`. What may be null there may be absent, by its schema.

    A dictionary, since there may be a million of them, and it is made in half the time of a model.
    """

    id: str
    state_type: NotRequired[str | None]
    time_in_current_state: NotRequired[Annotated[float, Field(ge=-1e15, le=1e15)] | None]


class WorkQueueConcurrencyStatus(Contract):
    """The answer of `POST /work_queues/{id}/concurrency_status`.

    Its schema requires neither `concurrency_limit` nor `flow_runs`. `count` and the length of `flow_runs` come from two
    statements in the server's database and may differ.
    """

    active_slots: Count
    count: Count
    limit: Count
    pages: Count
    page: Count
    concurrency_limit: Count | None = None
    flow_runs: list[FlowRunSlotSummary] = Field(default=[])


class _CsrfToken(Contract):
    """The answer of `GET /csrf-token`."""

    token: str


WORK_POOLS: Final = TypeAdapter(list[WorkPool])
WORK_QUEUES: Final = TypeAdapter(list[WorkQueue])
_CONCURRENCY_STATUS: Final = TypeAdapter(WorkQueueConcurrencyStatus)
_CSRF_TOKEN: Final = TypeAdapter(_CsrfToken)


class Api:
    """Prefect's REST API: paging, and the tokens that a server with CSRF protection wants."""

    def __init__(
        self, config: SourceConfig, *, request_timeout: float, concurrency: int, count_request: CountRequest
    ) -> None:
        self._client = Client(
            config,
            request_timeout=request_timeout,
            concurrency=concurrency,
            explain=_explain,
            count_request=count_request,
        )
        self._page_size = _DEFAULT_PAGE_SIZE
        # A token belongs to a client id, and a new one ends the old: no two processes may share the id.
        self._csrf_client = str(uuid.uuid4())
        self._csrf_renewal = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def listing(self, endpoint: str, contract: TypeAdapter[list[L]], **path: str) -> AsyncIterator[L]:
        """All rows of a listing, each once: rows that move between two pages may be listed twice."""
        seen: set[uuid.UUID] = set()
        offset = 0
        for _ in range(MAX_PAGES):
            try:
                rows = await self._post(endpoint, contract, {"limit": self._page_size, "offset": offset}, **path)
            except StatusError as error:
                # The greatest limit is a setting of the server (PREFECT_SERVER_API_DEFAULT_LIMIT).
                greatest = re.search(r"must be less than or equal to ([0-9]{1,9})\b", error.detail)
                if not greatest or not 0 < int(greatest[1]) < self._page_size:
                    raise
                self._page_size = int(greatest[1])
                continue
            new = [row for row in rows if row.id not in seen]
            for row in new:
                seen.add(row.id)
                yield row
            if len(rows) < self._page_size:
                return
            if not new:
                raise SourceError("contract", f"POST {endpoint}: the page at offset {offset} repeats those before it")
            offset += len(rows)
        raise SourceError("too_large", f"POST {endpoint}: the listing does not end after {MAX_PAGES} pages")

    async def concurrency_status(
        self, queue: uuid.UUID
    ) -> tuple[WorkQueueConcurrencyStatus, list[FlowRunSlotSummary] | None]:
        """The last page of a queue's status, and the holders of all pages, or None where upstream lists none.

        Runs come and go between two pages: one that moves to the next page is listed twice, and counted once.
        """
        endpoint = "/work_queues/{id}/concurrency_status"
        runs: dict[str, FlowRunSlotSummary] = {}
        for page in range(1, MAX_PAGES + 1):
            status = await self._post(endpoint, _CONCURRENCY_STATUS, {"page": page}, id=str(queue))
            if "flow_runs" not in status.model_fields_set:
                return status, None
            runs |= {run["id"]: run for run in status.flow_runs}
            if page >= status.pages or not status.flow_runs:
                return status, list(runs.values())
        raise SourceError("too_large", f"POST {endpoint} of queue {queue}: more than {MAX_PAGES} pages")

    async def _post(self, endpoint: str, contract: TypeAdapter[T], body: Mapping[str, Any], **path: str) -> T:
        """One request; a CSRF token is fetched when the server first asks for one, and when it expires."""
        token = self._client.tokens.get(_CSRF_HEADER)
        try:
            return (await self._client.post(endpoint, contract, body, **path))[0]
        except StatusError as error:
            if error.status != HTTPStatus.FORBIDDEN or not re.search("CSRF|client identifier", error.detail):
                raise
        await self._renew_csrf_token(token)
        return (await self._client.post(endpoint, contract, body, **path))[0]

    async def _renew_csrf_token(self, refused: str | None) -> None:
        async with self._csrf_renewal:
            if self._client.tokens.get(_CSRF_HEADER) != refused:
                return  # another request has done it meanwhile
            answer, _ = await self._client.get("/csrf-token", _CSRF_TOKEN, client=self._csrf_client)
            self._client.tokens = {_CSRF_HEADER: answer.token, "Prefect-Csrf-Client": self._csrf_client}


def is_deleted(error: SourceError) -> bool:
    """Whether this is how a server says that there is no such queue or pool; a wrong path is only `Not Found`."""
    return (
        isinstance(error, StatusError)
        and error.status == HTTPStatus.NOT_FOUND
        # The quotes differ between endpoints.
        and re.fullmatch(r"Work queue not found\.|Work pool (['\"]).*\1 not found\.", error.detail, re.DOTALL)
        is not None
    )


def _explain(body: Any) -> str | None:
    """What an error's body says, in the shapes that Prefect and FastAPI have for it."""
    match body:
        case {"detail": "Not Found"}:
            return "Not Found (is url the address of the API, and the server Prefect 3.6.23 or newer?)"
        case {"detail": str(text)}:
            return text
        case {
            "exception_message": str(text),
            "exception_detail": [{"loc": list(location), "msg": str(message)}, *_],
        }:
            return f"{text} {'.'.join(str(part) for part in location)}: {message}"
        case {"exception_message": str(text)}:
            return text
    return None
