"""Pages as a reader has them: texts, elements, tables."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Final

VOID: Final = {"meta", "input", "br", "hr", "rect", "link"}


class Page(HTMLParser):
    """What is on a page: its texts, and the elements and attributes that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        """The texts of the cells of each table, by row. Of a `data` element it is the value, not the text."""
        self.links: list[tuple[str, str]] = []
        """Text and address of each link."""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"an attribute is there twice: {attrs}"
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.tables[-1][-1].append("")
        elif tag == "data":
            self._in_cell(attributes["value"] or "")
        elif tag == "a":
            self.links.append(("", attributes["href"] or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"option", "p", "li"}:
            while self._open[-1][0] != tag:
                self._open.pop()
        last, _ = self._open.pop()
        assert last == tag, f"{tag} ends within {last}"

    def handle_data(self, data: str) -> None:
        inside = [tag for tag, _ in self._open]
        if "style" in inside:
            return
        if data.strip():
            self.words.append(re.sub(r"\s+", " ", data.strip()))
        if "data" not in inside:
            self._in_cell(data)
        if "a" in inside:
            text, address = self.links[-1]
            self.links[-1] = (text + data, address)

    def _in_cell(self, text: str) -> None:
        if {"th", "td"}.intersection(tag for tag, _ in self._open):
            self.tables[-1][-1][-1] += text

    @property
    def text(self) -> str:
        """All that is read, without the lines and columns that it is in."""
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of this kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def table(self, *header: str) -> list[list[str]]:
        """The rows of the one table that has these columns."""
        (found,) = self.all_tables(*header)
        return found

    def all_tables(self, *header: str) -> list[list[list[str]]]:
        """The rows of each table that has these columns among its own."""
        return list(self._with(header))

    def _with(self, header: tuple[str, ...]) -> Iterator[list[list[str]]]:
        for first, *rows in self.tables:
            if {*header} <= {cell.strip() for cell in first}:
                yield [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in rows]
