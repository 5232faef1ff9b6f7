"""Exporters that share their sources: a name belongs to one of them, and together they publish what one alone does."""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from exporter import demo
from exporter.clock import Clock
from exporter.config import Config
from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.polling.poller import Poller
from exporter.polling.store import Store, View
from exporter.polling.telemetry import Telemetry
from exporter.shard import WHOLE, Shard
from exporter.sources.base import SourceConfig
from tests.harness.exporter import Series, series
from tests.harness.prefect import PrefectServer
from tests.harness.scenario import POOLS

NAMES = [("prefect", "queue", f"pool {number % 7}", f"queue {number}") for number in range(2_000)]
MOMENT = datetime(2026, 11, 21, 23, 24, 25, tzinfo=UTC)
GROWING = ("_bucket", "_gsum", "_max_seconds")
"""Endings of the names of series whose values grow while time passes."""


def owner(total: int, *name: str) -> int:
    """The shard that a name belongs to. Raises `ValueError` unless that is exactly one."""
    (index,) = [index for index in range(total) if Shard(index, total).owns(*name)]
    return index


def test_every_name_belongs_to_one_shard_and_about_as_many_to_each() -> None:
    for total in (*range(1, 9), 100):
        counts = Counter(owner(total, *name) for name in NAMES)
        even = len(NAMES) / total
        assert all(abs(counts[index] - even) <= 4 * even**0.5 for index in range(total)), (total, counts)


def test_one_shard_more_takes_its_part_and_no_other_name_moves() -> None:
    for total in (*range(1, 9), 100):
        moved = {name: owner(total + 1, *name) for name in NAMES if owner(total, *name) != owner(total + 1, *name)}
        assert set(moved.values()) == {total}
        share = len(NAMES) / (total + 1)
        assert len(moved) < share + 4 * share**0.5


def test_all_processes_agree_whenever_they_run() -> None:
    names = [("prefect", "queue", "k8s", "default"), ("prefect", "queue", "ünïcode 池", "a\nb"), ("cloro",)]
    script = f"from exporter.shard import Shard; print([[Shard(i, 5).owns(*n) for i in range(5)] for n in {names!r}])"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    # An upgrade of one exporter after the other must not move anything: these are never to change.
    assert [owner(5, *name) for name in names] == [0, 4, 3]


def test_a_name_is_more_than_its_letters() -> None:
    pairs = [(("a", f"b{number}"), (f"ab{number}", "")) for number in range(100)]
    assert any(owner(5, *one) != owner(5, *other) for one, other in pairs)


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


async def test_of_the_demo() -> None:
    async with demo.serve(lambda: MOMENT) as upstreams:
        sources = [
            {"system": "prefect", "name": "prefect", "url": upstreams.prefect_url},
            {
                "system": "cloro",
                "name": "cloro",
                "url": upstreams.cloro_url,
                "authorization": {"credentials": upstreams.cloro_api_key},
            },
        ]
        configs = Config.model_validate({"sources": sources}).sources
        whole = await polled(configs)
        assert {labels["queue"] for labels in labels_of(whole.observed) if "queue" in labels} >= {"async", "default"}
        for total in range(1, 6):
            shards = [await polled(configs, Shard(index, total)) for index in range(total)]
            assert_that_together_they_are(whole, shards)
            asked = [shard for shard in shards if shard.requests("cloro")]
            assert asked == [shard for shard in shards if "cloro" in shard.states], "its rate limit is not for us"
            assert len(asked) == 1
            assert all("prefect" in shard.states for shard in shards)


async def test_of_a_real_server(prefect_server: PrefectServer) -> None:
    config = {"system": "prefect", "name": "prefect", "url": prefect_server.api_url}
    configs = Config.model_validate({"sources": [config]}).sources
    whole = await polled(configs)
    kinds = {key[0].split("_")[1] for key in whole.observed}
    assert kinds == {"queue", "pool", "limit"}
    for total in range(1, 6):
        shards = [await polled(configs, Shard(index, total)) for index in range(total)]
        assert_that_together_they_are(whole, shards)
        for index, shard in enumerate(shards):
            assert shard.observed, "there is something for each to do"
            labels = frozenset({"source": "prefect", "system": "prefect", "shard": str(index)}.items())
            assert shard.own["concurrency_exporter_source_shards", labels] == total
    # Every pool has a queue of this name.
    of_pools = [labels for labels in labels_of(shards[0].observed) if labels.get("queue") == "default"]
    assert 0 < len({labels["pool"] for labels in of_pools}) < len(POOLS)


def labels_of(found: Series) -> list[dict[str, str]]:
    return [dict(labels) for _, labels in found]


async def test_a_reload_keeps_what_a_shard_has(prefect_server: PrefectServer) -> None:
    settings = {"system": "prefect", "name": "prefect", "url": prefect_server.api_url}
    clock = Clock()
    store = Store(clock)
    poller = Poller(store, Telemetry(clock), clock, Shard(1, 2))
    await poller.configure(Config.model_validate({"sources": [settings]}).sources)
    try:
        await poller.poll("prefect")
        before = store.view().states
        assert before[0].published
        await poller.configure(Config.model_validate({"sources": [settings]}).sources)
        assert store.view().states == before
        await poller.configure(Config.model_validate({"sources": [settings | {"interval": "20s"}]}).sources)
        assert store.view().states != before
    finally:
        await poller.stop()
