"""Pages for people, made from templates of this package: the board, and a page for each queue, pool and limit."""

import re
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import pairwise
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from pydantic import Field
from starlette.requests import Request
from starlette.responses import HTMLResponse

from exporter import __version__, views
from exporter.model import UNKNOWN_REASON
from exporter.polling.store import SourceState, View
from exporter.threads import in_thread
from exporter.views import LimitView, NotKnownError, Page, QueueView, Wanted
from exporter.web import runbooks, values
from exporter.web.guard import HEADERS
from exporter.web.kept import Kept
from exporter.web.parameters import OneLimit, OneQueue, OneSource, Parameters, QueueFilter, parameters

REFRESH_SECONDS: Final = 15
"""A page is asked for again after so long, unless the person who looks at it chose otherwise."""
_MOST_FULL: Final = 50
"""Full pools, and full limits, on one board."""
_MOST_OTHERS: Final = 20
"""Other limits on the page of a queue or a pool."""

Refresh = Literal["on", "off"]


class BoardParameters(QueueFilter):
    """A filter, a page of what passes it, and whether the page refreshes itself."""

    refresh: Refresh = "on"

    @property
    def wanted(self) -> Wanted:
        """The filter."""
        return Wanted(**self.model_dump(exclude={"page", "refresh"}))


class QueueParameters(OneQueue):
    """One queue."""

    refresh: Refresh = "on"


class PoolParameters(OneSource):
    """One pool."""

    pool: str = Field(min_length=1)
    refresh: Refresh = "on"


class LimitParameters(OneLimit):
    """One limit that is neither a queue nor a pool."""

    refresh: Refresh = "on"


class Board:
    """All queues, those first that need attention; the full pools and limits; and the state of each source.

    `text`, `source`, `system`, `full`, `waiting` and `paused` filter the queues, `page` selects one of the pages.
    """

    def __init__(self) -> None:
        self._kept: Kept[Markup] = Kept()

    async def __call__(self, request: Request, view: View) -> HTMLResponse:
        """Answer with the board. Its tables are made once for each snapshot and filter."""
        asked = parameters(request, BoardParameters)
        states = _of_filter(view, asked.wanted)
        data = [state.published for state in states if state.published]
        # The tables have links that carry the choice of the reader on.
        tables = await self._kept.get(asked, data, lambda: _tables(states, asked))
        return await _page(
            "board.html",
            view,
            asked,
            states=states,
            wanted=asked.wanted,
            missing=[what for _, what in views.missing(states, "queues", "backlog")],
            is_known=not all(views.why_missing(state, "queues") for state in states),
            tables=tables,
        )


class Reason(Protocol):
    """Why a task waits, and what to do about it: sentences in Markdown without their full stops."""

    @property
    def meaning(self) -> str:
        """The sentence that says why it waits."""

    @property
    def remedy(self) -> str:
        """The sentence that says what to do about it."""


Reasons = Mapping[str, Mapping[str, Reason]]
"""By system, the reasons that it has."""


class OneQueuePage:
    """One queue: its slots and who holds them, the tasks that wait and why, and the PromQL of each value."""

    def __init__(self, reasons: Reasons) -> None:
        self._reasons = reasons

    async def __call__(self, request: Request, view: View) -> HTMLResponse:
        """Answer with the page of the queue that the parameters name."""
        asked = parameters(request, QueueParameters)
        found = views.queue(view.states, asked.source, asked.pool, asked.queue)
        return await _page(
            "queue.html",
            view,
            asked,
            found=found,
            reasons=self._reasons.get(found.origin.system, {}),
            others=_others(view, asked.source),
            values=values.of_queue(found),
            alerts=runbooks.of_queue(found.queue),
        )


async def pool(request: Request, view: View) -> HTMLResponse:
    """One pool: its slots, its workers and its queues, and the PromQL of each value."""
    asked = parameters(request, PoolParameters)
    found = views.pool(view.states, asked.source, asked.pool)
    return await _page(
        "pool.html",
        view,
        asked,
        found=found,
        page=views.page(found.queues),
        others=_others(view, asked.source),
        values=values.of_pool(found),
        alerts=runbooks.of_pool(found.pool),
    )


async def limit(request: Request, view: View) -> HTMLResponse:
    """One limit that is neither a queue nor a pool: its slots, and the PromQL of each value."""
    asked = parameters(request, LimitParameters)
    found = views.limit(view.states, asked.source, asked.kind, asked.limit)
    return await _page(
        "limit.html",
        view,
        asked,
        found=found,
        values=values.of_limit(found),
        alerts=runbooks.of_limit(found.limit),
    )


def _of_filter(view: View, wanted: Wanted) -> list[SourceState]:
    """The sources that the filter admits. Unlike a list for programs, a board without data tells why there is none."""
    try:
        return views.selected(view.states, wanted)
    except NotKnownError as error:
        return list(error.states)


def _tables(states: Iterable[SourceState], asked: BoardParameters) -> Markup:
    """The part of the board that depends on the snapshots and the filter only. Takes time: call it in a thread."""
    states, wanted = list(states), asked.wanted
    full = Wanted(wanted.text, wanted.source, wanted.system, full=True)
    return Markup(  # noqa: S704  the template has escaped it
        _TEMPLATES.get_template("tables.html").render(
            page=views.page(views.queues(states, wanted), asked.page),
            asked=asked,
            is_filtered=wanted != views.EVERYTHING,
            full_pools=_first(views.pools(states, full)),
            full_limits=_first([one for one in views.limits(states, full) if one.limit.active]),
        )
    )


