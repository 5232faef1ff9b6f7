"""States of sources, made by hand, and an exporter that has them."""

from typing import Any

from exporter.metrics.exposition import render
from exporter.model import Queue, Snapshot
from exporter.polling.outcome import Failed, Failure, Published
from exporter.polling.store import SourceState
from exporter.shard import WHOLE, Shard
from exporter.web.guard import Guard
from tests.harness.inprocess import Exporter, Time


def state(name: str = "prod", *queues: Queue, system: str = "prefect", **more: object) -> SourceState:
    """A source with such a snapshot, which was taken at 1,000 and expires at 90."""
    snapshot = Snapshot(queues=queues, **more)  # type: ignore[arg-type]
    text = render(snapshot, source=name, system=system, max_series=1_000)
    published = Published(snapshot, text, taken_at=1_000, expires=90)
    return SourceState(name, system, since=0, outcome="success", published=published, last_success=1_000)


class Filled(Exporter):
    """An exporter whose polls end as the test says, with what is served in front of its routes."""

    def __init__(self) -> None:
        super().__init__(time=Time(seconds=50_000, wall=1_767_218_700))
        self.application = Guard(self.application, None, self.clock)

    def add(self, source: str, system: str = "prefect", shard: Shard = WHOLE) -> None:
        """Have a source that was not polled yet."""
        self.store.add(source, system, shard)
        self.telemetry.add(source, system)

    def succeed(self, name: str, *queues: Queue, next_poll: float | None = 30, **more: Any) -> None:
        """Its poll, which took 1.25 s, has found this; the next one is due in so many seconds."""
        self.publish(name, Snapshot(queues=queues, **more), took=1.25)
        self.store.plan(name, next_poll)

    def fail(self, name: str, next_poll: float | None = 30) -> None:
        """Its poll has failed."""
        self.store.poll_ended(name, Failed(Failure("timeout", "no answer"), 30.0))
        self.store.plan(name, next_poll)

    async def json(self, path: str, status: int = 200, **headers: str) -> Any:
        """The content of the answer to a GET request, which has this status and is JSON."""
        answer = await self.get(path, **headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json()
