"""The two plans to read slots and backlog say the same of the same server, and so does an independent reading."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

import pytest

from exporter.sources.prefect import PrefectConfig, backlog, slots
from exporter.sources.prefect.api import CONCURRENCY_LIMITS, Api, WorkQueue
from exporter.sources.prefect.causes import Facts, attribute
from exporter.sources.prefect.discovery import Discovery
from exporter.sources.prefect.reading import Backlog, Holders, Slots, WaitingCounts, WaitingRun
from exporter.sources.prefect.snapshot import waiting_by_state
from tests.harness.comparison import assert_equal_to_readings, config, published
from tests.harness.exporter import exporter
from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import PrefectServer, PrefectTemplates
from tests.harness.reader import read
from tests.harness.seed import add_oddities, add_unreadable_run, fleet, seed

T = TypeVar("T")


@pytest.fixture(scope="module", params=[("sqlite", 1), ("sqlite", 2), ("postgres", 3)], ids=["1", "2", "postgres-3"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    prefect_templates: PrefectTemplates,
) -> Iterator[PrefectServer]:
    """A frozen server with 60 queues, some 600 runs and every oddity that is easily counted wrong."""
    database, number = request.param
    home = tmp_path_factory.mktemp(f"plans-{database}-{number}")
    if database == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        server = PrefectServer(home, database_url=prefect_templates.postgres(cluster, None))
    else:
        server = PrefectServer(home, template=prefect_templates.sqlite(None))
    with server:
        plan = fleet(number, pools=6, queues=9, runs=600, limits=12)
        add_oddities(plan)
        seed(server, plan)
        yield server


def with_api(server: PrefectServer, use: Callable[[Api, Sequence[WorkQueue]], Awaitable[T]]) -> T:
    """What `use` returns of the server's queues."""

    async def run() -> T:
        settings = PrefectConfig.model_validate({"name": "p", "system": "prefect", "url": server.api_url})
        api = Api(settings, request_timeout=30, count_request=lambda *_: None)
        api.page_size = 50  # several pages of everything
        try:
            discovery = Discovery(api, 4)
            return await use(api, (await discovery.queues(await discovery.pools())).queues)
        finally:
            await api.close()

    return asyncio.run(run())


ALL: Final = 10_000
"""More holders than any queue has."""


def rows(holders: Holders) -> dict[str, tuple[str, str, float | None]]:
    """State, name and seconds of each holder, by its id."""
    return {task.id: (state, task.name, task.seconds) for state, tasks in holders.oldest.items() for task in tasks}


def test_both_plans_say_the_same_of_the_slots(server: PrefectServer) -> None:
    async def both(api: Api, queues: Sequence[WorkQueue]) -> tuple[dict[str, Slots], dict[str, Slots]]:
        holders = await slots.count_holders(api)
        swept = await slots.sweep(api, queues, holders, ALL)
        exact = {queue.id: await slots.read_one(api, queue, ALL) for queue in queues}
        names = {queue.id: f"{queue.work_pool_id}/{queue.name}" for queue in queues}
        return {names[one]: swept[one] for one in swept}, {names[one]: exact[one] for one in exact}

    swept, exact = with_api(server, both)
    assert len(exact) > 60
    assert sum(one.active_slots for one in exact.values()) > 100
    assert {name: (one.active_slots, one.slot_limit) for name, one in swept.items()} == {
        name: (one.active_slots, one.slot_limit) for name, one in exact.items()
    }
    for name, of_exact in exact.items():
        of_swept = swept[name]
        assert of_exact.holders is not None
        assert of_swept.holders is not None
        later, earlier = rows(of_exact.holders), rows(of_swept.holders)
        assert later.keys() == earlier.keys()
        assert len(later) == len(of_exact.holders.seconds)
        for run, (state, run_name, seconds) in later.items():
            *before, earlier_seconds = earlier[run]
            assert [state, run_name] == before
            assert (seconds is None) == (earlier_seconds is None)
            # Both by the server's clock, one some seconds after the other.
            assert -0.1 <= (seconds or 0.0) - (earlier_seconds or 0.0) < 30
        assert sorted(of_swept.holders.state_types) == sorted(of_exact.holders.state_types)


