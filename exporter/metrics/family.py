"""A metric family as a value: its name, type, help and labels, and the rules that a name must keep."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import Final, Literal

from prometheus_client import Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.utils import floatToGoString

Kind = Literal["gauge", "counter", "info", "histogram", "gaugehistogram"]

BASE_UNITS: Final = ("seconds", "bytes", "ratio")
_NAME = re.compile(r"concurrency(_[a-z0-9]+)+")
_LABEL = re.compile(r"[a-z]+(_[a-z]+)*")
_OTHER_UNITS = {
    "ms",
    "millis",
    "milliseconds",
    "minutes",
    "hours",
    "days",
    "kb",
    "mb",
    "kilobytes",
    "percent",
}
_SUFFIXES_OF_SAMPLES = ("_bucket", "_count", "_sum", "_gcount", "_gsum", "_created")
_SUFFIX_OF_KIND = {"counter": "_total", "info": "_info"}
_RESERVED_LABELS = {"job", "instance", "le", "quantile", "type"}


class FamilyError(ValueError):
    """A family was declared, or a sample made, against the rules; a mistake in the code, found at import."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family; `name` is the name as scraped, so that searching for it finds this declaration.

    Raises `FamilyError` when it is declared with a name, a help or a label that the naming rules of Prometheus
    or of this project refuse. `buckets` are the upper bounds of a histogram, without +Inf.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for broken in self._broken_rules():
            raise FamilyError(f"{self.name}: {broken}")

    def _broken_rules(self) -> Iterable[str]:
        if not _NAME.fullmatch(self.name):
            yield "a name is concurrency_ and words of a-z and 0-9 joined by single underscores"
        for kind, suffix in _SUFFIX_OF_KIND.items():
            if (self.kind == kind) != self.name.endswith(suffix):
                yield f"{suffix} is the suffix of every {kind}, and of nothing else"
        if self.name.endswith(_SUFFIXES_OF_SAMPLES):
            yield f"a name may not end like the samples of a histogram ({', '.join(_SUFFIXES_OF_SAMPLES)})"
        if other := _OTHER_UNITS.intersection(self.name.split("_")):
            yield f"{other.pop()} is not a base unit; those are {', '.join(BASE_UNITS)}"
        if any(unit in self.name.split("_")[1:-1] for unit in BASE_UNITS) and self.kind != "counter":
            yield "the unit is the last word of a name"
        if not re.fullmatch(r"[A-Z][^\n]*\.", self.help):
            yield "the help is a full sentence on one line"
        for label in self.labels:
            if not _LABEL.fullmatch(label) or label in _RESERVED_LABELS:
                yield f"{label!r} can't be a label: it is reserved, or not words of a-z"
        if len(set(self.labels)) != len(self.labels):
            yield "a label is named twice"
        if (self.kind in {"histogram", "gaugehistogram"}) != bool(self.buckets):
            yield "buckets belong to histograms, and every histogram has some"
        if list(self.buckets) != sorted({bound for bound in self.buckets if isfinite(bound)}):
            yield "buckets rise, none is there twice, and none is infinite"

    @property
    def unit(self) -> str:
        """The base unit that the name ends in, or an empty string."""
        last = self.name.removesuffix("_total").rsplit("_", 1)[-1]
        return last if last in BASE_UNITS else ""

    @property
    def basename(self) -> str:
        """The name as OpenMetrics has it: without the suffix of its type (`_total`, `_info`)."""
        return self.name.removesuffix(_SUFFIX_OF_KIND.get(self.kind, ""))

    def sample(self, value: float | Sequence[float], *labels: str) -> "Sample":
        """A sample with the values of `labels` in the order in which they were declared.

        The value of a gauge histogram is the things it counts, in its unit. Raises `FamilyError` when
        there is a label too many or too few: prometheus_client would drop it without a word.
        """
        if len(labels) != len(self.labels):
            raise FamilyError(f"{self.name}: {len(labels)} label values for {len(self.labels)} labels")
        return Sample(self, labels, value)

    def metric(self, samples: Iterable["Sample"] = ()) -> Metric:
        """The family with these samples as prometheus_client renders it."""
        match self.kind:
            case "gauge":
                gauge = GaugeMetricFamily(self.basename, self.help, labels=self.labels, unit=self.unit)
                for sample in samples:
                    gauge.add_metric(sample.labels, _number(sample))
                return gauge
            case "info":
                info = InfoMetricFamily(self.basename, self.help, labels=self.labels)
                for sample in samples:
                    info.add_metric(sample.labels, {})
                return info
            case "gaugehistogram":
                histogram = GaugeHistogramMetricFamily(self.basename, self.help, labels=self.labels, unit=self.unit)
                for sample in samples:
                    values = _numbers(sample)
                    histogram.add_metric(sample.labels, self._cumulative(values), sum(values))
                return histogram
            case "counter":
                return CounterMetricFamily(self.basename, self.help, labels=self.labels, unit=self.unit)
            case "histogram":
                return HistogramMetricFamily(self.basename, self.help, labels=self.labels, unit=self.unit)

    def lines(self, sample: "Sample") -> list[str]:
        """The lines of a sample, the same in both text formats; the count and the sum of a gauge histogram come last.

        prometheus_client writes the same bytes (a test compares them), but it matches the name of every label of every
        sample against a regular expression, and does so once for each format: four times the work.
        """
        labels = dict(zip(self.labels, (value.translate(_ESCAPES) for value in sample.labels), strict=True))
        if self.kind != "gaugehistogram":
            return [_line(self.name, labels, _number(sample))]
        values = _numbers(sample)
        buckets = self._cumulative(values)
        return [
            *(_line(f"{self.name}_bucket", {"le": bound} | labels, count) for bound, count in buckets),
            _line(f"{self.name}_gcount", labels, buckets[-1][1]),
            _line(f"{self.name}_gsum", labels, sum(values)),
        ]

    def _cumulative(self, values: Sequence[float]) -> list[tuple[str, float]]:
        counts = [0] * (len(self.buckets) + 1)
        for value in values:
            counts[bisect_left(self.buckets, value)] += 1
        bounds = [*(str(float(bound)) for bound in self.buckets), "+Inf"]
        return list(zip(bounds, (float(count) for count in accumulate(counts)), strict=True))


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a family, now."""

    family: Family
    labels: tuple[str, ...]
    value: float | Sequence[float]

    @property
    def series(self) -> int:
        """How many series this is to Prometheus."""
        return len(self.family.buckets) + 3 if self.family.kind == "gaugehistogram" else 1


_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def _line(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join([f'{label}="{labels[label]}"' for label in sorted(labels)])
    number = floatToGoString(value)  # type: ignore[no-untyped-call]
    return f"{name}{{{pairs}}} {number}\n" if pairs else f"{name} {number}\n"


def _number(sample: Sample) -> float:
    if isinstance(sample.value, Sequence):
        raise FamilyError(f"{sample.family.name}: a {sample.family.kind} has one number as its value")
    return float(sample.value)


def _numbers(sample: Sample) -> Sequence[float]:
    if not isinstance(sample.value, Sequence):
        raise FamilyError(f"{sample.family.name}: a {sample.family.kind} has a sequence as its value")
    return sample.value
