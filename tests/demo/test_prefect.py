import json
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from exporter.demo.scenario import DEPLOYMENTS, DOCKER, K8S, ML, POOLS, QUEUES, WAREHOUSE, ident
from tests.demo.conftest import LISTINGS, Clock, post

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
FREE_FORM = {"base_job_template", "labels", "parameters"}


async def status(client: httpx.AsyncClient, queue: Any, **body: Any) -> Any:
    return await post(client, f"/work_queues/{queue['id']}/concurrency_status", **body)


async def queues_by_name(client: httpx.AsyncClient) -> dict[tuple[str, str], Any]:
    rows = await post(client, "/work_queues/filter")
    return {(row["work_pool_name"], row["name"]): row for row in rows}


def assert_like(real: Any, ours: Any, where: str = "") -> None:
    """The same fields in the same order, and types that agree wherever both have a value."""
    if isinstance(real, dict) and isinstance(ours, dict):
        assert list(real) == list(ours), where
        for field in real.keys() - FREE_FORM:
            assert_like(real[field], ours[field], f"{where}.{field}")
    elif real is not None and ours is not None:
        assert type(real) is type(ours), where


async def run_in(client: httpx.AsyncClient, clock: Clock, state: str) -> Any:
    """A run in the state of this type or name, as soon as there is one."""
    for _ in range(60):
        for run in await post(client, "/flow_runs/filter"):
            if state in {run["state_type"], run["state_name"]}:
                return run
        clock.move(seconds=5)
    pytest.fail(f"no run is ever {state}")


async def test_health_and_version(prefect: httpx.AsyncClient) -> None:
    assert (await prefect.get("/health")).json() is True
    assert (await prefect.get("/admin/version")).json() == "3.8.8"


async def test_objects_have_the_fields_of_the_real_ones(prefect: httpx.AsyncClient) -> None:
    for pool in await post(prefect, "/work_pools/filter"):
        assert_like(RECORDED["work_pool"], pool)
        assert pool["default_queue_id"] in {str(queue.id) for queue in QUEUES if queue.name == "default"}
    for queue in await post(prefect, "/work_queues/filter"):
        assert_like(RECORDED["work_queue"], queue)
        assert (queue["status"] == "PAUSED") == queue["is_paused"]
    for row in await post(prefect, f"/work_pools/{ML}/workers/filter"):
        assert_like(RECORDED["worker"], row)
    for limit in await post(prefect, "/v2/concurrency_limits/filter"):
        assert_like(RECORDED["concurrency_limit"], limit)
    for deployment in await post(prefect, "/deployments/filter"):
        assert_like(RECORDED["deployment"], deployment)
        limited = deployment["global_concurrency_limit"] is not None
        assert (deployment["concurrency_options"] is not None) == limited


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SCHEDULED", "AwaitingConcurrencySlot"])
async def test_flow_runs_have_the_fields_of_the_real_ones(prefect: httpx.AsyncClient, clock: Clock, state: str) -> None:
    real, ours = RECORDED["flow_runs"][state], await run_in(prefect, clock, state)
    assert_like(real, ours)
    for field in ("next_scheduled_start_time", "start_time", "end_time", "run_count"):
        if field == "run_count":
            assert ours[field] == real[field]
        else:
            assert (ours[field] is None) == (real[field] is None), field


async def test_durations_and_timestamps_are_the_servers(prefect: httpx.AsyncClient, clock: Clock) -> None:
    clock.move(seconds=0.25)
    waiting = await run_in(prefect, clock, "Late")
    assert waiting["estimated_start_time_delta"] > 15
    running = await run_in(prefect, clock, "RUNNING")
    assert running["estimated_run_time"] % 1 == 0.25
    assert running["start_time"].endswith(".143650Z")
    clock.move(seconds=0.85635)
    whole = await post(prefect, "/work_queues/filter", limit=1)
    assert whole[0]["last_polled"] == "2026-11-21T23:24:26.143650Z"


async def test_queue_status(prefect: httpx.AsyncClient, clock: Clock) -> None:
    queue = (await queues_by_name(prefect))[ML, "inference"]
    clock.move(seconds=0.5)
    answer = await status(prefect, queue)
    assert_like(RECORDED["concurrency_status"], answer)
    assert answer["active_slots"] == answer["count"] == len(answer["flow_runs"])
    assert answer["concurrency_limit"] == queue["concurrency_limit"]
    assert (answer["limit"], answer["pages"], answer["page"]) == (200, 1, 1)
    assert [UUID(run["id"]) for run in answer["flow_runs"]] == sorted(UUID(run["id"]) for run in answer["flow_runs"])
    for run in answer["flow_runs"]:
        assert_like(RECORDED["slot_summaries"]["RUNNING"], run)
        assert run["state_type"] in {"PENDING", "RUNNING", "CANCELLING"}
        assert (run["start_time"] is None) == (run["state_type"] == "PENDING")
        assert run["time_in_current_state"] % 1 == 0.5


