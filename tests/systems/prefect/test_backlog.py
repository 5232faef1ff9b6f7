"""Runs that wait: what reading them costs, and what happens when they can't be read."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from exporter.sources.prefect import backlog
from tests.harness.inprocess import OneSource
from tests.harness.lookalike import (
    ACTIVE,
    ALL,
    BROKEN,
    COUNT,
    HISTORY,
    OF_BACKLOG,
    RUNS,
    active,
    asked,
    flow_run,
    small,
    snapshot_of,
)
from tests.harness.upstream import answer, serve


async def test_nothing_that_waits_costs_one_request() -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    fake = small()
    fake.runs = [flow_run(31, "Scheduled", fake.queues[0], ahead)]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["backlog"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [path for path in asked(upstream) if path.startswith("/flow_runs")] == [COUNT]
    assert {tuple(state.count for state in one.waiting.values()) for one in snapshot.queues} == {(0, 0, 0, 0)}
    assert {one.longest_wait for one in snapshot.queues} == {None}


@pytest.mark.parametrize(
    ("waiting", "queues", "cheaper"),
    [
        (200, 0, True),
        (201, 0, False),
        (266, 1, True),
        (267, 1, False),
        (400, 3, True),
        (401, 3, False),
        (33_533, 500, True),
        (33_534, 500, False),
    ],
)
def test_when_to_sweep_the_backlog(waiting: int, queues: int, cheaper: bool) -> None:
    assert backlog.sweep_is_cheaper(waiting, queues, 200) is cheaper


async def test_a_large_backlog_that_can_not_be_read() -> None:
    """Each queue is asked then; it is all or nothing, so that no queue looks as if nothing waited."""
    fake = small(faults={COUNT + OF_BACKLOG: answer(1000)})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        cost = Counter(asked(upstream))
        # Beside the sweep of the holders: the oldest of what is due, and the oldest that is held back.
        assert (cost[HISTORY], cost[RUNS]) == (6, 1 + 2)
        assert {
            one.name: sum(state.count for state in one.waiting.values()) for one in snapshot.queues
        } == dict.fromkeys(ACTIVE, 0) | {"q1": 2}
        for path in (HISTORY + OF_BACKLOG, RUNS + OF_BACKLOG):
            fake.faults = {COUNT + OF_BACKLOG: answer(1000), path: BROKEN}
            snapshot = snapshot_of(await exporter.poll())
            assert [(one.part, one.queue) for one in snapshot.unreadable] == [("backlog", "")]
            assert {len(one.waiting) for one in snapshot.queues} == {0}
            assert active(snapshot) == ACTIVE
