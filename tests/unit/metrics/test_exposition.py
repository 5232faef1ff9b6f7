"""Snapshots as text: joined, escaped, compressed and capped, and read back by prometheus_client's own parsers."""

import asyncio
import gzip
import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from exporter.metrics.body import Body
from exporter.metrics.exposition import DuplicateSeriesError, Rendered, render
from exporter.metrics.text import Format, joined
from exporter.model import Holder, Holders, Limit, Pool, Queue, Snapshot
from exporter.polling.outcome import Failed, Failure, Published, Succeeded
from tests.harness.inprocess import Exporter

READERS: dict[Format, Callable[[str], Iterable[Metric]]] = {
    Format.CLASSIC: read_classic,
    Format.OPENMETRICS: read_openmetrics,
}
both_formats = pytest.mark.parametrize("format_", Format, ids=lambda format_: format_.name.lower())


def queue(name: str, pool: str = "pool", **rest: Any) -> Queue:
    full: dict[str, Any] = {
        "usage_known": True,
        "active_slots": 3,
        "slot_limit": 5,
        "processing": 2,
        "queued": {"1": 7, "unknown": 0},
        "holders": {"RUNNING": Holders(2, (5.0, 100.5)), "PENDING": Holders(1, ()), "CANCELLING": Holders(0)},
        "paused": False,
        "id": f"id of {name}",
        "priority": 1,
    }
    return Queue(pool, name, **full | rest)


def holder(run_id: str, seconds: float | None) -> Holder:
    return Holder(run_id, "able-ibex", seconds)


@pytest.mark.parametrize(
    ("oldest", "shown"),
    [
        ((), {}),
        ((holder("7f", 100.5), holder("8e", 5.0)), {"le=300.0": ("7f", 100.5)}),
        ((holder("7f", None),), {}),
        ((holder("x" * 122, 100.5),), {"le=300.0": ("x" * 122, 100.5)}),
        ((holder("x" * 123, 100.5),), {}),
        ((holder("7f", 60.0),), {"le=60.0": ("7f", 60.0)}),
    ],
    ids=["none-named", "oldest", "unknown-age", "just-fits", "too-long", "on-a-bound"],
)
def test_the_oldest_holder_is_an_exemplar_of_its_bucket(
    oldest: tuple[Holder, ...], shown: dict[str, tuple[str, float]]
) -> None:
    snapshot = Snapshot(queues=(queue("q", holders={"RUNNING": Holders(2, (5.0, 100.5), oldest)}),))
    text = {format_: joined(rendered(snapshot).blocks[format_]).decode() for format_ in Format}
    assert " # {" not in text[Format.CLASSIC]
    found = {
        f"le={sample.labels['le']}": (sample.exemplar.labels["run_id"], sample.exemplar.value)
        for metric in READERS[Format.OPENMETRICS](text[Format.OPENMETRICS] + "# EOF\n")
        for sample in metric.samples
        if sample.exemplar
    }
    assert found == shown


def pool(name: str) -> Pool:
    return Pool(name=name, id=f"id of {name}", kind="process", paused=True, active_slots=1, slot_limit=None)


QUEUE_SERIES = 1 + 1 + 1 + 1 + 1 + 2 + 3 + (9 + 1 + 2) + 1 + 1
POOL_SERIES = 1 + 1 + 1


def rendered(snapshot: Snapshot, source: str = "prod", max_series: int = 100_000) -> Rendered:
    return render(snapshot, source=source, system="prefect", max_series=max_series)


def text_of(parts: Sequence[Rendered], format_: Format) -> str:
    """A whole answer, with the live end that a scrape has."""
    exporter = Exporter()
    for number, part in enumerate(parts):
        exporter.store.add(f"source {number}", "prefect")
        exporter.store.poll_ended(f"source {number}", Succeeded(Published(Snapshot(), part, 0.0, math.inf), 0.1))
    end = exporter.telemetry.render(exporter.view, format_)
    return b"".join(Body(parts, format_).plain(end)).decode()


