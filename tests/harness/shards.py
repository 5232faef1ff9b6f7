"""What exporters that share their sources publish together, compared with what one alone does."""

from collections.abc import Sequence

from exporter.clock import Clock
from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.polling.poller import Poller
from exporter.polling.store import Store, View
from exporter.polling.telemetry import Telemetry
from exporter.shard import WHOLE, Shard
from exporter.sources.base import SourceConfig
from tests.harness.exporter import Series, series

GROWING = ("_bucket", "_gsum", "_max_seconds")
"""Endings of the names of series whose values grow while time passes."""


class Polled:
    """What one exporter has after one poll of each of its sources."""

    def __init__(self, view: View, telemetry: Telemetry) -> None:
        self.states = {state.name: state for state in view.states}
        self.observed = series(b"".join(Body(view.live.values(), Format.CLASSIC).plain(b"")).decode())
        self.own = series(telemetry.render(view, Format.CLASSIC).decode())
        self.requests = telemetry.requests


async def polled(configs: Sequence[SourceConfig], shard: Shard = WHOLE) -> Polled:
    clock = Clock()
    store = Store(clock)
    telemetry = Telemetry(clock)
    poller = Poller(store, telemetry, clock, shard)
    await poller.configure(configs)
    try:
        for state in store.view().states:
            await poller.poll(state.name)
        return Polled(store.view(), telemetry)
    finally:
        await poller.stop()


def assert_that_together_they_are(whole: Polled, shards: Sequence[Polled]) -> None:
    """Every series of the one that reads everything is one of exactly one shard, and there is no other."""
    together: Series = {}
    for shard in shards:
        assert all(state.outcome == "success" for state in shard.states.values())
        assert not together.keys() & shard.observed.keys()
        together |= shard.observed
    assert together.keys() == whole.observed.keys()
    assert steady(together) == steady(whole.observed)


def steady(found: Series) -> Series:
    return {key: value for key, value in found.items() if not key[0].endswith(GROWING)}


def labels_of(found: Series) -> list[dict[str, str]]:
    return [dict(labels) for _, labels in found]
