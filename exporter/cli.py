"""The command `concurrency-exporter`: flags, wiring, signals, exit codes."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from exporter import __version__, config, logs
from exporter.clock import Clock
from exporter.config import Config
from exporter.flags import DEFAULT_PORT, parser
from exporter.memory import return_large_blocks
from exporter.output import say
from exporter.polling.poller import Poller
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.reload import Load, Reloader, read_both, use
from exporter.report import report
from exporter.settings.reader import ConfigError
from exporter.shard import Shard
from exporter.threads import LookUps
from exporter.web import config as web_config
from exporter.web import listeners
from exporter.web.guard import Guard
from exporter.web.location import Location, location
from exporter.web.routes import application
from exporter.web.server import Server

if TYPE_CHECKING:
    from exporter.demo import Upstreams

log = structlog.get_logger()

_SHUTDOWN_SECONDS: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 for an error that the user has to fix."""
    flags = parser().parse_args(arguments)
    if flags.holders and not flags.dry_run:
        parser().error("argument --holders: only with --dry-run")
    serves = not (flags.config_check or flags.dry_run)

    def end(number: int, _: object) -> None:
        # A server that is told to stop has done its work; a check or a dry run has not.
        raise SystemExit(0 if serves else 128 + number)

    for stop in (signal.SIGTERM, signal.SIGINT):
        # As PID 1 a signal without a handler is ignored, so there has to be one from the start.
        signal.signal(stop, end)
    logs.configure(flags.log_level, flags.log_format)
    return_large_blocks()
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
            return await _dry_run(load(), flags.shard, holders=flags.holders)
        return await _serve(flags, load, place)


def _check(flags: argparse.Namespace, load: Load) -> int:
    """Read all files. Raises `ConfigError` with the mistakes of all of them."""
    web = flags.web_config_file
    configuration, _ = read_both(load, lambda: web_config.load(web) if web else None)
    config.warn(configuration)
    say(f"{_origin(flags)}: {len(configuration.sources)} source(s), no errors")
    if web:
        say(f"{web}: no errors")
    return 0


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


async def _dry_run(configuration: Config, shard: Shard, *, holders: bool) -> int:
    clock = Clock()
    store = Store(clock)
    telemetry = Telemetry(clock)
    poller = Poller(store, telemetry, clock, shard)
    await use(configuration, poller)
    try:
        await asyncio.gather(*(poller.poll(state.name) for state in store.view().states))
        states = store.view().states
    finally:
        await poller.stop()
    say(report(states, telemetry.requests, holders=holders))
    return 0 if all(state.outcome == "success" for state in states) else 1


async def _serve(flags: argparse.Namespace, load: Load, place: Location) -> int:
    clock = Clock()
    store = Store(clock)
    telemetry = Telemetry(clock)
    poller = Poller(store, telemetry, clock, flags.shard)
    file = flags.web_config_file
    configuration, web = read_both(
        load, lambda: web_config.LiveWebConfig(file, telemetry.web_config_read, clock) if file else None
    )
    reloader = Reloader(load, web.read if web else lambda: None, poller, telemetry)
    loop = asyncio.get_running_loop()
    look_ups = LookUps(loop)
    loop.add_signal_handler(signal.SIGHUP, reloader.hang_up)
    await reloader.start(configuration)
    sockets = _sockets(flags)
    reasons = {system: about.reasons for system, about in config.ABOUT.items()}
    routes = application(store, telemetry, reloader.reload if flags.web_enable_lifecycle else None, place, reasons)
    tls = web.tls() if web else None
    server = Server(Guard(place.below(routes), web, clock), graceful_seconds=_SHUTDOWN_SECONDS, tls=tls)
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, server.stop)
    poller.start()
    try:
        log.info(
            "listening",
            address=",".join(map(listeners.shown, sockets)),
            version=__version__,
            configuration=_origin(flags),
            tls=tls is not None,
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