def observed(text: str, format_: Format) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The samples that a parser finds, but for those of the exporter itself."""
    found = [
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for metric in READERS[format_](text)
        for sample in metric.samples
        if not sample.name.startswith(("concurrency_exporter_", "process_", "python_"))
    ]
    assert len({(name, labels) for name, labels, _ in found}) == len(found)
    return {(name, labels): value for name, labels, value in found}


def lines_of_samples(text: str) -> list[str]:
    return [line for line in text.split("\n") if line and not line.startswith("# ")]


@both_formats
def test_several_sources_share_one_header(format_: Format) -> None:
    parts = [
        rendered(Snapshot(queues=(queue("a"),), pools=(pool("p"),)), source="one"),
        rendered(Snapshot(queues=(queue("b"), queue("c", id=""))), source="two"),
        rendered(Snapshot(pools=(pool("p"),)), source="three"),
        rendered(Snapshot(), source="four"),
    ]
    text = text_of(parts, format_)
    comments = [tuple(line.split(" ")[1:3]) for line in text.split("\n") if line.startswith("# ") and line != "# EOF"]
    assert len(set(comments)) == len(comments), "two headers"
    families = [name for name, _ in itertools.groupby(_family_of(text))]
    assert len(set(families)) == len(families), "interleaved"
    sources = Counter(dict(labels)["source"] for _, labels in observed(text, format_))
    assert sources == {"one": QUEUE_SERIES + POOL_SERIES, "two": 2 * QUEUE_SERIES - 1, "three": POOL_SERIES}


def _family_of(text: str) -> Iterable[str]:
    """For each line, the family that it belongs to."""
    for line in text.rstrip("\n").split("\n"):
        comment = line.startswith("# ") and line != "# EOF"
        name = line.split(" ")[2] if comment else re.split("[{ ]", line)[0]
        for suffix in ("_bucket", "_gcount", "_gsum"):
            name = name.removesuffix(suffix)
        yield name


@both_formats
def test_the_end_is_at_the_end(format_: Format) -> None:
    text = text_of([rendered(Snapshot(queues=(queue("# EOF\n# EOF"),)))] * 2, format_)
    assert text.count("\n# EOF\n") == (1 if format_ is Format.OPENMETRICS else 0)
    assert text.endswith("# EOF\n") == (format_ is Format.OPENMETRICS)
    assert text.endswith("\n")


NAMES = {
    "plain": "queue",
    "quotes": 'a "quoted" one"',
    "backslashes": "C:\\new\\\\table\\",
    "backslash-and-n": "\\n",
    "newline": "two\nlines",
    "only-newlines": "\n\n",
    "carriage-return": "a\r\nb\rc",
    "comment": "x\n# HELP y z",
    "comment-of-ours": "x\n# TYPE concurrency_queue_active_slots counter\nconcurrency_queue_active_slots 99\n",
    "end": "\n# EOF\n",
    "hash": "# HELP x y",
    "sample": '",queue="y"} 1\nx{queue="',
    "braces": "} 1 # {",
    "nul": "a\0b",
    "separators": "a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b",
    "emoji": "🦆 é 漢字",
    "blank": " ",
    "commas": 'a,b="c",',
}


@both_formats
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_comes_back_as_it_was(name: str, format_: Format) -> None:
    snapshot = Snapshot(queues=(queue(name, pool=name, id=name), queue("other")), pools=(pool(name),))
    text = text_of([rendered(snapshot, source=name), rendered(snapshot, source="another")], format_)
    found = observed(text, format_)
    assert len(found) == 2 * (2 * QUEUE_SERIES + POOL_SERIES)
    labels = {"source": name, "system": "prefect", "pool": name, "queue": name}
    assert found["concurrency_queue_active_slots", frozenset(labels.items())] == 3
    info = found["concurrency_queue_info", frozenset((labels | {"id": name, "priority": "1"}).items())]
    assert info == 1


@both_formats
def test_the_text_of_one_queue(format_: Format) -> None:
    only = queue("q", pool="", queued={}, holders={"RUNNING": Holders(3, (5.0, 6.0))}, processing=None, id="")
    body = b"".join(Body([rendered(Snapshot(queues=(only,)), source="s")], format_).plain(b"")).decode()
    labels = 'source="s",system="prefect",pool="",queue="q"'
    buckets = dict.fromkeys(("15.0", "60.0", "300.0", "900.0", "3600.0", "14400.0", "43200.0", "86400.0", "+Inf"), 2)
    name = "concurrency_queue_state_duration_seconds"
    expected = [
        f"concurrency_queue_active_slots{{{labels}}} 3.0",
        f"concurrency_queue_paused{{{labels}}} 0.0",
        f'concurrency_queue_slot_holders{{{labels},state="RUNNING"}} 3.0',
        f"concurrency_queue_slot_limit{{{labels}}} 5.0",
        f'concurrency_queue_state_duration_max_seconds{{{labels},state="RUNNING"}} 6.0',
        *(
            f'{name}_bucket{{le="{le}",{labels},state="RUNNING"}} {count}.0'
            for le, count in ({"5.0": 1} | buckets).items()
        ),
        f'{name}_gcount{{{labels},state="RUNNING"}} 2.0',
        f'{name}_gsum{{{labels},state="RUNNING"}} 11.0',
        f"concurrency_queue_usage_known{{{labels}}} 1.0",
    ]
    assert sorted(_sorted_labels(line) for line in lines_of_samples(body)) == sorted(map(_sorted_labels, expected))


def _sorted_labels(line: str) -> str:
    name, _, rest = line.partition("{")
    labels, _, value = rest.rpartition("} ")
    return f"{name}{{{','.join(sorted(labels.split(',')))}}} {value}"


@both_formats
@pytest.mark.parametrize(
    ("rest", "gone"),
    [
        ({"active_slots": None}, "active_slots"),
        ({"usage_known": None}, "usage_known"),
        ({"slot_limit": None}, "slot_limit"),
        ({"processing": None}, "processing_tasks"),
        ({"paused": None}, "paused"),
        ({"queued": {}}, "queued_tasks"),
        ({"holders": {}}, "slot_holders"),
        ({"id": ""}, "info"),
    ],
    ids=str,
)
def test_what_upstream_does_not_say_is_absent(rest: dict[str, Any], gone: str, format_: Format) -> None:
    found = observed(text_of([rendered(Snapshot(queues=(queue("q", **rest),)))], format_), format_)
    assert not [name for name, _ in found if name == f"concurrency_queue_{gone}"]


@both_formats
def test_zeros_are_there(format_: Format) -> None:
    nothing = queue("q", active_slots=0, slot_limit=0, processing=0, queued={"1": 0})
    found = observed(text_of([rendered(Snapshot(queues=(nothing,)))], format_), format_)
    names = {name for (name, _), value in found.items() if value == 0}
    wanted = ("active_slots", "slot_limit", "processing_tasks", "queued_tasks", "slot_holders", "paused")
    assert names >= {f"concurrency_queue_{name}" for name in wanted}


@both_formats
async def test_an_empty_snapshot_is_no_text(format_: Format) -> None:
    empty = rendered(Snapshot())
    assert (empty.series, empty.series_dropped) == (0, 0)
    assert b"".join(Body([empty, empty], format_).plain(b"")) == b""
    assert b"".join(Body([], format_).plain(b"end")) == b"end"
    body = Body([], format_)
    assert gzip.decompress(b"".join(await body.gzipped(b"end"))) == b"end"
    assert observed(text_of([empty], format_), format_) == {}


def one_member(compressed: bytes) -> bytes:
    """Decompress what has to be a single gzip member, with nothing after it."""
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    text = decompressor.decompress(compressed)
    assert decompressor.eof
    assert decompressor.unused_data == b""
    assert gzip.decompress(compressed) == text
    return text


@both_formats
async def test_compressed_is_the_same_as_plain(format_: Format) -> None:
    body = Body([rendered(Snapshot(queues=tuple(queue(f"q{number}") for number in range(300))))], format_)
    ends = [b"", b"x", b"# EOF\n" * 10_000, *(f"sample {number}\n".encode() for number in range(20))]
    for end in [*ends, *ends]:
        assert one_member(b"".join(await body.gzipped(end))) == b"".join(body.plain(end))
    assert len(b"".join(await body.gzipped(b""))) < len(b"".join(body.plain(b""))) / 10


async def test_scrapes_that_come_together_compress_once() -> None:
    body = Body([rendered(Snapshot(queues=tuple(queue(f"q{number}") for number in range(300))))], Format.CLASSIC)
    ends = [f"end {number}\n".encode() * 100 for number in range(64)]
    answers = await asyncio.gather(*(body.gzipped(end) for end in ends))
    assert [one_member(b"".join(answer)) for answer in answers] == [b"".join(body.plain(end)) for end in ends]
    assert len({id(compressed) for compressed, _ in answers}) == 1


async def test_a_scrape_that_is_given_up_leaves_the_others_theirs() -> None:
    body = Body([rendered(Snapshot(queues=tuple(queue(f"q{number}") for number in range(300))))], Format.CLASSIC)
    given_up, *others = [asyncio.ensure_future(body.gzipped(b"end")) for _ in range(3)]
    await asyncio.sleep(0)
    given_up.cancel()
    for other in others:
        assert one_member(b"".join(await other)) == b"".join(body.plain(b"end"))
    assert given_up.cancelled()


MANY = Snapshot(
    queues=tuple(queue(f"q{number}", pool="ab"[number % 2]) for number in range(10)), pools=(pool("b"), pool("a"))
)
TOTAL = 10 * QUEUE_SERIES + 2 * POOL_SERIES


@both_formats
@pytest.mark.parametrize(
    ("cap", "pools", "queues"),
    [
        (1, 0, 0),
        (POOL_SERIES - 1, 0, 0),
        (POOL_SERIES, 1, 0),
        (2 * POOL_SERIES + QUEUE_SERIES - 1, 2, 0),
        (2 * POOL_SERIES + QUEUE_SERIES, 2, 1),
        (2 * POOL_SERIES + 3 * QUEUE_SERIES + 5, 2, 3),
        (TOTAL - 1, 2, 9),
        (TOTAL, 2, 10),
        (TOTAL + 1, 2, 10),
    ],
)
def test_a_cap_keeps_whole_queues_and_always_the_same(cap: int, pools: int, queues: int, format_: Format) -> None:
    capped = rendered(MANY, max_series=cap)
    body = b"".join(Body([capped], format_).plain(b"")).decode()
    assert capped.series == pools * POOL_SERIES + queues * QUEUE_SERIES == len(lines_of_samples(body))
    assert capped.series <= cap
    assert capped.series + capped.series_dropped == TOTAL
    other_order = Snapshot(queues=MANY.queues[::-1], pools=MANY.pools[::-1])
    found = observed(text_of([capped], format_), format_)
    assert found.keys() == observed(text_of([rendered(other_order, max_series=cap)], format_), format_).keys()
    kept = [dict(labels) for name, labels in found if name == "concurrency_queue_usage_known"]
    in_order = [("a", f"q{number}") for number in range(0, 10, 2)] + [("b", f"q{number}") for number in range(1, 10, 2)]
    assert sorted((labels["pool"], labels["queue"]) for labels in kept) == in_order[:queues]


def test_a_cap_lets_nothing_small_past() -> None:
    """Else a queue would come and go with the sizes of those before it."""
    small = queue("small", queued={}, holders={})
    assert rendered(Snapshot(queues=(small,)), max_series=QUEUE_SERIES - 1).series > 0
    assert rendered(Snapshot(queues=(small, queue("big"))), max_series=QUEUE_SERIES - 1).series == 0


@pytest.mark.parametrize(
    ("busy", "idle"),
    [
        (queue("z"), queue("a", queued={"1": 0})),
        (queue("z", queued={}, active_slots=5), queue("a", queued={})),
        (queue("z", queued={}, active_slots=6), queue("a", queued={}, slot_limit=None)),
        (queue("z", queued={}, active_slots=0, slot_limit=0), queue("a", queued={}, active_slots=None)),
        (queue("z", active_slots=0, processing=0), queue("a", queued={})),
        (queue("z", queued={}), queue("a", queued={}, active_slots=0, processing=0)),
        (queue("z", queued={}, active_slots=None), queue("a", queued={}, active_slots=None, processing=None)),
    ],
    ids=["waiting", "saturated", "over the limit", "limit of 0", "waiting, not held", "held", "processing"],
)
def test_a_cap_leaves_out_queues_without_work_first(busy: Queue, idle: Queue) -> None:
    limit = Limit("name", "global", "id", active_slots=1, slot_limit=2, slot_decay=0, active=True)
    full = Snapshot(queues=(idle, busy), limits=(limit,))
    series = rendered(full).series
    kept = rendered(full, max_series=series - 1)
    text = b"".join(Body([kept], Format.CLASSIC).plain(b"")).decode()
    assert 'queue="z"' in text
    assert 'queue="a"' not in text
    assert 'limit="name"' in text
    assert kept.series + kept.series_dropped == series


def test_what_a_cap_keeps_once_it_keeps_while_there_is_room() -> None:
    """A queue that were there only while it is full would always be full, by every average over time."""
    idle: dict[str, Any] = {"queued": {}, "active_slots": 0, "processing": 0}
    names = "abcdefgh"
    precedence: tuple[tuple[str, str], ...] = ()

    def kept_with(*busy: str, of: str = names) -> str:
        nonlocal precedence
        snapshot = Snapshot(queues=tuple(queue(name, **{} if name in busy else idle) for name in of))
        # Room for four, with work or without.
        full = render(snapshot, source="s", system="prefect", max_series=4 * QUEUE_SERIES, precedence=precedence)
        precedence = full.precedence
        return "".join(sorted(re.findall(r'usage_known\{.*queue="(.)"', text_of([full], Format.CLASSIC))))

    assert kept_with() == "abcd"
    assert kept_with("h") == "abch"
    assert kept_with() == "abch"
    assert kept_with("g") == "abgh"
    assert kept_with("h") == "abgh"
    assert kept_with("e", "f") == "efgh"
    assert kept_with("a", "b", "c", "d") == "abcd"
    # What had work last is in front; what never had, or is new, comes last and by its name.
    assert kept_with("h") == "abch"
    assert kept_with(of="cdefghi") == "cdeh"
    assert kept_with(of="ghi") == "ghi"
    assert kept_with() == "abgh"


def test_series_are_counted_as_they_are_printed() -> None:
    odd = queue("odd", queued={}, holders={}, paused=None, id="", active_slots=None)
    full = rendered(Snapshot(queues=(odd, queue("full"))))
    for format_ in Format:
        assert full.series == len(lines_of_samples(b"".join(Body([full], format_).plain(b"")).decode()))


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(queues=(queue("a"), queue("b"), queue("a"))),
        Snapshot(queues=(queue("a", id="1"), queue("a", id="2"))),
        Snapshot(pools=(pool("a"), pool("a"))),
    ],
    ids=["queues", "queues-of-two-ids", "pools"],
)
def test_one_series_twice_is_an_error(snapshot: Snapshot) -> None:
    with pytest.raises(DuplicateSeriesError, match=r"^concurrency_.*'source': 'prod'.* is in the snapshot twice$"):
        rendered(snapshot)


def test_the_same_name_in_two_pools_or_sources_is_none() -> None:
    snapshot = Snapshot(queues=(queue("a", pool="p"), queue("a", pool="q"), queue("p", pool="a")), pools=(pool("a"),))
    assert rendered(snapshot).series == 3 * QUEUE_SERIES + POOL_SERIES


def test_a_body_does_not_change_with_the_failures_of_others() -> None:
    store = Exporter().store
    store.add("a", "prefect")
    part = rendered(Snapshot(queues=(queue("q"),)))
    store.poll_ended("a", Succeeded(Published(Snapshot(), part, 0.0, math.inf), 0.1))
    store.poll_ended("a", Failed(Failure("timeout", "late"), 1.0))
    assert [state.published and state.published.rendered for state in store.view().states] == [part]
