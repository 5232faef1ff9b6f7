"""cloro's API as its documentation has it: the key that it wants, its errors and its rate-limit headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.harness.upstream import Request, answer

KEY = "sk_live_5f0c2a9d"

PUBLISHED = {
    "queuedTasks": 3,
    "processingTasks": 2,
    "priorityBreakdown": [{"priority": 5, "count": 2}],
    "concurrency": {"used": 2, "max": 5},
}
"""The example of cloro's own page on the endpoint."""

FREE = {
    "queuedTasks": 0,
    "processingTasks": 1,
    "priorityBreakdown": [],
    "concurrency": {"used": 1, "max": 5},
}
"""The account has free slots."""

SATURATED = {
    "queuedTasks": 7,
    "processingTasks": 5,
    "priorityBreakdown": [{"priority": 9, "count": 7}],
    "concurrency": {"used": 5, "max": 5},
}
"""All slots are taken, and tasks wait."""


def error(code: str, message: str) -> dict[str, Any]:
    """The body of most errors."""
    timestamp = "2025-01-15T12:00:00.000Z"
    return {"error": {"code": code, "message": message, "details": {}, "timestamp": timestamp}}


@dataclass
class Cloro:
    """An `Answer`. Set `refusal` (status, body and further headers) to have it sent instead of the status."""

    status: object = field(default_factory=lambda: PUBLISHED)
    refusal: tuple[int, object, Mapping[str, str]] | None = None
    limit: int = 1000
    remaining: int = 1000

    def __call__(self, request: Request) -> bytes:
        """The next answer, whatever its status, with what is left of the rate limit."""
        self.remaining -= 1
        status, body, headers = self._answer(request)
        rate_limit = {"X-RateLimit-Limit": str(self.limit), "X-RateLimit-Remaining": str(self.remaining)}
        return answer(body, status, rate_limit | dict(headers))

    def _answer(self, request: Request) -> tuple[int, object, Mapping[str, str]]:
        if (request.method, request.path) != ("GET", "/v1/async/status"):
            return 404, error("NOT_FOUND", "Not found"), {}
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if not scheme:
            return 401, error("MISSING_API_KEY", "API key is required"), {}
        if scheme != "Bearer" or not key.startswith("sk_"):
            return 401, error("INVALID_API_KEY_FORMAT", "Invalid API key format"), {}
        if key != KEY:
            return 401, error("INVALID_OR_EXPIRED_API_KEY", "Invalid or expired API key"), {}
        return self.refusal or (200, self.status, {})
