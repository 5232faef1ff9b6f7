"""The JSON API: its answers, word for word and against the metrics, and what it refuses."""

import asyncio
import base64
import gc
import json
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import views
from exporter.model import Holder, Holders, Limit, Pool, Queue, Unreadable, Waiting, WaitingTask
from exporter.shard import Shard
from exporter.web import api, schema
from exporter.web.guard import Guard
from exporter.web.kept import Kept
from exporter.web.location import location
from tests.harness.exporter import series
from tests.harness.json_api import in_json, of_those
from tests.harness.states import Filled
from tests.harness.web import HASH, PASSWORD, live

GOLDEN = Path(__file__).parent / "golden"
UI = "https://prefect.example.com"
RUN = Holder(
    "0b5a4c2e-6f3b-4e6a-9a52-1f2f0f6f9f10",
    "quiet-otter",
    4102.7,
    f"{UI}/runs/flow-run/0b5a4c2e-6f3b-4e6a-9a52-1f2f0f6f9f10",
    {"flow": "nightly", "deployment": "all tables", "worker": "worker-1"},
)
FULL = Queue(
    "etl",
    "default",
    usage_known=True,
    active_slots=4,
    slot_limit=4,
    processing=3,
    holders={
        "PENDING": Holders(1, (2.5,), (Holder("2", "brave-owl", 2.5),)),
        "RUNNING": Holders(3, (4102.7, 60.0), (RUN, Holder("3", "", 60.0), Holder("4"))),
        "CANCELLING": Holders(0),
    },
    queued={"1": 7},
    waiting={"Late": Waiting(6, (WaitingTask("9", seconds=81.2),)), "Scheduled": Waiting(1)},
    blocked={"queue_limit": 7, "pool_limit": 0, "unknown": 0},
    longest_wait=81.2,
    paused=False,
    id="7",
    priority=1,
    url=f"{UI}/work-pools/work-pool/etl/queue/default",
)
HOSTILE = Queue("a\"'<b>&amp;", "\u202etxt\n\x00\u2028💥", active_slots=1, paused=True)
ASYNC = Queue("", "async", True, 2, 5, processing=2, queued={"1": 0, "10": 3})
POOL = Pool("etl", "1", "process", paused=False, active_slots=4, slot_limit=10)
GPU = Limit("gpu", "tag", "5", 2, 3, 0.0, True, f"{UI}/concurrency-limits/concurrency-limit/5")
DB = Limit("db", "global", "6", 3, 2, 0.5, False)
LEFT_OUT = Unreadable("queues", "timeout", "not read before the poll's timeout of 30s", "etl", "slow")


@pytest.fixture
def exporter() -> Filled:
    """Two sources with data that is 12.3 s old, and one whose data has expired."""
    exporter = Filled()
    for name, system in (("production", "prefect"), ("old", "prefect"), ("cloro", "cloro")):
        exporter.add(name, system)
    exporter.succeed("old", Queue("p", "gone"))
    exporter.time.seconds += 100
    exporter.fail("old")
    exporter.succeed(
        "production",
        HOSTILE,
        FULL,
        pools=(POOL,),
        limits=(GPU, DB),
        unreadable=(LEFT_OUT,),
        unsupported=("workers",),
        version="3.9.1",
    )
    exporter.succeed("cloro", ASYNC)
    exporter.time.seconds += 12.3
    return exporter


def of(route: str, **parameters: object) -> str:
    """The address of a route with these parameters."""
    return f"/api/v1/{route}?{urlencode(parameters, doseq=True)}"


DEFAULT = {"source": "production", "pool": "etl", "queue": "default"}
ONE_QUEUE = of("queue", **DEFAULT)
ANSWERS: dict[str, tuple[str, type[schema.Answer]]] = {
    "queues": (of("queues"), schema.Queues),
    "queue": (ONE_QUEUE, schema.Queue),
    "queue-cloro": (of("queue", source="cloro", queue="async"), schema.Queue),
    "limits": (of("limits"), schema.Limits),
    "limit": (of("limit", source="production", kind="tag", limit="gpu"), schema.Limit),
    "headroom": (of("headroom", source="cloro", pool="", queue="async", kind=[], limit=[]), schema.Headroom),
    "headroom-full": (of("headroom", **DEFAULT | {"source": "production"}), schema.Headroom),
    "sources": (of("sources"), schema.Sources),
}
EVERY_ANSWER = pytest.mark.parametrize("name", ANSWERS)


