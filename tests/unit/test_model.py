"""What the domain refuses, and what it adds."""

import pytest

from exporter.model import Queue, blocked_by


def test_every_reason_is_there_and_the_sum_is_what_is_queued() -> None:
    assert blocked_by({"b": 2}, ["a", "b"], 5) == {"a": 0, "b": 2, "unknown": 3}
    assert list(blocked_by({}, ["b", "a"], 0)) == ["b", "a", "unknown"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"c": 1}, r"\['c'\] are none of the reasons that the system declares"),
        ({"unknown": 1}, r"\['unknown'\] are none of the reasons"),
        ({"a": 3, "b": 3}, "are not reasons of 5 tasks"),
        ({"a": -1}, "are not reasons of 5 tasks"),
    ],
)
def test_reasons_that_can_not_be(found: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocked_by(found, ["a", "b"], 5)


def test_the_reason_that_holds_most_tasks() -> None:
    assert Queue("", "q", blocked={"a": 1, "b": 3, "unknown": 3}).why == ("b", 3)
    assert Queue("", "q", blocked={"a": 0, "unknown": 0}).why is None
    assert Queue("", "q").why is None
