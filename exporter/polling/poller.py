"""The sources that are polled: when each one is, what becomes of its outcome, and what a reload changes."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from exporter.clock import Clock
from exporter.polling.feed import Feed
from exporter.polling.journal import write_ended
from exporter.polling.outcome import Failed
from exporter.polling.schedule import Schedule
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.shard import WHOLE, Shard
from exporter.sources.base import SourceConfig
from exporter.threads import in_own_thread

log = structlog.get_logger()

MAX_RETRY_AFTER: Final = 600.0
"""Most seconds that an upstream's Retry-After can silence the polls: it must not blind us for a day."""
MAX_BACK_OFF: Final = 120.0
"""Longest time, in seconds, between polls of a failing source, unless its interval is longer."""


class Poller:
    """Polls the sources by a schedule. `poll` is what comes due there, and can be called without one.

    Of sources that several exporters share, it polls the part that belongs to `shard`.
    """

    def __init__(self, store: Store, telemetry: Telemetry, clock: Clock, shard: Shard = WHOLE) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._shard = shard
        self._feeds: dict[str, Feed] = {}
        self._back_off: dict[str, float] = {}
        """Seconds from the start of a poll to that of the next, if it fails and there is nothing left to serve."""
        self._overrunning: set[str] = set()
        """Sources whose poll that runs has made another one be skipped."""
        self._stopped = False
        self._schedule = Schedule(self._run, self._skipped, clock)

    async def configure(self, configs: Sequence[SourceConfig]) -> None:
        """Poll these sources from now on. One that is configured as before keeps its data and its schedule.

        One with other settings is polled at once. Until that has ended its data is served, unless it may be another
        upstream's. Raises `OSError`, and changes nothing, where a certificate of `tls_config` can no longer be used.
        Does nothing after `stop`, even if that comes meanwhile.
        """
        parts = [(config, part) for config in configs if (part := config.part_of(self._shard))]
        old = self._feeds
        kept = {config.name for config, _ in parts if config.name in old and old[config.name].config == config}
        new: dict[str, Feed] = {}
        async with AsyncExitStack() as built:
            for config, part in parts:
                if config.name not in kept:
                    count_request = partial(self._telemetry.request_sent, config.name)
                    # It reads the certificates to trust.
                    feed = await in_own_thread(Feed, config, part, self._clock, count_request)
                    built.push_async_callback(feed.close)
                    new[config.name] = feed
            if self._stopped:
                return
            built.pop_all()
        # Nothing waits from here until all is changed: no scrape and no poll comes in between.
        ended = [self._feeds.pop(name) for name in old.keys() - kept]
        for feed in ended:
            self._end(feed, new.get(feed.config.name))
        for feed in new.values():
            self._add(feed)
        self._store.configured()
        for feed in ended:
            await feed.close()

    def start(self) -> None:
        """Begin with the schedule: every source is polled at once, and then at its interval."""
        self._schedule.start()

    async def stop(self) -> None:
        """End the schedule and the polls that run, for good."""
        self._stopped = True
        self._schedule.stop()
        ended = list(self._feeds.values())
        self._feeds.clear()
        for feed in ended:
            feed.end()
        for feed in ended:
            await feed.close()

    def next_poll(self, name: str) -> datetime | None:
        """When a source is polled next; None without a schedule."""
        return self._schedule.next_poll(name)

    async def poll(self, name: str) -> None:
        """Poll one source now; whatever comes of it is in the store and in the telemetry afterwards."""
        feed = self._feeds[name]
        self._overrunning.discard(name)
        ended = await feed.poll(self._store.state(name))
        if feed.is_over:
            return  # what it read is of a source that is gone, even if the name is in use again
        before = self._store.state(name)
        self._store.poll_ended(name, ended)
        self._telemetry.poll_ended(name, ended.outcome, ended.duration, ended.reasons)
        write_ended(before, self._store.state(name), ended)
        if isinstance(ended, Failed):
            self._wait(name, ended)
        else:
            self._back_off[name] = feed.config.interval
        due = self._schedule.next_poll(name)
        self._store.plan(name, (due - datetime.now(UTC)).total_seconds() if due else None)

    def _wait(self, name: str, failed: Failed) -> None:
        """Postpone the next poll after a failure, by `Retry-After` (within reason) or by the growing back-off."""
        seconds = min(failed.retry_after or 0.0, MAX_RETRY_AFTER)
        # Data that is still good could expire while we wait.
        if not self._store.serves(name):
            seconds = max(seconds, self._back_off[name] - failed.duration)
            # No matter if it is less than the interval: a poll is never put off to an earlier time.
            self._back_off[name] = min(2 * self._back_off[name], MAX_BACK_OFF)
        self._schedule.wait(name, seconds)

    def _skipped(self, name: str) -> None:
        config = self._feeds[name].config
        self._telemetry.poll_skipped(name)
        write = log.debug if name in self._overrunning else log.warning
        write("poll skipped: the one before it still runs", source=name, interval_seconds=config.interval)
        self._overrunning.add(name)

    def _add(self, feed: Feed) -> None:
        config = feed.config
        self._feeds[config.name] = feed
        self._back_off[config.name] = config.interval
        if not self._store.knows(config.name):
            self._store.add(config.name, config.system, feed.shard)
            self._telemetry.add(config.name, config.system)
        self._schedule.add(config.name, config.interval)

    async def _run(self, name: str) -> None:
        # APScheduler would log a poll that is cancelled, by a reload or at the end, as one that failed.
        with suppress(asyncio.CancelledError):
            await self.poll(name)

    def _end(self, feed: Feed, successor: Feed | None) -> None:
        """Poll it no more, and forget it unless the successor reads the same upstream."""
        config = feed.config
        self._schedule.remove(config.name)
        feed.end()
        if successor and successor.config.upstream == config.upstream:
            self._store.prolong(config.name, successor.config.stale_after - config.stale_after)
        else:
            self._store.remove(config.name)
            self._telemetry.remove(config.name)
