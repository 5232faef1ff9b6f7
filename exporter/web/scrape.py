"""`/metrics`: a scrape copies what the last polls left, and adds the exporter's metrics about itself."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from exporter.metrics.body import BodyCache
from exporter.polling.store import View
from exporter.polling.telemetry import Telemetry
from exporter.web.negotiation import accepts_gzip, negotiate


class Scrape:
    """The metrics, in the Prometheus text format or in OpenMetrics, as the Accept header asks.

    `?source=NAME` returns the metrics of one source, `?source=` those of no source; an unknown source is a 404.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._bodies = BodyCache()

    async def __call__(self, request: Request, view: View) -> Response:
        """Answer a scrape. Raises `HTTPException` for a source that there is not."""
        source = _one_source(request, [state.name for state in view.states])
        format_, content_type = negotiate(_list(request, "Accept"))
        body = self._bodies.body(view.live, format_, source)
        # Not after the body is compressed: a poll may end meanwhile, and the two would be of different moments.
        own = self._telemetry.render(view, format_, source)
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if not accepts_gzip(_list(request, "Accept-Encoding")):
            return _Parts(body.plain(own), headers)
        return _Parts(await body.gzipped(own), headers | {"Content-Encoding": "gzip"})


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
