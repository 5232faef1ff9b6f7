"""Listings that change between two of their pages: no row that is there all the time is lost, and none comes twice.

The pass-through changes the real server just before it forwards a page after the first.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, Final

import pytest
from pydantic import TypeAdapter

from exporter.model import Queue, Snapshot
from exporter.shard import WHOLE
from exporter.sources.base import SourceError
from exporter.sources.prefect import PrefectConfig
from exporter.sources.prefect.api import (
    CONCURRENCY_LIMITS,
    FLOW_RUNS,
    WORK_POOLS,
    WORK_QUEUES,
    WORKERS,
    Api,
)
from tests.harness.passing import Before, passing
from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import PrefectApi, PrefectServer, PrefectTemplates
from tests.harness.upstream import Request, answer, serving

PAGE: Final = 40
"""Two rows of it are on the page before."""
ROWS: Final = 100
BUSY: Final = "busy"
"""The pool of all runs. No test removes its queues: the runs of a queue that is removed have none."""
QUEUES_OF_RUNS: Final = {
    "RUNNING": tuple(f"running-{number:02}" for number in range(50)),
    "PENDING": ("pending",),
    "SCHEDULED": ("scheduled",),
}
"""By the state of their runs."""


def between_pages(path: str, *actions: Callable[[], object], of: str = "") -> Before:
    """Do one of these before each page but the first of the listing at that path whose filter has the text `of`."""
    left = list(actions)

    def before(request: Request) -> None:
        if not left or not request.path.endswith(path) or of not in request.body.decode():
            return
        if request.json.get("offset") or request.json.get("page", 1) > 1:
            left.pop(0)()

    return before


def prefect(url: str, **more: object) -> PrefectConfig:
    """A source that reads the server at that address."""
    return PrefectConfig.model_validate({"name": "p", "system": "prefect", "url": f"{url}/api", "timeout": "1m"} | more)


async def polled(config: PrefectConfig, polls: int = 1) -> Snapshot:
    """What the last of so many polls found."""
    source = config.build(WHOLE, lambda *_: None)
    try:
        for _ in range(polls):
            snapshot = await source.poll()
    finally:
        await source.close()
    return snapshot


def poll(server: PrefectServer, before: Before, **more: object) -> Snapshot:
    """What a poll of the server behind a pass-through finds."""

    with passing(server, before) as upstream:
        return asyncio.run(polled(prefect(upstream.url, **more)))


# --- The server: a hundred of each thing.


@dataclass(frozen=True)
class Crowd:
    """A server with a hundred rows in each of its listings, and what changes it."""

    server: PrefectServer
    api: PrefectApi
    flow: str

    def rows(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Those of a listing, in its order, while nothing changes."""
        found: list[dict[str, Any]] = []
        while page := self.api.request("POST", path, {**body, "offset": len(found)}):
            found += page
        return found

    def refill(self) -> None:
        """Make what is missing of a hundred of each, with new ids."""
        pools, queues, limits, workers = (
            {row["name"] for row in self.rows(path, {})}
            for path in (
                "/work_pools/filter",
                "/work_pools/large/queues/filter",
                "/v2/concurrency_limits/filter",
                "/work_pools/large/workers/filter",
            )
        )
        for number in range(ROWS):
            if (pool := f"pool-{number:03}") not in pools:
                self.api.create_pool(pool)
            if (queue := f"a-{number:03}") not in queues:
                self.api.create_queue("large", queue)
            if (worker := f"worker-{number:03}") not in workers:
                self.beat(worker)
        for number in range(len(limits), ROWS):
            self.api.request("POST", "/v2/concurrency_limits/", {"name": f"limit-{uuid.uuid4()}", "limit": number})
        for state, of in QUEUES_OF_RUNS.items():
            for number in range(len(self.rows("/flow_runs/filter", of_state(state))), ROWS):
                body: dict[str, object] = {"type": state}
                if state == "SCHEDULED":
                    # Due for a while: the Date of a busy server's answer is old, and is taken for its clock.
                    body["state_details"] = {"scheduled_time": (datetime.now(UTC) - timedelta(minutes=1)).isoformat()}
                self.api.create_run(self.flow, pool=BUSY, queue=of[number % len(of)], state=body)

    def finish(self, *runs: str) -> None:
        """Let them complete."""
        for run in runs:
            self.api.set_state(run, {"type": "COMPLETED"})

    def beat(self, *workers: str) -> None:
        """Let these workers of the large pool say that they live."""
        for name in workers:
            self.api.request("POST", "/work_pools/large/workers/heartbeat", {"name": name})


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def crowd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prefect_templates: PrefectTemplates
) -> Iterator[Crowd]:
    home = tmp_path_factory.mktemp("paging")
    settings = {"PREFECT_SERVER_API_DEFAULT_LIMIT": str(PAGE)}
    if request.param == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        server = PrefectServer(home, settings=settings, database_url=prefect_templates.postgres(cluster, None))
    else:
        server = PrefectServer(home, settings=settings, template=prefect_templates.sqlite(None))
    with server, closing(server.client()) as client:
        api = PrefectApi(client)
        api.create_pool("large")
        api.create_pool(BUSY)
        for queue in (*chain.from_iterable(QUEUES_OF_RUNS.values()), SWAPPED):
            api.create_queue(BUSY, queue)
        yield Crowd(server, api, api.create_flow())


