"""Metric families and their samples as text, in the two formats that Prometheus reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter.metrics.family import Distribution, Exemplar, Family, Sample


class Format(Enum):
    """The two text formats; the value is what ends an exposition in them."""

    CLASSIC = b""
    OPENMETRICS = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of samples under one header: comment lines with the HELP, the TYPE and the UNIT of `name`.

    Blocks of several sources have to be joined, so that each header is there once.
    """

    name: str
    header: bytes
    lines: bytes


def joined(blocks: Iterable[Block]) -> bytes:
    """The blocks in the order of their names, those of the same name under one header."""
    by_name: dict[str, list[Block]] = {}
    for block in blocks:
        by_name.setdefault(block.name, []).append(block)
    of_names = (by_name[name] for name in sorted(by_name))
    return b"".join(chunk for same in of_names for chunk in (same[0].header, *(block.lines for block in same)))


def blocks(family: Family, samples: Sequence[Sample]) -> Mapping[Format, Sequence[Block]]:
    """The samples of a family as text in each format; without any, its header alone.

    prometheus_client writes the same bytes (a test compares them), but it matches the name of every label of every
    sample against a regular expression, and does so once for each format: four times the work.
    """
    if not family.buckets:
        return _in_both_formats(family, _numbers(family, samples))
    series = list(_distributions(family, samples))
    whole = _in_both_formats(family, (text for one in series for text in (one.buckets, one.of_count, one.of_sum)))
    if any(one.with_exemplar for one in series):
        lines = (text for one in series for text in (one.with_exemplar or one.buckets, one.of_count, one.of_sum))
        whole[Format.OPENMETRICS] = [Block(family.basename, _openmetrics_header(family), _encoded(lines))]
    if family.kind == "histogram":
        return whole
    # The classic format has no gauge histogram: it has a histogram without count and sum, and two gauges.
    buckets = _encoded(one.buckets for one in series)
    gauges = (("_gcount", _encoded(one.of_count for one in series)), ("_gsum", _encoded(one.of_sum for one in series)))
    whole[Format.CLASSIC] = [
        Block(family.name, _classic_header(family.name, family.help, "histogram"), buckets),
        *(
            Block(name, _classic_header(name, family.help, "gauge"), text)
            for name, text in ((family.name + suffix, text) for suffix, text in gauges)
            if text
        ),
    ]
    return whole


def of_collector(collector: Collector, format_: Format) -> bytes:
    """Return the text of what prometheus_client collects, without the end.

    No name in there needs escaping in any of the schemes that a scraper can ask for. The encoders are told to allow
    UTF-8 since they then copy a name in one piece instead of a character at a time.
    """
    if format_ is Format.CLASSIC:
        return classic.generate_latest(collector, escaping=openmetrics.ALLOWUTF8)
    text: bytes = openmetrics.generate_latest(collector, escaping=openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
    return text.removesuffix(format_.value)


_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def _in_both_formats(family: Family, lines: Iterable[str]) -> dict[Format, list[Block]]:
    text = _encoded(lines)
    kind = "gauge" if family.kind == "info" else family.kind
    return {
        Format.CLASSIC: [Block(family.name, _classic_header(family.name, family.help, kind), text)],
        Format.OPENMETRICS: [Block(family.basename, _openmetrics_header(family), text)],
    }


def _encoded(lines: Iterable[str]) -> bytes:
    return "".join(lines).encode()


@cache
def _classic_header(name: str, meaning: str, kind: str) -> bytes:
    escaped = meaning.replace("\\", r"\\")
    return f"# HELP {name} {escaped}\n# TYPE {name} {kind}\n".encode()


@cache
def _openmetrics_header(family: Family) -> bytes:
    name, escaped = family.basename, family.help.translate(_ESCAPES)
    unit = f"# UNIT {name} {family.unit}\n" if family.unit else ""
    return f"# HELP {name} {escaped}\n# TYPE {name} {family.kind}\n{unit}".encode()


def _numbers(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    """The line of each sample."""
    line = _line(family.name, family.labels)
    for sample in samples:
        if not isinstance(sample.value, Distribution):
            yield line(sample.labels, sample.value)


class _Lines(NamedTuple):
    """The lines of one distribution. Exemplars end lines of buckets, in OpenMetrics only; empty without any."""

    buckets: str
    with_exemplar: str
    of_count: str
    of_sum: str


def _distributions(family: Family, samples: Iterable[Sample]) -> Iterator[_Lines]:
    """The lines of each sample."""
    suffixes = ("_gcount", "_gsum") if family.kind == "gaugehistogram" else ("_count", "_sum")
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    of_bucket = _line(f"{family.name}_bucket", (*family.labels, "le"))
    of_count, of_sum = (_line(family.name + suffix, family.labels) for suffix in suffixes)
    for sample in samples:
        if isinstance(sample.value, Distribution):
            labels, cumulated = sample.labels, list(accumulate(sample.value.counts))
            lines = [of_bucket((*labels, le), number) for le, number in zip(bounds, cumulated, strict=True)]
            buckets, with_exemplar = "".join(lines), ""
            if exemplar := sample.value.exemplar:
                lines[family.bucket(exemplar.value)] = lines[family.bucket(exemplar.value)][:-1] + _exemplar(exemplar)
                with_exemplar = "".join(lines)
            count, total = of_count(labels, cumulated[-1]), of_sum(labels, sample.value.sum)
            yield _Lines(buckets, with_exemplar, count, total)


def _exemplar(exemplar: Exemplar) -> str:
    """The end of a line with an exemplar. Without a time it is of the time of the scrape."""
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in sorted(exemplar.labels))
    return f" # {{{pairs}}} {floatToGoString(exemplar.value)}\n"  # type: ignore[no-untyped-call]


@cache
def _line(name: str, labels: Sequence[str]) -> Callable[[Sequence[str], float], str]:
    """Writes the line of one series; its labels are sorted by name, as prometheus_client has them."""
    places = sorted(range(len(labels)), key=labels.__getitem__)
    pairs = ",".join(f'{labels[place]}="%s"' for place in places)
    template = f"{name}{{{pairs}}} %s\n" if pairs else f"{name} %s\n"

    def write(values: Sequence[str], number: float) -> str:
        escaped = [values[place].translate(_ESCAPES) for place in places]
        return template % (*escaped, floatToGoString(number))  # type: ignore[no-untyped-call]

    return write