def test_both_plans_say_the_same_of_the_backlog(server: PrefectServer) -> None:
    async def both(
        api: Api, queues: Sequence[WorkQueue]
    ) -> tuple[dict[uuid.UUID, list[WaitingRun]], dict[uuid.UUID, WaitingCounts]]:
        now = api.now()
        return await backlog.sweep(api, queues, now), await backlog.read_each(api, queues, now, 4)

    swept, exact = with_api(server, both)
    assert {key: waiting_by_state(Counter(run.state_name for run in runs)) for key, runs in swept.items()} == {
        key: waiting_by_state(one.by_state) for key, one in exact.items()
    }
    assert sum(sum(one.by_state.values()) for one in exact.values()) > 50
    for key, one in exact.items():
        longest = max((run.seconds for run in swept[key]), default=None)
        if one.longest is None or longest is None:
            assert one.longest is longest is None
        else:
            assert -0.1 <= one.longest - longest < 30


def test_with_less_to_know_no_run_waits_for_another_reason(server: PrefectServer) -> None:
    """Not where the runs of each queue are only counted, and not where a shard asks only its own queues for slots."""

    async def read_all(api: Api, queues: Sequence[WorkQueue]) -> list[Facts]:
        pools = {pool.id: pool for pool in await Discovery(api, 4).pools()}
        limits = await api.listing("/v2/concurrency_limits/filter", CONCURRENCY_LIMITS)
        # As when they were seeded: their workers asked then, and do so no more.
        now = max(queue.last_polled for queue in queues if queue.last_polled) + timedelta(seconds=5)
        swept = await slots.sweep(api, queues, await slots.count_holders(api), 0)
        listed = Backlog(runs=await backlog.sweep(api, queues, api.now()))
        whole = Facts(now, pools, queues, swept, listed, limits)
        exact = {queue.id: await slots.read_one(api, queue, 0) for queue in queues}
        counted = Backlog(counts=await backlog.read_each(api, queues, api.now(), 4))
        half = {queue.id: exact[queue.id] for queue in queues[::2]}
        return [whole, replace(whole, slots=exact, backlog=counted), replace(whole, slots=half)]

    whole, *others = with_api(server, read_all)
    true = attribute(whole, {})
    assert {"no_worker", "deployment_limit", "queue_limit"} <= set(true.by_run.values())
    for facts in others:
        found = attribute(facts, {})
        assert found.by_run
        for run, cause in found.by_run.items():
            assert merged({cause: 1}) == merged({true.by_run.get(run, cause): 1})
        for queue, causes in found.by_queue.items():
            unknown = len((whole.backlog.runs or {})[queue]) - sum(true.by_queue[queue].values())
            for reason, number in merged(causes).items():
                assert number <= merged(true.by_queue[queue])[reason] + unknown, (queue, reason)


def merged(causes: Mapping[str, int]) -> Counter[str]:
    """Without what only those can tell who know when each run was due, and what waits in better queues."""
    found: Counter[str] = Counter()
    for cause, number in causes.items():
        found[{"just_now": "free", "none": "free", "priority": "pool_limit"}.get(cause, cause)] += number
    return found


def test_every_value_is_that_of_an_independent_reading(server: PrefectServer, tmp_path: Path) -> None:
    path = config(tmp_path, server.api_url, "interval: 5m", "timeout: 60s")
    with closing(server.client()) as client:
        before = read(client)
        with exporter(tmp_path, f"--config.file={path}") as running:
            found = published(running)
            own = running.series("concurrency_exporter_")
        after = read(client)
    assert_equal_to_readings(found, before, after)
    asked = {dict(labels)["endpoint"] for name, labels in own if name.endswith("upstream_requests_total")}
    assert "/work_queues/{id}/concurrency_status" not in asked, "60 queues with few holders are swept"


def test_a_run_that_a_sweep_can_not_read_is_read_by_its_queue(
    tmp_path: Path, prefect_templates: PrefectTemplates
) -> None:
    with PrefectServer(tmp_path / "home", template=prefect_templates.sqlite(None)) as server:
        plan = fleet(4, pools=2, queues=5, runs=60, limits=0)
        add_unreadable_run(plan, plan.queues[3])
        seed(server, plan)
        path = config(tmp_path, server.api_url, "interval: 5m", "timeout: 60s", "collect: [queues]")
        with exporter(tmp_path, f"--config.file={path}") as running:
            own = running.series("concurrency_exporter_")
            found = published(running)
        figures = plan.queue_figures()
        active = {
            (of["pool"], of["queue"]): value
            for (name, labels), value in found.items()
            if name == "concurrency_queue_active_slots" and (of := dict(labels))
        }
        assert active == {key: sum(one.holders.values()) for key, one in figures.items()}
        source = frozenset({("source", "prefect"), ("system", "prefect")})
        assert own["concurrency_exporter_polls_total", source | {("outcome", "success")}] == 1
