"""Who holds the slots of a real server: both plans name the same runs, with the flow, deployment and worker of each."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.model import Holder, Snapshot
from exporter.shard import WHOLE
from exporter.sources.prefect import PrefectConfig
from tests.harness.prefect import PrefectApi, StartPrefect
from tests.harness.worker import LASTING, PrefectWorker, all_completed, create_nap_deployment, start_nap

RUNS = 3


def two_polls(api_url: str, **settings: Any) -> tuple[Snapshot, list[int]]:
    """The snapshot of the second poll, and how many requests each of them has sent."""

    async def run() -> tuple[Snapshot, list[int]]:
        sent: list[str] = []
        whole = {"name": "p", "system": "prefect", "url": api_url, "timeout": "10m", "stale_after": "1h", **settings}
        source = PrefectConfig.model_validate(whole).build(WHOLE, lambda endpoint, *_: sent.append(endpoint))
        try:
            await source.poll()
            first = len(sent)
            return await source.poll(), [first, len(sent) - first]
        finally:
            await source.close()

    return asyncio.run(run())


def holders(snapshot: Snapshot) -> list[Holder]:
    (queue,) = (one for one in snapshot.queues if one.name == "single")
    return list(queue.holders["RUNNING"].oldest)


@pytest.mark.parametrize("version", [None, "3.6.23"], ids=["newest", "3.6.23"])
def test_a_worker_is_told_with_its_runs(version: str | None, start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect(services=True, settings=LASTING, version=version)
    go_on = tmp_path / "go on"
    with closing(server.client()) as client:
        api = PrefectApi(client)
        api.create_pool("pool")
        api.create_queue("pool", "single")
        for number in range(4):  # so many queues that a listing of all holders is cheaper
            api.create_queue("pool", f"other-{number}")
        deployment = create_nap_deployment(api, "pool", "single", name="every night")
        runs = [start_nap(api, deployment, seconds=0, until=go_on) for _ in range(RUNS)]
        with PrefectWorker(server, "pool", tmp_path / "worker", name="the worker") as worker:
            worker.process.wait_until(
                lambda: {api.request("GET", f"/flow_runs/{run}")["state_type"] for run in runs} == {"RUNNING"},
                what="all runs are RUNNING",
            )
            swept, of_sweep = two_polls(server.api_url, collect=["queues"])
            only = {"queues": {"include": "single"}}
            exact, of_exact = two_polls(server.api_url, collect=["queues"], **only)
            unnamed, without = two_polls(server.api_url, collect=["queues"], holders={"show": False})
            answers = {run: api.request("GET", f"/flow_runs/{run}") for run in runs}
            go_on.touch()
            worker.process.wait_until(all_completed(api, runs), what="all runs are completed")
    by_start = sorted(answers.values(), key=lambda answer: answer["state"]["timestamp"])
    ui = server.api_url.removesuffix("/api")
    for snapshot in (swept, exact):
        assert [(one.id, one.name, one.url, dict(one.details)) for one in holders(snapshot)] == [
            (
                answer["id"],
                answer["name"],
                f"{ui}/runs/flow-run/{answer['id']}",
                {"flow": "nap", "deployment": "every night", "worker": "the worker"},
            )
            for answer in by_start
        ]
        (queue,) = (one for one in snapshot.queues if one.name == "single")
        assert queue.url == f"{ui}/work-pools/work-pool/pool/queue/single"
        assert sorted(queue.holders["RUNNING"].seconds, reverse=True) == [one.seconds for one in holders(snapshot)]
    assert holders(unnamed) == []
    assert of_sweep == [without[0] + 2, without[1]], "the names of a flow and a deployment, once"
    assert of_exact[0] - of_exact[1] <= without[0] - without[1] + 3, "the same, and the runs"
