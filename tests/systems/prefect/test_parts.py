"""The parts of a Prefect server: which requests each costs, and what is published while one of them fails."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final
from uuid import UUID

import pytest

from exporter.demo import answers
from exporter.demo.rows import Deployment, Pool, Queue, Run, Worker, ident
from exporter.model import PARTS, FailureReason, Part, Snapshot, Workers
from exporter.polling.store import SourceState
from exporter.report import report
from exporter.sources.prefect import backlog, costs, slots
from tests.harness.lookalike import (
    BEAT,
    BROKEN,
    COUNT,
    DEPLOYMENTS,
    FLOWS,
    HISTORY,
    LIMITS,
    NOT_ALLOWED,
    NOT_FOUND,
    OF_BACKLOG,
    OF_HOLDERS,
    POOLS,
    QUEUES,
    RUNS,
    VERSION,
    Lookalike,
    flow_run,
    limit,
    one_status,
    small,
    worker,
)
from tests.harness.upstream import Answer, Hangup, Request, Upstream, answer, never, serve
from tests.systems.test_faults import SLOW, Exporter, poll_until_late


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust none of the system's: to read them all takes most of the time of a test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


A_WORKERS: Final = "/work_pools/a/workers/filter"


def hang_up(_: Request) -> bytes:
    raise Hangup


ALL: Final[dict[str, Any]] = {"collect": list(PARTS)}


def asked(upstream: Upstream) -> list[str]:
    """The paths of the requests since this was last called."""
    paths = [request.path.removeprefix("/api") for request in upstream.requests]
    upstream.requests.clear()
    return paths


def snapshot_of(state: SourceState) -> Snapshot:
    assert state.failure is None
    assert state.published
    return state.published.snapshot


def active(snapshot: Snapshot) -> dict[str, int | None]:
    return {one.name: one.active_slots for one in snapshot.queues}


ACTIVE: Final = {"q0": 2, "q1": 0, "q2": 0, "q3": 0, "q4": 0, "q5": 1}

FAMILIES: Final[dict[Part, str]] = {
    "queues": "concurrency_queue_(active_slots|usage_known|processing_tasks|slot_holders|state_duration.*)",
    "backlog": "concurrency_queue_(queued_tasks|waiting_tasks|waiting_duration_max_seconds)",
    "pools": "concurrency_pool_(active_slots|slot_limit|paused|status|info)",
    "limits": "concurrency_limit_.*",
    "workers": "concurrency_pool_(workers|last_heartbeat_timestamp_seconds)",
}
OF_EVERY_QUEUE: Final = "concurrency_queue_(slot_limit|paused|last_polled_timestamp_seconds|info)"


def without(lines: list[str], part: Part, of_pool: str = ".*") -> list[str]:
    return [line for line in lines if not re.match(f'{FAMILIES[part]}{{(.*pool="{of_pool}"|.*kind=)', line)]


def families(lines: Iterable[str]) -> set[str]:
    return {line.partition("{")[0] for line in lines}


def timeless(lines: list[str]) -> list[str]:
    """Without what depends on when the fake was asked."""
    return [line for line in lines if "duration" not in line]


# --- What each part costs.

WORKERS: Final = tuple(f"/work_pools/{name}/workers/filter" for name in "abc")

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
        async with Exporter("prefect", upstream.url, **ALL) as exporter:
            await exporter.poll()
            of_all = timeless(await exporter.observed())
        upstream.requests.clear()
        async with Exporter("prefect", upstream.url, collect=[part]) as exporter:
            snapshot = snapshot_of(await exporter.poll())
            assert sorted(asked(upstream)) == sorted({POOLS, VERSION} | listed | SEPARATE[part])
            observed = timeless(await exporter.observed())
            assert (snapshot.unsupported, snapshot.unreadable) == ((), ())
    wanted = f"{FAMILIES[part]}|{OF_EVERY_QUEUE}" if listed else FAMILIES[part]
    assert observed == [line for line in of_all if re.fullmatch(wanted, line.partition("{")[0])]
    assert observed


async def test_nothing_that_waits_costs_one_request() -> None:
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    fake = small()
    fake.runs = [flow_run(31, "Scheduled", fake.queues[0], ahead)]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["backlog"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [path for path in asked(upstream) if path.startswith("/flow_runs")] == [COUNT]
    assert {tuple(state.count for state in one.waiting.values()) for one in snapshot.queues} == {(0, 0, 0, 0)}
    assert {one.longest_wait for one in snapshot.queues} == {None}


async def test_no_holder_costs_one_request() -> None:
    async with serve(small(runs=[])) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [path for path in asked(upstream) if path.startswith("/flow_runs")] == [COUNT]
    assert active(snapshot) == dict.fromkeys(ACTIVE, 0)
    assert {one.slot_limit for one in snapshot.queues} == {4}


async def test_the_names_of_deployments_are_asked_for_once() -> None:
    fake = small()
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["limits"]) as exporter:
        await exporter.poll()
        asked(upstream)
        await exporter.poll()
        assert asked(upstream) == [POOLS, LIMITS]
        gone = ident("deployment", "gone")
        fake.limits.append(limit(f"deployment:{gone}"))
        snapshot = snapshot_of(await exporter.poll())
        # The name of one that is gone is not found.
        assert asked(upstream) == [POOLS, LIMITS, DEPLOYMENTS]
        assert {(one.kind, one.name) for one in snapshot.limits} == {
            ("global", "database"),
            ("tag", "gpu"),
            ("deployment", "etl/nightly"),
            ("deployment", str(gone)),
        }


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
    async with serve(large()) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
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


@pytest.mark.parametrize(
    ("holders", "queues", "cheaper"),
    [
        (0, 1, True),
        (1, 3, False),
        (1, 4, True),
        (200, 4, True),
        (201, 4, False),
        (201, 7, False),
        (201, 8, True),
        (25_000, 500, True),
        (25_001, 500, False),
    ],
)
def test_when_to_sweep(holders: int, queues: int, cheaper: bool) -> None:
    assert slots.sweep_is_cheaper(holders, queues, 200) is cheaper


@pytest.mark.parametrize(
    ("waiting", "queues", "cheaper"),
    [
        (200, 0, True),
        (201, 0, False),
        (266, 1, True),
        (267, 1, False),
        (400, 3, True),
        (401, 3, False),
        (33_533, 500, True),
        (33_534, 500, False),
    ],
)
def test_when_to_sweep_the_backlog(waiting: int, queues: int, cheaper: bool) -> None:
    assert backlog.sweep_is_cheaper(waiting, queues, 200) is cheaper


@pytest.mark.parametrize(
    ("pages", "pools", "cheaper"),
    [(1, 2, False), (1, 3, True), (2, 4, False), (2, 5, True), (3, 7, False), (3, 8, True)],
)
def test_when_to_list_all_queues_at_once(pages: int, pools: int, cheaper: bool) -> None:
    assert costs.cheaper(pages * costs.QUEUES_PAGE, pools * costs.POOL_QUEUES) is cheaper


async def test_which_plan_is_chosen() -> None:
    """Each queue is asked where there are few queues, or too many holders."""
    ago = datetime.now(UTC)
    fake = small()
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        fake.runs = [flow_run(1000 + number, "Running", fake.queues[0], ago) for number in range(201)]
        await exporter.poll()
        assert (
            Counter(path.rpartition("/")[2] for path in asked(upstream))["concurrency_status"] == 6 + 1
        )  # two pages of one
        fake.runs = fake.runs[:200]
        snapshot = snapshot_of(await exporter.poll())
        # The page is full, so that another one may follow.
        assert asked(upstream)[-3:] == [COUNT, RUNS, RUNS]
        assert active(snapshot)["q0"] == 200
    async with serve(fake) as upstream:
        async with Exporter("prefect", upstream.url, collect=["queues"], queues={"include": "q[123]"}) as exporter:
            await exporter.poll()
            paths = asked(upstream)
            assert sum(path.endswith("/concurrency_status") for path in paths) == 3
            assert COUNT not in paths


# --- Parts that a server does not have.

UNSUPPORTED: Final[dict[str, tuple[Part, tuple[str, ...], bytes]]] = {
    "limits-404": ("limits", (LIMITS,), NOT_FOUND),
    "limits-405": ("limits", (LIMITS,), NOT_ALLOWED),
    "backlog-404": ("backlog", (COUNT + OF_BACKLOG,), NOT_FOUND),
    "workers-404": ("workers", WORKERS, NOT_FOUND),
    "workers-405": ("workers", WORKERS, NOT_ALLOWED),
}


@pytest.mark.parametrize(("part", "paths", "refusal"), UNSUPPORTED.values(), ids=UNSUPPORTED)
async def test_a_part_that_the_server_does_not_have(part: Part, paths: tuple[str, ...], refusal: bytes) -> None:
    fake = small()
    plain = paths[0].partition(" ")[0]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        await exporter.poll()
        whole, whole_cost = timeless(await exporter.observed()), Counter(asked(upstream))
        assert whole_cost[VERSION] == 1
        assert "Not supported" not in await exporter.page("/")

        fake.faults = dict.fromkeys(paths, refusal)
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, snapshot.unsupported, snapshot.unreadable) == ("success", (part,), ())
        assert timeless(await exporter.observed()) == timeless(without(whole, part))
        assert f"<dt>Not supported by the server</dt><dd>{part}</dd>" in await exporter.page("/")
        assert await exporter.own("queues_unreadable") == 0
        assert f"s has no {part}: this server does not support it" in report([state], exporter.telemetry.requests)
        asked(upstream)

        for _ in range(2):
            assert snapshot_of(await exporter.poll()).unsupported == (part,)
            cost = Counter(asked(upstream))
            assert cost[VERSION] == 1
            assert cost[plain] == (1 if plain == COUNT else 0)
        assert [(log["event"], log["parts"]) for log in exporter.logs] == [("not supported by this server", part)]

        # After a failed poll it is asked again, and told no second time.
        fake.faults[POOLS] = BROKEN
        assert (await exporter.poll()).outcome == "failure"
        del fake.faults[POOLS]
        asked(upstream)
        await exporter.poll()
        cost = Counter(asked(upstream))
        assert (cost[VERSION], cost[plain]) == (1, 2 if plain == COUNT else 1)
        events = [log["event"] for log in exporter.logs]
        assert events == ["not supported by this server", "poll failed", "poll succeeded again"]

        # Another version is asked again as well.
        await exporter.poll()
        fake.faults = {VERSION: answer("3.10.0")}
        assert snapshot_of(await exporter.poll()).unsupported == ()
        assert timeless(await exporter.observed()) == whole
        assert [(log["log_level"], log["event"]) for log in exporter.logs[-1:]] == [
            ("info", "everything is supported by this server now")
        ]
        asked(upstream)
        await exporter.poll()
        assert VERSION not in asked(upstream)


@pytest.mark.parametrize("refusal", [NOT_FOUND, NOT_ALLOWED], ids=["404", "405"])
async def test_a_server_that_does_not_tell_its_version(refusal: bytes) -> None:
    fake = small(faults={LIMITS: NOT_FOUND, VERSION: refusal})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        for _ in range(3):
            assert snapshot_of(await exporter.poll()).unsupported == ("limits",)
        assert Counter(asked(upstream))[LIMITS] == 1
        del fake.faults[VERSION]
        await exporter.poll()
        assert Counter(asked(upstream))[LIMITS] == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(BROKEN, "http_status"), (answer({}, 401), "auth"), (answer({}), "contract"), (hang_up, "connect")],
    ids=["500", "401", "contract", "closes"],
)
async def test_a_version_that_can_not_be_asked_for_fails_the_poll(fault: bytes | Answer, reason: FailureReason) -> None:
    fake = small(faults={LIMITS: NOT_FOUND})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        await exporter.poll()
        fake.faults[VERSION] = fault
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == reason
        fake.faults = {}
        assert snapshot_of(await exporter.poll()).unsupported == ()


@pytest.mark.parametrize(
    "fault", [BROKEN, answer({}, 401), answer({}), hang_up], ids=["500", "401", "contract", "closes"]
)
async def test_a_version_that_is_known_stays_while_it_can_not_be_asked_for(fault: bytes | Answer) -> None:
    """It is asked for at each poll then, and at every 20th when it has come."""
    fake = small()
    versions, polls = [], []
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        for number in range(45):
            fake.faults = {VERSION: answer("3.8.8") if number < 20 else fault if number < 22 else answer("3.9.1")}
            versions.append(snapshot_of(await exporter.poll()).version)
            polls += [number] * (VERSION in asked(upstream))
    assert versions == ["3.8.8"] * 22 + ["3.9.1"] * 23
    assert polls == [0, 20, 21, 22, 42]


async def test_a_queue_whose_status_has_no_limit_has_that_of_the_listing() -> None:
    """Its schema does not require one. Null is no limit."""
    fake = small()

    def changed(change: Callable[[dict[str, Any]], object]) -> Answer:
        async def reply(request: Request) -> bytes:
            status = (await fake.ask(request)).json()
            change(status)
            return answer(status)

        return reply

    absent, null, own = (one_status(queue) for queue in fake.queues[:3])
    fake.faults = {
        RUNS + OF_HOLDERS: BROKEN,
        absent: changed(lambda status: status.pop("concurrency_limit")),
        null: changed(lambda status: status.update(concurrency_limit=None)),
        own: changed(lambda status: status.update(concurrency_limit=7)),
    }
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    assert [queue.slot_limit for queue in snapshot.queues] == [4, None, 7, 4, 4, 4]


async def test_without_the_status_of_queues_the_holders_are_swept() -> None:
    """However many holders there are: a server before 3.6.23 has no other way."""
    fake = small()
    fake.runs += [flow_run(1000 + number, "Running", fake.queues[2], datetime.now(UTC)) for number in range(300)]
    fake.faults = {one_status(queue): NOT_FOUND for queue in fake.queues}
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        for status_requests in (6, 0):
            snapshot = snapshot_of(await exporter.poll())
            paths = Counter(path.rpartition("/")[2] for path in asked(upstream))
            assert paths["concurrency_status"] == status_requests
            assert (snapshot.unsupported, snapshot.unreadable) == ((), ())
            assert active(snapshot) == ACTIVE | {"q2": 300}
        fake.faults[COUNT] = NOT_FOUND
        snapshot = snapshot_of(await exporter.poll())
        assert snapshot.unsupported == ("queues",)
        assert active(snapshot) == dict.fromkeys(ACTIVE)
        assert families(await exporter.observed()) <= {
            f"concurrency_{name}" for name in ("queue_slot_limit", "queue_paused", "queue_info")
        }


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
        async with Exporter("prefect", upstream.url, **ALL) as exporter:
            state = await exporter.poll()
            snapshot = snapshot_of(state)
            assert [(one.part, one.pool, one.queue, one.reason) for one in snapshot.unreadable] == [
                (part, of_pool, "", reason)
            ]
            assert (state.outcome, snapshot.unsupported) == ("partial", ())
            assert await exporter.own("queues_unreadable") == 0
            assert await exporter.own("poll_errors_total", reason=reason) == 1
            assert await exporter.own("source_up") == 1
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
    "closes": (hang_up, "connect"),
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
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        await exporter.poll()
        published = await exporter.observed()
        hourly = Deployment("etl", "hourly")
        fake.limits.append(limit(f"deployment:{hourly.id}"))  # so that its name is asked for
        fake.deployments[hourly] = fake.queues[0]
        fake.faults = {path: fault}
        state = await exporter.poll()
        assert state.failure
        assert (state.outcome, state.failure.reason) == ("failure", reason)
        assert await exporter.observed() == published


async def test_a_part_that_hangs_is_left_out() -> None:
    fake = small(faults={LIMITS: never})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL, **SLOW) as exporter:
        snapshot = snapshot_of(await poll_until_late(exporter, upstream, 8))
        assert [(one.part, one.reason) for one in snapshot.unreadable] == [("limits", "timeout")]
        assert all(one.workers for one in snapshot.pools)


async def test_several_parts_that_fail_are_all_named() -> None:
    fake = small(faults={LIMITS: BROKEN, COUNT + OF_BACKLOG: answer([]), A_WORKERS: BROKEN})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        assert [(one.part, one.pool) for one in snapshot_of(state).unreadable] == [
            ("backlog", ""),
            ("limits", ""),
            ("workers", "a"),
        ]
        assert await exporter.own("poll_errors_total", reason="http_status") == 1
        assert await exporter.own("poll_errors_total", reason="contract") == 1
        assert active(snapshot_of(state)) == ACTIVE


@pytest.mark.parametrize("refusal", [NOT_FOUND, NOT_ALLOWED], ids=["404", "405"])
async def test_the_workers_of_one_pool_can_not_be_found(refusal: bytes) -> None:
    """The server has the endpoint: it is only this pool's that is left out."""
    fake = small(faults={A_WORKERS: refusal})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [(one.part, one.pool) for one in snapshot.unreadable] == [("workers", "a")]
        assert snapshot.unsupported == ()
        assert [one.name for one in snapshot.pools if one.workers] == ["b", "c"]


