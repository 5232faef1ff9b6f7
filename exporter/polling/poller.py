"""Polls every source, measures each poll in one place, and puts its outcome into the store."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

import structlog

from exporter.clock import Clock
from exporter.metrics.exposition import QueueKey, render
from exporter.model import Snapshot
from exporter.polling.schedule import Schedule
from exporter.polling.store import Failure, Published, Store
from exporter.polling.telemetry import Telemetry
from exporter.settings.base import Stamps, stamps
from exporter.shard import WHOLE, Shard
from exporter.sources.base import Source, SourceConfig, SourceError, StatusError
from exporter.threads import in_thread

log = structlog.get_logger()

MAX_RETRY_AFTER: Final = 600.0
"""Most seconds that an upstream's Retry-After can silence the polls: it must not blind us for a day."""
MAX_BACK_OFF: Final = 120.0
"""Seconds up to which the polls of a source that goes on failing come ever later, unless its interval is longer."""


@dataclass(slots=True)
class _Polled:
    config: SourceConfig
    back_off: float
    """Seconds from the start of a poll to that of the next, if it fails and there is nothing left to serve."""
    certificates: Stamps
    """The files of `tls_config` as they were when the source was built of them."""
    refused: Stamps | None = None
    """The same when they last could not be read again."""
    source: Source = field(init=False)
    running: asyncio.Task[None] | None = None
    trouble: object = None
    """What was last logged as wrong: the same trouble is logged once, not at every poll."""
    unsupported: tuple[str, ...] = ()
    precedence: tuple[QueueKey, ...] = ()
    """Which queues a cap on the series keeps first, as of the snapshot before."""
    skipped: bool = False
    """Whether the poll that runs has made another one be skipped."""

    def cancel(self) -> None:
        """Have the poll that runs, if one does, go no further than where it waits now."""
        if self.running:
            self.running.cancel()

    async def close(self) -> None:
        """Close the source when the poll that runs has ended."""
        if self.running:
            await asyncio.wait([self.running])
        await self.source.close()


