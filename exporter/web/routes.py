"""The table of routes. Each request is answered from one view of the store: no route does I/O, or asks an upstream."""

import re
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.web import api, management, pages, runbooks
from exporter.web.discovery import ServiceDiscovery
from exporter.web.handlers import Handler, with_errors
from exporter.web.location import Location
from exporter.web.management import Reload
from exporter.web.scrape import Scrape

_OTHER_SPELLING: Final = re.compile(rb"%(?!2[146-9abc]|3[abd]|40)", re.IGNORECASE)
"""An encoded character that is not one of !$&'()*+,:;=@, which a route prefix may have and some clients encode."""


def application(
    store: Store,
    telemetry: Telemetry,
    reload: Reload | None = None,
    location: Location = Location(),  # noqa: B008  it is frozen
    reasons: pages.Reasons | None = None,
) -> Starlette:
    """All routes; `/-/reload` only where there is something to call for it.

    `reasons` are the reasons for which the tasks of each system wait, to explain them.
    """

    def route(path: str, handler: Handler, *methods: str) -> _Route:
        async def endpoint(request: Request) -> Response:
            return await handler(request, store.view())

        endpoint.__doc__ = handler.__doc__
        return _Route(path, endpoint, methods=methods)

    def page(path: str, handler: Handler) -> _Route:
        return route(path, with_errors(handler, pages.error), "GET")

    routes = [
        page("/", pages.Board()),
        page("/queue", pages.OneQueuePage(reasons or {})),
        page("/pool", pages.pool),
        page("/limit", pages.limit),
        page("/runbooks/{name}.md", runbooks.runbook),
        route("/metrics", Scrape(telemetry), "GET"),
        route("/sd", ServiceDiscovery(location), "GET"),
        *(route(api.PREFIX + one.path, with_errors(one.handler, api.error), "GET") for one in api.operations()),
        route("/-/healthy", management.healthy, "GET"),
        route("/-/ready", management.ready, "GET"),
    ]
    if reload:
        routes.append(route("/-/reload", management.ReloadNow(reload), "POST", "PUT"))
    served = Starlette(routes=routes)
    served.router.redirect_slashes = False
    return served


class _Route(Route):
    """A route that has one spelling.

    The server decodes the path, and Starlette's expression lets a newline follow: then a proxy that keeps strangers
    from `/-/reload` would let `/-/%72eload`, `/-%2freload` or `/-/reload%0a` pass.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether it is this route, and what it is called with."""
        match, child = super().matches(scope)
        return (Match.NONE, {}) if _OTHER_SPELLING.search(scope["raw_path"]) else (match, child)
