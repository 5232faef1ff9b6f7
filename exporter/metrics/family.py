"""A metric family as a value: its name, type, help and labels, and the rules that a name must keep."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

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


MAX_EXEMPLAR: Final = 128
"""Most characters of the labels of an exemplar, names and values together: OpenMetrics refuses more."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One of the values of a distribution, and labels that lead to where it comes from.

    Raises `FamilyError` for a name that is no label, or more than `MAX_EXEMPLAR` characters.
    """

    labels: tuple[tuple[str, str], ...]
    value: float

    def __post_init__(self) -> None:
        if not all(_LABEL.fullmatch(name) for name, _ in self.labels):
            raise FamilyError(f"{self.labels} has a name that is no label")
        if sum(len(name) + len(value) for name, value in self.labels) > MAX_EXEMPLAR:
            raise FamilyError(f"{self.labels} has more than {MAX_EXEMPLAR} characters")


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of a histogram of either kind: how many lie in each bucket, and their sum.

    `counts` has one number for each bound of the family, and a last one for the values above them all. A value on
    a bound counts in the bucket of that bound. No number counts the values of another bucket too.
    """

    counts: tuple[int, ...]
    sum: float
    exemplar: Exemplar | None = None
    """It is shown at the bucket of its value, in OpenMetrics only."""


@dataclass(frozen=True, slots=True, eq=False)
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
        yield from self._broken_rules_of_buckets()

    def _broken_rules_of_buckets(self) -> Iterable[str]:
        if (self.kind in {"histogram", "gaugehistogram"}) != bool(self.buckets):
            yield "buckets belong to histograms, and every histogram has some"
        if list(self.buckets) != sorted({bound for bound in self.buckets if isfinite(bound)}):
            yield "buckets rise, none is there twice, and none is infinite"
        if self.kind == "histogram" and any(bound < 0 for bound in self.buckets):
            yield "a histogram has no bucket below 0: its sum could fall"

    @property
    def unit(self) -> str:
        """The base unit that the name ends in, or an empty string."""
        last = self.name.removesuffix("_total").rsplit("_", 1)[-1]
        return last if last in BASE_UNITS else ""

    @property
    def basename(self) -> str:
        """The name as OpenMetrics has it: without the suffix of its type (`_total`, `_info`)."""
        return self.name.removesuffix(_SUFFIX_OF_KIND.get(self.kind, ""))

    def sample(self, value: float | Distribution, *labels: str) -> "Sample":
        """A sample with the values of `labels` in the order in which they were declared.

        Raises `FamilyError` where there is a label too many or too few, or the value is not of the family's kind: a
        distribution for a histogram of either kind, a number for all others.
        """
        if len(labels) != len(self.labels):
            raise FamilyError(f"{self.name}: {len(labels)} label values for {len(self.labels)} labels")
        if isinstance(value, Distribution) != bool(self.buckets):
            wanted = "a distribution" if self.buckets else "a number"
            raise FamilyError(f"{self.name}: a {self.kind} has {wanted} as its value")
        if isinstance(value, Distribution) and len(value.counts) != len(self.buckets) + 1:
            raise FamilyError(f"{self.name}: {len(value.counts)} counts for {len(self.buckets) + 1} buckets")
        return Sample(self, labels, value)

    def bucket(self, value: float) -> int:
        """The place in `Distribution.counts` of the bucket that a value, in the family's unit, falls into."""
        return bisect_left(self.buckets, value)

    def distribution(self, values: Sequence[float], exemplar: Exemplar | None = None) -> Distribution:
        """The values, in the family's unit, by its buckets."""
        counts = [0] * (len(self.buckets) + 1)
        for value in values:
            counts[self.bucket(value)] += 1
        return Distribution(tuple(counts), sum(values), exemplar)


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a family, now; of a histogram all that it is to Prometheus. Made by `Family.sample`."""

    family: Family
    labels: tuple[str, ...]
    value: float | Distribution

    @property
    def series(self) -> int:
        """Return the number of series in Prometheus: of a histogram all buckets, count and sum."""
        return len(self.family.buckets) + 3 if self.family.buckets else 1
