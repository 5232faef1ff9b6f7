"""What each system says about itself is so: held against what is published of it."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.observed import OBSERVED
from exporter.sources import SYSTEMS

HERE: Final = Path(__file__).parent
of_each_system = pytest.mark.parametrize("system", SYSTEMS)


def golden(system: str) -> str:
    """All that is published in the golden files of a system."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted((HERE / system / "golden").rglob("*.prom")))


def values(system: str, label: str, family: str) -> set[str]:
    """The values of a label that a family has in the golden files."""
    found = text_string_to_metric_families(golden(system))
    return {sample.labels[label] for metric in found for sample in metric.samples if sample.name == family}


@of_each_system
def test_it_tells_where_each_of_its_figures_comes_from_and_no_others(system: str) -> None:
    names = set(re.findall(r"^(concurrency_\w+)\{", golden(system), re.MULTILINE))
    published = {family.name for family in OBSERVED if names & {family.name, f"{family.name}_gcount"}}
    assert SYSTEMS[system].about.figures.keys() == published


@of_each_system
def test_a_figure_comes_from_one_place_said_in_a_line(system: str) -> None:
    texts = SYSTEMS[system].about.figures.values()
    assert [text for text in texts if not re.fullmatch(r"[^\n|]+[^\n|. ]", text)] == []
    by_text = defaultdict(list)
    for name, text in SYSTEMS[system].about.figures.items():
        by_text[text].append(name)
    assert [names for names in by_text.values() if len(names) > 1] == []


@of_each_system
def test_its_states_are_those_that_are_published(system: str) -> None:
    about = SYSTEMS[system].about
    held = values(system, "state", "concurrency_queue_slot_holders")
    assert held - {"unknown"} == about.holder_states.keys()
    assert values(system, "state", "concurrency_queue_waiting_tasks") - {"other"} == about.waiting_states.keys()


@of_each_system
def test_its_priorities_are_those_that_are_published(system: str) -> None:
    found = values(system, "priority", "concurrency_queue_queued_tasks") - {"", "unknown"}
    priorities = SYSTEMS[system].about.priorities
    assert (priorities is not None) == bool(found)
    assert not priorities or {int(one) for one in found} <= set(priorities.levels(1000))


@of_each_system
def test_its_reasons_are_those_that_are_published(system: str) -> None:
    reasons = SYSTEMS[system].about.reasons
    assert values(system, "reason", "concurrency_queue_blocked_tasks") == ({*reasons, "unknown"} if reasons else set())
    texts = [text for one in reasons.values() for text in (one.meaning, one.remedy)]
    assert [text for text in texts if not re.fullmatch(r"[^\n|]+[^\n|. ]", text)] == []