def dead(number: int) -> Worker:
    return worker(number, status="OFFLINE", silent=timedelta(hours=1))


def forgotten(number: int) -> Worker:
    """One of which no service of the server has found that it is dead."""
    return worker(number, silent=timedelta(days=2))


@pytest.mark.parametrize(
    ("workers", "online", "silent", "requests"),
    [
        ([], 0, None, 2),
        ([dead(n) for n in range(5_000)], 0, timedelta(hours=1), 2),
        ([worker(n) for n in range(3)], 3, timedelta(), 1),
        ([*(worker(n) for n in range(3)), *(dead(n) for n in range(3, 5_000))], 3, timedelta(), 1),
        ([*(worker(n) for n in range(3)), *(forgotten(n) for n in range(3, 5_000))], 3, timedelta(), 1),
        ([forgotten(n) for n in range(5_000)], 0, timedelta(days=2), 2),
        ([*(worker(n) for n in range(199)), *(dead(n) for n in range(199, 5_000))], 199, timedelta(), 1),
        ([*(worker(n) for n in range(450)), *(dead(n) for n in range(450, 5_000))], 450, timedelta(), 2 * 3),
    ],
    ids=["none", "dead", "some", "some-beside-dead", "some-beside-forgotten", "forgotten", "page", "pages"],
)
async def test_dead_workers_cost_no_request(
    workers: list[Worker], online: int, silent: timedelta | None, requests: int
) -> None:
    """A server never deletes them. It orders them by their heartbeats, the newest first."""
    async with serve(small(workers=workers)) as upstream:
        async with Exporter("prefect", upstream.url, collect=["workers"]) as exporter:
            for _ in range(2):
                upstream.requests.clear()
                snapshot = snapshot_of(await exporter.poll())
                assert Counter(asked(upstream))[A_WORKERS] == requests
    assert snapshot.unreadable == ()
    (found,) = [one.workers for one in snapshot.pools if one.name == "a"]
    assert found == Workers({"ONLINE": online}, None if silent is None else (BEAT - silent).timestamp())


