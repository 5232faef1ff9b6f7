"""The tables of faults in `docs/reliability.md`: what the suite found, compared with them or written to them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
_HEADER: Final = ("fault", "affects", "outcome", "reason", "`/metrics`", "noticed", "recovered", "requests")


@dataclass(frozen=True)
class Row:
    """One fault, and what came of it, each as the table has it."""

    fault: str
    affects: str
    """What fails: `both` systems, one of them, or the exporter's own surroundings."""
    outcome: str
    reason: str
    shows: str
    noticed: str
    recovered: str
    requests: str


class Table:
    """The rows of one table. `check` compares one with what was found, or keeps that to be written by `write`."""

    def __init__(self, name: str, faults: Sequence[str], *, update: bool) -> None:
        self._begin, self._end = f"<!-- {name}: written by `make reliability` -->\n", f"<!-- end of {name} -->"
        self._faults = faults
        self._update = update
        table = DOCUMENT.read_text(encoding="utf-8").partition(self._begin)[2].partition(self._end)[0]
        self._rows = {row.fault: row for row in _rows(table)}

    @property
    def faults(self) -> list[str]:
        """The faults that the document has, in its order."""
        return list(self._rows)

    def check(self, found: Row) -> None:
        """Raises `AssertionError` where the document says something else."""
        assert found.fault in self._faults
        if self._update:
            self._rows[found.fault] = found
        assert self._rows.get(found.fault) == found, "run `make reliability`"

    def write(self) -> None:
        """Write what was found, if that is wanted: in the order of the faults, and without those that are no more."""
        if not self._update:
            return
        rows = [astuple(self._rows[fault]) for fault in self._faults if fault in self._rows]
        lines = [_HEADER, ("---",) * len(_HEADER), *rows]
        table = "".join(f"| {' | '.join(cells)} |\n".replace("  ", " ") for cells in lines)
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(self._begin)
        after = rest.partition(self._end)[2]
        DOCUMENT.write_text(f"{before}{self._begin}{table}{self._end}{after}", encoding="utf-8")


def _rows(table: str) -> Iterator[Row]:
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert len(cells) == len(fields(Row)), f"{DOCUMENT.name}: {line}"
        yield Row(*cells)


_SAMPLE: Final = re.compile(r'concurrency_(?:exporter_)?(\w+){(?:.*,)?source="([^"]*)".*} (\S+)')
_LABEL: Final = re.compile(r'(?:outcome|reason)="([^"]*)"')


@dataclass
class Scrape:
    """What `/metrics` said of each source, at a time between when it was `asked` and `at`."""

    asked: float
    at: float
    text: str
    up: dict[str, float] = field(default_factory=dict)
    last_success: dict[str, float] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    observed: Counter[str] = field(default_factory=Counter)
    """How many series there are of what was read from upstream."""

    def __post_init__(self) -> None:
        for line in self.text.splitlines():
            if not (match := _SAMPLE.match(line)):
                continue
            name, source, value = match.groups()
            label = _LABEL.search(line)
            match name:
                case "source_up":
                    self.up[source] = float(value)
                case "last_success_timestamp_seconds":
                    self.last_success[source] = float(value)
                case "upstream_requests_total":
                    self.requests[source] += int(float(value))
                case "polls_total" if label:
                    self.outcomes[source, label[1]] = int(float(value))
                case "poll_errors_total" if label:
                    self.reasons[source, label[1]] = int(float(value))
            self.observed[source] += not line.startswith("concurrency_exporter_")


@dataclass(frozen=True)
class Resources:
    """Of a process: open file descriptors, threads, and the most memory that it ever had, in bytes."""

    fds: int
    threads: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> "Resources":
        status = Path(f"/proc/{pid}/status").read_text()
        found = {name: re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE) for name in ("Threads", "VmHWM")}
        assert found["Threads"]
        assert found["VmHWM"]
        return cls(len([*Path(f"/proc/{pid}/fd").iterdir()]), int(found["Threads"][1]), int(found["VmHWM"][1]) * 1024)
