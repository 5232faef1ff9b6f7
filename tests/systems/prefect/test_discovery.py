"""Which queues and pools a server has: listed all at once or pool by pool, and what is noticed when they change."""

from typing import Any, Final

import pytest

from exporter.demo import answers
from exporter.demo.rows import Pool, Queue
from exporter.polling.store import SourceState
from exporter.sources.prefect import costs
from tests.harness.inprocess import OneSource
from tests.harness.lookalike import ALL, BROKEN, NOT_FOUND, POOLS, QUEUES, Lookalike, asked, limit, small, snapshot_of
from tests.harness.upstream import Request, Upstream, answer, serve


@pytest.mark.parametrize(
    ("pages", "pools", "cheaper"),
    [(1, 2, False), (1, 3, True), (2, 4, False), (2, 5, True), (3, 7, False), (3, 8, True)],
)
def test_when_to_list_all_queues_at_once(pages: int, pools: int, cheaper: bool) -> None:
    assert costs.cheaper(pages * costs.QUEUES_PAGE, pools * costs.POOL_QUEUES) is cheaper


def wide(**changed: Any) -> Lookalike:
    """36 queues in 12 pools, listed ten at a time in the order of their names."""
    rows: dict[str, Any] = {
        "pools": [Pool(f"p{number:02}", limit=9) for number in range(1, 13)],
        "queues": [Queue(f"p{1 + number // 3:02}", f"q{number:02}", limit=4) for number in range(36)],
        "greatest": 10,
    }
    return Lookalike(**rows | changed)


def ids(state: SourceState) -> set[str]:
    found = [one.id for one in snapshot_of(state).queues]
    assert len(found) == len(set(found))
    return set(found)


def of_fake(fake: Lookalike) -> set[str]:
    return {str(queue.id) for queue in fake.queues}


def pool_by_pool(paths: list[str]) -> bool:
    listed = sum(path.endswith("/queues/filter") for path in paths)
    assert listed == 0 or listed >= 12
    return listed > 0


SLOTS: Final = {"collect": ["queues"], "pools": {"exclude": "hidden"}}


@pytest.mark.parametrize("lossy", [False, True])
async def test_queues_are_listed_all_at_once_after_the_first_poll(lossy: bool) -> None:
    fake = wide(lossy=lossy)
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        assert ids(await exporter.poll()) == of_fake(fake)
        first = asked(upstream)
        assert pool_by_pool(first)
        assert QUEUES not in first
        for _ in range(3):
            assert ids(await exporter.poll()) == of_fake(fake)
            paths = asked(upstream)
            assert not pool_by_pool(paths)
            # Four pages, and those that they lost.
            assert paths.count(QUEUES) == (5 if lossy else 4)


async def test_more_is_lost_than_a_page_holds() -> None:
    fake = wide()

    async def lossy(request: Request) -> bytes:
        if "work_queues" in request.json:
            return answer((await fake.ask(request)).content)
        if request.json["limit"] > 10:
            return answer([])
        queues = (await fake.ask(request, offset=0, limit=10)).json()
        rows = [queue for queue in queues for _ in range(3)][:29] + queues[:7]
        return answer(rows[request.json["offset"] :][:10])

    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        asked(upstream)
        fake.faults = {QUEUES: lossy}
        assert ids(await exporter.poll()) == of_fake(fake)
        assert not pool_by_pool(paths := asked(upstream))
        assert paths.count(QUEUES) == 4 + 3  # 26 are lost: nine fit on a page with nothing behind it


@pytest.mark.parametrize("lossy", [False, True])
async def test_what_changes_is_noticed_at_the_next_poll(lossy: bool) -> None:
    fake = wide(lossy=lossy)
    new = Queue("p04", "q09-new")  # where the listing loses it: only their number tells

    async def polled(exporter: OneSource, upstream: Upstream, *, relisted: bool) -> None:
        asked(upstream)
        assert ids(await exporter.poll()) == of_fake(fake)
        assert pool_by_pool(asked(upstream)) is relisted

    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        await polled(exporter, upstream, relisted=False)
        fake.queues.append(new)
        await polled(exporter, upstream, relisted=True)
        await polled(exporter, upstream, relisted=False)
        fake.queues.remove(new)
        await polled(exporter, upstream, relisted=True)
        await polled(exporter, upstream, relisted=False)
        fake.pools.append(Pool("p13"))
        fake.queues.append(Queue("p13", "q99"))
        await polled(exporter, upstream, relisted=True)
        # How many there are was not known of this listing: it is compared from the next one on.
        await exporter.poll()
        await polled(exporter, upstream, relisted=False)
        del fake.pools[-1], fake.queues[-1]
        await polled(exporter, upstream, relisted=True)