async def test_workers_of_a_pool_that_are_not_read_in_time_cost_no_other_pool_its_workers() -> None:
    fake = small(faults={A_WORKERS: never})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["workers"], **SLOW) as exporter:
        snapshot = snapshot_of(await poll_until_late(exporter, upstream, 3))
        assert [(one.part, one.pool, one.reason) for one in snapshot.unreadable] == [("workers", "a", "timeout")]
        assert [one.name for one in snapshot.pools if one.workers] == ["b", "c"]


async def test_workers_in_a_status_of_tomorrow_are_counted() -> None:
    fake = small()
    row = answers.worker(worker(1), fake, BEAT)
    states = ("ONLINE", "DRAINING", "OFFLINE")
    rows = [row | {"id": str(UUID(int=number)), "status": state} for number, state in enumerate(states)]
    fake.faults = {A_WORKERS: answer(rows)}
    async with serve(fake) as upstream:
        async with Exporter("prefect", upstream.url, collect=["workers"]) as exporter:
            snapshot = snapshot_of(await exporter.poll())
    (found,) = [one.workers for one in snapshot.pools if one.name == "a"]
    assert found == Workers({"ONLINE": 1, "unknown": 1}, BEAT.timestamp())


async def test_the_workers_of_a_deleted_pool() -> None:
    fake = small(faults={A_WORKERS: answer({"detail": "Work pool 'a' not found."}, 404)})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, snapshot.unsupported) == ("success", ())
        assert [one.name for one in snapshot.pools if one.workers] == ["b", "c"]


