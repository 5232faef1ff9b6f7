"""Holders and waiting runs by id and name: which are named, what names cost, and what happens without them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import pytest

from exporter.demo.rows import Deployment, Queue
from exporter.model import Holder, Snapshot, WaitingTask
from tests.harness.inprocess import SLOW, OneSource, poll_until_late
from tests.harness.lookalike import (
    ALL,
    BROKEN,
    COUNT,
    DEPLOYMENTS,
    FLOWS,
    NOT_FOUND,
    RUNS,
    Lookalike,
    asked,
    flow_run,
    limit,
    one_status,
    small,
    snapshot_of,
    timeless,
)
from tests.harness.upstream import Answer, Request, answer, never, serve

SHOWN: Final[dict[str, Any]] = {"collect": ["queues"], "holders": {}}
MANY: Final = {COUNT: answer(10**9)}
"""So many holders that each queue is asked."""
plans = pytest.mark.parametrize("faults", [{}, MANY], ids=["sweep", "each-queue"])

ETL: Final = {"flow": "etl", "deployment": "nightly"}


def ident(number: int) -> str:
    return str(UUID(int=number))


def before(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def named(snapshot: Snapshot, url: str) -> dict[tuple[str, str], list[tuple[str, str, str | None, Mapping[str, str]]]]:
    """The named holders of each queue and state, without their seconds; links are below the URL of the server."""
    return {
        (queue.name, state): [
            (one.id, one.name, one.url and one.url.removeprefix(url), one.details) for one in holders.oldest
        ]
        for queue in snapshot.queues
        for state, holders in queue.holders.items()
        if holders.oldest
    }


def of(snapshot: Snapshot, queue: str, state: str) -> Sequence[Holder]:
    return next(one.holders[state].oldest for one in snapshot.queues if one.name == queue)


@plans
async def test_what_is_known_of_a_holder(faults: dict[str, bytes]) -> None:
    fake = small(faults=faults)
    fake.runs[0].worker = "docker-worker-1"
    fake.runs[0].name = 'say "hi"\n'
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert exporter.logs == []
    page = "/runs/flow-run/"
    assert named(snapshot, upstream.url) == {
        ("q0", "RUNNING"): [(ident(21), 'say "hi"\n', page + ident(21), ETL | {"worker": "docker-worker-1"})],
        ("q0", "PENDING"): [(ident(22), "able-ibex", page + ident(22), ETL)],
        ("q5", "CANCELLING"): [(ident(23), "able-ibex", page + ident(23), ETL)],
    }
    (seconds,) = snapshot.queues[0].holders["RUNNING"].seconds
    assert of(snapshot, "q0", "RUNNING")[0].seconds == seconds >= 60
    assert {one.url for one in snapshot.queues} == {
        f"{upstream.url}/work-pools/work-pool/{'abc'[number // 2]}/queue/q{number}" for number in range(6)
    }


async def test_links_to_pools_and_limits() -> None:
    async with serve(small()) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    assert {one.url for one in snapshot.pools} == {f"{upstream.url}/work-pools/work-pool/{name}" for name in "abc"}
    every = f"{upstream.url}/concurrency-limits"
    tag = limit("tag:gpu").id
    assert {one.kind: one.url for one in snapshot.limits} == {
        "global": every,
        "deployment": every,
        "tag": f"{every}/concurrency-limit/{tag}",
    }


async def test_the_address_of_the_ui_is_a_setting() -> None:
    async with serve(small()) as upstream:
        settings = SHOWN | {"ui_url": "https://ui.example.org/prefect/"}
        async with OneSource("prefect", upstream.url, **settings) as exporter:
            snapshot = snapshot_of(await exporter.poll())
    assert of(snapshot, "q0", "RUNNING")[0].url == f"https://ui.example.org/prefect/runs/flow-run/{ident(21)}"


@plans
async def test_names_are_asked_for_once(faults: dict[str, bytes]) -> None:
    fake = small(faults=faults)
    by_id = [RUNS] if faults else []
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        without = []
        for _ in range(3):
            await exporter.poll()
            without.append(sorted(asked(upstream)))
        async with OneSource("prefect", upstream.url, **SHOWN) as other:
            for number in range(3):
                snapshot = snapshot_of(await other.poll())
                more = [] if number else [*by_id, DEPLOYMENTS, FLOWS]
                assert sorted(asked(upstream)) == sorted(without[number] + more)
            fake.runs.append(flow_run(24, "Running", fake.queues[0], before(5)))
            longer = named(snapshot, upstream.url)
            snapshot = snapshot_of(await other.poll())
            assert sorted(asked(upstream)) == sorted(without[2] + by_id)
            longer["q0", "RUNNING"].append((ident(24), "able-ibex", f"/runs/flow-run/{ident(24)}", ETL))
            assert named(snapshot, upstream.url) == longer


@plans
async def test_the_oldest_of_each_state_are_named(faults: dict[str, bytes]) -> None:
    fake = small(faults=faults)
    fake.runs = [
        flow_run(100 * place + number, state, fake.queues[0], before(60 + number * 7 % 11))
        for place, state in enumerate(["Running", "Pending"])
        for number in range(11)
    ]
    async with (
        serve(fake) as upstream,
        OneSource("prefect", upstream.url, **SHOWN | {"holders": {"keep": 3}}) as exporter,
    ):
        holders = snapshot_of(await exporter.poll()).queues[0].holders
    oldest = [number for _, number in sorted((-(number * 7 % 11), number) for number in range(11))][:3]
    for place, state in enumerate(["RUNNING", "PENDING"]):
        assert [one.id for one in holders[state].oldest] == [ident(100 * place + number) for number in oldest]
        assert [one.seconds for one in holders[state].oldest] == sorted(holders[state].seconds, reverse=True)[:3]
        assert (holders[state].count, len(holders[state].seconds)) == (11, 11)


@plans
async def test_nothing_is_named_and_nothing_asked_if_that_is_not_wanted(faults: dict[str, bytes]) -> None:
    async with serve(small(faults=faults)) as upstream:
        settings = {"collect": ["queues", "backlog"], "holders": {"show": False}}
        async with OneSource("prefect", upstream.url, **settings) as exporter:
            snapshot = snapshot_of(await exporter.poll())
            assert not {DEPLOYMENTS, FLOWS}.intersection(asked(upstream))
    assert sum(one.count for queue in snapshot.queues for one in queue.holders.values()) == 3
    assert [one for queue in snapshot.queues for each in queue.holders.values() for one in each.oldest] == []
    assert [one for queue in snapshot.queues for each in queue.waiting.values() for one in each.oldest] == []


@plans
async def test_the_longest_waiting_runs_are_named_with_their_reason(faults: dict[str, bytes]) -> None:
    paused = Queue("a", "q1", paused=True)
    states = {31: "Late", 32: "AwaitingConcurrencySlot"} | dict.fromkeys(range(40, 50), "Late")
    runs = [flow_run(number, state, paused, before(91 - number)) for number, state in states.items()]
    fake = small(faults=faults, queues=[Queue("a", "q0"), paused], runs=runs)
    settings = {"collect": ["queues", "backlog"], "holders": {"keep": 2}}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **settings) as exporter:
        queue = snapshot_of(await exporter.poll()).queues[1]
    late: Sequence[WaitingTask] = queue.waiting["Late"].oldest
    held_back = queue.waiting["AwaitingConcurrencySlot"].oldest
    expected = [31, 40] if not faults else [31]  # where runs are only counted, the oldest is all that is read
    assert [one.id for one in late] == [ident(number) for number in expected]
    assert [one.id for one in held_back] == [ident(32)]
    for one in (*late, *held_back):
        assert one.url == f"{upstream.url}/runs/flow-run/{one.id}"
        assert (one.name, one.details) == ("able-ibex", ETL)
        assert one.seconds is not None
        assert one.seconds >= 50
    assert {one.reason for one in late} == {"queue_paused"}
    # Where runs are only counted, the reason is that of the one that has been due for longest.
    assert {one.reason for one in held_back} == {None if faults else "queue_paused"}
    assert max(one.seconds or 0.0 for one in (*late, *held_back)) == queue.longest_wait
    assert queue.blocked["queue_paused"] == 12


def of_names(fault: bytes | Answer) -> dict[str, bytes | Answer]:
    return {DEPLOYMENTS: fault, FLOWS: fault}


def failing_by_id(fake: Lookalike, fault: bytes) -> Callable[[Request], Awaitable[bytes]]:
    """The fault where runs are asked for by their ids; other listings of runs are as they were."""

    async def reply(request: Request) -> bytes:
        found = await fake.ask(request)
        return fault if "id" in request.json["flow_runs"] else answer(found.content, found.status_code)

    return reply


@plans
@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500, 503])
async def test_a_failure_to_read_names_costs_only_names(faults: dict[str, bytes], status: int) -> None:
    fault = answer({"detail": "no such names here"}, status)
    fake = small(faults=faults | of_names(fault))
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        state = await exporter.poll()
        assert (state.outcome, snapshot_of(state).unreadable) == ("success", ())
        observed = timeless(await exporter.observed())
        (told,) = exporter.logs
        assert (told["log_level"], told["source"]) == ("warning", "s")
        assert DEPLOYMENTS in told["error"]
        assert of(snapshot_of(state), "q0", "RUNNING")[0].details == {}
        exporter.logs.clear()
        await exporter.poll()
        assert {one["log_level"] for one in exporter.logs} <= {"debug"}  # it was told once
        fake.faults = dict(faults)
        snapshot = snapshot_of(await exporter.poll())
        assert of(snapshot, "q0", "RUNNING")[0].details == ETL
        assert timeless(await exporter.observed()) == observed


@pytest.mark.parametrize("fault", [BROKEN, NOT_FOUND], ids=["500", "404"])
async def test_holders_are_named_without_what_only_a_listing_of_runs_tells(fault: bytes) -> None:
    fake = small(faults=MANY)
    fake.faults = MANY | {RUNS: failing_by_id(fake, fault)}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        state = await exporter.poll()
        assert state.outcome == "success"
        (holder,) = of(snapshot_of(state), "q0", "RUNNING")
        assert (holder.id, holder.name, holder.details) == (ident(21), "able-ibex", {})
        assert [(one["log_level"], one["source"]) for one in exporter.logs] == [("warning", "s")]


async def test_names_that_hang_cost_only_names() -> None:
    fake = small(faults={DEPLOYMENTS: never})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN | SLOW) as exporter:
        state = await poll_until_late(exporter, upstream, 6)
        assert state.outcome == "success"
        assert len(named(snapshot_of(state), upstream.url)) == 3


@plans
async def test_a_name_that_is_too_long_or_no_text_costs_nothing_else(faults: dict[str, bytes]) -> None:
    long = "x" * 1_001
    fake = small(faults=faults)
    fake.runs[0].name, fake.runs[0].worker = long, long
    fake.runs[1].name = "y" * 1_000
    etl = Deployment(long, "nightly")
    fake.runs[1].deployment = etl
    fake.deployments[etl] = fake.queues[0]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, exporter.logs) == ("success", [])
    (running,), (pending,) = of(snapshot, "q0", "RUNNING"), of(snapshot, "q0", "PENDING")
    assert (running.id, running.name, running.details) == (ident(21), "", ETL)
    assert (pending.name, pending.details) == ("y" * 1_000, {"deployment": "nightly"})


ODD: Final[list[object]] = [None, 5, [], {}, {"prefect.worker.name": 5}, "not an id"]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("field", ["name", "flow_id", "deployment_id", "labels"])
@plans
async def test_a_field_for_people_that_breaks_the_contract_costs_nothing_else(
    faults: dict[str, bytes], field: str, odd: object
) -> None:
    fake = small(faults=faults)

    async def reply(request: Request) -> bytes:
        found = (await fake.ask(request)).json()
        rows = found["flow_runs"] if isinstance(found, dict) else found
        for row in rows:
            row |= {field: odd}
        return answer(found)

    fake.faults = faults | {RUNS: reply, one_status(fake.queues[0]): reply}
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        state = await exporter.poll()
        assert state.outcome == "success"
        (holder,) = of(snapshot_of(state), "q0", "RUNNING")
    assert holder.id == ident(21)
    assert holder.name == ("able-ibex" if field != "name" else odd if isinstance(odd, str) else "")
    assert holder.details.get("deployment") == (None if field == "deployment_id" else "nightly")
    assert holder.details.get("flow") == (None if field == "flow_id" else "etl")


async def test_a_poll_asks_for_a_page_of_names_at_most() -> None:
    deployments = [Deployment(f"flow-{number}", "nightly") for number in range(450)]
    queues = [Queue("a", f"q{number}") for number in range(15)]
    fake = small(
        queues=queues,
        runs=[
            flow_run(number, "Running", queues[number % 15], before(number), deployment=deployment)
            for number, deployment in enumerate(deployments)
        ],
        deployments=dict.fromkeys(deployments, queues[0]),
    )
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        complete: list[int] = []
        for _ in range(4):
            snapshot = snapshot_of(await exporter.poll())
            requests = asked(upstream)
            assert (requests.count(DEPLOYMENTS), requests.count(FLOWS)) == ((1, 1) if len(complete) < 3 else (0, 0))
            holders = [one for queue in snapshot.queues for one in queue.holders["RUNNING"].oldest]
            complete.append(sum(one.details.keys() == {"flow", "deployment"} for one in holders))
    assert complete == [199, 398, 450, 450]


async def test_origins_of_many_holders_are_asked_for_by_and_by_the_oldest_of_each_queue_first() -> None:
    queues = [Queue("a", f"q{number}") for number in range(20)]
    runs = [
        flow_run(100 * number + place, "Running", queue, before(1_000 - place))
        for number, queue in enumerate(queues)
        for place in range(30)
    ]
    fake = small(queues=queues, runs=runs, faults=MANY)
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **SHOWN) as exporter:
        for requests, told in ((1, 199), (1, 398), (1, 597), (1, 600), (0, 600)):
            snapshot = snapshot_of(await exporter.poll())
            assert asked(upstream).count(RUNS) == requests
            holders = [list(queue.holders["RUNNING"].oldest) for queue in snapshot.queues]
            known = [sum(bool(one.details) for one in of_queue) for of_queue in holders]
            assert sum(known) == told
            assert max(known) - min(known) <= 1
            for of_queue, number in zip(holders, known, strict=True):
                assert all(one.details for one in of_queue[:number])
