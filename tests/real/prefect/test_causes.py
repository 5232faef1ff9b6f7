"""Why runs wait, with real workers: each cause is made on a server, seen as its reason, removed, and the runs start.

Each time the reasons are also held against the server's own order of handing out runs.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from exporter.shard import WHOLE
from exporter.sources.prefect import PrefectConfig
from tests.harness.comparison import assert_reasons
from tests.harness.handing_out import reasons
from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import PrefectApi, PrefectServer, PrefectTemplates, StartPrefect
from tests.harness.process import Condition
from tests.harness.reader import read
from tests.harness.worker import LASTING, PrefectWorker, all_completed, create_nap_deployment, history, start_nap

Key = tuple[str, str]
"""The names of a pool and of a queue in it."""


class Polls:
    """An exporter's polls of a server, made when they are wanted; each has the memory of the one before."""

    def __init__(self, server: PrefectServer, runner: asyncio.Runner) -> None:
        settings = {"name": "p", "system": "prefect", "url": server.api_url, "timeout": "5m", "stale_after": "1h"}
        self._source = PrefectConfig.model_validate({**settings, "interval": "5m"}).build(WHOLE, lambda *_: None)
        self._runner = runner
        self._memory: object = None

    def poll(self) -> dict[Key, dict[str, int]]:
        """The reasons of each queue."""
        snapshot = self._runner.run(self._source.poll(self._memory))
        assert snapshot.unreadable == ()
        self._memory = snapshot.memory
        return {(queue.pool, queue.name): dict(queue.blocked) for queue in snapshot.queues}

    def close(self) -> None:
        self._runner.run(self._source.close())


@contextmanager
def polls(server: PrefectServer) -> Iterator[Polls]:
    with asyncio.Runner() as runner:
        made = Polls(server, runner)
        try:
            yield made
        finally:
            made.close()


def only(found: Mapping[Key, Mapping[str, int]]) -> dict[Key, dict[str, int]]:
    """Without the queues in which nothing waits, and the reasons that nothing waits for."""
    some = {key: {reason: runs for reason, runs in of_queue.items() if runs} for key, of_queue in found.items()}
    return {key: of_queue for key, of_queue in some.items() if of_queue}


class Stage:
    """A server on which causes are made and removed, over its API."""

    def __init__(self, server: PrefectServer, api: PrefectApi, folder: Path) -> None:
        self.server = server
        self.api = api
        self.go_on = folder / "go on"
        self.folder = folder
        self.runs: list[str] = []

    def deployment(self, key: Key, limit: int | None = None) -> str:
        return create_nap_deployment(self.api, *key, name="-".join(key), limit=limit)

    def start(self, deployment: str, *, stays: bool = False) -> str:
        """Id of a new run; one that stays holds its slot until it may go on."""
        self.runs.append(start_nap(self.api, deployment, seconds=0, until=self.go_on if stays else None))
        return self.runs[-1]

    def patch(self, path: str, **changed: Any) -> None:
        self.api.request("PATCH", path, changed)

    def pool(self, name: str, **changed: Any) -> None:
        self.patch(f"/work_pools/{name}", **changed)

    def queue(self, key: Key, **changed: Any) -> None:
        self.patch(f"/work_pools/{key[0]}/queues/{key[1]}", **changed)

    def worker(self, pool: str, *, limit: int | None = None) -> PrefectWorker:
        return PrefectWorker(self.server, pool, self.folder / f"worker-{pool}-{limit}", name=pool, limit=limit)

    def run_without_process(self, deployment: str) -> str:
        """A run that is to be retried by its own process, which is gone."""
        body = {"state": {"type": "PENDING"}, "empirical_policy": {"retries": 1, "retry_delay": 0}}
        run = str(self.api.request("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])
        self.api.set_state(run, {"type": "RUNNING"})
        answer = self.api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "FAILED"}})
        assert answer["state"]["name"] == "AwaitingRetry"
        self.runs.append(run)
        return run

    def is_running(self, *runs: str) -> Condition:
        return lambda: all(self.api.request("GET", f"/flow_runs/{run}")["state_type"] == "RUNNING" for run in runs)


PAUSED: Final = ("main", "paused")
ZERO: Final = ("main", "zero")
FULL: Final = ("main", "full")
DEPLOYMENT_ZERO: Final = ("main", "deployment-zero")
DEPLOYMENT_FULL: Final = ("main", "deployment-full")
RETRY: Final = ("main", "retry")
BETTER: Final = ("small", "better")
WORSE: Final = ("small", "worse")
NONE: Final = ("own", "default")
NOBODY: Final = ("nobody", "default")
CLOSED: Final = ("closed", "default")
SHUT: Final = ("shut", "default")

EACH: Final = {
    PAUSED: {"queue_paused": 1},
    ZERO: {"zero_limit": 1},
    DEPLOYMENT_ZERO: {"zero_limit": 1},
    FULL: {"queue_limit": 2},
    DEPLOYMENT_FULL: {"deployment_limit": 1},
    RETRY: {"retry": 1},
    BETTER: {"pool_limit": 1},
    WORSE: {"priority": 1},
    NONE: {"none": 1},
    NOBODY: {"no_worker": 1},
    CLOSED: {"pool_paused": 1},
    SHUT: {"zero_limit": 1},
}


