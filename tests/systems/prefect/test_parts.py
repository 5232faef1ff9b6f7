"""The parts of a Prefect server: which requests each costs, and what is published while one of them fails."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from exporter.demo.rows import Deployment, Pool, Queue
from exporter.model import PARTS, FailureReason, Part
from exporter.report import report
from tests.harness.connections import hang_up
from tests.harness.inprocess import SLOW, OneSource, poll_until_late
from tests.harness.lookalike import (
    A_WORKERS,
    ACTIVE,
    ALL,
    BROKEN,
    COUNT,
    DEPLOYMENTS,
    FAMILIES,
    FLOWS,
    LIMITS,
    NOT_FOUND,
    OF_BACKLOG,
    OF_HOLDERS,
    POOLS,
    QUEUES,
    RUNS,
    VERSION,
    WORKERS,
    Lookalike,
    active,
    asked,
    flow_run,
    limit,
    small,
    snapshot_of,
    timeless,
    without,
    worker,
)
from tests.harness.upstream import Answer, answer, never, serve

OF_EVERY_QUEUE: Final = "concurrency_queue_(slot_limit|paused|last_polled_timestamp_seconds|info)"


# --- What each part costs.


SEPARATE: Final[dict[Part, set[str]]] = {
    "queues": {COUNT, RUNS},
    "backlog": {COUNT, RUNS},
    "pools": set(),
    "limits": {LIMITS, DEPLOYMENTS, FLOWS},
    "workers": set(WORKERS),
}


@pytest.mark.parametrize("part", PARTS)
async def test_one_part_costs_only_its_own_requests(part: Part) -> None:
    listed = {f"/work_pools/{name}/queues/filter" for name in "abc"} if part in {"queues", "backlog"} else set()
    async with serve(small()) as upstream:
        async with OneSource("prefect", upstream.url, **ALL) as exporter:
            await exporter.poll()
            of_all = timeless(await exporter.observed())
        upstream.requests.clear()
        async with OneSource("prefect", upstream.url, collect=[part]) as exporter:
            snapshot = snapshot_of(await exporter.poll())
            assert sorted(asked(upstream)) == sorted({POOLS, VERSION} | listed | SEPARATE[part])
            observed = timeless(await exporter.observed())
            assert (snapshot.unsupported, snapshot.unreadable) == ((), ())
    wanted = f"{FAMILIES[part]}|{OF_EVERY_QUEUE}" if listed else FAMILIES[part]
    assert observed == [line for line in of_all if re.fullmatch(wanted, line.partition("{")[0])]
    assert observed


def large() -> Lookalike:
    """510 queues in 10 pools, 990 holders, as many runs that wait, 250 limits."""
    ago = datetime.now(UTC) - timedelta(seconds=60)
    queues = [Queue(f"p{1 + number // 51}", f"q{number % 51}", limit=4) for number in range(510)]
    deployments = [Deployment("etl", f"d{number}") for number in range(250)]
    return Lookalike(
        pools=[Pool(f"p{number}", limit=9) for number in range(1, 11)],
        queues=queues,
        runs=[flow_run(10_000 + number, "Running", queues[number % 500], ago) for number in range(990)]
        + [flow_run(20_000 + number, "Late", queues[number % 500], ago) for number in range(990)],
        limits=[limit(f"deployment:{deployment.id}") for deployment in deployments],
        deployments=dict.fromkeys(deployments, queues[0]),
        workers=[worker(number, f"p{number}") for number in range(1, 11)],
    )


async def test_the_requests_of_a_large_server() -> None:
    async with serve(large()) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        for _ in range(3):
            snapshot = snapshot_of(await exporter.poll())
            requests = asked(upstream)
            assert len(requests) <= 56
            assert not [path for path in requests if "concurrency_status" in path]
            assert (len(snapshot.pools), len(snapshot.queues), len(snapshot.limits)) == (10, 510, 250)
            assert sum(one.active_slots or 0 for one in snapshot.queues) == 990
            assert sum(sum(state.count for state in one.waiting.values()) for one in snapshot.queues) == 990
            assert all(one.workers for one in snapshot.pools)
        assert Counter(requests)[QUEUES] == 3
        assert not [path for path in requests if path.endswith("/queues/filter") or path == DEPLOYMENTS]


# --- Parts that fail.

FAULTS: Final[dict[str, tuple[bytes, FailureReason]]] = {
    "500": (BROKEN, "http_status"),
    "404-of-something": (answer({"detail": "Flow not found"}, 404), "http_status"),
    "contract": (answer([{"id": 7}]), "contract"),
}
PLACES: Final[dict[str, tuple[str, Part, str]]] = {
    "limits": (LIMITS, "limits", ""),
    "deployments": (DEPLOYMENTS, "limits", ""),
    "flows": (FLOWS, "limits", ""),
    "waiting-count": (COUNT + OF_BACKLOG, "backlog", ""),
    "waiting-runs": (RUNS + OF_BACKLOG, "backlog", ""),
    "workers": (A_WORKERS, "workers", "a"),
}


@pytest.mark.parametrize(("path", "part", "of_pool"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
async def test_a_part_that_fails(path: str, part: Part, of_pool: str, fault: bytes, reason: FailureReason) -> None:
    fake = small(faults={path: fault})
    async with serve(fake) as upstream:
        async with OneSource("prefect", upstream.url, **ALL) as exporter:
            state = await exporter.poll()
            snapshot = snapshot_of(state)
            assert [(one.part, one.pool, one.queue, one.reason) for one in snapshot.unreadable] == [
                (part, of_pool, "", reason)
            ]
            assert (state.outcome, snapshot.unsupported) == ("partial", ())
            assert exporter.own("queues_unreadable") == 0
            assert exporter.own("poll_errors_total", reason=reason) == 1
            assert exporter.own("source_up") == 1
            observed = timeless(await exporter.observed())
            (log,) = exporter.logs
            assert (log["event"], log["part"], log["pool"]) == ("left out of the snapshot", part, of_pool)
            assert f"s left out {snapshot.unreadable[0].what} ({reason}): " in report([state], lambda _: 0)

            fake.faults = {}
            assert (await exporter.poll()).outcome == "success"
            whole = timeless(await exporter.observed())
            assert observed == without(whole, part, of_pool or ".*")
            assert len(observed) < len(whole)
            assert exporter.logs[-1]["event"] == "poll succeeded again"


ENDING: Final[dict[str, tuple[bytes | Answer, FailureReason]]] = {
    "401": (answer({}, 401), "auth"),
    "429": (answer({}, 429), "rate_limited"),
    "closes": (hang_up(), "connect"),
}

EVERYWHERE: Final = [*(path for path, _, _ in PLACES.values()), QUEUES, COUNT + OF_HOLDERS, RUNS + OF_HOLDERS]


@pytest.mark.parametrize(
    ("path", "name"),
    [(path, "401") for path in EVERYWHERE]
    + [(path, name) for path in (LIMITS, COUNT + OF_BACKLOG, A_WORKERS) for name in ("429", "closes")],
)
async def test_a_fault_of_the_whole_server(path: str, name: str) -> None:
    fault, reason = ENDING[name]
    fake = small()
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        await exporter.poll()
        published = await exporter.observed()
        hourly = Deployment("elt", "hourly")
        fake.limits.append(limit(f"deployment:{hourly.id}"))  # so that its name is asked for
        fake.deployments[hourly] = fake.queues[0]
        fake.faults = {path: fault}
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", reason)
        assert await exporter.observed() == published


async def test_a_part_that_hangs_is_left_out() -> None:
    fake = small(faults={LIMITS: never})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL, **SLOW) as exporter:
        snapshot = snapshot_of(await poll_until_late(exporter, upstream, 8))
        assert [(one.part, one.reason) for one in snapshot.unreadable] == [("limits", "timeout")]
        assert all(one.workers for one in snapshot.pools)


async def test_several_parts_that_fail_are_all_named() -> None:
    fake = small(faults={LIMITS: BROKEN, COUNT + OF_BACKLOG: answer([]), A_WORKERS: BROKEN})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        assert [(one.part, one.pool) for one in snapshot_of(state).unreadable] == [
            ("backlog", ""),
            ("limits", ""),
            ("workers", "a"),
        ]
        assert exporter.own("poll_errors_total", reason="http_status") == 1
        assert exporter.own("poll_errors_total", reason="contract") == 1
        assert active(snapshot_of(state)) == ACTIVE


# --- The report.


async def test_the_report_of_limits_and_backlog() -> None:
    fake = small(faults=dict.fromkeys(WORKERS, NOT_FOUND))
    fake.limits += [limit("a\nb", active=False, limit=0, active_slots=0)]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        text = report([await exporter.poll()], exporter.telemetry.requests)
    sources, queues, limits, troubles = text.split("\n\n")
    assert sources.splitlines()[1].split()[:5] == ["s", "prefect", "success", "3", "6"]
    header, first, second, *_ = (line.split() for line in queues.splitlines())
    assert header == ["SOURCE", "POOL", "QUEUE", "ACTIVE", "LIMIT", "HOLDERS", "OLDEST", "QUEUED", "WAITED", "WHY"]
    assert first == ["s", "a", "q0", "2", "4", "1", "PENDING", "1", "RUNNING", "60s", "0", "-"]
    assert second == ["s", "a", "q1", "0", "4", "-", "2", "60s", "2", "of", "2:", "no_worker"]
    assert limits.splitlines() == [
        "SOURCE  KIND        LIMIT        ACTIVE  SLOTS",
        "s       deployment  etl/nightly       1      3",
        "s       global      a\\nb              0      0  not enforced",
        "s       global      database          1      3",
        "s       tag         gpu               1      3",
    ]
    assert troubles == "s has no workers: this server does not support it"


async def test_the_report_has_no_limits_where_none_are_read() -> None:
    async with serve(small()) as upstream, OneSource("prefect", upstream.url, collect=["queues"]) as exporter:
        text = report([await exporter.poll()], exporter.telemetry.requests)
    assert len(text.split("\n\n")) == 2
    assert "KIND" not in text