def compare(name: str, found: Any, *, update: bool) -> None:
    """Compare with a golden file, or write it anew."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(found, indent=2, ensure_ascii=True) + "\n"
    if update:
        path.write_text(text, encoding="ascii")
    assert text == path.read_text(encoding="ascii")


@EVERY_ANSWER
async def test_the_answers(exporter: Filled, name: str, *, update_golden: bool) -> None:
    path, model = ANSWERS[name]
    if name == "headroom-full":
        exporter.succeed("production", FULL, pools=(POOL,))
        exporter.time.seconds += 12.3
    found = await exporter.json(path)
    compare(name, found, update=update_golden)
    model.model_validate_json(json.dumps(found), strict=True)


def test_a_change_of_the_schema_is_seen(*, update_golden: bool) -> None:
    """Version 1 only ever gets more fields: what this file loses is a version of its own."""
    compare("openapi", api.document(), update=update_golden)


async def test_the_schema_is_served(exporter: Filled) -> None:
    assert await exporter.json("/api/v1/openapi.json") == api.document()


def test_the_example_of_a_queue_has_the_fields_of_the_schema() -> None:
    found = json.loads((GOLDEN / "queue.json").read_text(encoding="ascii"))
    # fmt: off
    assert list(found) == [
        "source", "system", "pool", "queue", "url", "taken_at", "age_seconds", "expires_in_seconds", "paused",
        "active_slots", "slot_limit", "free_slots", "queued", "holders",
    ]
    # fmt: on
    assert list(found["queued"]) == ["total", "by_priority", "by_state", "by_reason", "longest_wait_seconds"]
    assert list(found["holders"]) == ["total", "by_state", "oldest"]
    assert list(found["holders"]["oldest"][0]) == ["id", "name", "state", "seconds", "url", "details"]
    assert found["taken_at"] == "2026-01-01T12:00:00.000Z"
    assert (found["age_seconds"], found["expires_in_seconds"]) == (12.3, 77.7)


def test_every_route_has_a_golden_file() -> None:
    routes = {one.path.removeprefix("/") for one in api.operations() if one.answers}
    assert routes <= {path.stem for path in GOLDEN.glob("*.json")}
    assert {path.stem for path in GOLDEN.glob("*.json")} == {"openapi", *ANSWERS}


async def test_a_page_of_a_list(exporter: Filled) -> None:
    exporter.add("large")
    exporter.succeed("large", *(Queue("p", f"{at:03}", active_slots=0, slot_limit=1) for at in range(205)))
    found = [await exporter.json(of("queues", source="large", page=number)) for number in (1, 2, 3)]
    assert [queue["queue"] for page in found for queue in page["queues"]] == [f"{at:03}" for at in range(205)]
    assert [(page["page"], page["pages"], page["total"]) for page in found] == [(1, 3, 205), (2, 3, 205), (3, 3, 205)]
    error = await exporter.json(of("queues", source="large", page=4), 404)
    assert error == {"error": "no page 4; the last page is 3"}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"text": "DEF"}, ["default"]),
        ({"full": "true"}, ["default"]),
        ({"waiting": "true"}, ["default", "async"]),
        ({"waiting": "false"}, [HOSTILE.name]),
        ({"paused": "on"}, [HOSTILE.name]),
        ({"system": "cloro"}, ["async"]),
        ({"source": "", "system": "", "full": "", "text": "", "paused": ""}, ["default", "async", HOSTILE.name]),
        ({"source": "production", "full": "0"}, [HOSTILE.name]),
        ({"text": "\x00\u2028"}, [HOSTILE.name]),
        ({"text": "nothing has this name"}, []),
    ],
)
async def test_filters(exporter: Filled, filters: dict[str, str], names: list[str]) -> None:
    found = await exporter.json(of("queues", **filters))
    assert [queue["queue"] for queue in found["queues"]] == names


async def test_filters_of_limits(exporter: Filled) -> None:
    for filters, names in (({}, ["db", "gpu"]), ({"full": "true"}, ["db"]), ({"text": "gpu"}, ["gpu"])):
        found = await exporter.json(of("limits", **filters))
        assert [limit["limit"] for limit in found["limits"]] == names


async def test_what_an_answer_lacks_is_named(exporter: Filled) -> None:
    exporter.add("new")
    expired = {"source": "old", "error": "source 'old' has no data: the data has expired; last failure: timeout"}
    first = {"source": "new", "error": "source 'new' has no data yet: its first poll is running"}
    incomplete = "source 'production' is not complete:"
    late = f"{incomplete} queue 'slow' of pool 'etl': not read before the poll's timeout of 30s"
    slow = {"source": "production", "error": late}
    assert (await exporter.json(of("queues")))["missing"] == [slow, expired, first]
    assert (await exporter.json(of("limits")))["missing"] == [expired, first]
    assert (await exporter.json(of("queues", source="cloro")))["missing"] == []
    more = tuple(Unreadable("queues", "timeout", "late", "p", str(number)) for number in range(3))
    exporter.succeed("production", FULL, unreadable=more, not_collected=("limits",))
    two_more = {"source": "production", "error": f"{incomplete} queue '0' of pool 'p', and 2 more: late"}
    assert (await exporter.json(of("queues")))["missing"] == [two_more, expired, first]
    no_limits = "the limits of source 'production' are not known: its configuration does not collect them"
    assert (await exporter.json(of("limits")))["missing"][0]["error"] == no_limits
    # cloro has no such limits: an empty list is the truth.
    assert (await exporter.json(of("limits", source="cloro")))["limits"] == []
    assert (await exporter.json(of("limits", source="production"), 503)) == {"error": no_limits}


WITHOUT_DATA = [
    of("queues", source="old"),
    of("limits", source="old"),
    of("queue", source="old", pool="p", queue="gone"),
    of("queue", source="old", pool="p", queue="never was"),
    of("limit", source="old", kind="tag", limit="t"),
    of("headroom", source="old", pool="p", queue="gone"),
]


@pytest.mark.parametrize("path", WITHOUT_DATA)
async def test_a_source_without_data(exporter: Filled, path: str) -> None:
    answer = await exporter.get(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "18")
    assert answer.json() == {"error": "source 'old' has no data: the data has expired; last failure: timeout"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert "ETag" not in answer.headers


async def test_no_source_has_data(exporter: Filled) -> None:
    exporter.time.seconds += 90
    for path in (of("queues"), of("limits"), of("queues", system="prefect"), of("queues", full="true")):
        answer = await exporter.get(path)
        # No poll is planned for the time that has come: one is running.
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(views.RETRY_SECONDS))
        assert "source 'production' has no data: the data has expired" in answer.json()["error"]
    found = await exporter.json(of("sources"))
    assert [source["queues"] for source in found["sources"]] == [None, None, None]


async def test_before_the_first_poll(exporter: Filled) -> None:
    exporter.add("new")
    answer = await exporter.get(of("queue", source="new", pool="p", queue="q"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json() == {"error": "source 'new' has no data yet: its first poll is running"}


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (of("queues", source="x"), "no source 'x'; there are: production, old, cloro"),
        (of("queues", system="x"), "no source of the system 'x'; there are: production, old, cloro"),
        (of("queues", source="cloro", system="prefect"), "no source 'cloro' of the system 'prefect'; there are: "),
        (of("queue", source="x", pool="p", queue="q"), "no source 'x'; there are: production, old, cloro"),
        (of("queue", source="production", queue="default"), "no queue 'default' in the data of source 'production'"),
        (of("queue", source="production", pool="etl", queue="DEFAULT"), "no queue 'DEFAULT' of pool 'etl' in the data"),
        (of("limit", source="production", kind="global", limit="gpu"), "no 'global' limit 'gpu' in the data"),
        (of("headroom", source="cloro", pool="", queue="x"), "no queue 'x' in the data of source 'cloro'"),
        (of("headroom", source="cloro", queue="async", kind="tag", limit="t"), "no 'tag' limit 't' in the data of"),
    ],
)
async def test_what_is_not_there(exporter: Filled, path: str, error: str) -> None:
    assert (await exporter.json(path, 404))["error"].startswith(error)


async def test_what_the_poll_left_out_is_not_known_to_be_absent(exporter: Filled) -> None:
    error = await exporter.json(of("queue", source="production", pool="etl", queue="slow"), 503)
    assert error["error"] == (
        "queue 'slow' of pool 'etl' of source 'production' is not known:"
        " timeout: not read before the poll's timeout of 30s"
    )


async def test_another_exporter_may_have_it(exporter: Filled) -> None:
    exporter.add("shared", shard=Shard(0, 2))
    exporter.succeed("shared", FULL)
    error = await exporter.json(of("queue", source="shared", pool="etl", queue="other"), 404)
    assert error["error"].endswith("in the data of source 'shared', of which this exporter reads shard 0/2")


async def test_headroom_that_is_not_known(exporter: Filled) -> None:
    """cloro can't always tell how many slots are in use."""
    exporter.succeed("cloro", Queue("", "async", False, queued={"1": 0}, limit_known=False))
    answer = await exporter.get(of("headroom", source="cloro", queue="async"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert answer.json() == {
        "error": "the headroom is not known: source 'cloro': the limit of queue 'async' is not known"
    }


async def test_headroom_below_other_limits(exporter: Filled) -> None:
    exporter.succeed("production", Queue("", "q", active_slots=0, queued={"1": 1}), limits=(GPU, DB))
    one = of("headroom", source="production", queue="q")
    assert (await exporter.json(one))["headroom"] is None
    found = await exporter.json(f"{one}&kind=tag&limit=gpu&kind=global&limit=db")
    assert (found["headroom"], found["limited_by"], found["free_slots"], found["queued"]) == (0, "tag:gpu", 1, 1)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("queue", "source: is missing; queue: is missing"),
        ("queue?source=&queue=q", "source: String should have at least 1 character"),
        ("queue?source=a&source=b&queue=q", "source: is there more than once"),
        ("queue?source=a&pool=p&queue=q&Pool=p", "Pool: is no parameter of this route; it takes source, pool, queue"),
        ("queues?full=maybe", "full: Input should be a valid boolean, unable to interpret input"),
        ("queues?full=true&full=true", "full: is there more than once"),
        ("queues?page=0", "page: Input should be greater than or equal to 1"),
        ("queues?page=-1", "page: Input should be greater than or equal to 1"),
        ("queues?page=x", "page: Input should be a valid integer, unable to parse string as an integer"),
        ("queues?page=1.5", "page: Input should be a valid integer, unable to parse string as an integer"),
        ("queues?page=99999999999999999999", "page: Input should be less than or equal to 1000000"),
        ("queues?text=%ff", "a parameter is not UTF-8"),
        ("queues?%ed%a0%80=1", "a parameter is not UTF-8"),
        ("queues?" + "&".join(f"a{number}=1" for number in range(51)), "there are more than 50 parameters"),
        ("limits?waiting=true", "waiting: is no parameter of this route; it takes text, source, system, full, page"),
        ("limit?source=a&limit=x", "kind: is missing"),
        ("headroom?source=a&queue=q&kind=tag", "1 kind and 0 limit are no pairs; give one for each"),
        ("headroom?source=a&queue=q&limit=a&limit=b&kind=tag", "1 kind and 2 limit are no pairs; give one for each"),
        ("sources?source=a", "source: is no parameter of this route; it takes none"),
        ("openapi.json?x", "x: is no parameter of this route; it takes none"),
    ],
)
async def test_bad_parameters(exporter: Filled, path: str, error: str) -> None:
    assert await exporter.json(f"/api/v1/{path}", 400) == {"error": error}