async def test_a_large_backlog_that_can_not_be_read() -> None:
    """Each queue is asked then; it is all or nothing, so that no queue looks as if nothing waited."""
    fake = small(faults={COUNT + OF_BACKLOG: answer(1000)})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        cost = Counter(asked(upstream))
        # Beside the sweep of the holders: the oldest of what is due, and the oldest that is held back.
        assert (cost[HISTORY], cost[RUNS]) == (6, 1 + 2)
        assert {
            one.name: sum(state.count for state in one.waiting.values()) for one in snapshot.queues
        } == dict.fromkeys(ACTIVE, 0) | {"q1": 2}
        for path in (HISTORY + OF_BACKLOG, RUNS + OF_BACKLOG):
            fake.faults = {COUNT + OF_BACKLOG: answer(1000), path: BROKEN}
            snapshot = snapshot_of(await exporter.poll())
            assert [(one.part, one.queue) for one in snapshot.unreadable] == [("backlog", "")]
            assert {len(one.waiting) for one in snapshot.queues} == {0}
            assert active(snapshot) == ACTIVE


# --- A sweep that fails.


def on_page_2(fault: bytes, fake: Lookalike) -> Answer:
    async def page(request: Request) -> bytes:
        if request.json["offset"]:
            return fault
        return answer((await fake.ask(request)).content)

    return page


