"""Exporters that share their sources: a name belongs to one of them, and together they publish what one alone does."""

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

from exporter import demo
from exporter.config import Config
from exporter.shard import Shard
from tests.harness.shards import assert_that_together_they_are, labels_of, polled

NAMES = [("prefect", "queue", f"pool {number % 7}", f"queue {number}") for number in range(2_000)]
SHARED = [(total, NAMES if total < 9 else NAMES[:800]) for total in (*range(1, 9), 100)]
"""Numbers of shards, and the names that they share: each of these is asked for every name."""
MOMENT = datetime(2026, 11, 21, 23, 24, 25, tzinfo=UTC)


def owner(total: int, *name: str) -> int:
    """The shard that a name belongs to. Raises `ValueError` unless that is exactly one."""
    (index,) = [index for index in range(total) if Shard(index, total).owns(*name)]
    return index


def test_every_name_belongs_to_one_shard_and_about_as_many_to_each() -> None:
    for total, names in SHARED:
        counts = Counter(owner(total, *name) for name in names)
        even = len(names) / total
        assert all(abs(counts[index] - even) <= 4 * even**0.5 for index in range(total)), (total, counts)


def test_one_shard_more_takes_its_part_and_no_other_name_moves() -> None:
    for total, names in SHARED:
        owners = {name: (owner(total, *name), owner(total + 1, *name)) for name in names}
        moved = {name: now for name, (before, now) in owners.items() if before != now}
        assert set(moved.values()) == {total}
        share = len(names) / (total + 1)
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