@EVERY_ANSWER
async def test_an_answer_that_the_client_has(exporter: Filled, name: str) -> None:
    path, _ = ANSWERS[name]
    exporter.succeed("production", FULL, HOSTILE, pools=(POOL,), limits=(GPU, DB))
    exporter.succeed("cloro", ASYNC)
    first = await exporter.get(path)
    tag = first.headers["ETag"]
    exporter.time.seconds += 7
    assert (await exporter.get(path)).headers["ETag"] == tag
    for condition in (tag, tag.removeprefix("W/"), "*", f'"other", {tag}'):
        again = await exporter.get(path, If_None_Match=condition)
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        # The source without data is polled sooner than those with data.
        max_age = 10 if name in {"queues", "limits", "sources"} else 23
        assert again.headers["Cache-Control"] == f"private, max-age={max_age}"
    assert (await exporter.get(path, If_None_Match='W/"other"')).status_code == 200
    # The same values at another time are other data.
    exporter.succeed("production", FULL, HOSTILE, pools=(POOL,), limits=(GPU, DB))
    exporter.succeed("cloro", ASYNC)
    assert (await exporter.get(path, If_None_Match=tag)).status_code == 200


async def test_a_failed_poll_changes_only_what_is_said_of_the_source(exporter: Filled) -> None:
    before = {path: (await exporter.get(path)).headers["ETag"] for path in (of("sources"), ONE_QUEUE)}
    exporter.fail("production")
    after = {path: (await exporter.get(path)).headers["ETag"] for path in before}
    assert {path for path in before if before[path] == after[path]} == {ONE_QUEUE}