@pytest.mark.parametrize("listed", [True, False])
async def test_a_queue_that_takes_the_place_of_another(listed: bool) -> None:
    """Their number stays the same; the listing may lose the new one."""
    fake = wide()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        await exporter.poll()
        gone = 20 if listed else 10
        fake.queues[gone] = Queue("p04", f"q{gone}-new")
        fake.lossy = not listed
        asked(upstream)
        assert ids(await exporter.poll()) == of_fake(fake)
        assert pool_by_pool(asked(upstream))


async def test_pools_that_are_not_read_do_not_matter() -> None:
    fake = wide()
    fake.pools.append(Pool("hidden"))
    hidden = Queue("hidden", "default")  # the first of the listing
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        expected = of_fake(fake)
        fake.queues.append(hidden)
        for number in range(3):
            assert ids(await exporter.poll()) == expected
            paths = asked(upstream)
            assert pool_by_pool(paths) is (number == 0)
            assert not [path for path in paths if "hidden" in path]


@pytest.mark.parametrize("fault", [BROKEN, NOT_FOUND, answer([{}])], ids=["500", "404", "contract"])
async def test_a_listing_that_fails_is_done_pool_by_pool(fault: bytes) -> None:
    fake = wide()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        fake.faults = {QUEUES: fault}
        for _ in range(2):
            asked(upstream)
            state = await exporter.poll()
            assert (state.outcome, ids(state)) == ("success", of_fake(fake))
            paths = asked(upstream)
            assert pool_by_pool(paths)
            assert paths.count(QUEUES) == 1


async def test_a_pool_that_could_not_be_listed_is_listed_again() -> None:
    fake = wide(faults={"/work_pools/p03/queues/filter": BROKEN})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SLOTS) as exporter:
        state = await exporter.poll()
        assert [(one.part, one.pool) for one in snapshot_of(state).unreadable] == [("queues", "p03")]
        asked(upstream)
        assert len(ids(await exporter.poll())) == 33
        assert QUEUES not in asked(upstream)
        fake.faults = {}
        assert ids(await exporter.poll()) == of_fake(fake)
        assert pool_by_pool(asked(upstream))


async def test_a_name_that_is_too_long_is_not_published() -> None:
    """A queue's name is in each of its lines: one of some megabytes would be gigabytes of metrics."""
    fake = small()
    fake.pools += [Pool("p" * 100_000), Pool("P" * 1_000)]
    fake.queues += [
        Queue("a", "q" * 2_000_000),
        Queue("a", "Q" * 1_000),
        Queue("p" * 100_000, "of the pool that is left out"),
    ]
    fake.limits += [limit("l" * 1_001), limit("L" * 1_000)]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        text, page = await exporter.page(), await exporter.page("/")
    snapshot = snapshot_of(state)
    assert state.outcome == "partial"
    assert {one.name for one in snapshot.queues} == {"Q" * 1_000, *(f"q{number}" for number in range(6))}
    assert {one.name for one in snapshot.pools} == {"P" * 1_000, "a", "b", "c"}
    assert {one.name for one in snapshot.limits} == {"L" * 1_000, "database", "gpu", "etl/nightly"}
    message = f"{upstream.url}/api lists a name of more than 1,000 characters, which would be in each of its series"
    assert [(one.part, one.reason, one.message, one.what) for one in snapshot.unreadable] == [
        ("pools", "too_large", message, f"pool '{'p' * 50}…'"),
        ("queues", "too_large", message, f"queue '{'q' * 50}…' of pool 'a'"),
        ("limits", "too_large", message, "the limits"),
    ]
    assert 'queues_unreadable{source="s",system="prefect"} 1.0' in text
    assert len(text) + len(page) + len(str(exporter.logs)) < 200_000


async def test_a_page_has_no_more_rows_than_were_asked_for() -> None:
    fake = small()
    fake.faults = {POOLS: answer([answers.pool(Pool(f"p{number}"), 0, fake) for number in range(201)])}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
    assert state.failure
    assert (state.failure.reason, state.failure.message) == (
        "contract",
        f"POST {upstream.url}/api{POOLS}: a page has 201 rows, and 200 were asked for",
    )
