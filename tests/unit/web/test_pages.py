"""The pages for people: what they say of each source, queue, pool and limit, and of what is wrong."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import promql_parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docs import alerting
from exporter import __version__
from exporter.config import ABOUT
from exporter.metrics import observed
from exporter.model import Holder, Holders, Limit, Pool, Queue, Snapshot, Unreadable, Waiting, Workers
from exporter.shard import Shard
from exporter.web import pages, runbooks, values
from exporter.web.location import location
from exporter.web.routes import application
from tests.harness.board import BLIND, HOSTILE, LINKS, MARKUP, NIGHT, Board, hostile, night
from tests.harness.exporter import series
from tests.harness.loop import until
from tests.harness.page import Page
from tests.harness.programs import ROOT

QUEUE: Final = Queue(pool="pool", name="queue", usage_known=True, active_slots=3, slot_limit=5)
POOL: Final = Pool(name="pool", id="1", kind="process", paused=False, active_slots=1, slot_limit=None)
EVIL: Final = "<script>alert('&')</script>"
ETL: Final = "/queue?source=production&pool=kubernetes-prod&queue=etl"
ML: Final = "/pool?source=production&pool=ecs-ml"
DATABASE: Final = "/limit?source=production&kind=tag&limit=database"


async def page(board: Board, path: str = "/", status: int = 200) -> Page:
    answer = await board.get(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8"), path
    return Page(answer.text)


def queues(found: Page) -> list[str]:
    """The names of the queues on a board, in their order."""
    links = [link for _, link in found.links if link.startswith("queue?")]
    # One in the first column, and for some another thing's.
    return [parse_qs(urlsplit(link).query)["queue"][0] for link in links]


@pytest.fixture
def board() -> Board:
    board = Board()
    board.add("prod")
    return board


def succeed(board: Board, *queues: Queue, name: str = "prod", max_series: int = 1_000, **rest: Any) -> None:
    board.publish(name, Snapshot(queues=queues or (QUEUE,), pools=(POOL,), **rest), took=1.234, max_series=max_series)


# --- The board: its sources.


def late(board: Board) -> None:
    succeed(board)
    board.time.seconds = 12.4
    board.fail("prod")


def expired(board: Board) -> None:
    succeed(board)
    board.fail("prod")
    board.time.seconds = 90


def shared(board: Board) -> None:
    board.store.add("prod", "prefect", Shard(1, 3))


def in_part(board: Board) -> None:
    left_out = [Unreadable("queues", "timeout", "late", "pool", f"q{number}" if number else "") for number in range(12)]
    succeed(board, unreadable=tuple(left_out))


@pytest.mark.parametrize(
    ("what", "said", "not_said"),
    [
        (lambda _: None, ["first poll is running", "Data none yet"], ["Last poll took", "Series", "Slots in use"]),
        (
            succeed,
            ["up since 2026-01-01 00:00:00 UTC", "Age of the data 0 s", "Queues 1", "Pools 1", "Series 6", "1.23 s"],
            ["in part", "down", "dropped", "expired", "Shard", "has no data"],
        ),
        (lambda board: succeed(board, max_series=3), ["Series 3 (3 dropped)"], []),
        (
            in_part,
            [
                "up, in part",
                "timeout left out: the queues of pool 'pool': late",
                "left out: queue 'q9' of pool 'pool'",
                "… and 2 more",
                "source 'prod' is not complete: the queues of pool 'pool', and 11 more: late",
            ],
            ["q10"],
        ),
        (late, ["down", "Age of the data 12 s", "Last poll took 30.00 s", "timeout no answer from"], ["expired"]),
        (
            expired,
            [
                "down",
                "Data expired; taken 2026-01-01 00:00:00 UTC",
                "source 'prod' has no data: the data has expired; last failure: timeout",
            ],
            ["Series", "Age", "Slots in use", "0 queues", "No queue"],
        ),
        (shared, ["Shard 1/3"], []),
    ],
    ids=["first-poll", "up", "dropped", "in-part", "down", "expired", "shared"],
)
async def test_the_board_tells_of_each_source(
    board: Board, what: Callable[[Board], None], said: list[str], not_said: list[str]
) -> None:
    what(board)
    text = (await page(board)).text
    assert __version__ in text
    for part in said:
        assert part in text
    for part in not_said:
        assert part not in text


async def test_a_board_without_sources() -> None:
    assert "No source is configured." in (await page(Board())).text


# --- The board: its queues.


async def test_the_board_has_the_queues_in_the_order_of_need() -> None:
    found = await page(night())
    rows = found.table("Queue", "Slots in use", "Waiting", "Longest wait", "Why they wait", "Oldest holder")
    assert rows[:5] == [
        ["etl production / kubernetes-prod", "8 of 8", "37", "1 h 8 m", "queue limit 31 · just now 4 · …",
         "wandering-heron RUNNING for 4 h 20 m"],
        ["training production / ecs-ml", "3 of 3", "5", "10 m 55 s", "pool limit 5",
         "gentle-falcon RUNNING for 55 m 2 s"],
        ["maintenance production / warehouse", "0 of 0", "0", "", "", ""],
        ["async scraper", "42 of 50", "4", "", "just now 4", ""],
        ["legacy-imports paused production / docker-internal", "0 of 2", "12", "1 d 2 h", "queue paused 12", ""],
    ]  # fmt: skip
    assert found.table("Pool", "Slots in use") == [["ecs-ml production", "10 of 10"]]
    assert found.table("Limit", "Kind", "Slots in use") == [["database", "tag", "8 of 8"]], "the other is not enforced"


async def test_what_is_not_known_is_not_a_zero() -> None:
    board = Board()
    board.add("scraper", "cloro")
    board.publish("scraper", BLIND)
    assert (await page(board)).table("Queue")[0] == ["async scraper", "unknown", "7", "", "", ""]
    found = await page(board, "/queue?source=scraper&queue=async")
    assert "Slots in use unknown" in found.text
    assert "It is not known which tasks hold slots." in found.text
    board.publish("scraper", Snapshot(queues=(Queue("", "async"),)))
    assert (await page(board)).table("Queue")[0][1:3] == ["unknown", "unknown"]
    assert "It is not known what waits." in (await page(board, "/queue?source=scraper&queue=async")).text


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?text=ETL", ["etl"]),
        ("?text=", ["etl", "training", "maintenance", "async", "legacy-imports", "reports", "inference", "critical",
                    "default", "dbt"]),
        ("?full=true", ["etl", "training", "maintenance"]),
        ("?full=false&waiting=true", ["async", "legacy-imports"]),
        ("?paused=true&full=&text=&source=&system=", ["legacy-imports"]),
        ("?source=scraper", ["async"]),
        ("?system=cloro&page=1", ["async"]),
        ("?text=nothing", []),
        ("?source=staging", []),
    ],
)  # fmt: skip
async def test_the_address_filters(query: str, names: list[str]) -> None:
    found = await page(night(), f"/{query}")
    assert queues(found) == names
    assert ("No queue passes the filter." in found.text) == (query == "?text=nothing")
    assert ("source 'staging' has no data" in found.text) == (not re.search("source=scraper|cloro", query))


async def test_the_form_holds_the_filter_and_gives_the_same_address() -> None:
    query = "text=a%26%22b&source=scraper&system=cloro&full=false&waiting=true&paused=false&refresh=off"
    found = await page(night(), f"/?{query}")
    (form,) = found.all("form")
    assert (form["method"], form["action"]) == ("get", "./")
    sent = {field["name"]: field.get("value") for field in found.all("input")}
    selects = [at for at, (tag, _) in enumerate(found.elements) if tag == "select"]
    for start in selects:
        options = []
        for tag, attributes in found.elements[start + 1 :]:
            if tag != "option":
                break
            options.append(attributes)
        (chosen,) = [one for one in options if "selected" in one]
        sent[found.elements[start][1]["name"]] = chosen.get("value")
    assert sent == {
        "text": 'a&"b', "refresh": "off", "full": "false", "waiting": "true", "paused": "false",
        "source": None, "system": None,
    }  # fmt: skip
    labels = {label["for"] for label in found.all("label")}
    assert labels == {"text", "source", "system", "full", "waiting", "paused"}


async def test_pages_of_a_hundred(board: Board) -> None:
    succeed(board, *(Queue("pool", f"q{number:03}", True, 1, 2) for number in range(250)))
    seen, path = [], "/?text=q&refresh=off"
    while path:
        found = await page(board, path)
        seen.append(queues(found))
        (here,) = [link for link in found.all("nav") if link["aria-label"] == "Pages of queues"]
        path = next((urljoin("/", link) for text, link in found.links if text == "Next"), "")
        assert here
        assert not path or parse_qs(urlsplit(path).query) == {
            "text": ["q"], "refresh": ["off"], "page": [str(len(seen) + 1)],
        }  # fmt: skip
    assert [len(names) for names in seen] == [100, 100, 50]
    assert sorted(name for names in seen for name in names) == [f"q{number:03}" for number in range(250)]
    assert "no page 4; the last page is 3" in (await page(board, "/?page=4", 404)).text


async def test_a_board_is_made_once_for_a_snapshot_and_a_filter(board: Board) -> None:
    succeed(board)
    handler = pages.Board()
    request = _request("/")
    first = await handler(request, board.view)
    kept = handler._kept
    (entry,) = kept._entries.values()
    board.time.seconds = 7.0
    second = await handler(request, board.view)
    assert "Age of the data</dt><dd>0 s" in bytes(first.body).decode()
    assert "Age of the data</dt><dd>7 s" in bytes(second.body).decode(), "what changes with time is made anew"
    assert list(kept._entries.values()) == [entry]
    for number in range(40):
        await handler(_request("/", f"text={number}"), board.view)
    assert len(kept) == 16
    del entry, first, second
    succeed(board, Queue("pool", "other", True, 1, 2))
    # A thread that has made one lets go of it a moment after that.
    await until(lambda: len(kept) == 0)
    assert "other" in bytes((await handler(request, board.view)).body).decode()


def _request(path: str, query: str = "") -> Any:
    from starlette.requests import Request  # noqa: PLC0415

    return Request({"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []})


# --- The page of a queue, a pool, a limit.


async def test_the_page_of_a_queue() -> None:
    found = await page(night(), ETL)
    assert found.table("Name", "State", "In this state for")[:2] == [
        ["wandering-heron", "RUNNING", "15622.7", "load-orders", "hourly", "k8s-worker-1",
         "06a00002-7be2-7d1c-8000-000000000002"],
        ["stubborn-mole", "CANCELLING", "1843.0", "load-orders", "hourly", "k8s-worker-2",
         "06a00006-7be2-7d1c-8000-000000000006"],
    ]  # fmt: skip
    assert found.table("Name", "State", "Waits for") == [
        ["amber-stoat", "Late", "4102.7", "load-orders", "hourly", "06a00007-7be2-7d1c-8000-000000000007"],
        ["lucid-raven", "Late", "4040.2", "load-events", "hourly", "06a00008-7be2-7d1c-8000-000000000008"],
        ["proud-vole", "Scheduled", "12.0", "load-orders", "hourly", "06a00009-7be2-7d1c-8000-000000000009"],
    ]
    assert found.table("Reason", "Tasks") == [["queue limit", "31"], ["just now", "4"], ["unknown reason", "2"]]
    assert found.table("State", "Tasks") == [["Late", "31"], ["Scheduled", "4"], ["AwaitingConcurrencySlot", "2"]]
    assert found.table("Priority", "Tasks") == [["2", "37"]]
    links = dict(found.links)
    run = "https://prefect.example.com/runs/flow-run/06a00002-7be2-7d1c-8000-000000000002"
    assert links["wandering-heron"] == run
    assert links["Open in prefect"] == "https://prefect.example.com/work-pools/work-pool/kubernetes-prod/queue/etl"
    assert links["kubernetes-prod"] == "pool?source=production&pool=kubernetes-prod"
    assert "The 6 oldest of 8." in found.text
    assert "13 of 18" in found.text, "the slots of its pool"
    assert [row[0] for row in found.table("Limit", "Kind")] == ["database", "dbt-build/prod", "llm-requests"]


async def test_the_page_of_a_queue_explains_the_reasons() -> None:
    board = night()
    reasons = {system: about.reasons for system, about in ABOUT.items()}
    board.application = application(board.store, board.telemetry, reasons=reasons)
    found = await page(board, ETL)
    (rows,) = found.all_tables("Reason", "Tasks", "Meaning", "What to do")
    assert rows[0] == [
        "queue limit", "31", "The work queue has no free slot for the run. Older runs get the free slots.",
        "Raise the limit of the work queue, or find out who holds its slots.",
    ]  # fmt: skip
    assert rows[2] == ["unknown reason", "2", "", ""]
    assert (
        str(pages._markdown("`a<b` of [the docs](x.md#y) & <i>")) == "<code>a&lt;b</code> of the docs &amp; &lt;i&gt;"
    )


async def test_the_pages_of_a_pool_and_of_a_limit() -> None:
    found = await page(night(), ML)
    assert [row[0] for row in found.table("Queue")] == ["training production", "inference production"]
    for said in ("ecs-ml pool of prefect", "Slots in use 10 of 10", "Status READY", "Workers 1 ONLINE", "20 s before"):
        assert said in found.text
    found = await page(night(), DATABASE)
    for said in ("database tag limit of prefect", "Slots in use 8 of 8", "Free slots 0"):
        assert said in found.text


@pytest.mark.parametrize("more", ["", "&refresh=off"])
@pytest.mark.parametrize("path", ["/?", ETL, ML, DATABASE])
async def test_a_page_refreshes_itself_unless_somebody_chose_otherwise(path: str, more: str) -> None:
    board = night()
    answer = await board.get(path + more)
    assert answer.headers.get("Refresh") == (None if more else "15")
    found = Page(answer.text)
    (choice,) = [link for text, link in found.links if "efresh" in text]
    other = await board.get(urljoin("/", choice))
    assert (other.status_code, other.headers.get("Refresh")) == (200, "15" if more else None)
    # The choice goes along to all other pages.
    others = [link for _, link in found.links if re.match(r"\./|queue\?|pool\?|limit\?", link) and link != choice]
    assert others
    assert {"refresh=off" in link for link in others} == {bool(more)}


# --- What is wrong.


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/?source=nope", 404, "no source 'nope'; there are: production, scraper, staging, new"),
        ("/?system=nope", 404, "no source of the system 'nope'"),
        ("/?page=2", 404, "no page 2; the last page is 1"),
        ("/?page=0", 400, "page: Input should be greater than or equal to 1"),
        ("/?full=perhaps", 400, "full: Input should be a valid boolean"),
        ("/?other=1", 400, "other: is no parameter of this route"),
        ("/?text=a&text=b", 400, "text: is there more than once"),
        ("/?text=%ff", 400, "a parameter is not UTF-8"),
        ("/?refresh=never", 400, "refresh: "),
        ("/queue", 400, "source: is missing; queue: is missing"),
        ("/queue?source=production&queue=etl", 404, "no queue 'etl' in the data of source 'production'"),
        ("/queue?source=nope&queue=etl", 404, "no source 'nope'"),
        ("/queue?source=staging&pool=p&queue=q", 503, "source 'staging' has no data: the data has expired"),
        ("/queue?source=new&queue=q", 503, "source 'new' has no data yet: its first poll is running"),
        ("/queue?source=production&pool=warehouse&queue=adhoc", 503, "is not known: timeout: not read before"),
        ("/pool?source=production&pool=", 400, "pool: "),
        ("/pool?source=production&pool=nope", 404, "no pool 'nope'"),
        ("/pool?source=staging&pool=p", 503, "source 'staging' has no data"),
        ("/limit?source=production&kind=tag&limit=nope", 404, "no 'tag' limit 'nope'"),
        ("/limit?source=staging&kind=tag&limit=nope", 503, "source 'staging' has no data"),
        ("/runbooks/Nothing.md", 404, "no runbook 'Nothing'"),
    ],
)
async def test_errors_are_pages(path: str, status: int, said: str) -> None:
    board = night()
    board.store.plan("staging", 17.2)
    answer = await board.get(path)
    assert answer.status_code == status
    found = Page(answer.text)
    assert said in found.text
    assert "./" in dict(found.links).values()
    waits = "18" if "staging" in path else "5"
    assert answer.headers.get("Retry-After") == (waits if status == 503 else None)
    # It comes back by itself when the data does.
    assert answer.headers.get("Refresh") == ("15" if status == 503 else None)


# --- Links.


@pytest.mark.parametrize("prefix", ["", "/a/b"])
@pytest.mark.parametrize("names", ["good", "hostile"])
async def test_every_link_leads_somewhere(prefix: str, names: str) -> None:
    """Links are relative, for a proxy may present the pages at any path."""
    if names == "good":
        board = night(location(None, prefix))
    else:
        board = Board(location(None, prefix))
        board.add(MARKUP)
        board.publish(MARKUP, hostile())
    start = f"{prefix}/"
    seen, todo, outside = {start}, [start], set()
    while todo:
        path = todo.pop()
        answer = await board.get(path)
        assert answer.status_code == 200, path
        if not answer.headers["Content-Type"].startswith("text/html"):
            continue
        for _, link in Page(answer.text).links:
            if link == "#main":
                continue
            if urlsplit(link).scheme:
                outside.add(link)
                continue
            found = urljoin(path, link)
            assert found.startswith(start), (path, link)
            # Both choices of the reader are followed from the board only.
            if found not in seen and ("refresh=off" not in found or path == start):
                seen.add(found)
                if "refresh=off" not in found:
                    todo.append(found)
    kinds = {urlsplit(path).path.removeprefix(prefix).split(".")[0].split("Concurrency")[0] for path in seen}
    assert kinds == {"/", "/queue", "/pool", "/limit", "/metrics", "/runbooks/", "/api/v1/queue", "/api/v1/limit"}
    assert len(seen) > (40 if names == "good" else 3 * len(HOSTILE))
    if names == "hostile":
        assert outside == {LINKS[-1]}, "all other addresses are no pages on the web"


async def test_names_are_text_and_nothing_else() -> None:
    board = Board()
    board.add(EVIL)
    board.publish(EVIL, hostile())
    board.fail(EVIL, EVIL)
    paths = ["/"]
    for name in HOSTILE:
        paths += [
            f"/queue?{urlencode({'source': EVIL, 'pool': name, 'queue': name})}",
            f"/pool?{urlencode({'source': EVIL, 'pool': name})}",
            f"/limit?{urlencode({'source': EVIL, 'kind': name, 'limit': name})}",
        ]
    for path in paths:
        answer = await board.get(path)
        found = Page(answer.text)
        assert answer.status_code == 200
        assert {tag for tag, _ in found.elements}.isdisjoint({"script", "img"})
        assert len(found.all("style")) == 1
        assert not {name for _, attributes in found.elements for name in attributes if name.startswith("on")}
        for _, link in found.links:
            assert urlsplit(link).scheme in {"", "https"}
        assert EVIL not in answer.text
        assert "{{" not in re.sub(r"\{\{ 7 \* 7 \}\}", "", answer.text)


async def test_a_page_allows_no_style_or_script_but_its_own() -> None:
    board, nonces = night(), set()
    for path in ("/", "/", ETL, ML, DATABASE, "/queue"):
        response = await board.get(path)
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        (style,) = Page(response.text).all("style")
        assert policy == {
            "default-src": "'none'",
            "style-src": f"'nonce-{style['nonce']}'",
            "base-uri": "'none'",
            "form-action": "'self'" if path == "/" else "'none'",
            "frame-ancestors": "'none'",
        }
        # The policy would refuse them.
        assert not re.search(r"<[^>]*\s(style|on\w+|src)=", response.text)
        nonces.add(style["nonce"])
    assert len(nonces) == 6


# --- The same as in Prometheus.


def answered(query: str, text: str) -> float:
    """What Prometheus answers to the query of a page, of what it scraped."""
    tree = promql_parser.parse(query)
    is_sum = isinstance(tree, promql_parser.AggregateExpr)
    selector = tree.expr if isinstance(tree, promql_parser.AggregateExpr) else tree
    assert isinstance(selector, promql_parser.VectorSelector)
    wanted = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
    found = [
        value
        for (name, labels), value in series(text).items()
        if name == selector.name and all(dict(labels).get(label, "") == value for label, value in wanted.items())
    ]
    assert is_sum or len(found) == 1, query
    assert found, query
    return sum(found)


names = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
counts = st.integers(0, 10**9)
seconds = st.floats(0, 1e9)
maybe = st.none() | counts


@st.composite
def holders(draw: st.DrawFn) -> Holders:
    each = draw(st.lists(st.tuples(names, st.none() | seconds), max_size=4))
    oldest = sorted((Holder(name, name, time) for name, time in each), key=lambda one: -(one.seconds or -1))
    return Holders(len(each), tuple(time for _, time in each if time is not None), tuple(oldest))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    some = st.dictionaries(names, counts, max_size=4)
    found = Queue(
        draw(st.just("") | names), draw(names), draw(st.none() | st.booleans()), draw(maybe), draw(maybe),
        processing=draw(maybe), holders=draw(st.dictionaries(names, holders(), max_size=3)), queued=draw(some),
        waiting={name: Waiting(count) for name, count in draw(some).items()}, blocked=draw(some),
        longest_wait=draw(st.none() | seconds), paused=draw(st.none() | st.booleans()),
        last_polled=draw(st.none() | seconds), id=draw(st.just("") | names),
    )  # fmt: skip
    pool = Pool(
        draw(names), "1", "k", draw(st.none() | st.booleans()), draw(maybe), draw(maybe),
        draw(st.dictionaries(names, st.booleans(), max_size=3)),
        draw(st.none() | st.builds(Workers, some, st.none() | seconds)),
    )  # fmt: skip
    limit = Limit(draw(names), draw(names), "1", draw(counts), draw(counts), draw(seconds), draw(st.booleans()))
    return Snapshot((found,), (pool,), (limit,))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=names, snapshot=snapshots())
async def test_the_pages_and_the_metrics_say_the_same(source: str, snapshot: Snapshot) -> None:
    board = Board()
    board.add(source)
    board.publish(source, snapshot)
    text = await board.page("/metrics")
    (queue,), (pool,), (limit,) = snapshot.queues, snapshot.pools, snapshot.limits
    asked = {
        "queue": {"source": source, "pool": queue.pool, "queue": queue.name},
        "pool": {"source": source, "pool": pool.name},
        "limit": {"source": source, "kind": limit.kind, "limit": limit.name},
    }
    queries: list[str] = []
    for kind, parameters in asked.items():
        found = await page(board, f"/{kind}?{urlencode(parameters)}")
        for _, shown, query in found.table("Value", "Now", "PromQL"):
            assert float(shown) == answered(query, text), query
            queries.append(query)
    # And no value is missing there, but what has no single one.
    published = [name for name, _ in series(text) if re.match(r"concurrency_(queue|pool|limit)_", name)]
    alone = [name for name in published if not re.search(r"_(info|bucket|gcount|gsum)$", name)]
    assert sorted(name for query in queries if (name := _name(query))) == sorted(alone)
    rows = (await page(board)).table("Queue", "Waiting")
    waiting = sum(queue.queued.values()) if queue.queued else None
    assert rows[0][2] == ("unknown" if waiting is None else _grouped(waiting))
    if queue.active_slots is not None and queue.slot_limit is not None:
        assert rows[0][1] == f"{_grouped(queue.active_slots)} of {_grouped(queue.slot_limit)}"


def _name(query: str) -> str:
    """The metric of a query; empty for a sum, whose parts have queries of their own."""
    return "" if query.startswith("sum(") else query.partition("{")[0]


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", " ")


@given(st.text())
def test_a_string_of_promql_is_read_back(text: str) -> None:
    query = values.selector(observed.QUEUE_PAUSED, {"queue": text})
    assert query.isprintable()
    parsed = promql_parser.parse(query)
    assert isinstance(parsed, promql_parser.VectorSelector)
    assert [matcher.value for matcher in parsed.matchers.matchers] == [text]


# --- Runbooks.


def _about() -> Iterator[runbooks.Alert]:
    for queue in NIGHT.queues:
        yield from runbooks.of_queue(queue)
    for pool in NIGHT.pools:
        yield from runbooks.of_pool(pool)
    for limit in NIGHT.limits:
        yield from runbooks.of_limit(limit)


def test_the_alerts_are_those_that_are_shipped() -> None:
    about_something = {
        rule["alert"]: rule["annotations"]["summary"]
        for rule in alerting.alerts()
        if "$labels.queue" in rule["annotations"]["description"]
    }
    assert dict(_about()) == about_something


async def test_runbooks_are_served_as_they_are_written() -> None:
    board = night()
    folder = ROOT / "alerts/runbooks"
    for path in folder.iterdir():
        answer = await board.get(f"/runbooks/{path.name}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert answer.text == path.read_text(encoding="utf-8")


def test_alerts_are_about_what_has_their_series() -> None:
    def of(queue: Queue) -> set[str]:
        return {one.name.removeprefix("Concurrency") for one in runbooks.of_queue(queue)}

    assert of(BLIND.queues[0]) == {"BacklogGrowing", "QueuePausedWithWork", "UsageUnknown"}
    assert "NoWorker" in of(NIGHT.queues[0])
    assert list(runbooks.of_limit(NIGHT.limits[3])) == [], "it is not enforced"


# --- How values read.


@pytest.mark.parametrize(
    "name", ["", " ", "\n\t", "\N{RIGHT-TO-LEFT OVERRIDE}", "\N{ZERO WIDTH SPACE}\N{NO-BREAK SPACE}"]
)
async def test_a_name_that_nobody_could_see(name: str) -> None:
    assert pages._visible(name) == "(blank)"
    assert pages._visible(f"{name}a") == f"{name}a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"), (0.4, "0 s"), (59.6, "1 m"), (61.0, "1 m 1 s"), (3_600.0, "1 h"), (4_102.7, "1 h 8 m"),
        (3_605.0, "1 h"), (90_000.0, "1 d 1 h"), (86_401.0, "1 d"), (1e30, "over 100 years"), (-5.0, "0 s"),
    ],
)  # fmt: skip
def test_durations(value: float, text: str) -> None:
    assert pages._duration(value) == text


@pytest.mark.parametrize("moment", [1e18, -1e18, 1e308])
def test_a_moment_that_no_calendar_has(moment: float) -> None:
    assert pages._utc(moment) == f"{moment:g}"


@pytest.mark.parametrize(
    ("url", "is_link"),
    [
        ("https://x.example.com/a?b=c#d", True),
        ("http://[::1]:4200/x", True),
        ("HTTPS://x", True),
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("java\nscript:alert(1)", False),
        (" https://x", False),
        ("https:// x", False),
        ("https:x", False),
        ("https:///x", False),
        ("//x", False),
        ("/x", False),
        ("data:text/html,x", False),
        ("ftp://x", False),
        ("", False),
        (None, False),
    ],
)
def test_only_addresses_of_the_web_become_links(url: str | None, is_link: bool) -> None:
    assert pages._web(url) == (url if is_link else None)
