from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from exporter.demo.scenario import DEPLOYMENTS, DOCKER, K8S, ML, POOLS, QUEUES, WAREHOUSE
from tests.harness.demo import LISTINGS, RECORDED, Clock, assert_like, post, run_in


async def status(client: httpx.AsyncClient, queue: Any, **body: Any) -> Any:
    return await post(client, f"/work_queues/{queue['id']}/concurrency_status", **body)


async def queues_by_name(client: httpx.AsyncClient) -> dict[tuple[str, str], Any]:
    rows = await post(client, "/work_queues/filter")
    return {(row["work_pool_name"], row["name"]): row for row in rows}


async def test_health_and_version(prefect: httpx.AsyncClient) -> None:
    assert (await prefect.get("/health")).json() is True
    assert (await prefect.get("/admin/version")).json() == "3.9.1"


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
    named = ("/work_pools/filter", "/work_queues/filter", "/v2/concurrency_limits/filter", "/deployments/filter")
    for path in (*named, "/flows/filter"):
        names = [row["name"] for row in await post(prefect, path)]
        assert names == sorted(names), path
    priorities = [queue["priority"] for queue in await post(prefect, f"/work_pools/{K8S}/queues/filter")]
    assert priorities == [1, 2, 3, 4]


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


async def test_the_flow_of_every_deployment_is_found(prefect: httpx.AsyncClient) -> None:
    deployments = await post(prefect, "/deployments/filter")
    flows = {flow["id"]: flow for flow in await post(prefect, "/flows/filter")}
    assert {deployment["flow_id"] for deployment in deployments} == flows.keys()
    for flow in flows.values():
        assert_like(RECORDED["flow"], flow)
    some = deployments[0]
    [found] = await post(prefect, "/flows/filter", flows={"id": {"any_": [some["flow_id"], str(uuid4())]}})
    assert some["entrypoint"].startswith(f"flows/{found['name']}.py:")
    assert await post(prefect, "/flows/filter", flows={"name": {"any_": [found["name"]]}}) == [found]


async def test_workers_beat_and_a_dead_one_is_offline(prefect: httpx.AsyncClient, clock: Clock) -> None:
    for _ in range(5):
        workers = await post(prefect, f"/work_pools/{ML}/workers/filter")
        assert [worker["status"] for worker in workers] == ["ONLINE", "OFFLINE"]
        some = [
            await post(prefect, f"/work_pools/{ML}/workers/filter", workers=wanted)
            for wanted in (
                {"status": {"any_": ["ONLINE"]}},
                {"status": {"any_": ["OFFLINE"]}},
                {"last_heartbeat_time": {"after_": workers[0]["last_heartbeat_time"]}},
            )
        ]
        assert some == [workers[:1], workers[1:], workers[:1]]
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
