"""Holders of slots: which of two plans reads them, and what happens when one of these fails."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.sources.prefect import slots
from tests.harness.inprocess import SLOW, OneSource, poll_until_late
from tests.harness.lookalike import (
    ACTIVE,
    ALL,
    BROKEN,
    COUNT,
    NOT_FOUND,
    OF_HOLDERS,
    RUNS,
    Lookalike,
    active,
    asked,
    families,
    flow_run,
    one_status,
    small,
    snapshot_of,
)
from tests.harness.upstream import Answer, Request, answer, never, serve


async def test_no_holder_costs_one_request() -> None:
    async with serve(small(runs=[])) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [path for path in asked(upstream) if path.startswith("/flow_runs")] == [COUNT]
    assert active(snapshot) == dict.fromkeys(ACTIVE, 0)
    assert {one.slot_limit for one in snapshot.queues} == {4}


@pytest.mark.parametrize(
    ("holders", "queues", "cheaper"),
    [
        (0, 1, True),
        (1, 3, False),
        (1, 4, True),
        (200, 4, True),
        (201, 4, False),
        (201, 7, False),
        (201, 8, True),
        (25_000, 500, True),
        (25_001, 500, False),
    ],
)
def test_when_to_sweep(holders: int, queues: int, cheaper: bool) -> None:
    assert slots.sweep_is_cheaper(holders, queues, 200) is cheaper


async def test_which_plan_is_chosen() -> None:
    """Each queue is asked where there are few queues, or too many holders."""
    ago = datetime.now(UTC)
    fake = small()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        fake.runs = [flow_run(1000 + number, "Running", fake.queues[0], ago) for number in range(201)]
        await exporter.poll()
        assert (
            Counter(path.rpartition("/")[2] for path in asked(upstream))["concurrency_status"] == 6 + 1
        )  # two pages of one
        fake.runs = fake.runs[:200]
        snapshot = snapshot_of(await exporter.poll())
        # The page is full, so that another one may follow.
        roll_call = [RUNS, COUNT]
        assert asked(upstream)[-5:] == [COUNT, RUNS, RUNS, *roll_call]
        assert active(snapshot)["q0"] == 200
    async with serve(fake) as upstream:
        async with OneSource("prefect", upstream.url, collect=["queues"], queues={"include": "q[123]"}) as exporter:
            await exporter.poll()
            paths = asked(upstream)
            assert sum(path.endswith("/concurrency_status") for path in paths) == 3
            assert COUNT not in paths


async def test_a_queue_whose_status_has_no_limit_has_that_of_the_listing() -> None:
    """Its schema does not require one. Null is no limit."""
    fake = small()

    def changed(change: Callable[[dict[str, Any]], object]) -> Answer:
        async def reply(request: Request) -> bytes:
            status = (await fake.ask(request)).json()
            change(status)
            return answer(status)

        return reply

    absent, null, own = (one_status(queue) for queue in fake.queues[:3])
    fake.faults = {
        RUNS + OF_HOLDERS: BROKEN,
        absent: changed(lambda status: status.pop("concurrency_limit")),
        null: changed(lambda status: status.update(concurrency_limit=None)),
        own: changed(lambda status: status.update(concurrency_limit=7)),
    }
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    assert [queue.slot_limit for queue in snapshot.queues] == [4, None, 7, 4, 4, 4]


async def test_without_the_status_of_queues_the_holders_are_swept() -> None:
    """However many holders there are: a server before 3.6.23 has no other way."""
    fake = small()
    fake.runs += [flow_run(1000 + number, "Running", fake.queues[2], datetime.now(UTC)) for number in range(300)]
    fake.faults = {one_status(queue): NOT_FOUND for queue in fake.queues}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        for status_requests in (6, 0):
            snapshot = snapshot_of(await exporter.poll())
            paths = Counter(path.rpartition("/")[2] for path in asked(upstream))
            assert paths["concurrency_status"] == status_requests
            assert (snapshot.unsupported, snapshot.unreadable) == ((), ())
            assert active(snapshot) == ACTIVE | {"q2": 300}
        fake.faults[COUNT] = NOT_FOUND
        snapshot = snapshot_of(await exporter.poll())
        assert snapshot.unsupported == ("queues",)
        assert active(snapshot) == dict.fromkeys(ACTIVE)
        assert families(await exporter.observed()) <= {
            f"concurrency_{name}" for name in ("queue_slot_limit", "queue_paused", "queue_info")
        }


def on_page_2(fault: bytes, fake: Lookalike) -> Answer:
    async def page(request: Request) -> bytes:
        if request.json["offset"]:
            return fault
        return answer((await fake.ask(request)).content)

    return page


@pytest.mark.parametrize("fault", [BROKEN, answer([{}]), answer(b"<html>")], ids=["500", "contract", "html"])
@pytest.mark.parametrize("where", ["count", "page 1", "page 2"])
async def test_a_sweep_that_fails_is_done_queue_by_queue(where: str, fault: bytes) -> None:
    fake = small()
    if where == "page 2":
        fake.greatest = 3
    replaced: dict[str, dict[str, bytes | Answer]] = {
        "count": {COUNT + OF_HOLDERS: fault},
        "page 1": {RUNS + OF_HOLDERS: fault},
        "page 2": {RUNS + OF_HOLDERS: on_page_2(fault, fake)},
    }
    fake.faults = replaced[where]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, snapshot.unreadable) == ("success", ())
        assert active(snapshot) == ACTIVE
        paths = asked(upstream)
        assert sum(path.endswith("/concurrency_status") for path in paths) == 6
        assert exporter.logs == []


async def test_a_sweep_that_fails_and_a_queue_that_does() -> None:
    fake = small()
    fake.faults = {RUNS + OF_HOLDERS: BROKEN, one_status(fake.queues[2]): BROKEN}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [(one.part, one.pool, one.queue) for one in snapshot.unreadable] == [("queues", "b", "q2")]
        assert active(snapshot) == {name: slots for name, slots in ACTIVE.items() if name != "q2"}
        assert exporter.own("queues_unreadable") == 1


async def test_a_sweep_that_fails_where_it_is_the_only_way() -> None:
    fake = small()
    fake.faults = {one_status(queue): NOT_FOUND for queue in fake.queues}
    fake.faults[RUNS + OF_HOLDERS] = BROKEN
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "http_status"
        assert state.failure.message.startswith("no queue could be read; the first: POST ")


async def test_a_sweep_that_hangs_is_not_done_queue_by_queue() -> None:
    """It has taken its share of the time."""
    fake = small(faults={RUNS + OF_HOLDERS: never})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"], **SLOW) as exporter:
        state = await poll_until_late(exporter, upstream, 5)
        assert state.failure
        assert state.failure.reason == "timeout"
        assert not [path for path in asked(upstream) if path.endswith("/concurrency_status")]


async def test_the_holders_of_a_queue_end() -> None:
    def endless(request: Request) -> bytes:
        size = request.json.get("limit", 70_000)
        first = (request.json["page"] - 1) * size
        holders = [{"id": f"{number}"} for number in range(first, first + size)]
        counts = {"active_slots": 1, "count": 1, "limit": size, "pages": 1000, "page": 1, "concurrency_limit": 5}
        return answer({**counts, "flow_runs": holders})

    fake = small()
    fake.faults = {one_status(fake.queues[0]): endless}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        # With six queues and three holders they are swept; of a sweep that fails each queue is asked.
        fake.faults[RUNS + OF_HOLDERS] = BROKEN
        snapshot = snapshot_of(await exporter.poll())
        asked_of_it = [one for one in upstream.requests if one.path == f"/api{one_status(fake.queues[0])}"]
    (left_out,) = snapshot.unreadable
    assert (left_out.queue, left_out.reason, len(asked_of_it)) == ("q0", "too_large", 3)
    assert left_out.message.endswith("more than 200,000 holders")
