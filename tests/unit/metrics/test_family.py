"""The rules for names are kept where a family is declared; and what the declared families are."""

import itertools
import re
from typing import Any, get_args

import pytest
from prometheus_client.utils import floatToGoString

from exporter.metrics.family import Distribution, Family, FamilyError, Kind, Sample
from exporter.metrics.observed import OBSERVED
from exporter.metrics.own import OWN
from exporter.metrics.text import Format, blocks, joined
from exporter.sources import SYSTEMS
from tests.harness import oracle
from tests.harness.inprocess import Exporter

HELP = "What it is."
FAMILIES = (*OBSERVED, *OWN)


def declare(name: str, kind: Kind = "gauge", **rest: Any) -> Family:
    return Family(name, kind, **{"help": HELP} | rest)


@pytest.mark.parametrize(
    ("name", "kind", "rest"),
    [
        ("concurrency_slots", "gauge", {}),
        ("concurrency_2_slots", "gauge", {"help": "A value, of upstream's `field` (0 or 1)."}),
        ("concurrency_slots", "gauge", {"labels": ("source", "pool_type")}),
        ("concurrency_age_seconds", "gauge", {}),
        ("concurrency_used_ratio", "gauge", {}),
        ("concurrency_polls_total", "counter", {}),
        ("concurrency_waiting_seconds_total", "counter", {}),
        ("concurrency_build_info", "info", {"labels": ("version",)}),
        ("concurrency_poll_seconds", "histogram", {"buckets": (0.1, 1, 10)}),
        ("concurrency_age_seconds", "gaugehistogram", {"buckets": (-1, 0, 1)}),
    ],
)
def test_a_good_family(name: str, kind: Kind, rest: dict[str, Any]) -> None:
    family = declare(name, kind, **rest)
    assert family.name == name
    metric = oracle.metric(family, [])
    assert (metric.type, metric.documentation) == (kind, family.help)
    assert metric.name == family.basename


WORDS = "a name is concurrency_ and words of a-z and 0-9 joined by single underscores"
SUFFIX = r"a name may not end like the samples of a histogram"
BUCKETS = "buckets belong to histograms, and every histogram has some"
RISING = "buckets rise, none is there twice, and none is infinite"
LABEL = "can't be a label: it is reserved, or not words of a-z"
SENTENCE = "the help is a full sentence on one line"


@pytest.mark.parametrize(
    ("name", "kind", "rest", "rule"),
    [
        ("queue_slots", "gauge", {}, WORDS),
        ("concurrency", "gauge", {}, WORDS),
        ("concurrency_Slots", "gauge", {}, WORDS),
        ("concurrency_queue__slots", "gauge", {}, WORDS),
        ("concurrency_slots_", "gauge", {}, WORDS),
        ("concurrency_slots\n", "gauge", {}, WORDS),
        ("concurrency:slots", "gauge", {}, WORDS),
        ("concurrency_slöts", "gauge", {}, WORDS),
        ("concurrency_polls", "counter", {}, "_total is the suffix of every counter, and of nothing else"),
        ("concurrency_slots_total", "gauge", {}, "_total is the suffix of every counter, and of nothing else"),
        ("concurrency_build", "info", {}, "_info is the suffix of every info, and of nothing else"),
        ("concurrency_build_info", "gauge", {}, "_info is the suffix of every info, and of nothing else"),
        *(
            (f"concurrency_slots{suffix}", "gauge", {}, SUFFIX)
            for suffix in ("_bucket", "_count", "_sum", "_gcount", "_gsum", "_created")
        ),
        ("concurrency_age_ms", "gauge", {}, "ms is not a base unit; those are seconds, bytes, ratio"),
        ("concurrency_age_minutes", "gauge", {}, "minutes is not a base unit"),
        ("concurrency_minutes_used", "gauge", {}, "minutes is not a base unit"),
        ("concurrency_used_percent", "gauge", {}, "percent is not a base unit"),
        ("concurrency_seconds_old", "gauge", {}, "the unit is the last word of a name"),
        ("concurrency_slots", "gauge", {"help": ""}, SENTENCE),
        ("concurrency_slots", "gauge", {"help": "slots taken."}, SENTENCE),
        ("concurrency_slots", "gauge", {"help": "Slots taken"}, SENTENCE),
        ("concurrency_slots", "gauge", {"help": "Slots\ntaken."}, SENTENCE),
        ("concurrency_slots", "gauge", {"help": "Slots taken.\n"}, SENTENCE),
        *(
            ("concurrency_slots", "gauge", {"labels": ("source", label)}, f"'{re.escape(label)}' {LABEL}")
            for label in (
                "job",
                "instance",
                "le",
                "quantile",
                "type",
                "__name__",
                "Pool",
                "a__b",
                "_a",
                "a_",
                "",
                "p-1",
            )
        ),
        ("concurrency_slots", "gauge", {"labels": ("pool", "queue", "pool")}, "a label is named twice"),
        ("concurrency_slots", "gauge", {"buckets": (1, 2)}, BUCKETS),
        ("concurrency_polls_total", "counter", {"buckets": (1, 2)}, BUCKETS),
        ("concurrency_poll_seconds", "histogram", {}, BUCKETS),
        ("concurrency_age_seconds", "gaugehistogram", {}, BUCKETS),
        ("concurrency_age_seconds", "histogram", {"buckets": (1, 5, 2)}, RISING),
        ("concurrency_age_seconds", "histogram", {"buckets": (1, 1)}, RISING),
        ("concurrency_age_seconds", "histogram", {"buckets": (1, float("inf"))}, RISING),
        ("concurrency_age_seconds", "histogram", {"buckets": (float("nan"),)}, RISING),
        ("concurrency_age_seconds", "histogram", {"buckets": (-1, 1)}, "a histogram has no bucket below 0"),
    ],
)
def test_a_broken_rule_is_refused(name: str, kind: Kind, rest: dict[str, Any], rule: str) -> None:
    with pytest.raises(FamilyError, match=rf"^{re.escape(name)}: {rule}"):
        declare(name, kind, **rest)


