"""Options, fixtures and the markers of all tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.harness.loop import Loop

_TESTS: Final = Path(__file__).parents[1]
_MARKERS: Final = {
    "real": pytest.mark.servers,
    "command": pytest.mark.slow,
    "fuzz": pytest.mark.slow,
    "measure": pytest.mark.slow,
}
"""What `make check` leaves out, by the folder in `tests`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")
    parser.addoption("--update-reliability", action="store_true", help="write the table of docs/reliability.md anew")


def pytest_asyncio_loop_factories() -> Mapping[str, type[Loop]]:
    """All tests with a loop have one whose clock can be moved on."""
    return {"loop": Loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of some folders."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if folder in _MARKERS:
            item.add_marker(_MARKERS[folder])


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether to write golden files anew."""
    return bool(request.config.getoption("--update-golden"))
