"""When each source is polled: at once and then at its interval, never twice at a time, later where that is wanted."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

import structlog
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.job import Job
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter.clock import Clock

log = structlog.get_logger()

_JITTER: Final = 0.1
"""Part of an interval by which polls are spread, so that many exporters do not ask one upstream in step."""
_STEP_SECONDS: Final = 1.0
"""A wall clock that moves by less against the monotonic one is being adjusted, which delays a poll by no more."""


class Schedule:
    """One job of APScheduler per source. `run` polls a source by its name, `skipped` reports a skipped poll.

    Only a poll that falls into the one before it is skipped.
    """

    def __init__(self, run: Callable[[str], Awaitable[None]], skipped: Callable[[str], None], clock: Clock) -> None:
        self._run = run
        self._skipped = skipped
        self._jobs: dict[str, Job] = {}
        self._scheduler = _Scheduler(clock)
        self._scheduler.add_listener(self._not_run, EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        """Begin: what was added is polled at once."""
        self._scheduler.start()

    def stop(self) -> None:
        """End: poll nothing more, not even what is due. APScheduler cancels the polls that run."""
        for name in list(self._jobs):
            self.remove(name)
        if self._scheduler.running:
            self._scheduler.shutdown()

    def add(self, name: str, interval: float) -> None:
        """Poll a source now, and then every `interval` seconds."""
        self._scheduler.follow_wall_clock()
        trigger = IntervalTrigger(seconds=interval, jitter=interval * _JITTER, timezone=UTC)
        # Not the source's name: a poll of that name which was just cancelled would have the first one skipped.
        job_id = uuid4().hex
        self._jobs[name] = self._scheduler.add_job(
            self._due, trigger, args=[name, job_id], id=job_id, next_run_time=datetime.now(UTC)
        )

    def remove(self, name: str) -> None:
        """Poll a source no more."""
        self._jobs.pop(name).remove()

    def wait(self, name: str, seconds: float) -> None:
        """Put the next poll off until `seconds` from now, where it would come sooner; no matter without a schedule."""
        self._scheduler.follow_wall_clock()
        earliest = datetime.now(UTC) + timedelta(seconds=seconds)
        due = self.next_poll(name)
        if due and due < earliest:
            self._jobs[name].modify(next_run_time=earliest)

    def next_poll(self, name: str) -> datetime | None:
        """When a source is polled next; None without a schedule."""
        return self._jobs[name].next_run_time if name in self._jobs and self._scheduler.running else None

    async def _due(self, name: str, job_id: str) -> None:
        if name in self._jobs and self._jobs[name].id == job_id:  # else it was removed between being due and being run
            await self._run(name)

    def _not_run(self, event: JobSubmissionEvent) -> None:
        self._skipped(next(name for name, job in self._jobs.items() if job.id == event.job_id))


class _Scheduler(AsyncIOScheduler):  # type: ignore[misc]  # has no types
    """Keeps its jobs where they were by the monotonic clock when the wall clock is set.

    APScheduler plans by the wall clock, and sleeps until the next job by the event loop's, which is monotonic. So it
    wakes up in time whatever was set; but a clock that was set back an hour would have it sleep for that hour, and one
    that was set forward by years would have it count all the runs that it missed.

    APScheduler reads the wall clock of the machine itself. `clock` only tells by how much that was set.
    """

    def __init__(self, clock: Clock) -> None:
        # A poll that starts late is better than none; those that were missed while asleep are one.
        defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        super().__init__(timezone=UTC, job_defaults=defaults)
        self._clock = clock
        self._offset = clock.now() - clock.monotonic()

    def wakeup(self) -> None:
        """Run what is due. Called when the next job should be, and after every change of one."""
        self.follow_wall_clock()
        super().wakeup()

    def follow_wall_clock(self) -> None:
        """Move all jobs by as much as the wall clock was set since the last call, if it was."""
        offset = self._clock.now() - self._clock.monotonic()
        step, self._offset = offset - self._offset, offset
        if abs(step) >= _STEP_SECONDS:
            log.warning("the wall clock was set; polls go on at their pace", step_seconds=round(step, 1))
            for job in self.get_jobs():
                self.modify_job(job.id, next_run_time=job.next_run_time + timedelta(seconds=step))