@pytest.mark.parametrize("values", [(), ("a",), ("a", "b", "c")])
def test_a_sample_has_a_value_for_every_label(values: tuple[str, ...]) -> None:
    family = declare("concurrency_slots", labels=("pool", "queue"))
    expected = f"^concurrency_slots: {len(values)} label values for 2 labels$"
    with pytest.raises(FamilyError, match=expected):
        family.sample(1, *values)


@pytest.mark.parametrize(
    ("kind", "buckets", "value", "message"),
    [
        ("gauge", (), Distribution((1,), 1), "a gauge has a number as its value"),
        ("gaugehistogram", (1,), 1, "a gaugehistogram has a distribution as its value"),
        ("histogram", (1,), 1, "a histogram has a distribution as its value"),
        ("histogram", (1, 2), Distribution((1, 2), 1), "2 counts for 3 buckets"),
        ("gaugehistogram", (1, 2), Distribution((1, 2, 3, 4), 1), "4 counts for 3 buckets"),
    ],
)
def test_a_sample_has_a_value_of_its_kind(
    kind: Kind, buckets: tuple[float, ...], value: float | Distribution, message: str
) -> None:
    family = declare("concurrency_slots", kind, buckets=buckets)
    with pytest.raises(FamilyError, match=rf"^concurrency_slots: {message}$"):
        family.sample(value)


def lines(sample: Sample) -> list[str]:
    """The lines of samples in both formats, which are the same."""
    classic, openmetrics = (
        [line for line in joined(of_format).decode().splitlines() if not line.startswith("#")]
        for of_format in blocks(sample.family, [sample]).values()
    )
    assert classic == openmetrics
    return classic


@pytest.mark.parametrize(("value", "number"), [(3, "3.0"), (0, "0.0"), (True, "1.0"), (2**53, "9.007199254740992e+15")])
def test_a_gauge(value: float, number: str) -> None:
    family = declare("concurrency_slots", labels=("queue", "pool"))
    sample = family.sample(value, "q", "p")
    assert lines(sample) == [f'concurrency_slots{{pool="p",queue="q"}} {number}']
    assert sample.series == 1


def test_a_counter() -> None:
    sample = declare("concurrency_polls_total", "counter").sample(7)
    assert lines(sample) == ["concurrency_polls_total 7.0"]
    assert sample.series == 1


