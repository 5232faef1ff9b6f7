"""cloro's async task queue: the contract of `GET /v1/async/status`, and a snapshot read from it."""

from collections import Counter
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from exporter.model import Queue, Snapshot, blocked_by
from exporter.shard import Shard
from exporter.sources.about import About, Priorities, Reason, Variable
from exporter.sources.base import Contract, Count, CountRequest, Rows, Source, SourceConfig
from exporter.sources.client import Client
from exporter.sources.connection import HttpUrl

QUEUE_NAME: Final = "async"
_PRIORITIES: Final = range(1, 11)
_REQUEST_SHARE: Final = 0.9
"""Part of a poll's deadline that its one request may take: what names the request comes before what names the poll."""


class CloroConfig(SourceConfig):
    """A cloro organization."""

    about: ClassVar = About(
        title="cloro",
        figures={
            "concurrency_queue_active_slots": "`concurrency.used`",
            "concurrency_queue_slot_limit": "`concurrency.max`",
            "concurrency_queue_usage_known": "0 if `concurrency.used` is absent or null, otherwise 1",
            "concurrency_queue_queued_tasks": "`priorityBreakdown`; the highest number goes first. The priority"
            " `unknown` has the tasks that `queuedTasks` counts in addition",
            "concurrency_queue_processing_tasks": "`processingTasks`",
            "concurrency_queue_blocked_tasks": "`concurrency` and the number of queued tasks; see"
            " [why tasks wait](cloro.md#why-tasks-wait)",
        },
        reasons={
            "queue_limit": Reason(
                "All slots are in use (`concurrency.used` has reached `concurrency.max`), or other tasks get the free"
                " slots",
                "Get a plan with more slots, or submit fewer tasks. Synchronous requests take slots too",
            ),
            "just_now": Reason(
                "A slot is free for the task. At the last poll it was not, or the task was not there", "Nothing"
            ),
            "none": Reason(
                "A slot is free for the task, as at the last poll, when tasks waited too",
                "If it lasts, ask cloro's support: tasks wait although slots are free",
            ),
        },
        priorities=Priorities(first=10, last=1),
        environment=(Variable("CLORO_API_KEY", "authorization.credentials"),),
    )
    system: Literal["cloro"]
    """Type of the upstream server: the label `system`."""
    url: HttpUrl = "https://api.cloro.dev"
    """Address of the API of cloro."""

    @property
    def upstream(self) -> tuple[object, ...]:
        """The key too: it stands for an organization."""
        return *super().upstream, self.authorization

    def build(self, _: Shard, count_request: CountRequest) -> Source:
        """The source that this configures."""
        return CloroSource(self, count_request)

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if not self.authorization:
            raise ValueError(
                "cloro requires an API key; set authorization.credentials or authorization.credentials_file"
            )
        return self


class _PriorityCount(Contract):
    priority: Annotated[int, Field(ge=1, le=10)]
    count: Count


def _each_once(levels: list[_PriorityCount]) -> list[_PriorityCount]:
    times = Counter(level.priority for level in levels)
    if twice := [priority for priority, count in times.items() if count > 1]:
        raise PydanticCustomError("duplicate", "it names the priority {priority} twice", {"priority": twice[0]})
    return levels


class _Concurrency(Contract):
    used: Count | None = None
    max: Count | None = None


class _AsyncStatus(Contract):
    """The answer of `GET /v1/async/status`.

    An older example of cloro's has no `priorityBreakdown`, so it may be absent. cloro's OpenAPI requires neither
    `concurrency`, which may also be null, nor what is in it: what is absent is not known, as if it were null.
    """

    queuedTasks: Count  # noqa: N815
    processingTasks: Count  # noqa: N815
    priorityBreakdown: Annotated[Rows[_PriorityCount], AfterValidator(_each_once)] = Field(default=[])  # noqa: N815
    concurrency: _Concurrency | None = None


_STATUS: Final = TypeAdapter(_AsyncStatus)


class CloroSource:
    """Reads the one endpoint, which describes the whole organization."""

    def __init__(self, config: CloroConfig, count_request: CountRequest) -> None:
        self._client = Client(
            config,
            request_timeout=config.timeout * _REQUEST_SHARE,
            explain=_explain,
            count_request=count_request,
        )

    async def poll(self, memory: object = None, /) -> Snapshot:
        """One queue, `async`, and what the rate-limit headers say."""
        await self._client.read_credentials()
        answer = await self._client.get("/v1/async/status", _STATUS)
        status, concurrency = answer.content, answer.content.concurrency or _Concurrency()
        queued = _by_priority(status)
        blocked, unblocked = _blocked(sum(queued.values()), concurrency, memory if isinstance(memory, int) else 0)
        queue = Queue(
            pool="",
            name=QUEUE_NAME,
            active_slots=concurrency.used,
            slot_limit=concurrency.max,
            limit_known=concurrency.max is not None,
            usage_known=concurrency.used is not None,
            processing=status.processingTasks,
            queued=queued,
            blocked=blocked,
        )
        return Snapshot(queues=(queue,), rate_limit=answer.rate_limit, memory=unblocked)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


def _by_priority(status: _AsyncStatus) -> dict[str, int]:
    """Queued tasks by priority: all of the levels, and what upstream counts but does not break down as `unknown`."""
    counts = {level.priority: level.count for level in status.priorityBreakdown}
    queued = {str(priority): counts.get(priority, 0) for priority in _PRIORITIES}
    if (rest := status.queuedTasks - sum(counts.values())) > 0:
        queued["unknown"] = rest
    return queued


def _blocked(queued: int, concurrency: _Concurrency, before: int) -> tuple[dict[str, int], int]:
    """Return why so many queued tasks wait, and the number of those that could start, unless others have to wait.

    `before` is that number of the last poll. Beside tasks that have to wait, a slot is only free until the next one
    takes it.
    """
    if concurrency.used is None or concurrency.max is None:
        return blocked_by({}, CloroConfig.about.reasons, queued), 0
    fitting = min(queued, max(0, concurrency.max - concurrency.used))
    unblocked = fitting if fitting == queued else 0
    none = min(unblocked, before)
    found = {"queue_limit": queued - fitting, "just_now": fitting - none, "none": none}
    return blocked_by(found, CloroConfig.about.reasons, queued), unblocked


def _explain(body: Any) -> str | None:
    """The code and message of an error, in either of the shapes that cloro has for it."""
    match body:
        case {"error": {"code": str(code), "message": str(message)}}:
            return f"{code}: {message}"
        case {"error": {"code": str(code)}}:
            return code
        case {"error": str(text)}:
            return text
    return None
