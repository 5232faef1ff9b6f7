"""The blocks of code in a document, and the headings that its links can lead to."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness.programs import ROOT

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*).*?\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """One block of code; `place` is `document:line` of its first line."""

    language: str
    text: str
    place: str

    @property
    def file(self) -> str | None:
        """The file that it is, if its first line is a comment with the name of one."""
        named = _FILE.match(self.text)
        return named[1] if named else None


def blocks(document: Path) -> Iterator[Block]:
    """The blocks of a document, from its top to its end."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT) if document.is_relative_to(ROOT) else document.name
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(match["language"], textwrap.dedent(match["text"]), f"{name}:{line}")


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings of a document, for links to lead to."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
