"""The command `concurrency-exporter`: flags, wiring, signals, exit codes."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from exporter import __version__, config, logs
from exporter.clock import Clock
from exporter.config import Config
from exporter.flags import DEFAULT_PORT, parser
from exporter.output import say
from exporter.polling.poller import Poller
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.report import report
from exporter.settings.reader import ConfigError
from exporter.shard import Shard
from exporter.threads import LookUps, in_thread
from exporter.web import config as web_config
from exporter.web import listeners
from exporter.web.guard import Guard
from exporter.web.location import Location, location
from exporter.web.routes import application
from exporter.web.server import Server

if TYPE_CHECKING:
    from exporter.demo import Upstreams

log = structlog.get_logger()

Load = Callable[[], Config]
T = TypeVar("T")

_SHUTDOWN_SECONDS: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 for an error that the user has to fix."""
    flags = parser().parse_args(arguments)
    serves = not (flags.config_check or flags.dry_run)

    def end(number: int, _: object) -> None:
        # A server that is told to stop has done its work; a check or a dry run has not.
        raise SystemExit(0 if serves else 128 + number)

    if serves:
        # It would end the process until there is a handler for it, and then there is nothing to reload yet.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for stop in (signal.SIGTERM, signal.SIGINT):
        # As PID 1 a signal without a handler is ignored, so there has to be one from the start.
        signal.signal(stop, end)
    logs.configure(flags.log_level, flags.log_format)
    try:
        return asyncio.run(_run(flags))
    except ConfigError as error:
        for mistake in error.mistakes:
            say(mistake, sys.stderr)
        return 1


async def _run(flags: argparse.Namespace) -> int:
    place = location(flags.web_external_url, flags.web_route_prefix)
    async with _configuration(flags) as load:
        if flags.config_check:
            return _check(flags, load)
        if flags.dry_run:
            return await _dry_run(load(), flags.shard)
        return await _serve(flags, load, place)


def _check(flags: argparse.Namespace, load: Load) -> int:
    """Read all files. Raises `ConfigError` with the mistakes of all of them."""
    web = flags.web_config_file
    configuration, _ = _read(load, lambda: web_config.load(web) if web else None)
    _warn(configuration)
    say(f"{_origin(flags)}: {len(configuration.sources)} source(s), no errors")
    if web:
        say(f"{web}: no errors")
    return 0


def _read(load: Load, load_web: Callable[[], T]) -> tuple[Config, T]:
    """What both return. Raises `ConfigError` with the mistakes of both."""
    mistakes = []
    found: list[Any] = []
    for read in (load, load_web):
        try:
            found.append(read())
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return found[0], found[1]


@asynccontextmanager
async def _configuration(flags: argparse.Namespace) -> AsyncIterator[Load]:
    """Where the configuration comes from, to be read now and again at every reload."""
    if flags.demo:
        from exporter import demo  # noqa: PLC0415  not to be paid for in production

        async with demo.serve() as upstreams:
            yield lambda: _demo_config(upstreams)
    elif flags.config_file:
        yield lambda: config.load(flags.config_file)
    else:
        yield lambda: config.from_environment(os.environ)


def _demo_config(upstreams: "Upstreams") -> Config:
    cloro = {
        "system": "cloro",
        "name": "cloro-demo",
        "url": upstreams.cloro_url,
        "authorization": {"credentials": upstreams.cloro_api_key},
        "interval": "5s",
    }
    prefect = {"system": "prefect", "name": "prefect-demo", "url": upstreams.prefect_url, "interval": "5s"}
    return Config.model_validate({"sources": [prefect, cloro]})


def _origin(flags: argparse.Namespace) -> str:
    return "demo" if flags.demo else str(flags.config_file or "environment")


async def _dry_run(configuration: Config, shard: Shard) -> int:
    clock = Clock()
    store = Store(clock)
    telemetry = Telemetry(clock)
    poller = Poller(store, telemetry, clock, shard)
    await _configure(poller, configuration)
    try:
        await asyncio.gather(*(poller.poll(state.name) for state in store.view().states))
        states = store.view().states
    finally:
        await poller.stop()
    say(report(states, telemetry.requests))
    return 0 if all(state.outcome == "success" for state in states) else 1


async def _serve(flags: argparse.Namespace, load: Load, place: Location) -> int:
    clock = Clock()
    store = Store(clock)
    telemetry = Telemetry(clock)
    poller = Poller(store, telemetry, clock, flags.shard)
    file = flags.web_config_file
    configuration, web = _read(
        load, lambda: web_config.LiveWebConfig(file, telemetry.web_config_read, clock) if file else None
    )
    reloading = asyncio.Lock()

    async def reload() -> str:
        """Read the configuration again and use it if it is good; what runs goes on if it is not."""
        async with reloading:
            good = False
            try:
                # To read many sources takes long, and scrapes must not wait for it.
                loading = asyncio.ensure_future(in_thread(load))
                await asyncio.wait([loading])
                new, _ = _read(loading.result, web.read if web else lambda: None)
                await _configure(poller, new)
                good = True
            except ConfigError as error:
                log.error(  # noqa: TRY400  a user's mistake, not a fault
                    "configuration not reloaded; the old one stays", mistakes=error.mistakes
                )
                return str(error)
            finally:
                telemetry.config_read(success=good)
            log.info("configuration reloaded", sources=len(new.sources))
            return ""

    loop = asyncio.get_running_loop()
    look_ups = LookUps(loop)
    reloads: set[asyncio.Task[str]] = set()

    def hang_up() -> None:
        task = loop.create_task(reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    async with reloading:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        await _configure(poller, configuration)
        telemetry.config_read(success=True)
    sockets = _sockets(flags)
    routes = application(store, telemetry, reload if flags.web_enable_lifecycle else None, place)
    server = Server(
        Guard(place.below(routes), web, clock),
        graceful_seconds=_SHUTDOWN_SECONDS,
        tls=web.tls() if web else None,
    )
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, server.stop)
    poller.start()
    try:
        log.info(
            "listening",
            address=",".join(map(listeners.shown, sockets)),
            version=__version__,
            configuration=_origin(flags),
            tls=server.config.ssl_context_factory is not None,
            sources=",".join(state.name for state in store.view().states),
            shard=str(flags.shard),
        )
        await server.serve(sockets)
    finally:
        await poller.stop()
    log.info("stopped")
    if look_ups.hang():
        # The end of the process would wait for them until the resolver gives up, which can take minutes.
        os._exit(0)
    return 0


def _sockets(flags: argparse.Namespace) -> list[socket.socket]:
    if flags.web_systemd_socket:
        return listeners.from_systemd(os.environ)
    return listeners.listen_on(flags.web_listen_address or [f":{DEFAULT_PORT}"])


async def _configure(poller: Poller, configuration: Config) -> None:
    try:
        await poller.configure(configuration.sources)
    except OSError as error:
        raise ConfigError([f"a certificate of tls_config can no longer be used: {error}"]) from None
    _warn(configuration)


def _warn(configuration: Config) -> None:
    """Tell of settings that work, until something is slow."""
    for source in configuration.sources:
        if source.stale_after < source.least_stale_after:
            log.warning(
                "stale_after is too short: when a poll overruns interval, good data expires before the next poll"
                " can finish",
                source=source.name,
                stale_after_seconds=source.stale_after,
                least_seconds=source.least_stale_after,
            )
