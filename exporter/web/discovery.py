"""`/sd`: the targets that Prometheus can scrape here."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from exporter.polling.store import View
from exporter.web.location import Location


class ServiceDiscovery:
    """Targets for `http_sd_configs` of Prometheus: `/metrics?source=NAME` for each source."""

    def __init__(self, location: Location) -> None:
        self._location = location

    async def __call__(self, request: Request, view: View) -> JSONResponse:
        """Answer with one target for each source. Raises `HTTPException` where the request names no host."""
        targets = [_host(request)]
        base = self._location.base(request)
        found = {"__scheme__": "https"} if base.scheme == "https" else {}
        if base.path:
            found["__metrics_path__"] = f"{base.path}/metrics"
        return JSONResponse(
            [
                {
                    "targets": targets,
                    "labels": {"__param_source": state.name, "__meta_concurrency_system": state.system, **found},
                }
                for state in view.states
            ]
        )


def _host(request: Request) -> str:
    """Where the client has reached us. Raises `HTTPException` where it does not say, as HTTP/1.0 need not."""
    # A colon without a port is allowed, and no part of an address.
    if host := request.headers.get("Host", "").removesuffix(":"):
        return host
    raise HTTPException(HTTPStatus.BAD_REQUEST, "the header Host is missing: it is the address of the targets\n")