def _first(found: list[Any]) -> Page[Any]:
    return views.page(found, size=_MOST_FULL)


def _others(view: View, source: str) -> list[LimitView]:
    """Return the fullest limits of a source. Upstream does not say whose tasks they hold back."""
    return [one for one in views.limits(view.states, Wanted(source=source)) if one.limit.active][:_MOST_OTHERS]


async def error(view: View, status: HTTPStatus, what: Exception) -> HTMLResponse:
    """The page of an error. If data is missing, it refreshes itself: the data may be there again in a moment."""
    states = what.states if isinstance(what, NotKnownError) else ()
    answer = await _page("error.html", view, None, status, error=str(what), states=states)
    if isinstance(what, NotKnownError):
        answer.headers["Refresh"] = str(REFRESH_SECONDS)
    return answer


async def _page(
    template: str, view: View, asked: Parameters | None, status: HTTPStatus = HTTPStatus.OK, **more: object
) -> HTMLResponse:
    """Render a page off the event loop; it may have the one style that carries its nonce, and a form of its own."""
    nonce = secrets.token_urlsafe(16)
    refreshes = getattr(asked, "refresh", "off") == "on"
    page = await in_thread(
        _TEMPLATES.get_template(template).render,
        version=__version__,
        view=view,
        asked=asked,
        status=status,
        nonce=nonce,
        refreshes=refreshes,
        refresh_seconds=REFRESH_SECONDS,
        **more,
    )
    policy = HEADERS["Content-Security-Policy"]
    if template == "board.html":
        policy = policy.replace("form-action 'none'", "form-action 'self'")
    headers = {"Content-Security-Policy": f"{policy}; style-src 'nonce-{nonce}'"}
    if refreshes:
        # Not an element of the page: some screen readers begin to read anew, and none can turn it off.
        headers["Refresh"] = str(REFRESH_SECONDS)
    return HTMLResponse(page, status, headers)


# --- What templates call.


def _address(route: str, **values: object) -> str:
    """A link, relative to every page; `route` is empty for the board. Values that are the default are left out."""
    found = {name: _parameter(value) for name, value in values.items() if value not in {None, ""}}
    return (route or "./") + (f"?{urlencode(found, quote_via=quote, safe='')}" if found else "")


def _parameter(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _here(route: str, asked: Parameters, **changed: object) -> str:
    """The address of the same page with other parameters."""
    given = asked.model_dump(exclude_defaults=True)
    return _address(route, **{**given, **changed})


def _carried(asked: Parameters | None) -> str | None:
    """The choice that goes along when one page leads to another."""
    return "off" if getattr(asked, "refresh", "on") == "off" else None


def _to_queue(view: QueueView, asked: Parameters | None = None) -> str:
    named = {"source": view.origin.source, "pool": view.queue.pool, "queue": view.queue.name}
    return _address("queue", **named, refresh=_carried(asked))


def _to_pool(source: str, name: str, asked: Parameters | None = None) -> str:
    return _address("pool", source=source, pool=name, refresh=_carried(asked))


def _to_limit(view: LimitView, asked: Parameters | None = None) -> str:
    named = {"source": view.origin.source, "kind": view.limit.kind, "limit": view.limit.name}
    return _address("limit", **named, refresh=_carried(asked))


def _web(url: str | None) -> str | None:
    """The address, if a browser opens it as a page: nothing else that a system might hand on becomes a link."""
    return url if url and re.fullmatch(r"https?://[^\s/]\S*", url, re.IGNORECASE) else None


def _utc(timestamp: float) -> str:
    try:
        return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):  # before the year 1, or after 9999
        return f"{timestamp:g}"


_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def _duration(seconds: float) -> str:
    """Seconds as text, in the two largest units of it: 1 h 8 m."""
    left = max(round(seconds), 0)
    if left >= 100 * 365 * 86_400:
        return "over 100 years"
    for (unit, size), (smaller, small) in pairwise(_UNITS):
        if left >= size:
            second = left % size // small
            return f"{left // size} {unit}" + (f" {second} {smaller}" if second else "")
    return f"{left} s"


def _number(value: float) -> str:
    """A number with thin spaces between its thousands."""
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,g}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}")


def _reason(reason: str) -> str:
    return "unknown reason" if reason == UNKNOWN_REASON else reason.replace("_", " ")


def _markdown(text: str) -> Markup:
    """A sentence, with what is between backticks as code. Of a link only the text is left: it leads to a document."""
    without_links = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(without_links))))  # noqa: S704  it is escaped


def _visible(text: str) -> str:
    """A name, or a word in its place if nobody could see it: of blanks, or of marks that only change a direction."""
    return text if any(character.isprintable() and not character.isspace() for character in text) else "(blank)"


def _columns(tasks: Iterable[tuple[str, Any]]) -> list[str]:
    """The details that some of the tasks have, in the order in which their system gives them."""
    return list(dict.fromkeys(name for _, task in tasks for name in task.details))


def _counted(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The counts that are not 0, which may be those of a model that holds more than a number."""
    each = ((name, one if isinstance(one, int) else one.count) for name, one in counts.items())
    return [(name, count) for name, count in each if count]


_TEMPLATES: Final = Environment(
    loader=PackageLoader("exporter.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters.update(
    utc=_utc,
    duration=_duration,
    number=_number,
    web=_web,
    reason=_reason,
    markdown=_markdown,
    visible=_visible,
    columns=_columns,
    counted=_counted,
)
_TEMPLATES.globals.update(address=_address, here=_here, to_queue=_to_queue, to_pool=_to_pool, to_limit=_to_limit)
