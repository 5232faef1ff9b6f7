"""The look-alike of cloro's API, over `Tasks`: the status of the queue, and tasks to submit and to ask for."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, cast
from uuid import uuid4

from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.demo.tasks import MAX_SLOTS, Task, Tasks

API_KEY = "demo"
"""The only key it accepts."""
TASK_TYPES = ("CHATGPT", "GEMINI", "PERPLEXITY", "COPILOT", "AIMODE", "GOOGLE", "GOOGLE_NEWS")
"""The values of `taskType`."""
REQUESTS_PER_SECOND = 1_000
"""`X-RateLimit-Limit`. It is counted but not enforced."""


def application(tasks: Tasks, clock: Callable[[], datetime]) -> Starlette:
    """The API of cloro; the tasks are played on to the clock's time when a request comes."""
    api = _Api(tasks, clock)
    return Starlette(
        routes=[
            Route("/v1/async/status", api.async_status),
            Route("/v1/async/task", api.create_task, methods=["POST"]),
            Route("/v1/async/task/{task_id}", api.task_status),
        ],
        exception_handlers={HTTPException: api.http_error},
    )


class _Api:
    """The endpoints, and what all answers have in common."""

    def __init__(self, tasks: Tasks, clock: Callable[[], datetime]) -> None:
        self._tasks = tasks
        self._clock = clock
        self._second = 0
        self._requests = 0

    async def async_status(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
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

    async def create_task(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        try:
            body = _NewTask.model_validate_json(await request.body())
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False)[0]
            return self._error(400, "VALIDATION_ERROR", f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}")
        task = self._tasks.submit(body.taskType, body.priority)
        if task is None:
            return self._error(429, "QUEUE_LIMIT_EXCEEDED", "Too many tasks are queued")
        return self._answer(200, {"task": self._task(task)})

    async def task_status(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        task = self._tasks.submitted(request.path_params["task_id"])
        if task is None:
            raise HTTPException(404)
        response = {"response": {"success": True}} if task.status == "COMPLETED" else {}
        return self._answer(200, {"task": self._task(task)} | response)

    def _refused(self, request: Request) -> Response | None:
        """The answer to a request without the key; else None, and the tasks are played on to now."""
        refused = _refusal(request.headers.get("authorization"))
        if refused is not None:
            return self._error(401, *refused)
        self._tasks.advance(self._clock())
        return None

    def _task(self, task: Task) -> dict[str, Any]:
        return {
            "id": task.id,
            "status": task.status,
            "taskType": task.type,
            "priority": task.priority,
            "createdAt": _timestamp(task.created),
        }

    async def http_error(self, _: Request, error: Exception) -> Response:
        refused = cast("HTTPException", error)
        return self._error(refused.status_code, refused.detail.upper().replace(" ", "_"), refused.detail)

    def _error(self, status: int, code: str, message: str) -> Response:
        error = {"code": code, "message": message, "details": {}, "timestamp": _timestamp(self._clock())}
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


class _NewTask(BaseModel):
    """The body of a new task. `idempotencyKey` and `webhook` are taken, and not used."""

    taskType: Literal[TASK_TYPES]  # type: ignore[valid-type]  # noqa: N815
    payload: dict[str, Any]
    priority: int = Field(default=1, ge=1, le=10, strict=True)
    idempotencyKey: str | None = None  # noqa: N815
    webhook: dict[str, Any] | None = None


def _timestamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


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
