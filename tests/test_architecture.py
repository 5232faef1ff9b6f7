"""The code has the shape that docs/architecture.md draws: imports go one way."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise

from tests.harness.programs import ROOT


def _imported(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "exporter":
            yield from (f"exporter.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _imports() -> dict[str, set[str]]:
    """Which parts of the exporter each part imports: a module, or a folder as a whole."""
    parts: dict[str, set[str]] = {}
    for path in (ROOT / "exporter").rglob("*.py"):
        part = path.relative_to(ROOT / "exporter").with_suffix("").parts[0]
        names = (name.split(".") for name in _imported(path.read_text(encoding="utf-8")))
        found = {name[1] for name in names if name[0] == "exporter" and len(name) > 1}
        parts.setdefault(part, set()).update(found - {part, "__version__"})
    return parts


IMPORTS = _imports()


def _that_import(part: str) -> set[str]:
    return {other for other, imported in IMPORTS.items() if part in imported}


def test_no_parts_import_each_other() -> None:
    TopologicalSorter(IMPORTS).prepare()


def test_sources_know_what_is_general_only() -> None:
    assert IMPORTS["sources"] == {"model", "settings", "shard"}
    assert _that_import("sources") == {"config", "settings_file", "poller"}


def test_the_demo_is_known_to_the_command_only() -> None:
    assert IMPORTS["demo"] == {"server"}
    assert _that_import("demo") == {"cli"}


def test_figures_go_one_way() -> None:
    way = ("model", "metrics", "exposition", "store", "telemetry", "web")
    for before, after in pairwise(way):
        assert before in IMPORTS[after]
    for place, part in enumerate(way):
        assert IMPORTS[part].isdisjoint(way[place:])


def test_a_scrape_has_nothing_to_poll_with() -> None:
    assert _that_import("poller") == {"cli"}
