"""What exporters that share their sources publish together, compared with what one alone does."""

from collections.abc import Sequence

from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.polling.store import View
from exporter.polling.telemetry import Telemetry
from exporter.shard import WHOLE, Shard
from exporter.sources.base import SourceConfig
from tests.harness.exporter import Series, series
from tests.harness.inprocess import Exporter, Time

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
    """Poll each source once, as this shard does."""
    async with Exporter(*configs, time=Time.running(), shard=shard) as exporter:
        for state in exporter.view.states:
            await exporter.poller.poll(state.name)
        return Polled(exporter.view, exporter.telemetry)


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
