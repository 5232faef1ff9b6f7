"""`make soak` for some seconds, and that it would see what grows."""

import dataclasses
import json
import subprocess
import sys

import pytest

from exporter.model import Pool, Queue, Snapshot
from exporter.web.connection import LIMITS
from tests.harness.inprocess import Exporter
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT
from tests.measure import soak
from tests.measure.soak import Held


def test_nothing_grows_with_the_polls() -> None:
    """In a process of its own: the memory of this one is what the tests before have left of it."""
    code = "import asyncio, dataclasses, json; from tests.measure import soak"
    code += "; held = asyncio.run(soak.polls(300, checkpoints=3))"
    code += "; print(json.dumps([dataclasses.asdict(one) for one in held]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE
    )
    held = [Held(**one) for one in json.loads(done.stdout.splitlines()[-1])]
    assert [one.polls for one in held] == [100, 200, 300]
    assert soak.grown(held) == []


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Held) if field.name != "polls"])
def test_growth_is_seen(name: str) -> None:
    before = Held(polls=100, mib=60.0, objects=60_000, descriptors=12, threads=3, tasks=1, series=90)
    after = dataclasses.replace(before, polls=200, **{name: getattr(before, name) * 2 + 10})
    assert soak.grown([before, before]) == []
    assert [line.partition(":")[0] for line in soak.grown([before, after])] == [name]


def test_a_series_that_is_left_over_is_seen() -> None:
    number = next(number for number in range(100) if not soak.moment(number).failing)
    pools = soak.moment(number).pools
    queues = tuple(Queue(pool, name, usage_known=True) for pool, names in pools.items() for name in names)
    for more, less in ((), 0), ((Queue("pool 99", "left over", usage_known=True),), 0), ((), 1):
        exporter = Exporter()
        exporter.add("p")
        snapshot = Snapshot(queues=queues[less:] + more, pools=tuple(Pool(name, id=name) for name in pools))
        exporter.publish("p", snapshot)
        if not more and not less:
            soak.compare(number, exporter.view.states)
        else:
            with pytest.raises(AssertionError):
                soak.compare(number, exporter.view.states)


def test_scrapes_that_prometheus_would_give_up_are_seen() -> None:
    patient = soak.Times.of([0.1] * 99 + [10.0])
    assert soak.slow({"patient": patient, "one": soak.Times.of([0.1] * 99 + [10.1])}) == [
        "one: p99 of a scrape is 10.1 s, above 10 s"
    ]


async def test_many_scrapers_at_once_are_all_answered() -> None:
    times = await soak.scrapes(100, 50, waves=2)
    assert times.scrapes == 100


async def test_who_hangs_does_not_keep_a_scraper_out() -> None:
    besieged = await soak.siege(4)
    assert besieged.times.scrapes > 2
    assert LIMITS.connections <= besieged.most <= besieged.before + LIMITS.connections + 2
    assert besieged.after <= besieged.before + 4


def test_the_documents_count_them() -> None:
    text = " ".join((ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").split())
    assert f"in one of {len(soak.FAILURES)} ways" in text
    assert f"{soak.HALF_OPEN} half-open connections, {soak.SLOW} who send a byte" in text
    assert f"{soak.SLOW} who ask and do not read" in text


def test_a_moment_is_the_same_for_both_sides() -> None:
    moments = [soak.moment(number) for number in range(2_000)]
    assert moments == [soak.moment(number) for number in range(2_000)]
    assert {one.failing for one in moments} == {"", *soak.FAILURES}
    assert len({len(queues) for one in moments for queues in one.pools.values()}) == 9