def test_each_cause_is_seen_as_its_reason_and_when_it_is_removed_the_runs_start(
    start_prefect: StartPrefect, tmp_path: Path
) -> None:
    server = start_prefect(services=True, settings=LASTING)
    with closing(server.client()) as client, polls(server) as exporter, ExitStack() as workers:
        stage = Stage(server, PrefectApi(client), tmp_path)
        api = stage.api
        for pool, limit in (("main", None), ("small", 1), ("own", None), ("nobody", None), ("shut", 0)):
            api.create_pool(pool, limit=limit)
        api.create_pool("closed", paused=True)
        for key in (ZERO, FULL, PAUSED, DEPLOYMENT_ZERO, DEPLOYMENT_FULL, RETRY, WORSE):
            limits = {ZERO: 0, FULL: 1}
            api.create_queue(*key, limit=limits.get(key), paused=key == PAUSED)
        api.create_queue(*BETTER, priority=1)
        holding = []
        retried = stage.run_without_process(stage.deployment(RETRY))
        closed_deployment = stage.deployment(DEPLOYMENT_ZERO, limit=1)
        stage.patch(f"/v2/concurrency_limits/deployment:{closed_deployment}", limit=0)
        limited = stage.deployment(DEPLOYMENT_FULL, limit=1)
        full, better, own = stage.deployment(FULL), stage.deployment(BETTER), stage.deployment(NONE)
        holding = [stage.start(one, stays=True) for one in (limited, full, better, own)]
        for pool, own_limit in (("main", None), ("small", None), ("own", 1)):
            worker = workers.enter_context(stage.worker(pool, limit=own_limit))
        worker.process.wait_until(stage.is_running(*holding), what="the slots are taken")
        for one in (limited, full, full, better, own, closed_deployment):
            stage.start(one)
        for key in (PAUSED, ZERO, WORSE, NOBODY, CLOSED, SHUT):
            stage.start(stage.deployment(key))

        worker.process.wait_until(lambda: only(exporter.poll()) == EACH, what="each cause is seen as its reason")
        before = read(client)
        found = exporter.poll()
        assert only(found) == EACH
        assert_reasons(found, before, read(client))

        # Nothing blocks it any more, and the worker has had no time to take it.
        stage.queue(NONE, is_paused=True)
        assert only(exporter.poll())[NONE] == {"queue_paused": 1}
        stage.queue(NONE, is_paused=False)
        assert only(exporter.poll())[NONE] == {"just_now": 1}
        assert only(exporter.poll())[NONE] == {"none": 1}

        remove(stage, retried, closed_deployment)
        for pool in ("nobody", "closed", "shut"):
            workers.enter_context(stage.worker(pool))
        worker.process.wait_until(all_completed(api, stage.runs), what="all runs have started, and are completed")
        assert only(exporter.poll()) == {}


def remove(stage: Stage, retried: str, deployment: str) -> None:
    """Do of each cause what its reason says is to be done."""
    stage.queue(PAUSED, is_paused=False)
    stage.queue(ZERO, concurrency_limit=1)
    stage.patch(f"/v2/concurrency_limits/deployment:{deployment}", limit=1)
    stage.pool("closed", is_paused=False)
    stage.pool("shut", concurrency_limit=1)
    # As the UI does it: the run has failed, and is to be tried again.
    stage.api.set_state(retried, {"type": "FAILED"})
    stage.api.request(
        "POST", f"/flow_runs/{retried}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
    )
    stage.go_on.touch()


def test_the_limits_on_postgres(postgres: PostgresCluster, prefect_templates: PrefectTemplates, tmp_path: Path) -> None:
    """There the run of a paused queue counts for its own queue, and not for the pool."""
    url = prefect_templates.postgres(postgres, None)
    with (
        PrefectServer(tmp_path / "home", services=True, settings=LASTING, database_url=url) as server,
        closing(server.client()) as client,
        polls(server) as exporter,
        ExitStack() as workers,
    ):
        stage = Stage(server, PrefectApi(client), tmp_path)
        api = stage.api
        full, beside, open_ = ("one", "full"), ("small", "default"), ("small", "open")
        api.create_pool("one")
        api.create_pool("small", limit=1)
        api.create_queue(*full, limit=1)
        api.create_queue(*BETTER, priority=1)
        api.create_queue(*open_)
        of_full, of_beside, of_better, of_open = (stage.deployment(key) for key in (full, beside, BETTER, open_))
        holding = [stage.start(of_full, stays=True), stage.start(of_beside, stays=True)]
        for pool, own_limit in (("one", None), ("small", 1)):
            worker = workers.enter_context(stage.worker(pool, limit=own_limit))
        worker.process.wait_until(stage.is_running(*holding), what="the slots are taken")
        waiting = [stage.start(one) for one in (of_full, of_better, of_open)]
        expected = {full: {"queue_limit": 1}, BETTER: {"pool_limit": 1}, open_: {"priority": 1}}
        worker.process.wait_until(lambda: only(exporter.poll()) == expected, what="the limits are seen")
        before = read(client)
        found = exporter.poll()
        assert only(found) == expected
        assert_reasons(found, before, read(client))

        # Whether the pool is full now depends on the database, which nothing tells; and so who goes first.
        stage.queue(beside, is_paused=True)
        found = exporter.poll()
        true = reasons(read(client), paused_queues_count=False)
        assert (true[BETTER], true[open_]) == ({"free": 1}, {"priority": 1})
        assert only(found) == {full: {"queue_limit": 1}, BETTER: {"unknown": 1}, open_: {"priority": 1}}
        workers.enter_context(stage.worker("small"))
        worker.process.wait_until(all_completed(api, waiting[1:]), what="they start beside the paused queue's run")
        assert stage.is_running(holding[1])()
        stage.go_on.touch()
        worker.process.wait_until(all_completed(api, stage.runs), what="all runs are completed")
        assert all(history(api, run) for run in stage.runs)
