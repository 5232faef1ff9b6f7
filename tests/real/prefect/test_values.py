"""The command against real Prefect servers: every value on `/metrics` is what an independent reading says."""

import signal
import time
from contextlib import closing
from pathlib import Path

from tests.harness.comparison import assert_equal_to_readings, config, published
from tests.harness.exporter import Series, exporter
from tests.harness.json_api import every, in_json, of_those
from tests.harness.prefect import PrefectServer, StartPrefect
from tests.harness.reader import read
from tests.harness.scenario import PAGE_SIZE, seed_scenario


def test_every_value_of_the_seeded_server(prefect_server: PrefectServer, tmp_path: Path) -> None:
    with closing(prefect_server.client()) as client:
        before = read(client)
        with exporter(tmp_path, f"--config.file={config(tmp_path, prefect_server.api_url)}") as running:
            found = published(running)
            own = running.series("concurrency_exporter_")
            items = [*every(running, "queues"), *every(running, "limits")]
        after = read(client)
    assert in_json(items) == of_those(found)
    assert len(before.queues) == 40
    assert max(len(ages) for queue in before.queues.values() for ages in queue.ages.values()) > PAGE_SIZE
    assert_equal_to_readings(found, before, after)
    source = frozenset({("source", "prefect"), ("system", "prefect")})
    assert own["concurrency_exporter_source_up", source] == 1
    assert own["concurrency_exporter_queues_unreadable", source] == 0
    assert own["concurrency_exporter_polls_total", source | {("outcome", "success")}] == 1


def test_include_and_exclude(prefect_server: PrefectServer, tmp_path: Path) -> None:
    pools = 'pools: {include: "limited|twin-.*", exclude: twin-b}'
    queues = 'queues: {exclude: "default|over.*"}'
    path = config(tmp_path, prefect_server.api_url, pools, queues)
    with exporter(tmp_path, f"--config.file={path}") as running:
        labels = [dict(labels) for name, labels in published(running) if name == "concurrency_queue_active_slots"]
    assert {(of_queue["pool"], of_queue["queue"]) for of_queue in labels} == {
        ("limited", "states"),
        ("limited", "zero"),
        ("limited", "paused"),
        ("limited", "empty"),
        ("twin-a", "shared"),
    }


def test_basic_auth_and_the_greatest_page_that_a_server_allows(start_prefect: StartPrefect, tmp_path: Path) -> None:
    """With the default limit of 200 and a password that holds a colon, configured by Prefect's own variables."""
    server = start_prefect(auth_string="admin:pa:ss")
    seed_scenario(server)
    env = {"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": "admin:pa:ss"}
    with closing(server.client()) as client:
        before = read(client)
        with exporter(tmp_path, env=env) as running:
            found = published(running)
        after = read(client)
    assert_equal_to_readings(found, before, after)

    with exporter(tmp_path, env=env | {"PREFECT_API_AUTH_STRING": "admin:wrong"}) as running:
        own = running.series()
        page = running.get("/").text
        log = running.process.log_text()
    source = frozenset({("source", "prefect"), ("system", "prefect")})
    assert own["concurrency_exporter_source_up", source] == 0
    assert own["concurrency_exporter_poll_errors_total", source | {("reason", "auth")}] == 1
    assert not any(name.startswith("concurrency_queue") for name, _ in own)
    assert "401 Unauthorized" in page
    assert "401 Unauthorized" in log
    assert "wrong" not in page + log


def test_a_server_with_csrf_protection(start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect(csrf=True)
    seed_scenario(server)
    with closing(server.client()) as client:
        before = read(client)
        with exporter(tmp_path, env={"PREFECT_API_URL": f"{server.api_url}/"}) as running:
            found = published(running)
            own = running.series("concurrency_exporter_upstream_requests_total")
        after = read(client)
    assert_equal_to_readings(found, before, after)
    tokens = {
        dict(labels)["code"]: count for (_, labels), count in own.items() if dict(labels)["endpoint"] == "/csrf-token"
    }
    assert tokens == {"200": 1}


def test_a_server_that_goes_away_and_comes_back(start_prefect: StartPrefect, tmp_path: Path) -> None:
    server = start_prefect()
    with closing(server.client()) as client:
        client.post("/work_pools/", json={"name": "only", "type": "process"}).raise_for_status()
    path = config(tmp_path, server.api_url, "interval: 1s", "timeout: 10s", "stale_after: 12s", "collect: [queues]")
    source = frozenset({("source", "prefect"), ("system", "prefect")})
    up = ("concurrency_exporter_source_up", source)
    active = (
        "concurrency_queue_active_slots",
        source | {("pool", "only"), ("queue", "default")},
    )
    with exporter(tmp_path, f"--config.file={path}") as running:
        assert running.series()[up] == 1
        server.process.send_signal(signal.SIGKILL)  # its end by another could take longer than the snapshot is good
        server.process.wait_for_exit()
        found: Series = {}

        def is_down() -> bool:
            found.clear()
            found.update(running.series())
            return found[up] == 0

        running.process.wait_until(is_down, what="the source is down")
        taken_at = found["concurrency_exporter_last_success_timestamp_seconds", source]
        if time.time() - taken_at < 11:
            assert found[active] == 0, "the last good snapshot is served until it expires"
        running.process.wait_until(lambda: active not in running.series(), what="the snapshot has expired")
        assert not published(running)
        with server:
            running.process.wait_until(lambda: running.series()[up] == 1, what="the source is up again")
            assert running.series()[active] == 0
