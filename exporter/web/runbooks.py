"""The runbooks of the alerts that are shipped: which of them could be about a thing, and their text."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from exporter.model import Limit, Pool, Queue
from exporter.polling.store import View
from exporter.threads import in_own_thread
from exporter.views import NotFoundError

_PACKAGED: Final = Path(__file__).parent / "runbooks"
_IN_CHECKOUT: Final = Path(__file__).parents[2] / "alerts" / "runbooks"


class Alert(NamedTuple):
    """An alert of `alerts/alerting-rules.yml`, and the summary that it has there."""

    name: str
    summary: str


_SATURATED: Final = Alert("ConcurrencySlotsSaturated", "Tasks wait for slots, and the backlog does not drain.")
_STALLED: Final = Alert("ConcurrencyQueueStalled", "Tasks wait and slots are free, but the tasks do not start.")
_NO_WORKER: Final = Alert("ConcurrencyNoWorker", "Tasks wait, and no worker polls the queue.")
_WAITS: Final = Alert("ConcurrencyOldestTaskWaitsTooLong", "A task has waited too long.")
_GROWING: Final = Alert("ConcurrencyBacklogGrowing", "The backlog grows and will be too large within an hour.")
_NEAR: Final = Alert("ConcurrencyNearLimit", "The limit was nearly reached for much of the last day.")
_PAUSED: Final = Alert("ConcurrencyQueuePausedWithWork", "Tasks wait in a queue that is paused.")
_ZERO: Final = Alert("ConcurrencyDeploymentLimitZero", "Tasks wait for a deployment whose limit is 0.")
_RETRY: Final = Alert(
    "ConcurrencyRetryOrphaned", "Tasks wait for a retry that their own process has to begin, and does not."
)
_STUCK: Final = Alert("ConcurrencySlotHolderStuck", "A run has held a slot in one state for too long.")
_UNKNOWN: Final = Alert("ConcurrencyUsageUnknown", "The upstream server does not report how many slots are in use.")


async def runbook(request: Request, _: View) -> PlainTextResponse:
    """The runbook of an alert, of this version. The `runbook_url` of the alerts can lead here."""
    name = request.path_params["name"]
    found = await in_own_thread(_runbooks)
    if name not in found:
        raise NotFoundError(f"no runbook {name!r}; there are: {', '.join(found)}")
    return PlainTextResponse(found[name])


@cache
def _runbooks() -> dict[str, str]:
    """The text of each runbook by its name. A wheel has them beside this module, a checkout where they are written."""
    folder = _PACKAGED if _PACKAGED.exists() else _IN_CHECKOUT
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}


def of_queue(queue: Queue) -> Iterator[Alert]:
    """Return the alerts that could be about a queue, by the series that it has."""
    if queue.slot_limit is not None:
        yield _SATURATED
    if queue.active_slots is not None and queue.queued:
        yield _STALLED
    if queue.pool:
        yield _NO_WORKER
    if queue.waiting:
        yield _WAITS
    if queue.queued:
        yield _GROWING
        yield _PAUSED
    if "zero_limit" in queue.blocked:
        yield _ZERO
    if "retry" in queue.blocked:
        yield _RETRY
    if queue.holders:
        yield _STUCK
    if queue.slot_limit is not None:
        yield _NEAR
    if queue.usage_known is not None:
        yield _UNKNOWN


def of_pool(pool: Pool) -> Iterator[Alert]:
    """Return the alerts that could be about a pool."""
    if pool.slot_limit is not None:
        yield from (_SATURATED, _NEAR)
    yield from (_GROWING, _PAUSED)


def of_limit(limit: Limit) -> Iterator[Alert]:
    """Return the alerts that could be about a limit that is neither a queue nor a pool."""
    if limit.active and limit.slot_limit > 1:
        yield _NEAR
