"""A server that is upgraded while it is watched: what the older one did not have is asked for again."""

import signal
from contextlib import closing
from pathlib import Path

from tests.harness.comparison import assert_equal_to_readings, config, expected, published, steady, successes
from tests.harness.exporter import Exporter, Series, exporter
from tests.harness.prefect import PrefectApi, PrefectServer, PrefectTemplates, StartPrefect
from tests.harness.reader import read

SOURCE = {"source": "prefect", "system": "prefect"}
STATUS = "/work_queues/{id}/concurrency_status"
POOL_SLOTS = ("concurrency_pool_active_slots", frozenset((SOURCE | {"pool": "limited"}).items()))


def answers_by_code(running: Exporter, endpoint: str) -> dict[str, float]:
    """How often an endpoint was answered with each status so far."""
    found = running.series("concurrency_exporter_upstream_requests_total")
    by_labels = ((dict(labels), count) for (_, labels), count in found.items())
    return {labels["code"]: count for labels, count in by_labels if labels["endpoint"] == endpoint}


def failures(found: Series) -> float:
    labels = frozenset((SOURCE | {"outcome": "failure"}).items())
    return found.get(("concurrency_exporter_polls_total", labels), 0)


def fill(server: PrefectServer) -> None:
    """A pool with a limit, and a run in each state that holds a slot of its queue."""
    with closing(server.client()) as client:
        api = PrefectApi(client)
        api.create_pool("limited", limit=5)
        api.create_queue("limited", "work", limit=4)
        flow = api.create_flow()
        for state in ("PENDING", "RUNNING"):
            api.create_run(flow, pool="limited", queue="work", state={"type": state})


def test_what_an_older_server_had_not_is_asked_for_again(
    start_prefect: StartPrefect, prefect_templates: PrefectTemplates, tmp_path: Path
) -> None:
    """One exporter sees the server down meanwhile. To another only the version tells that it is a new one."""
    old = start_prefect(version="3.6.22")
    fill(old)
    new = PrefectServer(tmp_path / "new", template=prefect_templates.sqlite(None))
    new.port, new.api_url = old.port, old.api_url
    path = config(tmp_path, old.api_url, "interval: 1s", "timeout: 5m", "stale_after: 10m")
    flag = f"--config.file={path}"
    with (
        exporter(tmp_path / "awake", flag) as awake,
        exporter(tmp_path / "asleep", flag) as asleep,
        closing(old.client()) as client,
    ):
        asked = {}
        for one in (awake, asleep):
            found = after_polls(one, 3)
            assert steady(found) == steady(expected(read(client, by_runs=True)))
            assert POOL_SLOTS not in found
            assert answers_by_code(one, STATUS).keys() == {"404"}
            asked[one.url] = answers_by_code(one, STATUS)["404"]
            assert asked[one.url] == 2, "once for each queue, and not at every poll"
        # Right after a poll, so that it is not put to sleep in the midst of one.
        after_polls(asleep, 1)
        asleep.process.send_signal(signal.SIGSTOP)
        try:
            old.stop()
            awake.process.wait_until(lambda: failures(awake.series()) > 0, what="a poll has failed")
            new.__enter__()
            fill(new)
        finally:
            asleep.process.send_signal(signal.SIGCONT)
        try:
            for one in (awake, asleep):
                wait_for_new_answers(one)
                before = read(client)
                found = after_polls(one, 2)
                assert_equal_to_readings(found, before, read(client))
                assert found[POOL_SLOTS] == 2
                refused = answers_by_code(one, STATUS)["404"]
                assert refused == asked[one.url], "the new one has it"
            assert failures(awake.series()) > 0
            assert failures(asleep.series()) == 0
        finally:
            new.stop()


def after_polls(running: Exporter, number: int) -> Series:
    """What is published when it has polled so many times more."""
    polls = successes(running.series())
    running.process.wait_until(lambda: successes(running.series()) >= polls + number, what=f"{number} polls")
    return published(running)


def wait_for_new_answers(running: Exporter) -> None:
    """Until both queues were asked twice, and the pool's slots are there."""
    running.process.wait_until(
        lambda: POOL_SLOTS in running.series() and answers_by_code(running, STATUS).get("200", 0) >= 4,
        what="what the new server has",
    )