@pytest.mark.parametrize("fault", [BROKEN, answer([{}]), answer(b"<html>")], ids=["500", "contract", "html"])
@pytest.mark.parametrize("where", ["count", "page 1", "page 2"])
async def test_a_sweep_that_fails_is_done_queue_by_queue(where: str, fault: bytes) -> None:
    fake = small()
    if where == "page 2":
        fake.greatest = 3
    replaced: dict[str, dict[str, bytes | Answer]] = {
        "count": {COUNT + OF_HOLDERS: fault},
        "page 1": {RUNS + OF_HOLDERS: fault},
        "page 2": {RUNS + OF_HOLDERS: on_page_2(fault, fake)},
    }
    fake.faults = replaced[where]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, snapshot.unreadable) == ("success", ())
        assert active(snapshot) == ACTIVE
        paths = asked(upstream)
        assert sum(path.endswith("/concurrency_status") for path in paths) == 6
        assert exporter.logs == []


async def test_a_sweep_that_fails_and_a_queue_that_does() -> None:
    fake = small()
    fake.faults = {RUNS + OF_HOLDERS: BROKEN, one_status(fake.queues[2]): BROKEN}
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert [(one.part, one.pool, one.queue) for one in snapshot.unreadable] == [("queues", "b", "q2")]
        assert active(snapshot) == {name: slots for name, slots in ACTIVE.items() if name != "q2"}
        assert await exporter.own("queues_unreadable") == 1


async def test_a_sweep_that_fails_where_it_is_the_only_way() -> None:
    fake = small()
    fake.faults = {one_status(queue): NOT_FOUND for queue in fake.queues}
    fake.faults[RUNS + OF_HOLDERS] = BROKEN
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == "http_status"
        assert state.failure.message.startswith("no queue could be read; the first: POST ")


async def test_a_sweep_that_hangs_is_not_done_queue_by_queue() -> None:
    """It has taken its share of the time."""
    fake = small(faults={RUNS + OF_HOLDERS: never})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["queues"], **SLOW) as exporter:
        state = await poll_until_late(exporter, upstream, 5)
        assert state.failure
        assert state.failure.reason == "timeout"
        assert not [path for path in asked(upstream) if path.endswith("/concurrency_status")]


# --- Which queues there are.


def wide(**changed: Any) -> Lookalike:
    """36 queues in 12 pools, listed ten at a time in the order of their names."""
    rows: dict[str, Any] = {
        "pools": [Pool(f"p{number:02}", limit=9) for number in range(1, 13)],
        "queues": [Queue(f"p{1 + number // 3:02}", f"q{number:02}", limit=4) for number in range(36)],
        "greatest": 10,
    }
    return Lookalike(**rows | changed)


def ids(state: SourceState) -> set[str]:
    found = [one.id for one in snapshot_of(state).queues]
    assert len(found) == len(set(found))
    return set(found)


def of_fake(fake: Lookalike) -> set[str]:
    return {str(queue.id) for queue in fake.queues}


def pool_by_pool(paths: list[str]) -> bool:
    listed = sum(path.endswith("/queues/filter") for path in paths)
    assert listed == 0 or listed >= 12
    return listed > 0


SLOTS: Final = {"collect": ["queues"], "pools": {"exclude": "hidden"}}


@pytest.mark.parametrize("lossy", [False, True])
async def test_queues_are_listed_all_at_once_after_the_first_poll(lossy: bool) -> None:
    fake = wide(lossy=lossy)
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        assert ids(await exporter.poll()) == of_fake(fake)
        first = asked(upstream)
        assert pool_by_pool(first)
        assert QUEUES not in first
        for _ in range(3):
            assert ids(await exporter.poll()) == of_fake(fake)
            paths = asked(upstream)
            assert not pool_by_pool(paths)
            # Four pages, and those that they lost.
            assert paths.count(QUEUES) == (5 if lossy else 4)


