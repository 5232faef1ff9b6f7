"""The code has the shape that docs/architecture.md draws: imports go one way."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter

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


def test_rooms_know_only_what_comes_before_them() -> None:
    allowed = {
        "settings": set(),
        "sources": {"model", "settings", "shard", "threads"},
        "metrics": {"model", "threads"},
        "polling": {"sources", "metrics", "model", "settings", "shard", "clock", "threads"},
        "views": {"polling", "model"},
        "headroom": {"views", "polling", "model"},
        "web": {"views", "headroom", "polling", "model", "metrics", "settings", "clock", "threads"},
        "demo": {"web"},
    }
    assert {room: IMPORTS[room] - known for room, known in allowed.items()} == {room: set() for room in allowed}


def test_the_command_alone_starts_polls_and_the_demo() -> None:
    assert _that_import("demo") == {"cli"}
    assert _that_import("sources") == {"config", "polling"}
    assert _that_import("web") == {"cli", "demo"}


def test_a_scrape_has_nothing_to_poll_with() -> None:
    """Of polling, what is served knows the store and the exporter's own metrics, not the poller."""
    web = {
        name
        for path in (ROOT / "exporter/web").rglob("*.py")
        for name in _imported(path.read_text(encoding="utf-8"))
        if name.startswith("exporter.polling")
    }
    assert web == {"exporter.polling.store", "exporter.polling.telemetry"}
    assert {"poller", "schedule"}.isdisjoint(_polling("store") | _polling("telemetry"))


def test_a_request_is_answered_from_one_view() -> None:
    """The table of routes alone has the store. Handlers get a view of it, so that an answer is of one moment."""
    with_the_store = {
        path.stem
        for path in (ROOT / "exporter/web").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "Store" for alias in node.names)
    }
    assert with_the_store == {"routes"}


def test_no_test_imports_another() -> None:
    """What two test files share is in `tests/harness`."""
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in (getattr(node, "module", None) or "", *(alias.name for alias in node.names))
        if re.search(r"(^|\.)(test_\w+|conftest)$", name)
    }
    assert found == set()


def test_an_exporter_is_put_together_in_one_place() -> None:
    """In the tests, too. Tests of the store alone need no more than one."""
    found = {
        (path.name, node.func.id)
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in {"Store", "Telemetry", "Poller"}
    }
    assert {name for name, _ in found} == {"inprocess.py", "test_store.py"}
    assert {part for name, part in found if name == "test_store.py"} == {"Store"}


def _polling(module: str) -> set[str]:
    text = (ROOT / f"exporter/polling/{module}.py").read_text(encoding="utf-8")
    return {name.rpartition(".")[2] for name in _imported(text) if name.startswith("exporter.polling")}