class Poller:
    """Polls the sources by a schedule. `poll` is what comes due there, and can be called without one.

    Of sources that several exporters share, only what falls to `shard` is polled.
    """

    def __init__(self, store: Store, telemetry: Telemetry, clock: Clock, shard: Shard = WHOLE) -> None:
        self._store = store
        self._telemetry = telemetry
        self._clock = clock
        self._shard = shard
        self._polled: dict[str, _Polled] = {}
        self._stopped = False
        self._schedule = Schedule(self._run, self._skipped)

    async def configure(self, configs: Sequence[SourceConfig]) -> None:
        """Poll these sources from now on. One that is configured as before keeps its data and its schedule.

        One with other settings is polled at once. Until that has ended its data is served, unless it may be another
        upstream's. Raises `OSError`, and changes nothing, where a certificate of `tls_config` can no longer be used.
        Does nothing after `stop`, even if that comes meanwhile.
        """
        parts = [part for config in configs if (part := config.part_of(self._shard))]
        old = self._polled
        kept = {part.name for part in parts if part.name in old and old[part.name].config == part}
        new: dict[str, _Polled] = {}
        async with AsyncExitStack() as built:
            for part in parts:
                if part.name not in kept:
                    polled = await in_thread(self._build, part)  # reads all certificates that are trusted
                    built.push_async_callback(polled.close)
                    new[part.name] = polled
            if self._stopped:
                return
            built.pop_all()
        # Nothing waits from here until all is changed: no scrape and no poll comes in between.
        ended = [self._polled.pop(name) for name in old.keys() - kept]
        for polled in ended:
            self._end(polled, new.get(polled.config.name))
        for polled in new.values():
            self._add(polled)
        for polled in ended:
            await polled.close()

    def start(self) -> None:
        """Begin with the schedule: every source is polled at once, and then at its interval."""
        self._schedule.start()

    async def stop(self) -> None:
        """End the schedule and the polls that run, for good."""
        self._stopped = True
        self._schedule.stop()
        ended = list(self._polled.values())
        self._polled.clear()
        for polled in ended:
            polled.cancel()
        for polled in ended:
            await polled.close()

    def next_poll(self, name: str) -> datetime | None:
        """When a source is polled next; None without a schedule."""
        return self._schedule.next_poll(name)

    async def poll(self, name: str) -> None:
        """Poll one source now; whatever comes of it is in the store and in the telemetry afterwards."""
        polled = self._polled[name]
        config = polled.config
        polled.running, polled.skipped = asyncio.current_task(), False
        taken_at, started = self._clock.now(), self._clock.monotonic()
        failure, retry_after, rate_limit = None, None, None
        try:
            async with asyncio.timeout(config.timeout) as deadline:
                await self._renew(polled)
                snapshot = await polled.source.poll()
                rendered = await in_thread(
                    render,
                    snapshot,
                    source=name,
                    system=config.system_name,
                    max_series=config.max_series,
                    precedence=polled.precedence,
                )
                polled.precedence = rendered.precedence
        except StatusError as error:
            failure, retry_after, rate_limit = Failure(error.reason, str(error)), error.retry_after, error.rate_limit
        except SourceError as error:
            failure = Failure(error.reason, str(error))
        except Exception as error:  # a fault of ours in one source must not end the polls of the others
            if isinstance(error, TimeoutError) and deadline.expired():
                failure = Failure("timeout", f"{config.url} was not read to the end within {config.timeout:g}s")
            else:
                log.exception("poll failed by a fault of the exporter; please report it", source=name)
                failure = Failure("internal", f"{type(error).__name__}: {error}")
        finally:
            polled.running = None
        if self._polled.get(name) is not polled:
            return  # what it read is of a source that is gone, even if the name is in use again
        duration = self._clock.monotonic() - started
        if failure:
            self._store.fail(name, failure, duration, rate_limit)
            self._telemetry.poll_ended(name, config.system_name, "failure", duration, {failure.reason})
            self._log_trouble(polled, failure, "poll failed", reason=failure.reason, error=failure.message)
            self._wait(polled, duration, retry_after)
            return
        polled.back_off = config.interval
        self._store.succeed(name, Published(snapshot, rendered, taken_at, started + config.stale_after), duration)
        left_out = snapshot.unreadable
        self._telemetry.poll_ended(
            name, config.system_name, "partial" if left_out else "success", duration, {one.reason for one in left_out}
        )
        self._log_missing(polled, snapshot)

    def _log_missing(self, polled: _Polled, snapshot: Snapshot) -> None:
        """Tell what a good poll did not read, where that has changed."""
        name, left_out = polled.config.name, snapshot.unreadable
        if snapshot.unsupported != polled.unsupported:
            if snapshot.unsupported:
                log.warning("not supported by this server", source=name, parts=",".join(snapshot.unsupported))
            else:
                log.info("everything is supported by this server now", source=name)
            polled.unsupported = snapshot.unsupported
        if left_out:
            first = left_out[0]
            trouble = sorted((one.part, one.pool, one.queue, one.reason) for one in left_out)
            self._log_trouble(
                polled,
                trouble,
                "left out of the snapshot",
                count=len(left_out),
                part=first.part,
                pool=first.pool,
                queue=first.queue,
                reason=first.reason,
                error=first.message,
            )
        elif polled.trouble:
            log.info("poll succeeded again", source=name)
            polled.trouble = None

    def _log_trouble(self, polled: _Polled, trouble: object, event: str, **details: object) -> None:
        write = log.debug if polled.trouble == trouble else log.warning
        write(event, source=polled.config.name, **details)
        polled.trouble = trouble

    def _wait(self, polled: _Polled, duration: float, retry_after: float | None) -> None:
        """Put the next poll off after one that failed: for as long as upstream asks, within reason, and ever longer."""
        name = polled.config.name
        seconds = min(retry_after or 0.0, MAX_RETRY_AFTER)
        # Data that is still good could expire while we wait.
        if not self._store.serves(name):
            seconds = max(seconds, polled.back_off - duration)
            # No matter if it is less than the interval: a poll is never put off to an earlier time.
            polled.back_off = min(2 * polled.back_off, MAX_BACK_OFF)
        self._schedule.wait(name, seconds)

    def _skipped(self, name: str) -> None:
        polled = self._polled[name]
        config = polled.config
        self._telemetry.poll_skipped(config.name, config.system_name)
        write = log.debug if polled.skipped else log.warning
        write("poll skipped: the one before it still runs", source=config.name, interval_seconds=config.interval)
        polled.skipped = True

    def _build(self, config: SourceConfig) -> _Polled:
        polled = _Polled(config, config.interval, stamps(config.tls_config.files))
        polled.source = self._source(polled)
        return polled

    def _source(self, polled: _Polled) -> Source:
        return polled.config.build(partial(self._request_sent, polled))

    async def _renew(self, polled: _Polled) -> None:
        """Build the source anew if one of its certificates has changed; what it had before serves until they fit.

        That is tried at each poll: there may have been no file descriptor left to read them with.
        """
        seen = stamps(polled.certificates)
        if seen == polled.certificates:
            return
        try:
            renewed = await in_thread(self._source, polled)
        except OSError as error:
            write = log.debug if seen == polled.refused else log.warning
            write("tls_config can't be read again; the old one stays", source=polled.config.name, error=str(error))
            polled.refused = seen
            return
        polled.certificates, polled.refused = seen, None
        old, polled.source = polled.source, renewed
        await old.close()

    def _request_sent(self, polled: _Polled, endpoint: str, code: str) -> None:
        # One that a reload has cancelled would bring back the series of a source that is gone.
        if self._polled.get(polled.config.name) is polled:
            self._telemetry.request_sent(polled.config.name, polled.config.system_name, endpoint, code)

    def _add(self, polled: _Polled) -> None:
        config = polled.config
        self._polled[config.name] = polled
        if not self._store.knows(config.name):
            self._store.add(config.name, config.system_name, config.shard)
            self._telemetry.add(config.name, config.system_name)
        self._schedule.add(config.name, config.interval)

    async def _run(self, name: str) -> None:
        # APScheduler would log a poll that is cancelled, by a reload or at the end, as one that failed.
        with suppress(asyncio.CancelledError):
            await self.poll(name)

    def _end(self, polled: _Polled, successor: _Polled | None) -> None:
        """Poll it no more, and forget it unless the successor reads the same upstream."""
        config = polled.config
        self._schedule.remove(config.name)
        polled.cancel()
        if successor and successor.config.upstream == config.upstream:
            self._store.prolong(config.name, successor.config.stale_after - config.stale_after)
            successor.trouble, successor.unsupported = polled.trouble, polled.unsupported
            successor.precedence = polled.precedence
        else:
            self._store.remove(config.name)
            self._telemetry.remove(config.name)