def test_an_info() -> None:
    sample = declare("concurrency_build_info", "info", labels=("version",)).sample(1, "1.2")
    assert lines(sample) == ['concurrency_build_info{version="1.2"} 1.0']
    assert sample.series == 1


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([], [0, 0, 0, 0]),
        ([0], [1, 1, 1, 1]),
        ([1], [1, 1, 1, 1]),
        ([1.0000001], [0, 1, 1, 1]),
        ([5], [0, 1, 1, 1]),
        ([60], [0, 0, 1, 1]),
        ([60.5], [0, 0, 0, 1]),
        ([61, 0.5, 5, 1, 1e9, 60], [2, 3, 4, 6]),
    ],
    ids=str,
)
def test_a_value_on_a_bound_counts_in_its_bucket(values: list[float], counts: list[int]) -> None:
    kinds: tuple[tuple[Kind, str, str], ...] = (("gaugehistogram", "gcount", "gsum"), ("histogram", "count", "sum"))
    for kind, count, total in kinds:
        family = declare("concurrency_age_seconds", kind, labels=("queue",), buckets=(1, 5, 60))
        sample = family.sample(family.distribution(values), "q")
        found = lines(sample)
        assert found == [
            *(
                f'concurrency_age_seconds_bucket{{le="{bound}",queue="q"}} {number}.0'
                for bound, number in zip(("1.0", "5.0", "60.0", "+Inf"), counts, strict=True)
            ),
            f'concurrency_age_seconds_{count}{{queue="q"}} {len(values)}.0',
            f'concurrency_age_seconds_{total}{{queue="q"}} {floatToGoString(sum(values))}',  # type: ignore[no-untyped-call]
        ]
        assert sample.series == len(found)


def test_every_kind_is_tested_and_used() -> None:
    assert {family.kind for family in FAMILIES} == set(get_args(Kind))


def test_no_name_is_there_twice() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    # Nor as the name of a sample, which several families would then share.
    made = [sample.name for family in FAMILIES for sample in oracle.metric(family, [_one(family)]).samples]
    assert all(len(list(group)) == 1 for _, group in itertools.groupby(sorted(set(made) | set(names))))


def _one(family: Family) -> Sample:
    return family.sample(family.distribution([1.0]) if family.buckets else 1, *family.labels)


@pytest.mark.parametrize("family", OBSERVED, ids=lambda family: family.name)
def test_what_is_observed_tells_its_source(family: Family) -> None:
    assert family.labels[:2] == ("source", "system")
    assert not family.name.startswith("concurrency_exporter_")
    assert family.labels[2:4] == ("pool", "queue") or not family.name.startswith("concurrency_queue_")


@pytest.mark.parametrize("family", OWN, ids=lambda family: family.name)
def test_what_the_exporter_tells_of_itself(family: Family) -> None:
    assert family.name.startswith("concurrency_exporter_")
    assert family.labels[:2] == ("source", "system") or "source" not in family.labels


def test_openmetrics_has_the_unit_of_every_family() -> None:
    exporter = Exporter()
    own = exporter.telemetry.render(exporter.view, Format.OPENMETRICS)
    observed = joined(block for one in OBSERVED for block in blocks(one, [_one(one)])[Format.OPENMETRICS])
    units = dict(re.findall("^# UNIT (concurrency_.*) (.*)$", (observed + own).decode(), re.MULTILINE))
    assert units == {family.basename: family.unit for family in FAMILIES if family.unit}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_help_is_as_good_for_any_system(family: Family) -> None:
    """Where the values of one system come from is told by the system itself."""
    names = {word for system, config in SYSTEMS.items() for word in (system, config.about.title)}
    fields = {
        word for config in SYSTEMS.values() for text in config.about.figures.values() for word in FIELD.findall(text)
    }
    assert fields
    assert not (names | fields).intersection(re.findall(r"\w+", family.help))


FIELD = re.compile(r"\b(?:[a-z]+_[a-z_]+|[a-z]+[A-Z][a-zA-Z]+|[A-Z][a-z]+[A-Z][a-zA-Z]+|[A-Z]{2,})\b")
"""Words of an API: snake_case, camelCase and CapWords, and states in capitals."""


def test_the_help_says_that_the_exporter_has_a_timer_of_its_own() -> None:
    assert "poll" in OBSERVED[0].help


def test_ids_are_only_in_infos() -> None:
    assert {family.kind for family in FAMILIES if "id" in family.labels} == {"info"}