async def test_more_is_lost_than_a_page_holds() -> None:
    fake = wide()

    async def lossy(request: Request) -> bytes:
        if "work_queues" in request.json:
            return answer((await fake.ask(request)).content)
        if request.json["limit"] > 10:
            return answer([])
        queues = (await fake.ask(request, offset=0, limit=10)).json()
        rows = [queue for queue in queues for _ in range(3)][:29] + queues[:7]
        return answer(rows[request.json["offset"] :][:10])

    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        asked(upstream)
        fake.faults = {QUEUES: lossy}
        assert ids(await exporter.poll()) == of_fake(fake)
        assert not pool_by_pool(paths := asked(upstream))
        assert paths.count(QUEUES) == 4 + 3  # 26 are lost: nine fit on a page with nothing behind it


@pytest.mark.parametrize("lossy", [False, True])
async def test_what_changes_is_noticed_at_the_next_poll(lossy: bool) -> None:
    fake = wide(lossy=lossy)
    new = Queue("p04", "q09-new")  # where the listing loses it: only their number tells

    async def polled(exporter: Exporter, upstream: Upstream, *, relisted: bool) -> None:
        asked(upstream)
        assert ids(await exporter.poll()) == of_fake(fake)
        assert pool_by_pool(asked(upstream)) is relisted

    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        await polled(exporter, upstream, relisted=False)
        fake.queues.append(new)
        await polled(exporter, upstream, relisted=True)
        await polled(exporter, upstream, relisted=False)
        fake.queues.remove(new)
        await polled(exporter, upstream, relisted=True)
        await polled(exporter, upstream, relisted=False)
        fake.pools.append(Pool("p13"))
        fake.queues.append(Queue("p13", "q99"))
        await polled(exporter, upstream, relisted=True)
        # How many there are was not known of this listing: it is compared from the next one on.
        await exporter.poll()
        await polled(exporter, upstream, relisted=False)
        del fake.pools[-1], fake.queues[-1]
        await polled(exporter, upstream, relisted=True)


@pytest.mark.parametrize("listed", [True, False])
async def test_a_queue_that_takes_the_place_of_another(listed: bool) -> None:
    """Their number stays the same; the listing may lose the new one."""
    fake = wide()
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        await exporter.poll()
        gone = 20 if listed else 10
        fake.queues[gone] = Queue("p04", f"q{gone}-new")
        fake.lossy = not listed
        asked(upstream)
        assert ids(await exporter.poll()) == of_fake(fake)
        assert pool_by_pool(asked(upstream))


async def test_pools_that_are_not_read_do_not_matter() -> None:
    fake = wide()
    fake.pools.append(Pool("hidden"))
    hidden = Queue("hidden", "default")  # the first of the listing
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        expected = of_fake(fake)
        fake.queues.append(hidden)
        for number in range(3):
            assert ids(await exporter.poll()) == expected
            paths = asked(upstream)
            assert pool_by_pool(paths) is (number == 0)
            assert not [path for path in paths if "hidden" in path]


@pytest.mark.parametrize("fault", [BROKEN, NOT_FOUND, answer([{}])], ids=["500", "404", "contract"])
async def test_a_listing_that_fails_is_done_pool_by_pool(fault: bytes) -> None:
    fake = wide()
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        await exporter.poll()
        fake.faults = {QUEUES: fault}
        for _ in range(2):
            asked(upstream)
            state = await exporter.poll()
            assert (state.outcome, ids(state)) == ("success", of_fake(fake))
            paths = asked(upstream)
            assert pool_by_pool(paths)
            assert paths.count(QUEUES) == 1


async def test_a_pool_that_could_not_be_listed_is_listed_again() -> None:
    fake = wide(faults={"/work_pools/p03/queues/filter": BROKEN})
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **SLOTS) as exporter:
        state = await exporter.poll()
        assert [(one.part, one.pool) for one in snapshot_of(state).unreadable] == [("queues", "p03")]
        asked(upstream)
        assert len(ids(await exporter.poll())) == 33
        assert QUEUES not in asked(upstream)
        fake.faults = {}
        assert ids(await exporter.poll()) == of_fake(fake)
        assert pool_by_pool(asked(upstream))


# --- The server's clock.

CLOCKS: Final = [timedelta(hours=-1), timedelta(), timedelta(hours=1)]
each_clock = pytest.mark.parametrize("ahead", CLOCKS, ids=["behind", "same", "ahead"])


@each_clock
async def test_what_is_due_is_by_the_clock_of_the_server(ahead: timedelta) -> None:
    fake = small(ahead=ahead)
    minutes = {31: -30, 32: -1, 33: 1, 34: 30}
    began = time.monotonic()
    fake.runs = [
        flow_run(number, "Scheduled", fake.queues[1], fake.now + timedelta(minutes=minute))
        for number, minute in minutes.items()
    ]
    for count in (None, 1000):
        fake.faults = {COUNT + OF_BACKLOG: answer(count)} if count else {}
        async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["backlog"]) as exporter:
            snapshot = snapshot_of(await exporter.poll())
            late = time.monotonic() - began
            times = {
                request.json["flow_runs"]["next_scheduled_start_time"]["before_"]
                for request in upstream.requests
                if request.path.startswith("/api/flow_runs")
            }
            (before,) = times
            assert abs(datetime.fromisoformat(before) - fake.now) < timedelta(seconds=3 + late)
        (of_queue,) = (one for one in snapshot.queues if one.name == "q1")
        assert of_queue.waiting["Scheduled"].count == 2
        assert of_queue.longest_wait == pytest.approx(1800, abs=3 + late)


