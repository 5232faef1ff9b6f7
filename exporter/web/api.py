"""Version 1 of the JSON API, below `/api/v1/`."""

import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import blake2b
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from exporter import views
from exporter.headroom import headroom
from exporter.polling.store import SourceState, View
from exporter.threads import in_thread
from exporter.views import LimitView, QueueView
from exporter.web import openapi, schema
from exporter.web.kept import Kept
from exporter.web.openapi import Operation
from exporter.web.parameters import (
    HeadroomOf,
    LimitFilter,
    NoParameters,
    OneLimit,
    OneQueue,
    QueueFilter,
    parameters,
)

PREFIX: Final = "/api/v1"
_SALT: Final = secrets.token_hex(8)
"""In the tags of this process: another one may have other settings, and so another answer from the same snapshot."""


class Lists:
    """The routes with lists. All queues and limits are filtered and ordered once for each snapshot and filter."""

    def __init__(self) -> None:
        self._queues: Kept[list[QueueView]] = Kept()
        self._limits: Kept[list[LimitView]] = Kept()

    async def queues(self, request: Request, view: View) -> Response:
        """A page of queues, those first that need attention. 503 if the source, or every source, has no data."""
        asked = parameters(request, QueueFilter)
        states = views.selected(view.states, asked.wanted)
        found = await self._queues.get(asked.wanted, _data(states), lambda: views.queues(states, asked.wanted))
        page = views.page(found, asked.page)
        return await _large(request, view, states, lambda: schema.queues(page, states, view))

    async def limits(self, request: Request, view: View) -> Response:
        """A page of limits that are neither queues nor pools, the fullest first. 503 as for the queues."""
        asked = parameters(request, LimitFilter)
        states = views.selected(view.states, asked.wanted, "limits")
        found = await self._limits.get(asked.wanted, _data(states), lambda: views.limits(states, asked.wanted))
        page = views.page(found, asked.page)
        return await _large(request, view, states, lambda: schema.limits(page, states, view))


async def one_queue(request: Request, view: View) -> Response:
    """One queue: its slots, the tasks that wait, and the tasks that hold slots."""
    asked = parameters(request, OneQueue)
    found = views.queue(view.states, asked.source, asked.pool, asked.queue)
    return _small(request, view, asked.source, lambda: schema.Queue.of(found, view))


async def one_limit(request: Request, view: View) -> Response:
    """One limit that is neither a queue nor a pool."""
    asked = parameters(request, OneLimit)
    found = views.limit(view.states, asked.source, asked.kind, asked.limit)
    return _small(request, view, asked.source, lambda: schema.Limit.of(found, view))


async def headroom_of(request: Request, view: View) -> Response:
    """The number of tasks that could be submitted to a queue and would start at once. 503 if it is not known."""
    asked = parameters(request, HeadroomOf)
    origin, found = headroom(view.states, asked.source, asked.pool, asked.queue, asked.limits)
    return _small(request, view, asked.source, lambda: schema.Headroom.of(found, origin, view))


async def sources(request: Request, view: View) -> Response:
    """Every source: how its last poll ended, and how old its data is."""
    parameters(request, NoParameters)
    tag = _tag((state.outcome, state.since, state.duration, *_mark(state)) for state in view.states)
    return await _large(
        request,
        view,
        view.states,
        lambda: schema.Sources(sources=[schema.Source.of(state, view) for state in view.states]),
        tag,
    )


async def description(request: Request, _: View) -> Response:
    """The description of this API, in OpenAPI 3.1."""
    parameters(request, NoParameters)
    return JSONResponse(await in_thread(document))


@cache
def document() -> dict[str, object]:
    """The OpenAPI document of version 1."""
    return openapi.document(operations())


def operations() -> list[Operation]:
    """All routes of version 1, for one server."""
    lists = Lists()
    return [
        Operation("/queues", lists.queues, QueueFilter, schema.Queues),
        Operation("/queue", one_queue, OneQueue, schema.Queue),
        Operation("/limits", lists.limits, LimitFilter, schema.Limits),
        Operation("/limit", one_limit, OneLimit, schema.Limit),
        Operation("/headroom", headroom_of, HeadroomOf, schema.Headroom),
        Operation("/sources", sources, NoParameters, schema.Sources),
        Operation("/openapi.json", description, NoParameters, None),
    ]


async def error(_: View, status: HTTPStatus, what: Exception) -> Response:
    """The answer to a request that fails."""
    return _json(schema.Error(error=str(what)).model_dump_json(), {}, status)


def _small(request: Request, view: View, source: str, make: Callable[[], BaseModel]) -> Response:
    """Answer with a little of one source."""
    states = [state for state in view.states if state.name == source]
    headers = _headers(view, states, _tag(map(_mark, states)))
    return _not_modified(request, headers) or _json(make().model_dump_json(), headers)


async def _large(
    request: Request, view: View, states: Sequence[SourceState], make: Callable[[], BaseModel], tag: str = ""
) -> Response:
    """Answer with what takes time to make: off the event loop."""
    headers = _headers(view, states, tag or _tag(map(_mark, states)))
    return _not_modified(request, headers) or _json(await in_thread(lambda: make().model_dump_json()), headers)


def _json(text: str, headers: dict[str, str], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(text, status, headers, "application/json")


def _data(states: Iterable[SourceState]) -> list[object]:
    return [state.published for state in states if state.published]


def _headers(view: View, states: Iterable[SourceState], tag: str) -> dict[str, str]:
    """The headers for caches. The answer can change at the next poll, and when data expires."""
    ends = [
        min(views.until_next_poll(state, view), state.published.expires - view.moment if state.published else math.inf)
        for state in states
    ]
    return {"ETag": tag, "Cache-Control": f"private, max-age={max(0, math.floor(min(ends, default=0)))}"}


def _mark(state: SourceState) -> tuple[object, ...]:
    """Values that differ whenever the data of a source does."""
    data = state.published
    return state.name, *((data.taken_at, data.expires) if data else (views.why_no_data(state),))


def _tag(marks: Iterable[tuple[object, ...]]) -> str:
    """An entity tag. It is weak: ages change all the time, and are not worth another answer."""
    return f'W/"{blake2b(repr([_SALT, *marks]).encode(), digest_size=12).hexdigest()}"'


def _not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """The answer to a client that has this already."""
    tags = {tag.strip().removeprefix("W/") for tag in ",".join(request.headers.getlist("If-None-Match")).split(",")}
    if tags.isdisjoint({"*", headers["ETag"].removeprefix("W/")}):
        return None
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
