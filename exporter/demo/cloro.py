"""The look-alike of cloro's API, as far as an exporter reads it, over `Tasks`."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast
from uuid import uuid4

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.demo.tasks import MAX_SLOTS, Tasks

API_KEY = "demo"
"""The only key it accepts."""
REQUESTS_PER_SECOND = 1_000
"""`X-RateLimit-Limit`. It is counted but not enforced."""


def application(tasks: Tasks, clock: Callable[[], datetime]) -> Starlette:
    """The API of cloro; the tasks are played on to the clock's time when a request comes."""
    api = _Api(tasks, clock)
    return Starlette(
        routes=[Route("/v1/async/status", api.async_status)],
        exception_handlers={HTTPException: api.http_error},
    )


class _Api:
    """The endpoint, and what all answers have in common."""

    def __init__(self, tasks: Tasks, clock: Callable[[], datetime]) -> None:
        self._tasks = tasks
        self._clock = clock
        self._second = 0
        self._requests = 0

    async def async_status(self, request: Request) -> Response:
        refused = _refusal(request.headers.get("authorization"))
        if refused is not None:
            return self._error(401, *refused)
        self._tasks.advance(self._clock())
        queued, processing = self._tasks.queued, self._tasks.processing
        return self._answer(
            200,
            {
                "queuedTasks": sum(queued.values()),
                "processingTasks": processing,
                "priorityBreakdown": [{"priority": priority, "count": count} for priority, count in queued.items()],
                "concurrency": {"used": processing, "max": MAX_SLOTS} if self._tasks.usage_known else None,
            },
        )

    async def http_error(self, _: Request, error: Exception) -> Response:
        refused = cast("HTTPException", error)
        return self._error(refused.status_code, refused.detail.upper().replace(" ", "_"), refused.detail)

    def _error(self, status: int, code: str, message: str) -> Response:
        timestamp = self._clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        error = {"code": code, "message": message, "details": {}, "timestamp": timestamp}
        return self._answer(status, {"error": error})

    def _answer(self, status: int, content: dict[str, Any]) -> Response:
        second = int(self._clock().timestamp())
        self._requests = self._requests + 1 if second == self._second else 1
        self._second = second
        headers = {
            "X-Request-ID": str(uuid4()),
            "X-RateLimit-Limit": str(REQUESTS_PER_SECOND),
            "X-RateLimit-Remaining": str(max(0, REQUESTS_PER_SECOND - self._requests)),
        }
        return JSONResponse(content, status_code=status, headers=headers)


def _refusal(authorization: str | None) -> tuple[str, str] | None:
    """The code and message with which this `Authorization` header is refused; None if it is accepted."""
    if not authorization:
        return "MISSING_API_KEY", "API key is required"
    scheme, _, key = authorization.partition(" ")
    if scheme != "Bearer" or not key:
        return "INVALID_API_KEY_FORMAT", "Expected the header Authorization: Bearer <API key>"
    if key != API_KEY:
        return "INVALID_OR_EXPIRED_API_KEY", "API key is invalid or has expired"
    return None