Q0: Final = Queue("a", "q0", limit=4)


def held(number: int, state: str, told: datetime, ago: float, **changed: object) -> Run:
    return flow_run(number, state, Q0, told - timedelta(seconds=ago), **changed)


def before(told: datetime, seconds: float) -> datetime:
    return told - timedelta(seconds=seconds)


Runs = Callable[[datetime], list[Run]]

TELLS: Final[dict[str, tuple[Runs, Mapping[str, float], float]]] = {
    "running": (
        lambda told: [
            held(23, "Cancelling", told, 40.25),
            held(22, "Running", told, 10.25, started=before(told, 13.25)),
            held(21, "Pending", told, 5.5, started=None),
        ],
        {"CANCELLING": 40.25, "RUNNING": 10.25, "PENDING": 5.5},
        1e-3,
    ),
    "not-started": (
        lambda told: [
            held(23, "Cancelling", told, 40.25),
            held(21, "Pending", told, 5.5, started=None, expected_start=before(told, 70)),
        ],
        {"CANCELLING": 40.25, "PENDING": 5.5},
        1e-3,
    ),
    "none": (
        lambda told: [
            held(23, "Cancelling", told, 40.25, expected_start=before(told, 49.25)),
            held(21, "Pending", told, 5.5),
        ],
        {"CANCELLING": 40.25, "PENDING": 5.5},
        2.5,
    ),
    "no-state": (
        lambda told: [held(22, "Running", told, 0), held(23, "Cancelling", told, 40.25)],
        {"CANCELLING": 40.25},
        2.5,
    ),
}


@each_clock
@pytest.mark.parametrize("tells", TELLS)
async def test_durations_are_by_the_clock_of_the_server(tells: str, ahead: timedelta) -> None:
    """To the second by its Date; exactly where a run tells. So what the runs tell is a little off the Date here."""
    runs, durations, within = TELLS[tells]
    exact = within < 1
    fake = small(ahead=ahead)
    if exact:
        fake.stands_at = fake.now - timedelta(minutes=5)
    fake.queues[0] = Q0
    fake.runs = runs(fake.stands_at or fake.now)

    async def without_state(request: Request) -> bytes:
        rows = (await fake.ask(request)).json()
        date = {"Date": format_datetime(fake.now, usegmt=True)}
        return answer([row | {"state": None} if row["state_type"] == "RUNNING" else row for row in rows], 200, date)

    if tells == "no-state":
        fake.faults = {RUNS: without_state}
    began = time.monotonic()
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
        assert RUNS in asked(upstream)
    if not exact:
        within += time.monotonic() - began
    holders = next(one.holders for one in snapshot.queues if one.name == "q0")
    found = {state: of_state.seconds[0] for state, of_state in holders.items() if of_state.seconds}
    assert found == {state: pytest.approx(seconds, abs=within) for state, seconds in durations.items()}


@each_clock
async def test_waits_are_by_the_clock_of_the_server(ahead: timedelta) -> None:
    fake = small(ahead=ahead)
    fake.stands_at = told = fake.now - timedelta(minutes=5)
    start = before(told, 70.5)
    fake.runs = [
        flow_run(31, "Late", fake.queues[1], before(told, 300.25), started=start),
        flow_run(30, "Late", fake.queues[2], told, expected_start=start),
    ]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["backlog"]) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    waits = {one.name: one.longest_wait for one in snapshot.queues if one.longest_wait is not None}
    assert waits == {"q1": pytest.approx(300.25), "q2": pytest.approx(0)}


async def test_a_server_without_date_is_read_by_our_clock() -> None:
    fake = small(ahead=timedelta(hours=1), dated=False)
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["backlog"]) as exporter:
        begun = datetime.now(UTC)
        await exporter.poll()
        ended = datetime.now(UTC)
        (request,) = (one for one in upstream.requests if one.path == f"/api{COUNT}")
    assert begun <= datetime.fromisoformat(request.json["flow_runs"]["next_scheduled_start_time"]["before_"]) <= ended


@pytest.mark.parametrize("count", [None, 1000], ids=["sweep", "each"])
@pytest.mark.parametrize(
    "date",
    [
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 +2300",
    ],
)
async def test_a_date_that_is_no_time_is_none(date: str, count: int | None) -> None:
    fake = small()
    if count:
        fake.faults = {COUNT + OF_BACKLOG: answer(count)}

    async def dated(request: Request) -> bytes:
        head, blank, body = (await fake(request)).partition(b"\r\n\r\n")
        return re.sub(rb"Date: [^\r]*", f"Date: {date}".encode(), head) + blank + body

    async with serve(dated) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        # By the second poll, the first has read the dates.
        waits = [snapshot_of(await exporter.poll()).queues[1].longest_wait for _ in range(2)]
    assert waits == [pytest.approx(60, abs=5)] * 2


# --- What an upstream can make us keep.


