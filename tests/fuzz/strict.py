"""What an exposition has to be, read by rules of our own: stricter than the parsers of Prometheus and its libraries."""

import math
import re
from typing import Final

from exporter.metrics.text import Format

_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
_VALUE = r'(?:[^"\\\n]|\\[\\n"])*'
_LABEL = re.compile(rf'({_NAME})="({_VALUE})"')
_LABELS = rf'((?:{_NAME}="{_VALUE}",?)*)'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{{_LABELS}\}})? (\S+)(?: # \{{{_LABELS}\}} (\S+))?", re.DOTALL)
_COMMENT = re.compile(rf"# (HELP|TYPE|UNIT) ({_NAME}) (\S.*)", re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")
_ESCAPES: Final = {r"\\": "\\", r"\n": "\n", r"\"": '"'}
_ENDINGS: Final[dict[str, tuple[str, ...]]] = {
    "gauge": ("",),
    "unknown": ("",),
    "counter": ("", "_total"),
    "info": ("_info",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
}
"""How the names of a family's samples may end, by its type. In classic text a counter's family has its whole name."""

Series = tuple[str, tuple[tuple[str, str], ...]]


class NotValidError(AssertionError):
    """The exposition breaks a rule; the message has the line."""


def check(text: bytes, format_: Format) -> dict[Series, float]:
    """The series of an exposition, by name and labels. Raises `NotValidError`.

    It is UTF-8. Each family has its comments once, at its head, and all of its samples in one place. No series is there
    twice. No value is NaN or infinite. Buckets rise to the count. OpenMetrics ends with its mark, and only there; only
    there may buckets have exemplars, which lie within them.
    """
    lines = text.decode().split("\n")  # a UnicodeDecodeError is a finding too
    if lines.pop() != "":
        raise NotValidError("the last line does not end")
    if format_ is Format.OPENMETRICS and (not lines or lines.pop() != "# EOF"):
        raise NotValidError("no # EOF at the end")
    series: dict[Series, float] = {}
    families: set[str] = set()
    family, kind, said = "", "", set[str]()
    for line in lines:
        if line.startswith("#"):
            comment = _COMMENT.fullmatch(line)
            if not comment:
                raise NotValidError(f"neither a comment nor a sample: {line!r}")
            what, name, value = comment[1], comment[2], comment[3]
            if name != family:
                if name in families:
                    raise NotValidError(f"the family is there twice: {line!r}")
                families.add(name)
                family, kind, said = name, "", set()
            if what in said or any(series_name.startswith("\0") for series_name in said):
                raise NotValidError(f"said twice, or after a sample: {line!r}")
            said.add(what)
            kind = value if what == "TYPE" else kind
            continue
        name, labels, number = _sample(line, format_)
        if kind not in _ENDINGS or name not in {
            family + ending for ending in (*_ENDINGS[kind], *_classic(format_, kind))
        }:
            raise NotValidError(f"not of the family {family!r} ({kind}): {line!r}")
        said.add("\0")
        if (name, labels) in series:
            raise NotValidError(f"twice: {line!r}")
        series[name, labels] = number
    _buckets_rise(series)
    return series


def _classic(format_: Format, kind: str) -> tuple[str, ...]:
    """Classic text has no info: it is a gauge of the whole name."""
    return ("",) if format_ is Format.CLASSIC and kind in {"gauge", "histogram"} else ()


def _sample(line: str, format_: Format) -> tuple[str, tuple[tuple[str, str], ...], float]:
    match = _SAMPLE.fullmatch(line)
    if not match:
        raise NotValidError(f"no sample: {line!r}")
    name, labels, number, exemplar_labels, exemplar = match.groups()
    pairs = _labels(labels or "", line)
    if exemplar is not None:
        if format_ is not Format.OPENMETRICS or not name.endswith("_bucket"):
            raise NotValidError(f"an exemplar that may not be here: {line!r}")
        characters = sum(len(key) + len(value) for key, value in _labels(exemplar_labels, line))
        if characters > 128 or _number(exemplar, line) > float(dict(pairs)["le"]):
            raise NotValidError(f"an exemplar that is too long, or of another bucket: {line!r}")
    return name, tuple(sorted(pairs)), _number(number, line)


def _labels(text: str, line: str) -> list[tuple[str, str]]:
    each = _LABEL.findall(text)
    if ",".join(f'{name}="{value}"' for name, value in each) != text or len(dict(each)) != len(each):
        raise NotValidError(f"labels: {line!r}")
    return [(name, _unescape(value)) for name, value in each]


def _number(text: str, line: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise NotValidError(f"not a finite number: {line!r}")
    return float(text)


def _unescape(value: str) -> str:
    return re.sub(r"\\.", lambda escape: _ESCAPES[escape[0]], value)


def _buckets_rise(series: dict[Series, float]) -> None:
    last: dict[Series, tuple[float, float]] = {}
    for (name, labels), count in series.items():
        if not name.endswith("_bucket"):
            continue
        bound = float(dict(labels)["le"])
        of = (name, tuple(pair for pair in labels if pair[0] != "le"))
        before, least = last.get(of, (-math.inf, 0.0))
        if bound <= before or count < least:
            raise NotValidError(f"buckets do not rise: {name}{labels}")
        last[of] = (bound, count)
    for (name, labels), (bound, count) in last.items():
        base = name.removesuffix("_bucket")
        totals = [
            series[base + ending, labels] for ending in ("_count", "_gcount") if (base + ending, labels) in series
        ]
        if bound != math.inf or totals != [count]:
            raise NotValidError(f"the last bucket is not the count: {name}{labels}")