def of_state(*types: str) -> dict[str, Any]:
    """The runs in these states, as the exporter asks for them."""
    return {"flow_runs": {"state": {"type": {"any_": list(types)}}}, "sort": "ID_DESC"}


@dataclass(frozen=True)
class Listing:
    """A listing as the exporter asks for it, and how one of its rows is removed."""

    endpoint: str
    contract: TypeAdapter[list[Any]]
    remove: Callable[[Crowd, dict[str, Any]], object]
    body: dict[str, Any] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Its path."""
        return self.endpoint.format(**self.path)

    def read(self, url: str) -> set[str]:
        """The ids of what the exporter lists from there, each once."""

        async def run() -> list[Any]:
            api = Api(prefect(url), request_timeout=30, count_request=lambda *_: None)
            try:
                return await api.listing(self.endpoint, self.contract, self.body, **self.path)
            finally:
                await api.close()

        ids = [str(row.id) for row in asyncio.run(run())]
        assert len(ids) == len(set(ids))
        return set(ids)


def deleted(path: str, key: str = "id") -> Callable[[Crowd, dict[str, Any]], object]:
    return lambda crowd, row: crowd.api.request("DELETE", path.format(row[key]))


def completed(crowd: Crowd, row: dict[str, Any]) -> None:
    crowd.api.set_state(row["id"], {"type": "COMPLETED"})


LARGE: Final = {"name": "large"}
HOLDERS: Final = Listing("/flow_runs/filter", FLOW_RUNS, completed, of_state("RUNNING"))
QUEUES: Final = Listing("/work_pools/{name}/queues/filter", WORK_QUEUES, deleted("/work_queues/{}"), path=LARGE)
LIMITS: Final = Listing("/v2/concurrency_limits/filter", CONCURRENCY_LIMITS, deleted("/v2/concurrency_limits/{}"))
WORKERS_: Final = Listing(
    "/work_pools/{name}/workers/filter", WORKERS, deleted("/work_pools/large/workers/{}", "name"), path=LARGE
)
LISTINGS: Final = {
    "holders": HOLDERS,
    "waiting": Listing("/flow_runs/filter", FLOW_RUNS, completed, of_state("SCHEDULED")),
    "pools": Listing("/work_pools/filter", WORK_POOLS, deleted("/work_pools/{}", "name")),
    "queues of a pool": QUEUES,
    "limits": LIMITS,
    "workers": WORKERS_,
}


LEAVING: Final = {
    **{f"{name}: more than the overlap": (listing, 3) for name, listing in LISTINGS.items()},
    "holders: fewer than the overlap": (HOLDERS, 1),
    "holders: most of a page": (HOLDERS, 30),
}


@pytest.mark.parametrize(("listing", "gone"), LEAVING.values(), ids=LEAVING)
def test_rows_leave_between_two_pages(crowd: Crowd, listing: Listing, gone: int) -> None:
    crowd.refill()
    before = [row for row in crowd.rows(listing.url, listing.body) if row.get("name") not in {"default", "large", BUSY}]
    assert len(before) >= ROWS

    def leave() -> None:
        for row in before[:gone]:
            listing.remove(crowd, row)

    with passing(crowd.server, between_pages(listing.url, leave)) as upstream:
        found = listing.read(upstream.url)
        pages = len(upstream.requests)
    assert found == {row["id"] for row in crowd.rows(listing.url, listing.body)}
    assert pages < 12


def test_rows_leave_before_each_page(crowd: Crowd) -> None:
    """What is read in vain is bounded, and nothing is lost."""
    crowd.refill()
    before = crowd.rows(HOLDERS.url, HOLDERS.body)
    steps = [partial(crowd.finish, *(row["id"] for row in before[first : first + 10])) for first in range(0, 60, 10)]

    async def run(url: str) -> set[str]:
        api = Api(prefect(url), request_timeout=30, count_request=lambda *_: None)
        try:
            return {str(row.id) async for page in api.pages(HOLDERS.url, FLOW_RUNS, HOLDERS.body) for row in page.rows}
        finally:
            await api.close()

    with passing(crowd.server, between_pages(HOLDERS.url, *steps)) as upstream:
        found = asyncio.run(run(upstream.url))
        assert len(upstream.requests) < 20
    assert {row["id"] for row in before[60:]} <= found <= {row["id"] for row in before}


def renamed(crowd: Crowd, row: dict[str, Any]) -> None:
    crowd.api.request("PATCH", f"/v2/concurrency_limits/{row['id']}", {"name": f"a-{row['id']}"})


def preferred(crowd: Crowd, row: dict[str, Any]) -> None:
    crowd.api.request("PATCH", f"/work_queues/{row['id']}", {"priority": 1})


REORDERED: Final = {
    "a limit is renamed": (LIMITS, renamed),
    "a queue is preferred": (QUEUES, preferred),
    "a worker beats": (WORKERS_, lambda crowd, row: crowd.beat(row["name"])),
}


@pytest.mark.parametrize(("listing", "move"), REORDERED.values(), ids=REORDERED)
def test_the_last_row_comes_first_between_two_pages(
    crowd: Crowd, listing: Listing, move: Callable[[Crowd, dict[str, Any]], object]
) -> None:
    """It would be in no page. Every reading is disturbed so, each by another row."""
    crowd.refill()
    rows = crowd.rows(listing.url, listing.body)
    moves = [partial(move, crowd, row) for row in reversed(rows[-6:])]
    with passing(crowd.server, between_pages(listing.url, *moves)) as upstream:
        assert listing.read(upstream.url) == {row["id"] for row in rows}


@pytest.mark.parametrize(("listing", "move"), REORDERED.values(), ids=REORDERED)
def test_the_last_row_comes_first_while_one_that_was_read_goes(
    crowd: Crowd, listing: Listing, move: Callable[[Crowd, dict[str, Any]], object]
) -> None:
    """As many rows are found as there are, and one of them is lost."""
    crowd.refill()
    rows = crowd.rows(listing.url, listing.body)
    goes = next(row for row in rows if row["name"] != "default")

    def both() -> None:
        move(crowd, rows[-1])
        listing.remove(crowd, goes)

    with passing(crowd.server, between_pages(listing.url, both)) as upstream:
        assert listing.read(upstream.url) == {row["id"] for row in rows} - {goes["id"]}


def test_pages_get_smaller_while_a_listing_is_read(crowd: Crowd) -> None:
    """The server is started again with another greatest page."""
    crowd.refill()
    rows = crowd.rows(HOLDERS.url, HOLDERS.body)

    def smaller(request: Request) -> bytes | None:
        if request.path.endswith(HOLDERS.url) and request.json["offset"] and request.json["limit"] > 7:
            return answer({"detail": "Invalid limit: must be less than or equal to 7."}, 422)
        return None

    with passing(crowd.server, smaller) as upstream:
        assert HOLDERS.read(upstream.url) == {row["id"] for row in rows}


# --- The plans of a poll.


def active(snapshot: Snapshot) -> dict[str, int | None]:
    return {queue.name: queue.active_slots for queue in snapshot.queues if queue.pool == BUSY}


def test_a_sweep_of_holders(crowd: Crowd) -> None:
    """What has left is not counted, and all that is there still is."""
    crowd.refill()
    holders = crowd.rows("/flow_runs/filter", of_state("PENDING", "RUNNING"))
    change = between_pages("/flow_runs/filter", partial(crowd.finish, holders[0]["id"]), of="PENDING")
    found = {name: slots for name, slots in active(poll(crowd.server, change, collect=["queues"])).items() if slots}
    assert found == Counter(run["work_queue_name"] for run in holders[1:])


def test_a_sweep_of_what_waits(crowd: Crowd) -> None:
    crowd.refill()
    waiting = crowd.rows("/flow_runs/filter", of_state("SCHEDULED"))
    change = between_pages("/flow_runs/filter", partial(crowd.finish, waiting[0]["id"]), of="before_")
    snapshot = poll(crowd.server, change, collect=["backlog"])
    (queue,) = (queue for queue in snapshot.queues if queue.name == "scheduled")
    assert sum(one.count for one in queue.waiting.values()) == len(waiting) - 1


def test_the_status_of_a_queue(crowd: Crowd) -> None:
    crowd.refill()
    holders = crowd.rows("/flow_runs/filter", of_state("PENDING"))
    # Its pages are ordered the other way round.
    change = between_pages("/concurrency_status", partial(crowd.finish, *(run["id"] for run in holders[-4:])))
    snapshot = poll(crowd.server, change, collect=["queues"], queues={"include": "pending"})
    (queue,) = snapshot.queues
    assert queue.holders["PENDING"].count == len(holders)
    assert queue.active_slots == len(holders) - 4


def test_the_listing_of_all_queues(crowd: Crowd) -> None:
    """It is read from the second poll on."""
    crowd.refill()
    queues = crowd.rows(QUEUES.url, {})
    first = min((row for row in queues), key=lambda row: row["name"])
    change = between_pages("/api/work_queues/filter", partial(QUEUES.remove, crowd, first))
    with passing(crowd.server, change) as upstream:
        snapshot = asyncio.run(polled(prefect(upstream.url, collect=["queues"]), 2))
        assert [one for one in upstream.requests if one.path == "/api/work_queues/filter"]
    ids = {queue.id for queue in snapshot.queues if queue.pool == "large"}
    assert {row["id"] for row in queues} - {first["id"]} <= ids <= {row["id"] for row in queues}


# --- A number of runs was true at one moment. Of two runs of a queue, one comes first in the listing, one last.

FIRST, LAST = 0, 1
SWAPPED: Final = "swapped"
RUNNING: Final = {"type": "RUNNING", "name": "Running"}
PENDING: Final = {"type": "PENDING", "name": "Pending"}
CANCELLING: Final = {"type": "CANCELLING", "name": "Cancelling"}
AWAY: Final = {"type": "PAUSED", "name": "Paused"}
LATE: Final = {"type": "SCHEDULED", "name": "Late"}
HELD_BACK: Final = {"type": "SCHEDULED", "name": "AwaitingConcurrencySlot"}
DELETED: Final[dict[str, str]] = {"type": "", "name": ""}

State = dict[str, str]
SWAPS: Final[dict[str, tuple[tuple[State, State], list[tuple[int, State]]]]] = {
    "the first gives its slot to the last": ((RUNNING, AWAY), [(FIRST, AWAY), (LAST, RUNNING)]),
    "the first takes a slot before the last gives its own": ((AWAY, RUNNING), [(FIRST, RUNNING), (LAST, AWAY)]),
    "the first is cancelled, then the last starts": ((RUNNING, PENDING), [(FIRST, CANCELLING), (LAST, RUNNING)]),
    "the first starts, then the last is cancelled": ((PENDING, RUNNING), [(FIRST, RUNNING), (LAST, CANCELLING)]),
    "the first is deleted, then the last starts": ((RUNNING, AWAY), [(FIRST, DELETED), (LAST, RUNNING)]),
    "the first waits no more, then the last does": ((LATE, AWAY), [(FIRST, AWAY), (LAST, LATE)]),
    "the first waits before the last waits no more": ((AWAY, LATE), [(FIRST, LATE), (LAST, AWAY)]),
    "the first is held back, then the last is not": ((LATE, HELD_BACK), [(FIRST, HELD_BACK), (LAST, LATE)]),
    "the first is late before the last is held back": ((HELD_BACK, LATE), [(FIRST, LATE), (LAST, HELD_BACK)]),
}
FIGURES: Final[dict[str, dict[str, Callable[[Queue], int | None]]]] = {
    "queues": {
        "PENDING RUNNING CANCELLING": lambda queue: queue.active_slots,
        "RUNNING": lambda queue: queue.holders["RUNNING"].count,
        "PENDING": lambda queue: queue.holders["PENDING"].count,
        "CANCELLING": lambda queue: queue.holders["CANCELLING"].count,
    },
    "backlog": {
        "Late AwaitingConcurrencySlot": lambda queue: sum(queue.queued.values()),
        "Late": lambda queue: queue.waiting["Late"].count,
        "AwaitingConcurrencySlot": lambda queue: queue.waiting["AwaitingConcurrencySlot"].count,
    },
}
"""The figures of a queue, by the part of a poll, and by the types or names of the states that they count."""


def due(state: State) -> dict[str, object]:
    ago = datetime.now(UTC) - timedelta(minutes=1)
    return (
        {**state, "state_details": {"scheduled_time": ago.isoformat()}} if state["type"] == "SCHEDULED" else {**state}
    )


def first_and_last(crowd: Crowd) -> list[str]:
    """Two runs of one queue that are away: one comes on the first page of each listing, one on the last."""
    crowd.refill()
    runs = crowd.rows("/flow_runs/filter", {"flow_runs": {"work_queue_name": {"any_": [SWAPPED]}}})
    ids = {run["id"] for run in runs}
    listed = [crowd.rows("/flow_runs/filter", of_state(*types)) for types in (("PENDING", "RUNNING"), ("SCHEDULED",))]
    while not ids or any(max(ids) < rows[PAGE - 5]["id"] or min(ids) > rows[-PAGE // 2]["id"] for rows in listed):
        ids.add(crowd.api.create_run(crowd.flow, pool=BUSY, queue=SWAPPED, state=AWAY))
    return [max(ids), min(ids)]


def before_a_page(request: Request) -> bool:
    return bool(request.json.get("offset"))


def before_the_known_runs(request: Request) -> bool:
    return "any_" in request.json["flow_runs"].get("id", {})


@pytest.mark.parametrize("when", [before_a_page, before_the_known_runs])
@pytest.mark.parametrize("swap", SWAPS)
def test_runs_change_places_during_a_sweep(crowd: Crowd, swap: str, when: Callable[[Request], bool]) -> None:
    runs = first_and_last(crowd)
    begin, steps = SWAPS[swap]
    for run, state in zip(runs, begin, strict=True):
        crowd.api.set_state(run, due(state))
    worlds = [list(begin)]
    part = "backlog" if "SCHEDULED" in {state["type"] for state in begin} else "queues"

    def change(request: Request) -> None:
        if request.path.startswith("/api/flow_runs/") and when(request):
            while len(worlds) <= len(steps):
                which, state = steps[len(worlds) - 1]
                if state is DELETED:
                    crowd.api.request("DELETE", f"/flow_runs/{runs[which]}")
                else:
                    crowd.api.set_state(runs[which], due(state))
                worlds.append([state if at == which else of for at, of in enumerate(worlds[-1])])

    try:
        snapshot = poll(crowd.server, change, collect=[part])
    finally:
        for run, state in zip(runs, worlds[-1], strict=True):
            if state is not DELETED:
                crowd.api.set_state(run, AWAY)
    assert len(worlds) == 3
    (queue,) = (queue for queue in snapshot.queues if queue.name == SWAPPED)
    for states, figure in FIGURES[part].items():
        words = states.split()
        assert figure(queue) in [
            sum(state["type"] in words or state["name"] in words for state in world) for world in worlds
        ], states


def test_a_queue_is_deleted_during_a_sweep(crowd: Crowd) -> None:
    """All of its runs leave it at once."""
    crowd.refill()
    queue = crowd.api.create_queue(BUSY, "doomed")
    for _ in range(20):
        crowd.api.create_run(crowd.flow, pool=BUSY, queue="doomed", state=due(LATE))
    change = between_pages(
        "/flow_runs/filter", lambda: crowd.api.request("DELETE", f"/work_queues/{queue}"), of="before_"
    )
    snapshot = poll(crowd.server, change, collect=["backlog"])
    (doomed,) = (one for one in snapshot.queues if one.name == "doomed")
    assert sum(doomed.queued.values()) in {0, 20}
    crowd.finish(*(run["id"] for run in crowd.rows("/flow_runs/filter", of_state("SCHEDULED"))))


def test_a_run_ends_whose_queue_is_deleted_during_a_sweep(crowd: Crowd) -> None:
    """The others keep its name, and hold no slot of it: it had three holders, then it was gone, and never two."""
    crowd.refill()
    queue = crowd.api.create_queue(BUSY, "doomed")
    run, *_ = [crowd.api.create_run(crowd.flow, pool=BUSY, queue="doomed", state=due(RUNNING)) for _ in range(3)]

    def delete() -> None:
        crowd.api.request("DELETE", f"/work_queues/{queue}")
        crowd.finish(run)

    snapshot = poll(crowd.server, between_pages("/flow_runs/filter", delete, of="RUNNING"), collect=["queues"])
    assert [one.active_slots for one in snapshot.queues if one.name == "doomed"] in ([], [3])


# --- Rows that come and go while a listing of 20 is read, ten at most on a page.


def pools(*numbers: int) -> list[dict[str, Any]]:
    return [
        {"id": str(uuid.UUID(int=n)), "name": f"p{n}", "type": "process", "is_paused": False, "concurrency_limit": None}
        for n in numbers
    ]


def ten_of(listed: Callable[[Request], list[dict[str, Any]]]) -> Callable[[Request], bytes]:
    def page(request: Request) -> bytes:
        if request.json["limit"] > 10:
            return answer({"detail": "Invalid limit: must be less than or equal to 10."}, 422)
        return answer(listed(request)[request.json["offset"] :][:10])

    return page


def test_as_many_rows_as_there_are_may_be_others() -> None:
    """Between two pages, one that was read goes and the last comes first: it is lost, and the number is right."""
    now = pools(*range(20))

    def listed(request: Request) -> list[dict[str, Any]]:
        nonlocal now
        if request.json["offset"] == 9:
            now = pools(19, *range(1, 19))
        return now

    with serving(ten_of(listed)) as upstream:
        assert LISTINGS["pools"].read(upstream.url) == {row["id"] for row in pools(*range(1, 20))}


def test_others_are_lost_each_time() -> None:
    """As of workers whose heartbeats come all the time: what a reading loses, another one has."""
    last = 20

    def listed(request: Request) -> list[dict[str, Any]]:
        nonlocal last
        last -= request.json["offset"] == 9
        return pools(*range(last, 20), *range(last))

    with serving(ten_of(listed)) as upstream:
        assert LISTINGS["pools"].read(upstream.url) == {row["id"] for row in pools(*range(20))}
    assert last == 17


@pytest.mark.parametrize(("rows", "readings"), [(9, 1), (20, 2)], ids=["a page", "more than a page"])
def test_how_often_a_listing_is_read(rows: int, readings: int) -> None:
    with serving(ten_of(lambda _: pools(*range(rows)))) as upstream:
        assert len(LISTINGS["pools"].read(upstream.url)) == rows
    refused, *asked = (request.json["offset"] for request in upstream.requests)
    assert (refused, asked) == (0, readings * list(range(0, rows, 9)))


# --- Pages that can't be right.


def test_pages_that_never_agree() -> None:
    """A server that counts a row which is on no page: it is said so, and no number is published."""
    rows = pools(*range(19), 18)
    with serving(ten_of(lambda _: rows)) as upstream, pytest.raises(SourceError, match="readings have found") as failed:
        LISTINGS["pools"].read(upstream.url)
    assert failed.value.reason == "contract"
    assert len(upstream.requests) < 20