async def test_a_name_that_is_too_long_is_not_published() -> None:
    """A queue's name is in each of its lines: one of some megabytes would be gigabytes of metrics."""
    fake = small()
    fake.pools += [Pool("p" * 100_000), Pool("P" * 1_000)]
    fake.queues += [
        Queue("a", "q" * 2_000_000),
        Queue("a", "Q" * 1_000),
        Queue("p" * 100_000, "of the pool that is left out"),
    ]
    fake.limits += [limit("l" * 1_001), limit("L" * 1_000)]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
        text, page = await exporter.page(), await exporter.page("/")
    snapshot = snapshot_of(state)
    assert state.outcome == "partial"
    assert {one.name for one in snapshot.queues} == {"Q" * 1_000, *(f"q{number}" for number in range(6))}
    assert {one.name for one in snapshot.pools} == {"P" * 1_000, "a", "b", "c"}
    assert {one.name for one in snapshot.limits} == {"L" * 1_000, "database", "gpu", "etl/nightly"}
    message = f"{upstream.url}/api lists a name of more than 1,000 characters, which would be in each of its series"
    assert [(one.part, one.reason, one.message, one.what) for one in snapshot.unreadable] == [
        ("pools", "too_large", message, f"pool '{'p' * 50}…'"),
        ("queues", "too_large", message, f"queue '{'q' * 50}…' of pool 'a'"),
        ("limits", "too_large", message, "the limits"),
    ]
    assert 'queues_unreadable{source="s",system="prefect"} 1.0' in text
    assert len(text) + len(page) + len(str(exporter.logs)) < 200_000


async def test_limits_whose_long_names_begin_alike_cost_no_other_limit() -> None:
    """A tag's name is published without its kind."""
    fake = small()
    fake.limits += [limit(f"{kind}{'l' * 1_200}{number}") for kind in ("", "tag:") for number in range(2)]
    fake.limits += [limit("tag:" + "L" * 1_000), limit("tag:" + "m" * 1_001)]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        snapshot = snapshot_of(await exporter.poll())
    assert {one.name for one in snapshot.limits} == {"L" * 1_000, "database", "gpu", "etl/nightly"}
    assert [(one.part, one.reason) for one in snapshot.unreadable] == [("limits", "too_large")] * 5


async def test_a_page_has_no_more_rows_than_were_asked_for() -> None:
    fake = small()
    fake.faults = {POOLS: answer([answers.pool(Pool(f"p{number}"), 0, fake) for number in range(201)])}
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        state = await exporter.poll()
    assert state.failure
    assert (state.failure.reason, state.failure.message) == (
        "contract",
        f"POST {upstream.url}/api{POOLS}: a page has 201 rows, and 200 were asked for",
    )


async def test_the_holders_of_a_queue_end() -> None:
    def endless(request: Request) -> bytes:
        size = request.json.get("limit", 70_000)
        first = (request.json["page"] - 1) * size
        holders = [{"id": f"{number}"} for number in range(first, first + size)]
        counts = {"active_slots": 1, "count": 1, "limit": size, "pages": 1000, "page": 1, "concurrency_limit": 5}
        return answer({**counts, "flow_runs": holders})

    fake = small()
    fake.faults = {one_status(fake.queues[0]): endless}
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        # With six queues and three holders they are swept; of a sweep that fails each queue is asked.
        fake.faults[RUNS + OF_HOLDERS] = BROKEN
        snapshot = snapshot_of(await exporter.poll())
        asked_of_it = [one for one in upstream.requests if one.path == f"/api{one_status(fake.queues[0])}"]
    (left_out,) = snapshot.unreadable
    assert (left_out.queue, left_out.reason, len(asked_of_it)) == ("q0", "too_large", 3)
    assert left_out.message.endswith("more than 200,000 holders")


# --- The report.


async def test_the_report_of_limits_and_backlog() -> None:
    fake = small(faults=dict.fromkeys(WORKERS, NOT_FOUND))
    fake.limits += [limit("a\nb", active=False, limit=0, active_slots=0)]
    async with serve(fake) as upstream, Exporter("prefect", upstream.url, **ALL) as exporter:
        text = report([await exporter.poll()], exporter.telemetry.requests)
    sources, queues, limits, troubles = text.split("\n\n")
    assert sources.splitlines()[1].split()[:5] == ["s", "prefect", "success", "3", "6"]
    header, first, second, *_ = (line.split() for line in queues.splitlines())
    assert header == ["SOURCE", "POOL", "QUEUE", "ACTIVE", "LIMIT", "HOLDERS", "OLDEST", "QUEUED", "WAITED"]
    assert first == ["s", "a", "q0", "2", "4", "1", "PENDING", "1", "RUNNING", "60s", "0", "-"]
    assert second == ["s", "a", "q1", "0", "4", "-", "2", "60s"]
    assert limits.splitlines() == [
        "SOURCE  KIND        LIMIT        ACTIVE  SLOTS",
        "s       deployment  etl/nightly       1      3",
        "s       global      a\\nb              0      0  not enforced",
        "s       global      database          1      3",
        "s       tag         gpu               1      3",
    ]
    assert troubles == "s has no workers: this server does not support it"


async def test_the_report_has_no_limits_where_none_are_read() -> None:
    async with serve(small()) as upstream, Exporter("prefect", upstream.url, collect=["queues"]) as exporter:
        text = report([await exporter.poll()], exporter.telemetry.requests)
    assert len(text.split("\n\n")) == 2
    assert "KIND" not in text
