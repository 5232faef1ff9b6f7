"""Families as text: the same bytes as prometheus_client writes, for every kind, format, label and value."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from exporter.metrics.family import BASE_UNITS, MAX_EXEMPLAR, Distribution, Exemplar, Family, FamilyError, Kind, Sample
from exporter.metrics.observed import OBSERVED
from exporter.metrics.own import OWN
from exporter.metrics.text import Block, Format, blocks, joined, of_collector
from tests.harness import oracle

both_formats = pytest.mark.parametrize("format_", Format, ids=lambda format_: format_.name.lower())
FAMILIES = (*OBSERVED, *OWN)
VALUES = [0, 1, -1, 1e6, 999999.9, 123456789, 1e15, 1.5e-7, 2**63, 0.1 + 0.2, math.inf, -math.inf, math.nan, True]
TEXTS = ["plain", "", "\\n", "\n", '\\"', '"', "\\", "é漢🦆", "\u2028", "\x00", "\x85", "\r\n", "{}", "%s %", "a,b=c"]


def written(family: Family, samples: Sequence[Sample], format_: Format) -> bytes:
    return joined(blocks(family, samples)[format_])


def expected(family: Family, samples: Iterable[Sample], format_: Format) -> bytes:
    return oracle.text([oracle.metric(family, samples)], format_)


@both_formats
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_written_as_prometheus_client_writes_it(family: Family, format_: Format) -> None:
    counts = range(len(family.buckets) + 1)
    values: list[Any] = [Distribution(tuple(counts), value) for value in VALUES] if family.buckets else VALUES
    values = values[1:2] if family.kind == "info" else values
    # Each text in each label once: a label's place among the others, which are sorted, must not matter.
    labels = [[TEXTS[(at + place) % len(TEXTS)] for place in range(len(family.labels))] for at in range(len(TEXTS))]
    samples = [family.sample(value, *of_one) for value in values for of_one in labels]
    assert written(family, samples, format_) == expected(family, samples, format_)
    assert written(family, [], format_) == expected(family, [], format_)


WORDS = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
NUMBERS = st.floats(width=64) | st.integers(-(2**70), 2**70)


EXEMPLARS = st.builds(
    Exemplar,
    st.dictionaries(
        st.from_regex(r"[a-z]{1,4}(_[a-z]{1,3})?", fullmatch=True),
        (st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]))).map(lambda text: text[:30]),
        max_size=3,
    ).map(lambda labels: tuple(labels.items())),
    st.floats(allow_nan=False),
)


@st.composite
def families(draw: st.DrawFn) -> Family:
    """Any family that the naming rules let pass."""
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    unit = draw(st.sampled_from(["", *(f"_{unit}" for unit in BASE_UNITS)]))
    suffix = {"counter": f"{unit}_total", "info": "_info"}.get(kind, unit)
    name = "_".join(["concurrency", *draw(st.lists(WORDS, min_size=1, max_size=3))]) + suffix
    words = st.text(st.sampled_from('\\"n %{}') | st.characters(exclude_categories=["Cs"], exclude_characters="\n"))
    meaning = f"A{draw(words)}."
    names = st.lists(st.from_regex(r"[a-z]{1,4}(_[a-z]{1,3})?", fullmatch=True), unique=True, max_size=5)
    finite = st.floats(0 if kind == "histogram" else None, allow_nan=False, allow_infinity=False)
    bounds = draw(st.lists(finite, unique=True, min_size=1, max_size=12)) if "histogram" in kind else []
    try:
        return Family(name, kind, meaning, tuple(draw(names)), tuple(sorted(bounds)))
    except FamilyError:  # by chance a word is reserved, or a unit
        reject()


@st.composite
def with_samples(draw: st.DrawFn) -> tuple[Family, list[Sample]]:
    family = draw(families())
    buckets = len(family.buckets) + 1
    counts = st.lists(st.integers(0, 2**53), min_size=buckets, max_size=buckets).map(tuple)
    values: st.SearchStrategy[Any] = NUMBERS
    if family.buckets:
        values = st.builds(Distribution, counts, NUMBERS, st.none() | EXEMPLARS)
    elif family.kind == "info":
        values = st.just(1)
    labels = st.lists(
        st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"])),
        min_size=len(family.labels),
        max_size=len(family.labels),
    )
    made = draw(st.lists(st.tuples(values, labels), max_size=4))
    return family, [family.sample(value, *texts) for value, texts in made]


@both_formats
@given(made=with_samples())
@settings(max_examples=300, deadline=None)
def test_any_family_is_written_as_prometheus_client_writes_it(
    made: tuple[Family, list[Sample]], format_: Format
) -> None:
    assert written(*made, format_) == expected(*made, format_)


@given(family=families(), values=st.lists(st.floats(-1e9, 1e9)))
@settings(max_examples=100, deadline=None)
def test_a_histogram_counts_as_that_of_prometheus_client(family: Family, values: list[float]) -> None:
    if not family.buckets:
        return
    registry = CollectorRegistry()
    theirs = Histogram("x", "X.", buckets=family.buckets, registry=registry)
    for value in values:
        theirs.observe(value)
    found = {sample.labels["le"]: sample.value for sample in next(iter(registry.collect())).samples if sample.labels}
    ours = Family("concurrency_x", "gaugehistogram", "X.", (), family.buckets)
    text = written(ours, [ours.sample(ours.distribution(values))], Format.CLASSIC).decode()
    assert {le: float(count) for le, count in re.findall(r'le="(.*)"} (.*)', text)} == found


@both_formats
def test_what_prometheus_client_counts_itself_is_written_alike(format_: Format) -> None:
    """Not only its families of samples, but its counters, gauges, histograms and infos."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    Counter("concurrency_a", "A.", ["x"], registry=registry).labels("1").inc(3)
    Gauge("concurrency_b_seconds", "B.", unit="seconds", registry=registry).set(1e9)
    histogram = Histogram("concurrency_c_seconds", "C.", ["z", "m"], buckets=(0.5, 1, 5), registry=registry)
    for value in (0.5, 0.75, 7):
        histogram.labels("z", "m").observe(value)
    Info("concurrency_d", "D.", registry=registry).info({"version": "1"})
    a = Family("concurrency_a_total", "counter", "A.", ("x",))
    b = Family("concurrency_b_seconds", "gauge", "B.")
    c = Family("concurrency_c_seconds", "histogram", "C.", ("z", "m"), (0.5, 1, 5))
    d = Family("concurrency_d_info", "info", "D.", ("version",))
    samples = [a.sample(3, "1"), b.sample(1e9), c.sample(c.distribution([0.5, 0.75, 7]), "z", "m"), d.sample(1, "1")]
    text = b"".join(written(sample.family, [sample], format_) for sample in samples)
    theirs = of_collector(registry, format_)
    unit = b"# UNIT concurrency_c_seconds seconds\n"  # the library wants to be told
    assert text.replace(unit, b"") == theirs


FOUR = [("b", b"b1\n"), ("a", b"a1\n"), ("b", b"b2\n"), ("c", b"")]


def test_blocks_of_one_name_share_a_header() -> None:
    found = [
        Block("b", b"B\n", b"b1\n"),
        Block("a", b"A\n", b"a1\n"),
        Block("b", b"B\n", b"b2\n"),
        Block("c", b"C\n", b""),
    ]
    assert joined(found) == b"A\na1\nB\nb1\nb2\nC\n"
    assert joined([]) == b""


def test_an_exemplar_is_no_longer_than_openmetrics_allows() -> None:
    fits = "é" * (MAX_EXEMPLAR - len("run_id"))
    assert Exemplar((("run_id", fits),), 1.0).labels == (("run_id", fits),)
    with pytest.raises(FamilyError, match="more than 128 characters"):
        Exemplar((("run_id", fits + "x"),), 1.0)
    with pytest.raises(FamilyError, match="a name that is no label"):
        Exemplar((("run-id", "x"),), 1.0)
