from contextlib import closing
from itertools import groupby, pairwise
from pathlib import Path

from tests.harness.prefect import PrefectApi, StartPrefect
from tests.harness.reader import read
from tests.harness.worker import LASTING, PrefectWorker, all_completed, create_nap_deployment, history, start_nap


def test_a_queue_of_limit_1_runs_one_after_the_other(start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect(services=True, settings=LASTING)
    with closing(server.client()) as client:
        api = PrefectApi(client)
        api.create_pool("pool")
        api.create_queue("pool", "single", limit=1)
        deployment = create_nap_deployment(api, "pool", "single")
        runs = [start_nap(api, deployment, seconds=1) for _ in range(2)]
        before = read(client)
        assert before.queues["pool", "single"].waiting.keys() == {"Scheduled"}
        assert before.queues["pool", "single"].last_polled is None
        with PrefectWorker(server, "pool", tmp_path / "worker") as worker:
            worker.process.wait_until(all_completed(api, runs), what="both runs are completed")
            after = read(client)
        assert after.pools["pool"].workers["worker"].status == "ONLINE"
        assert after.queues["pool", "single"].last_polled
        histories = sorted((history(api, run) for run in runs), key=lambda changes: changes[-1].at)
    for changes in histories:
        # It may have been late before it was started, and is pending by several names.
        types = [kind for kind, _ in groupby(change.type for change in changes)]
        assert types == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
        begun, ended = (change.at for change in changes[-2:])
        assert (ended - begun).total_seconds() >= 1
    for first, second in pairwise(histories):
        slot_taken = next(change.at for change in second if change.type == "PENDING")
        assert slot_taken > first[-1].at
