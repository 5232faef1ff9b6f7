"""Metric families and their samples as text, in the two formats that Prometheus reads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import accumulate
from typing import Final

from prometheus_client import exposition as classic
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from exporter.metrics.family import Distribution, Family, Sample


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
    # OpenMetrics alone has exemplars. They end the lines of buckets: the first of these texts, once for each format.
    series = list(_distributions(family, samples))
    whole = _in_both_formats(family, (text for of_one in series for text in of_one))
    if family.kind == "histogram":
        return whole
    # The classic format has no gauge histogram: it has a histogram without count and sum, and two gauges.
    buckets, counts, sums = zip(*series, strict=True) if series else ((), (), ())
    return whole | {
        Format.CLASSIC: [
            Block(family.name, _classic_header(family.name, family.help, "histogram"), _encoded(buckets)),
            *(
                Block(name, _classic_header(name, family.help, "gauge"), _encoded(lines))
                for name, lines in ((f"{family.name}_gcount", counts), (f"{family.name}_gsum", sums))
                if lines
            ),
        ]
    }


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


def _distributions(family: Family, samples: Iterable[Sample]) -> Iterator[tuple[str, str, str]]:
    """The lines of each sample's buckets, the line of its count, and that of its sum."""
    count, total = ("_gcount", "_gsum") if family.kind == "gaugehistogram" else ("_count", "_sum")
    bounds = [*map(floatToGoString, family.buckets), "+Inf"]
    of_bucket = _line(f"{family.name}_bucket", (*family.labels, "le"))
    of_count, of_sum = _line(family.name + count, family.labels), _line(family.name + total, family.labels)
    for sample in samples:
        if isinstance(sample.value, Distribution):
            labels, cumulated = sample.labels, list(accumulate(sample.value.counts))
            yield (
                "".join(of_bucket((*labels, le), number) for le, number in zip(bounds, cumulated, strict=True)),
                of_count(labels, cumulated[-1]),
                of_sum(labels, sample.value.sum),
            )


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
