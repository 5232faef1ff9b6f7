"""The table of faults in `docs/reliability.md`: what the suite found, compared with it or written to it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN: Final = "<!-- faults: written by `make reliability` -->\n"
_END: Final = "<!-- end of faults -->"
_HEADER: Final = ("fault", "of", "outcome", "reason", "`/metrics`", "noticed", "recovered", "requests")


@dataclass(frozen=True)
class Row:
    """One fault, and what came of it, each as the table has it."""

    fault: str
    of: str
    """What fails: `both` systems, one of them, or the exporter's own surroundings."""
    outcome: str
    reason: str
    shows: str
    noticed: str
    recovered: str
    requests: str


class Table:
    """The rows of the document. `check` compares one with what was found, or keeps that to be written by `write`."""

    def __init__(self, faults: Sequence[str], *, update: bool) -> None:
        self._faults = faults
        self._update = update
        self._rows = {row.fault: row for row in _read(DOCUMENT.read_text(encoding="utf-8"))}

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
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
        DOCUMENT.write_text(before + _BEGIN + table + _END + rest.partition(_END)[2], encoding="utf-8")


def _read(text: str) -> Iterator[Row]:
    table = text.partition(_BEGIN)[2].partition(_END)[0]
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert len(cells) == len(fields(Row)), f"{DOCUMENT.name}: {line}"
        yield Row(*cells)
