"""The workers of each pool: those that are online, and the newest heartbeat."""

from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest

from exporter.demo import answers
from exporter.demo.rows import Worker
from exporter.model import Workers
from tests.harness.inprocess import SLOW, OneSource, poll_until_late
from tests.harness.lookalike import A_WORKERS, ALL, BEAT, NOT_ALLOWED, NOT_FOUND, asked, small, snapshot_of, worker
from tests.harness.upstream import answer, never, serve


@pytest.mark.parametrize("refusal", [NOT_FOUND, NOT_ALLOWED], ids=["404", "405"])
async def test_the_workers_of_one_pool_can_not_be_found(refusal: bytes) -> None:
    """The server has the endpoint: it is only this pool's that is left out."""
    fake = small(faults={A_WORKERS: refusal})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [(one.part, one.pool) for one in snapshot.unreadable] == [("workers", "a")]
        assert snapshot.unsupported == ()
        assert [one.name for one in snapshot.pools if one.workers] == ["b", "c"]


def dead(number: int) -> Worker:
    return worker(number, status="OFFLINE", silent=timedelta(hours=1))


def forgotten(number: int) -> Worker:
    """One of which no service of the server has found that it is dead."""
    return worker(number, silent=timedelta(days=2))


@pytest.mark.parametrize(
    ("workers", "online", "silent", "requests"),
    [
        ([], 0, None, 2),
        ([dead(n) for n in range(5_000)], 0, timedelta(hours=1), 2),
        ([worker(n) for n in range(3)], 3, timedelta(), 1),
        ([*(worker(n) for n in range(3)), *(dead(n) for n in range(3, 5_000))], 3, timedelta(), 1),
        ([*(worker(n) for n in range(3)), *(forgotten(n) for n in range(3, 5_000))], 3, timedelta(), 1),
        ([forgotten(n) for n in range(5_000)], 0, timedelta(days=2), 2),
        ([*(worker(n) for n in range(199)), *(dead(n) for n in range(199, 5_000))], 199, timedelta(), 1),
        ([*(worker(n) for n in range(450)), *(dead(n) for n in range(450, 5_000))], 450, timedelta(), 2 * 3),
    ],
    ids=["none", "dead", "some", "some-beside-dead", "some-beside-forgotten", "forgotten", "page", "pages"],
)
async def test_dead_workers_cost_no_request(
    workers: list[Worker], online: int, silent: timedelta | None, requests: int
) -> None:
    """A server never deletes them. It orders them by their heartbeats, the newest first."""
    async with serve(small(workers=workers)) as upstream:
        async with OneSource("prefect", upstream.url, collect=["workers"]) as exporter:
            for _ in range(2):
                upstream.requests.clear()
                snapshot = snapshot_of(await exporter.poll())
                assert Counter(asked(upstream))[A_WORKERS] == requests
    assert snapshot.unreadable == ()
    (found,) = [one.workers for one in snapshot.pools if one.name == "a"]
    assert found == Workers({"ONLINE": online}, None if silent is None else (BEAT - silent).timestamp())


async def test_workers_of_a_pool_that_are_not_read_in_time_cost_no_other_pool_its_workers() -> None:
    fake = small(faults={A_WORKERS: never})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["workers"], **SLOW) as exporter:
        snapshot = snapshot_of(await poll_until_late(exporter, upstream, 3))
        assert [(one.part, one.pool, one.reason) for one in snapshot.unreadable] == [("workers", "a", "timeout")]
        assert [one.name for one in snapshot.pools if one.workers] == ["b", "c"]


async def test_workers_in_a_status_of_tomorrow_are_counted() -> None:
    fake = small()
    row = answers.worker(worker(1), fake, BEAT)
    states = ("ONLINE", "DRAINING", "OFFLINE")
    rows = [row | {"id": str(UUID(int=number)), "status": state} for number, state in enumerate(states)]
    fake.faults = {A_WORKERS: answer(rows)}
    async with serve(fake) as upstream:
        async with OneSource("prefect", upstream.url, collect=["workers"]) as exporter:
            snapshot = snapshot_of(await exporter.poll())
    (found,) = [one.workers for one in snapshot.pools if one.name == "a"]
    assert found == Workers({"ONLINE": 1, "unknown": 1}, BEAT.timestamp())


async def test_the_workers_of_a_deleted_pool() -> None:
    fake = small(faults={A_WORKERS: answer({"detail": "Work pool 'a' not found."}, 404)})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, snapshot.unsupported) == ("success", ())
        assert [one.name for one in snapshot.pools if one.workers] == ["b", "c"]