async def test_a_source_that_loses_its_data_changes_a_list(exporter: Filled) -> None:
    exporter.succeed("cloro", ASYNC)
    exporter.time.seconds += 77.6
    tag = (await exporter.get(of("queues"))).headers["ETag"]
    assert (await exporter.get(of("queues"), If_None_Match=tag)).status_code == 304
    exporter.time.seconds += 0.2
    answer = await exporter.get(of("queues"), If_None_Match=tag)
    assert (answer.status_code, [queue["queue"] for queue in answer.json()["queues"]]) == (200, ["async"])


@pytest.mark.parametrize(
    ("seconds", "next_poll", "max_age"),
    [(0, 30, 30), (12.3, 30, 17), (29.9, 30, 0), (31, 30, 0), (0, None, 0), (1, 999, 89)],
)
async def test_it_may_be_kept_until_the_next_poll(
    exporter: Filled, seconds: float, next_poll: float | None, max_age: int
) -> None:
    exporter.succeed("production", FULL, next_poll=next_poll)
    exporter.time.seconds += seconds
    assert (await exporter.get(ONE_QUEUE)).headers["Cache-Control"] == f"private, max-age={max_age}"


async def test_a_list_may_be_kept_until_the_next_poll_of_any_source(exporter: Filled) -> None:
    exporter.succeed("production", FULL, next_poll=30)
    exporter.succeed("cloro", ASYNC, next_poll=20)
    exporter.fail("old", next_poll=25)
    for path, max_age in ((of("queues"), 20), (of("queues", system="prefect"), 25), (of("sources"), 20)):
        assert (await exporter.get(path)).headers["Cache-Control"] == f"private, max-age={max_age}"


