"""Named tasks: packed and read again they are the same, and those that are kept are the oldest."""

from random import Random

import pytest

from exporter.model import Holder
from exporter.sources.oldest import UNKNOWN, Oldest, Task, Tasks

NAMES = [
    "",
    "able-ibex",
    "naïve-ñandú",
    "🚦" * 3,
    'quote " back \\ slash\nline',
    "\u202eright-to-left",
    "x" * 1_000,
    "\0",
]


def test_what_is_packed_is_read_again() -> None:
    rows = [(float(number), f"id-{number}", name, ("origin", number % 3)) for number, name in enumerate(NAMES)]
    tasks = Tasks([*rows, (UNKNOWN, "last", "", None)])
    assert list(tasks) == [*(Task(*row) for row in rows), Task(None, "last", "", None)]
    assert tasks[-1] == Task(None, "last", "", None)
    assert tasks[1:3] == tuple(Task(*row) for row in rows[1:3])
    assert list(tasks.ids()) == [task.id for task in tasks]
    with pytest.raises(IndexError):
        tasks[len(tasks)]


def test_of_other_origins_all_else_is_the_same() -> None:
    tasks = Tasks([(2.0, "a", "A", None), (1.0, "b", "B", None)])
    assert list(tasks.with_origins(["x", "y"])) == [Task(2.0, "a", "A", "x"), Task(1.0, "b", "B", "y")]
    assert tasks.origins == (None, None)


@pytest.mark.parametrize("most", [0, 1, 3, 50, 1_000])
def test_the_oldest_come_first_and_those_of_unknown_age_last(most: int) -> None:
    dice = Random(most)  # noqa: S311 - it has to repeat
    rows = [(dice.choice([UNKNOWN, 0.0, dice.random(), 7.0]), f"id-{number}", "", None) for number in range(200)]
    dice.shuffle(rows)
    tasks = Tasks.oldest(iter(rows), most)
    ages = [-1.0 if task.seconds is None else task.seconds for task in tasks]
    assert ages == sorted((max(seconds, -1.0) for seconds, *_ in rows), reverse=True)[:most]
    dice.shuffle(rows)
    assert list(Tasks.oldest(iter(rows), most)) == list(tasks)  # the order in which they come does not matter


def test_a_task_is_made_when_it_is_looked_at() -> None:
    tasks = Tasks([(2.0, "a", "A", "known"), (UNKNOWN, "b", "", "unknown")])
    oldest = Oldest(Holder, tasks, {"known": {"flow": "etl"}}, lambda run: None if run == "b" else f"http://ui/{run}")
    expected = (Holder("a", "A", 2.0, "http://ui/a", {"flow": "etl"}), Holder("b", "", None, None, {}))
    assert (tuple(oldest), oldest[0:9], len(oldest), bool(oldest)) == (expected, expected, 2, True)
