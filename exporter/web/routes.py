"""The routes that the exporter serves. A scrape does no I/O: it copies what the last polls left."""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from exporter import __version__
from exporter.clock import Clock
from exporter.metrics.exposition import Body, Rendered
from exporter.metrics.text import Format
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.threads import in_thread
from exporter.web.guard import HEADERS
from exporter.web.location import Location
from exporter.web.negotiation import accepts_gzip, negotiate

Reload = Callable[[], Awaitable[str]]
"""Reads the configuration again; returns what was wrong with it, or an empty string."""

_TEMPLATES: Final = Environment(
    loader=PackageLoader("exporter.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def application(
    store: Store,
    telemetry: Telemetry,
    clock: Clock,
    reload: Reload | None = None,
    location: Location = Location(),  # noqa: B008  it is frozen
) -> Starlette:
    """All routes, each with a docstring for its users; `/-/reload` only where there is something to call for it."""
    bodies: dict[str | None, dict[Format, tuple[list[Rendered], Body]]] = {}

    def body(format_: Format, source: str | None) -> Body:
        """The ready part of the answer, of all sources or of one, made anew only when other snapshots are live."""
        states = store.states()
        live = [state.published.rendered for state in states if state.published and source in {None, state.name}]
        of_source = bodies.setdefault(source, {})
        if format_ not in of_source or of_source[format_][0] != live:
            of_source[format_] = (live, Body(live, format_))
            for gone in bodies.keys() - {None, "", *(state.name for state in states)}:
                del bodies[gone]
        return of_source[format_][1]

    async def metrics(request: Request) -> Response:
        """The metrics, in the Prometheus text format or in OpenMetrics, as the Accept header asks.

        `?source=NAME` returns the metrics of one source, `?source=` those of no source; an unknown source is a 404.
        """
        source = _one_source(request, [state.name for state in store.states()])
        format_, content_type = negotiate(_list(request, "Accept"))
        # At one time: while the first is compressed, a poll may end.
        ready, own = body(format_, source), telemetry.render(format_, source)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if not accepts_gzip(_list(request, "Accept-Encoding")):
            return _Parts(ready.plain(own), headers)
        if not ready.is_compressed:
            await in_thread(ready.compress)
        return _Parts(ready.gzipped(own), headers | {"Content-Encoding": "gzip"})

    async def service_discovery(request: Request) -> Response:
        """Targets for `http_sd_configs` of Prometheus: `/metrics?source=NAME` for each source."""
        target = [_host(request)]
        base = location.base(request)
        found = {"__scheme__": "https"} if base.scheme == "https" else {}
        if base.path:
            found["__metrics_path__"] = f"{base.path}/metrics"
        return JSONResponse(
            [
                {
                    "targets": target,
                    "labels": {"__param_source": state.name, "__meta_concurrency_system": state.system, **found},
                }
                for state in store.states()
            ]
        )

    async def status(_: Request) -> Response:
        """The status page: each source with its health, the age of its data and its last error."""
        nonce = secrets.token_urlsafe(16)
        page = await in_thread(
            _TEMPLATES.get_template("status.html").render,
            version=__version__,
            states=store.states(),
            now=clock.now(),
            utc=_utc,
            nonce=nonce,
        )
        policy = f"{HEADERS['Content-Security-Policy']}; style-src 'nonce-{nonce}'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    async def healthy(_: Request) -> Response:
        """200 while the process serves requests. For liveness probes: it sends no request to an upstream server."""
        return PlainTextResponse("healthy\n")

    was_ready = False

    async def ready(_: Request) -> Response:
        """200 once every source has been polled, successfully or not, and from then on; 503 before that."""
        nonlocal was_ready
        waiting = [state.name for state in store.states() if not state.outcome]
        # A source that a reload has added must not take those away that are served.
        was_ready = was_ready or not waiting
        if was_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(
            f"not ready: no poll has ended yet of {', '.join(waiting)}\n", HTTPStatus.SERVICE_UNAVAILABLE
        )

    routes = [
        _Route("/", status),
        _Route("/metrics", metrics),
        _Route("/sd", service_discovery),
        _Route("/-/healthy", healthy),
        _Route("/-/ready", ready),
    ]
    if reload:
        routes.append(_Route("/-/reload", _reload_endpoint(reload), methods=["POST", "PUT"]))
    served = Starlette(routes=routes)
    served.router.redirect_slashes = False
    return served


class _Route(Route):
    """A route that has one spelling.

    Starlette's expression lets a newline follow, and the server decodes a slash that was encoded: then a proxy that
    keeps strangers from `/-/reload` would let `/-%2freload` pass.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it is this route, and what it is called with."""
        match, child = super().matches(scope)
        encoded = b"%2f" in scope["raw_path"].lower() or scope["path"].endswith("\n")
        return (Match.NONE, {}) if encoded else (match, child)


def _one_source(request: Request, names: Sequence[str]) -> str | None:
    """The source that a scrape is limited to, if it is; an empty name selects what belongs to none.

    Raises `HTTPException`: an empty answer would look to Prometheus like a source that is fine and has no queues.
    """
    asked = request.query_params.getlist("source")
    if not asked:
        return None
    if len(asked) == 1 and asked[0] in {"", *names}:
        return asked[0]
    raise HTTPException(HTTPStatus.NOT_FOUND, f"no such source; there are: {', '.join(names)}\n")


def _host(request: Request) -> str:
    """Where the client has reached us. Raises `HTTPException` where it does not say, as HTTP/1.0 need not."""
    # A colon without a port is allowed, and no part of an address.
    if host := request.headers.get("Host", "").removesuffix(":"):
        return host
    raise HTTPException(HTTPStatus.BAD_REQUEST, "the header Host is missing: it is the address of the targets\n")


class _Parts(Response):
    """An answer in parts that scrapes share."""

    def __init__(self, parts: Sequence[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers=dict(headers) | {"Content-Length": str(sum(map(len, parts)))})
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  as ASGI has it
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _list(request: Request, header: str) -> str:
    """A header that holds a list, which may come in several lines."""
    return ",".join(request.headers.getlist(header))


def _reload_endpoint(reload: Reload) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_: Request) -> Response:
        """With `--web.enable-lifecycle`: reloads the configuration; 500 with the list of errors if it is invalid."""
        if mistakes := await reload():
            return PlainTextResponse(f"{mistakes}\n", HTTPStatus.INTERNAL_SERVER_ERROR)
        return PlainTextResponse("reloaded\n")

    return endpoint


def _utc(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