async def test_queue_status_of_queues_without_slots_and_without_a_limit(
    prefect: httpx.AsyncClient, clock: Clock
) -> None:
    clock.move(seconds=170)
    queues = await queues_by_name(prefect)
    empty = await status(prefect, queues[WAREHOUSE, "maintenance"])
    assert empty == {
        "active_slots": 0,
        "concurrency_limit": 0,
        "flow_runs": [],
        "count": 0,
        "limit": 200,
        "pages": 0,
        "page": 1,
    }
    unlimited = queues[DOCKER, "default"]
    assert unlimited["concurrency_limit"] is None
    assert unlimited["active_slots"] is None
    answer = await status(prefect, unlimited)
    assert answer["concurrency_limit"] is None
    assert answer["active_slots"] > 0


async def test_queue_status_is_paged_and_no_holder_is_lost(prefect: httpx.AsyncClient) -> None:
    queue = (await queues_by_name(prefect))[ML, "inference"]
    everybody = [run["id"] for run in (await status(prefect, queue))["flow_runs"]]
    assert len(everybody) >= 6
    paged = []
    for page in range(1, 10):
        answer = await status(prefect, queue, limit=2, page=page)
        assert answer["active_slots"] == len(everybody)
        assert (answer["limit"], answer["page"], answer["pages"]) == (2, page, -(-len(everybody) // 2))
        paged += [run["id"] for run in answer["flow_runs"]]
    assert paged == everybody
    cheapest = await status(prefect, queue, limit=0)
    assert (cheapest["active_slots"], cheapest["pages"], cheapest["flow_runs"]) == (len(everybody), 0, [])
    assert (await status(prefect, queue, page=10**18))["flow_runs"] == []


async def test_a_cancelling_run_holds_a_slot_of_its_queue_but_not_of_its_pool(
    prefect: httpx.AsyncClient, clock: Clock
) -> None:
    # The unlimited queue, which is called default, does not say how many of its slots are taken.
    while (cancelling := await run_in(prefect, clock, "CANCELLING"))["work_queue_name"] == "default":
        clock.move(seconds=5)
    pools = {pool["name"]: pool for pool in await post(prefect, "/work_pools/filter")}
    more = set()
    for pool in POOLS:
        taken = 0
        for of_pool in await post(prefect, f"/work_pools/{pool.name}/queues/filter"):
            own = await status(prefect, of_pool)
            states = Counter(run["state_type"] for run in own["flow_runs"])
            taken += states["PENDING"] + states["RUNNING"]
            [of_all] = await post(prefect, "/work_queues/filter", work_queues={"id": {"any_": [of_pool["id"]]}})
            if of_pool["concurrency_limit"] is not None:
                assert of_all["active_slots"] == own["active_slots"] == states.total()
                assert of_pool["active_slots"] == states["PENDING"] + states["RUNNING"]
                if of_all["active_slots"] > of_pool["active_slots"]:
                    more.add(of_all["id"])
        limited = pools[pool.name]["concurrency_limit"] is not None
        assert pools[pool.name]["active_slots"] == (taken if limited else None)
    assert cancelling["work_queue_id"] in more


@pytest.mark.parametrize("path", LISTINGS)
async def test_listings_are_paged_and_no_row_is_lost(prefect: httpx.AsyncClient, path: str) -> None:
    everything = [row["id"] for row in await post(prefect, path)]
    assert len(everything) == len(set(everything)) > 1
    paged: list[str] = []
    while rows := await post(prefect, path, limit=3, offset=len(paged)):
        assert len(rows) <= 3
        paged += [row["id"] for row in rows]
    assert paged == everything
    assert await post(prefect, path, limit=0) == []


async def test_listings_have_the_servers_order(prefect: httpx.AsyncClient) -> None:
    for path in ("/work_pools/filter", "/work_queues/filter", "/v2/concurrency_limits/filter", "/deployments/filter"):
        names = [row["name"] for row in await post(prefect, path)]
        assert names == sorted(names), path
    priorities = [queue["priority"] for queue in await post(prefect, f"/work_pools/{K8S}/queues/filter")]
    assert priorities == [1, 2, 3, 4]


async def test_flow_runs_are_filtered_and_counted(prefect: httpx.AsyncClient, clock: Clock) -> None:
    everything = await post(prefect, "/flow_runs/filter")
    assert len(everything) == await post(prefect, "/flow_runs/count") < 200
    queue, now = str(ident("queue", K8S, "etl")), clock().isoformat().replace("+00:00", "Z")
    filters: list[tuple[dict[str, Any], Any]] = [
        ({"work_pool_queues": {"id": {"any_": [queue]}}}, lambda run: run["work_queue_id"] == queue),
        ({"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}, lambda run: run["state_type"] == "RUNNING"),
        ({"flow_runs": {"state": {"name": {"any_": ["Late"]}}}}, lambda run: run["state_name"] == "Late"),
        (
            {"flow_runs": {"next_scheduled_start_time": {"before_": now}}},
            lambda run: run["next_scheduled_start_time"] and run["next_scheduled_start_time"] <= now,
        ),
        (
            {
                "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}, "name": {"any_": ["Scheduled"]}}},
                "work_pool_queues": {"id": {"any_": [queue]}},
            },
            lambda run: run["state_name"] == "Scheduled" and run["work_queue_id"] == queue,
        ),
    ]
    for body, wanted in filters:
        runs = await post(prefect, "/flow_runs/filter", **body)
        assert runs == [run for run in everything if wanted(run)], body
        assert 0 < len(runs) < len(everything)
        assert await post(prefect, "/flow_runs/count", **body) == len(runs)


async def test_the_future_is_scheduled_but_not_due(prefect: httpx.AsyncClient, clock: Clock) -> None:
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    due = {**scheduled, "next_scheduled_start_time": {"before_": clock().isoformat()}}
    counts = [await post(prefect, "/flow_runs/count", flow_runs=runs) for runs in (scheduled, due)]
    assert 0 < counts[1] < counts[0]


async def test_flow_runs_are_sorted(prefect: httpx.AsyncClient) -> None:
    ids = [run["id"] for run in await post(prefect, "/flow_runs/filter", sort="ID_DESC")]
    assert ids == sorted(ids, reverse=True)
    rows = await post(prefect, "/flow_runs/filter", sort="NEXT_SCHEDULED_START_TIME_ASC")
    due = [run["next_scheduled_start_time"] for run in rows]
    known = [moment for moment in due if moment is not None]
    assert due == sorted(known) + [None] * (len(due) - len(known))
    assert (await prefect.post("/flow_runs/filter", json={"sort": "NOPE"})).status_code == 422


async def test_limits_of_all_kinds_are_in_one_list(prefect: httpx.AsyncClient) -> None:
    limits = {limit["name"]: limit for limit in await post(prefect, "/v2/concurrency_limits/filter")}
    kinds = Counter(name.partition(":")[0] if ":" in name else "global" for name in limits)
    assert min(kinds["global"], kinds["tag"], kinds["deployment"]) >= 1
    limited = [row for row in await post(prefect, "/deployments/filter") if row["global_concurrency_limit"]]
    for deployment in limited:
        assert limits[f"deployment:{deployment['id']}"] == deployment["global_concurrency_limit"]
    assert any(limit["slot_decay_per_second"] for limit in limits.values())
    inactive = [limit for limit in limits.values() if not limit["active"]]
    assert [limit["active_slots"] for limit in inactive] == [0]


async def test_deployments_by_id(prefect: httpx.AsyncClient) -> None:
    wanted = sorted(str(deployment.id) for deployment in list(DEPLOYMENTS)[:2])
    rows = await post(prefect, "/deployments/filter", deployments={"id": {"any_": [*wanted, str(uuid4())]}})
    assert sorted(row["id"] for row in rows) == wanted


async def test_workers_beat_and_a_dead_one_is_offline(prefect: httpx.AsyncClient, clock: Clock) -> None:
    for _ in range(5):
        workers = await post(prefect, f"/work_pools/{ML}/workers/filter")
        assert [worker["status"] for worker in workers] == ["ONLINE", "OFFLINE"]
        clock.move(seconds=37)
    later = await post(prefect, f"/work_pools/{ML}/workers/filter")
    assert later[0]["last_heartbeat_time"] > workers[0]["last_heartbeat_time"]
    assert later[1]["last_heartbeat_time"] == workers[1]["last_heartbeat_time"]


async def test_the_same_clock_gives_the_same_answers(prefect: httpx.AsyncClient, clock: Clock) -> None:
    before = await post(prefect, "/flow_runs/filter")
    assert await post(prefect, "/flow_runs/filter") == before
    clock.move(seconds=1)
    assert await post(prefect, "/flow_runs/filter") != before
    clock.move(hours=-2)
    assert {run["id"] for run in await post(prefect, "/flow_runs/filter")} >= {before[0]["id"]}