async def test_headers_of_every_answer_are_those_of_the_pages(exporter: Filled) -> None:
    for path in (ONE_QUEUE, of("queues"), of("queue", source="x", queue="q"), "/api/v1/queue"):
        headers = (await exporter.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_holders_that_are_counted_and_not_named(exporter: Filled) -> None:
    """As with `holders: {show: false}`: an empty list would say that nobody holds a slot."""
    for holders, told in (
        ({"RUNNING": Holders(2, (3.0, 1.0))}, {"total": 2, "by_state": {"RUNNING": 2}, "oldest": None}),
        ({"RUNNING": Holders(0)}, {"total": 0, "by_state": {"RUNNING": 0}, "oldest": []}),
        ({}, {"total": None, "by_state": None, "oldest": None}),
    ):
        exporter.succeed("production", Queue("etl", "default", holders=holders))
        assert (await exporter.json(ONE_QUEUE))["holders"] == told


async def test_the_web_configuration_holds_for_every_route(exporter: Filled, tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text(f"basic_auth_users: {{someone: '{HASH}'}}\nrate_limit: {{interval: 1h, burst: 14}}\n")
    exporter.application = Guard(location(None, "/below").below(exporter.routes), live(web), exporter.clock)
    password = "Basic " + base64.b64encode(f"someone:{PASSWORD}".encode()).decode()
    paths = [f"/below{api.PREFIX}{one.path}" for one in api.operations()]
    for path in paths:
        stranger, known = await exporter.get(path), await exporter.get(path, Authorization=password)
        assert stranger.status_code == 401
        assert "source" not in stranger.text
        assert known.headers["Content-Type"] == "application/json"
    assert len(paths) == 7
    assert (await exporter.get(paths[0], Authorization=password)).status_code == 429


async def test_a_list_is_made_once_for_each_snapshot_and_filter() -> None:
    calls: list[str] = []
    kept: Kept[str] = Kept(most=3)

    class Snapshot:
        """It can be referred to weakly."""

    def make(name: str) -> Any:
        def made() -> str:
            calls.append(name)
            return name

        return made

    one, other = Snapshot(), Snapshot()
    found = await asyncio.gather(*(kept.get("a", [one, other], make("a")) for _ in range(9)))
    assert (found, calls) == (["a"] * 9, ["a"])
    await kept.get("a", [one], make("a of one"))
    await kept.get("b", [one], make("b"))
    await kept.get("a", [one], make("never"))
    assert calls == ["a", "a of one", "b"]
    await kept.get("c", [other], make("c"))
    assert len(kept) == 3
    del one
    assert len(kept) == 1
    assert await kept.get("c", [other], make("never")) == "c"


async def test_what_could_not_be_made_is_made_again() -> None:
    kept: Kept[str] = Kept()

    def fails() -> str:
        raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        await kept.get("a", [], fails)
    assert await kept.get("a", [], lambda: "made") == "made"


async def test_a_client_that_goes_takes_nothing_from_the_others() -> None:
    kept: Kept[str] = Kept()
    asked = [asyncio.create_task(kept.get("a", [], lambda: "made")) for _ in range(2)]
    await asyncio.sleep(0)
    asked[0].cancel()
    assert await asked[1] == "made"


async def test_lists_keep_no_snapshot_longer_than_it_is_served(exporter: Filled) -> None:
    for path in (of("queues"), of("limits"), of("queues", text="x")):
        await exporter.json(path)
    old = exporter.state("production").published
    assert old
    gone = weakref.ref(old)
    del old
    exporter.succeed("production", FULL)
    gc.collect()
    assert gone() is None


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COUNTS = st.none() | st.integers(0, 9)


@st.composite
def queues(draw: st.DrawFn) -> list[Queue]:
    names = draw(st.lists(st.tuples(NAMES, NAMES.filter(bool)), unique=True, max_size=5))
    return [
        Queue(
            pool,
            name,
            usage_known=draw(st.none() | st.booleans()),
            active_slots=draw(COUNTS),
            slot_limit=draw(COUNTS),
            paused=draw(st.none() | st.booleans()),
            queued=draw(st.dictionaries(st.sampled_from(["1", "2", "unknown"]), st.integers(0, 9))),
            waiting={state: Waiting(draw(st.integers(0, 9))) for state in draw(st.sets(st.sampled_from("ab")))},
            blocked=draw(st.dictionaries(st.sampled_from(["queue_limit", "unknown"]), st.integers(0, 9))),
            longest_wait=draw(st.none() | st.floats(0, 1e6)),
            holders={
                state: Holders(len(seconds), seconds, [Holder(str(at), seconds=one) for at, one in enumerate(seconds)])
                for state, seconds in draw(
                    st.dictionaries(st.sampled_from(["PENDING", "RUNNING"]), st.lists(st.floats(0, 1e6), max_size=3))
                ).items()
            },
        )
        for pool, name in names
    ]


@given(
    found=queues(),
    limits=st.lists(
        st.builds(
            Limit,
            NAMES.filter(bool),
            st.just("tag"),
            st.just("1"),
            st.integers(0, 9),
            st.integers(0, 9),
            st.floats(0, 9),
            st.booleans(),
        ),
        unique_by=lambda one: one.name,
        max_size=3,
    ),
)
def test_json_and_metrics_say_the_same(found: list[Queue], limits: list[Limit]) -> None:
    """All series of the metrics about queues and limits that the JSON has a field for, and no others."""
    exporter = Filled()
    exporter.add("s")
    exporter.succeed("s", *found, limits=tuple(limits))

    async def answers() -> tuple[dict[Any, float], Any, Any, list[Any]]:
        metrics = series(await exporter.page("/metrics?source=s"))
        listed, of_limits = await exporter.json(of("queues")), await exporter.json(of("limits"))
        single = [await exporter.json(of("queue", source="s", pool=one.pool, queue=one.name)) for one in found]
        single += [await exporter.json(of("limit", source="s", kind="tag", limit=one.name)) for one in limits]
        return metrics, listed, of_limits, single

    metrics, listed, of_limits, single = asyncio.run(answers())
    items = [*listed["queues"], *of_limits["limits"]]
    assert sorted(map(json.dumps, items)) == sorted(map(json.dumps, single))
    assert in_json(items) == of_those(metrics)
