"""One source that is polled: its poll, measured and caught in one place, and its certificates when they change."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from exporter.clock import Clock
from exporter.metrics.exposition import render
from exporter.model import Retirement
from exporter.polling.outcome import Ended, Failed, Failure, Published, Succeeded
from exporter.polling.store import SourceState
from exporter.settings.files import Stamps, stamps
from exporter.shard import Shard
from exporter.sources.base import Source, SourceConfig, SourceError, StatusError
from exporter.threads import Reader, in_thread

log = structlog.get_logger()


class Feed:
    """A source as it is configured now. To make one reads certificates: do it off the event loop.

    Raises `OSError` where a certificate of `tls_config` can't be used.
    """

    def __init__(
        self, config: SourceConfig, shard: Shard, clock: Clock, count_request: Callable[[str, str], None]
    ) -> None:
        self.config = config
        self.shard = shard
        self._clock = clock
        self._count_request = count_request
        self._certificates = stamps(config.certificates)
        """The files of each `tls_config` as they were when the source was built of them."""
        self._refused: Stamps | None = None
        """The same when they last could not be read again."""
        self._source = self._build()
        self._changed = Reader(self._built_again)
        self._running: asyncio.Task[None] | None = None
        self._announced: dict[str, Retirement | None] = {}
        """By route, what its last answer in the poll that runs announced."""
        self.is_over = False
        """Whether it was told to end: what a poll of it still finds is of a source that is gone."""

    async def poll(self, before: SourceState) -> Ended:
        """Read the source once, from where the last good poll left off. May be cancelled, as by `end`."""
        self._running, self._announced = asyncio.current_task(), {}
        ended = await self._ended(before)
        return replace(ended, announced=self._announced)

    async def _ended(self, before: SourceState) -> Ended:
        started = self._clock.monotonic()
        try:
            return await self._poll(before, started)
        except StatusError as error:
            duration = self._clock.monotonic() - started
            return Failed(Failure(error.reason, str(error)), duration, error.retry_after, error.rate_limit)
        except SourceError as error:
            return Failed(Failure(error.reason, str(error)), self._clock.monotonic() - started)
        except Exception as error:  # a fault of ours in one source must not end the polls of the others
            log.exception("poll failed by a fault of the exporter; please report it", source=self.config.name)
            failure = Failure("internal", f"{type(error).__name__}: {error}")
            return Failed(failure, self._clock.monotonic() - started)
        finally:
            self._running = None

    async def _poll(self, before: SourceState, started: float) -> Succeeded:
        config, taken_at = self.config, self._clock.now()
        try:
            async with asyncio.timeout(config.timeout) as deadline:
                await self._renew()
                snapshot = await self._source.poll(before.memory)
                rendered = await in_thread(
                    render,
                    snapshot,
                    source=config.name,
                    system=config.system,
                    max_series=config.max_series,
                    precedence=before.precedence,
                )
        except TimeoutError:
            if not deadline.expired():
                raise
            message = f"{config.url} was not read to the end within {config.timeout:g}s"
            raise SourceError("timeout", message) from None
        published = Published(snapshot, rendered, taken_at, started + config.stale_after)
        return Succeeded(published, self._clock.monotonic() - started)

    def end(self) -> None:
        """Have the poll that runs, if one does, go no further than where it waits now."""
        self.is_over = True
        if self._running:
            self._running.cancel()

    async def close(self) -> None:
        """Close the source when the poll that runs has ended."""
        if self._running:
            await asyncio.wait([self._running])
        await self._source.close()

    def _build(self) -> Source:
        return self.config.build(self.shard, self._request_sent)

    def _request_sent(self, endpoint: str, code: str, retirement: Retirement | None) -> None:
        # One that a reload has cancelled would bring back the series of a source that is gone.
        if not self.is_over:
            self._count_request(endpoint, code)
            # An error without such a header may come from a proxy, which knows nothing of the end.
            if retirement or code == "200":
                self._announced[endpoint] = retirement

    async def _renew(self) -> None:
        """Build the source again if a certificate has changed; until the new ones fit, the old ones stay in use.

        That is tried at each poll: there may have been no file descriptor left to read them with.
        """
        if not self._certificates or not (changed := await self._changed.read()):
            return
        seen, renewed = changed
        if isinstance(renewed, OSError):
            write = log.debug if seen == self._refused else log.warning
            write("tls_config can't be read again; the old one stays", source=self.config.name, error=str(renewed))
            self._refused = seen
            return
        self._certificates, self._refused = seen, None
        old, self._source = self._source, renewed
        await old.close()

    def _built_again(self) -> tuple[Stamps, Source | OSError] | None:
        """The certificates as they are now, and the source built of them; None if they have not changed."""
        seen = stamps(self._certificates)
        if seen == self._certificates:
            return None
        try:
            return seen, self._build()
        except OSError as error:
            return seen, error
