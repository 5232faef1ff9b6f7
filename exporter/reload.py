"""The configuration in use: read at the start, and again at every reload. The sources stay if it has errors then."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

from exporter.config import Config, warn
from exporter.polling.poller import Poller
from exporter.polling.telemetry import Telemetry
from exporter.settings.reader import ConfigError
from exporter.threads import in_own_thread

log = structlog.get_logger()

Load = Callable[[], Config]
"""Reads the configuration, wherever it comes from. Raises `ConfigError`."""
T = TypeVar("T")


def read_both(load: Load, load_web: Callable[[], T]) -> tuple[Config, T]:
    """Read the configuration and that of the web server. Raises `ConfigError` with the errors of both."""
    mistakes = []
    try:
        configuration = load()
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        web = load_web()
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return configuration, web


async def use(configuration: Config, poller: Poller) -> None:
    """Poll these sources from now on. Raises `ConfigError`, and changes nothing, if a certificate is no longer good."""
    try:
        await poller.configure(configuration.sources)
    except OSError as error:
        raise ConfigError([f"a certificate of tls_config can no longer be used: {error}"]) from None
    warn(configuration)


class Reloader:
    """Reads the configuration again when it is told to, one reload at a time.

    `read_web` makes the web server use what its own file says now. It raises `ConfigError`, and changes nothing, if
    the file has errors. It does not wait for the configuration to be good: the web server's next request would read
    its file anyway.
    """

    def __init__(self, load: Load, read_web: Callable[[], None], poller: Poller, telemetry: Telemetry) -> None:
        self._load = load
        self._read_web = read_web
        self._poller = poller
        self._telemetry = telemetry
        self._busy = asyncio.Lock()
        self._tasks: set[asyncio.Task[str]] = set()

    async def start(self, configuration: Config) -> None:
        """Use the configuration that was read at the start; a reload that is asked for meanwhile comes after it."""
        async with self._busy:
            await use(configuration, self._poller)
            self._telemetry.config_read(success=True)

    def hang_up(self) -> None:
        """Reload as a task, as the handler of a signal has to."""
        task = asyncio.get_running_loop().create_task(self.reload())
        # The event loop itself does not keep it alive.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> str:
        """Read both configurations, and change the sources if both are good. Returns the errors, or an empty string."""
        async with self._busy:
            good = False
            try:
                # To read many sources takes long, and scrapes must not wait for it.
                loading = asyncio.ensure_future(in_own_thread(self._load))
                await asyncio.wait([loading])
                configuration, _ = read_both(loading.result, self._read_web)
                await use(configuration, self._poller)
                good = True
            except ConfigError as error:
                log.error(  # noqa: TRY400  a user's error, not a bug
                    "configuration not reloaded; the old one stays", mistakes=error.mistakes
                )
                return str(error)
            finally:
                self._telemetry.config_read(success=good)
            log.info("configuration reloaded", sources=len(configuration.sources))
            return ""
