"""Snapshots for the pages: a night on which some things are wrong, and names that strangers chose to do harm."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from starlette.types import ASGIApp

from exporter.model import (
    Holder,
    Holders,
    Limit,
    Pool,
    Queue,
    Snapshot,
    Unreadable,
    Waiting,
    WaitingTask,
    Workers,
    blocked_by,
)
from exporter.polling.outcome import Failed, Failure
from exporter.web.guard import Guard
from exporter.web.listeners import listen
from exporter.web.location import Location
from exporter.web.server import Server
from tests.harness.inprocess import Exporter, Time

NOW: Final = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC."""
REASONS: Final = (
    "retry",
    "zero_limit",
    "pool_paused",
    "queue_paused",
    "no_worker",
    "queue_limit",
    "pool_limit",
    "just_now",
)


def many(queues: int) -> Snapshot:
    """A night with so many queues, ten in each pool, and as many limits as pools."""
    pools = range(-(-queues // 10))
    return Snapshot(
        queues=tuple(
            replace(NIGHT.queues[number % len(NIGHT.queues)], pool=f"pool-{number // 10}", name=f"queue-{number:05}")
            for number in range(queues)
        ),
        pools=tuple(replace(NIGHT.pools[number % len(NIGHT.pools)], name=f"pool-{number}") for number in pools),
        limits=tuple(
            replace(NIGHT.limits[number % len(NIGHT.limits)], name=f"limit-{number}", id=str(number))
            for number in pools
        ),
    )


class Board(Exporter):
    """An exporter whose sources are not polled, at midnight, behind a guard that lets everybody in."""

    def __init__(self, location: Location = Location()) -> None:  # noqa: B008  it is frozen
        super().__init__(time=Time(seconds=0.0, wall=NOW))
        self.application: ASGIApp = Guard(location.below(self.routes), None, self.clock)

    def fail(self, name: str, message: str = "no answer from https://prefect.example.com/api") -> None:
        """Have a poll of the source fail."""
        self.store.poll_ended(name, Failed(Failure("timeout", message), 30.0))


def run(number: int, name: str, seconds: float | None, **details: str) -> Holder:
    """A holder with a page in the upstream's UI."""
    id_ = f"06a{number:05x}-7be2-7d1c-8000-{number:012x}"
    return Holder(id_, name, seconds, f"https://prefect.example.com/runs/flow-run/{id_}", details)


def waiting_run(number: int, name: str, seconds: float, **details: str) -> WaitingTask:
    """A waiting task with a page in the upstream's UI."""
    one = run(number, name, seconds, **details)
    return WaitingTask(one.id, one.name, one.seconds, one.url, one.details)


def held(*holders: Holder, more: int = 0) -> Holders:
    """Holders of one state, all of them named but for some."""
    seconds = tuple(one.seconds for one in holders if one.seconds is not None)
    return Holders(len(holders) + more, (*seconds, *[1.5] * more), holders)


def _night() -> Iterator[Queue]:
    load = {"flow": "load-orders", "deployment": "hourly", "worker": "k8s-worker-1"}
    yield Queue(
        "kubernetes-prod", "etl", True, 8, 8, processing=6, paused=False, id="1", priority=2, last_polled=NOW - 4,
        holders={
            "PENDING": held(run(1, "tangible-marmot", 72.4, **load)),
            "RUNNING": held(
                run(2, "wandering-heron", 15_622.7, **load),
                run(3, "crimson-otter", 411.0, **{**load, "flow": "load-events"}),
                run(4, "hopeful-lynx", 280.3, **load),
                run(5, "quiet-badger", 33.1, **load),
                more=2,
            ),
            "CANCELLING": held(run(6, "stubborn-mole", 1_843.0, **{**load, "worker": "k8s-worker-2"})),
        },
        queued={"2": 37},
        waiting={
            "Late": Waiting(31, (waiting_run(7, "amber-stoat", 4_102.7, flow="load-orders", deployment="hourly"),
                                 waiting_run(8, "lucid-raven", 4_040.2, flow="load-events", deployment="hourly"))),
            "Scheduled": Waiting(4, (waiting_run(9, "proud-vole", 12.0, flow="load-orders", deployment="hourly"),)),
            "AwaitingConcurrencySlot": Waiting(2),
        },
        blocked=blocked_by({"queue_limit": 31, "just_now": 4}, REASONS, 37),
        longest_wait=4_102.7,
        url="https://prefect.example.com/work-pools/work-pool/kubernetes-prod/queue/etl",
    )  # fmt: skip
    yield Queue(
        "ecs-ml", "training", True, 3, 3, processing=3, paused=False, last_polled=NOW - 6,
        holders={"PENDING": held(), "RUNNING": held(run(10, "gentle-falcon", 3_301.5, flow="train-ranking"), more=2),
                 "CANCELLING": held()},
        queued={"1": 5}, waiting={"Late": Waiting(5)}, longest_wait=655.0,
        blocked=blocked_by({"pool_limit": 5}, REASONS, 5),
    )  # fmt: skip
    yield Queue(
        "docker-internal", "legacy-imports", True, 0, 2, processing=0, paused=True, last_polled=NOW - 90_000,
        holders={"PENDING": held(), "RUNNING": held(), "CANCELLING": held()},
        queued={"3": 12}, waiting={"Late": Waiting(12)}, longest_wait=97_000.0,
        blocked=blocked_by({"queue_paused": 12}, REASONS, 12),
    )  # fmt: skip
    for pool, name, taken, slots in (
        ("kubernetes-prod", "reports", 4, 5), ("kubernetes-prod", "critical", 1, 4), ("ecs-ml", "inference", 2, 6),
        ("warehouse", "dbt", 0, 4), ("docker-internal", "default", 3, None), ("warehouse", "maintenance", 0, 0),
    ):  # fmt: skip
        holders = {"PENDING": held(), "RUNNING": held(more=taken), "CANCELLING": held()}
        yield Queue(
            pool, name, True, taken, slots, processing=taken, holders=holders, queued={"1": 0},
            waiting={"Late": Waiting(0)}, blocked=blocked_by({}, REASONS, 0), paused=False, last_polled=NOW - 3,
        )  # fmt: skip


NIGHT: Final = Snapshot(
    queues=tuple(_night()),
    pools=(
        Pool("kubernetes-prod", "1", "kubernetes", False, 13, 18, {"READY": True, "NOT_READY": False, "PAUSED": False},
             Workers({"ONLINE": 2}, NOW - 11)),
        Pool("ecs-ml", "2", "ecs", False, 10, 10, {"READY": True, "NOT_READY": False, "PAUSED": False},
             Workers({"ONLINE": 1}, NOW - 20)),
        Pool("docker-internal", "3", "docker", False, None, None),
        Pool("warehouse", "4", "process", False, 0, 7),
    ),
    limits=(
        Limit("database", "tag", "1", 8, 8, 0.0, True, "https://prefect.example.com/concurrency-limits"),
        Limit("llm-requests", "global", "2", 9, 20, 2.5, True),
        Limit("dbt-build/prod", "deployment", "3", 1, 2, 0.0, True),
        Limit("legacy-ftp", "global", "4", 1, 1, 0.0, False),
    ),
    unreadable=(Unreadable("queues", "timeout", "not read before the poll's timeout of 30s", "warehouse", "adhoc"),),
)  # fmt: skip
CLORO: Final = Snapshot(
    queues=(
        Queue(
            "", "async", True, 42, 50, processing=40,
            queued={**{str(priority): 0 for priority in range(1, 11)}, "5": 3, "unknown": 1},
            blocked=blocked_by({"just_now": 4}, ("queue_limit", "just_now", "none"), 4),
        ),
    )
)  # fmt: skip
BLIND: Final = Snapshot(queues=(Queue("", "async", False, queued={"5": 7}),))
"""cloro under maintenance: how many slots are taken is not known."""


def night(location: Location = Location()) -> Board:  # noqa: B008  it is frozen
    """An exporter with two good sources, one whose data has expired, and one that was not polled."""
    board = Board(location)
    for name, system in (("production", "prefect"), ("scraper", "cloro"), ("staging", "prefect"), ("new", "prefect")):
        board.add(name, system)
    board.time.seconds = -300
    board.publish("staging", Snapshot(queues=(Queue("p", "q", True, 1, 1),)))
    board.fail("staging")
    board.time.seconds = 0
    board.publish("production", NIGHT)
    board.publish("scraper", CLORO)
    board.time.seconds = 12.3
    return board


@asynccontextmanager
async def on_loopback(application: ASGIApp) -> AsyncIterator[str]:
    """The address at which an application is served by the exporter's own server."""
    listener = listen("127.0.0.1", 0)
    server = Server(application, graceful_seconds=1)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.stop()
        await task


MARKUP: Final = (
    "<script>document.title='owned'</script><img src=/x onerror=\"document.title='owned'\">"
    "<style>main{max-width:1px}</style>'\"><a href=javascript:alert(1)>&lt;{{ 7 * 7 }}"
)
HOSTILE: Final = (
    MARKUP,
    'quo"te\\back',
    "new\nline\ttab\r",
    "right \N{RIGHT-TO-LEFT OVERRIDE}to left \N{RIGHT-TO-LEFT ISOLATE}",
    "x" * 1_000,
    "\N{HEBREW LETTER ALEF}" * 1_000,
    "a&b=c?d#e/f+g%20h;i",
    " ",
    "..",
)
"""Names of queues, pools, limits, runs and details."""
LINKS: Final = ("javascript:alert(1)", "data:text/html,x", "//evil.example.com", "http://", "HTTPS://x.example.com/ok")


def hostile() -> Snapshot:
    """Everything with such a name."""

    def tasks(name: str) -> tuple[Holder, ...]:
        return tuple(
            Holder(f"{at}{name}", name, None if at else 7.5, link, {name: name, "flow": name})
            for at, link in enumerate(LINKS)
        )

    def waits(name: str) -> tuple[WaitingTask, ...]:
        return tuple(WaitingTask(one.id, one.name, one.seconds, one.url, one.details) for one in tasks(name))

    return Snapshot(
        queues=tuple(
            Queue(
                name, name, True, 5, 5, holders={name: Holders(5, (7.5,), tasks(name))}, queued={name: 5},
                waiting={name: Waiting(5, waits(name))}, blocked={name: 5}, url=LINKS[0], longest_wait=1e12,
                last_polled=-1e18,
            )
            for name in HOSTILE
        ),
        pools=tuple(
            Pool(name, name, name, True, 5, 5, {name: True}, Workers({name: 1}, 1e18), LINKS[0]) for name in HOSTILE
        ),
        limits=tuple(Limit(name, name, name, 5, 5, 1e300, True, LINKS[1]) for name in HOSTILE),
        unreadable=tuple(Unreadable("queues", "contract", name, name, name) for name in HOSTILE),
    )  # fmt: skip
