"""The tasks that a snapshot names: of each queue and state those that have been in it for longest, and how many."""

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from heapq import nlargest
from math import inf
from typing import Final, Generic, NamedTuple, Self, TypeVar, overload

from pydantic import Field

from exporter.settings.base import Settings

T_co = TypeVar("T_co", covariant=True)


class HolderSettings(Settings):
    """Which tasks are served by their ids and names. Their number is not limited by this."""

    keep: int = Field(default=50, ge=1, le=1_000)
    """Tasks of each queue and state that are named: those that have been in it for longest."""
    show: bool = True
    """Whether tasks are named at all. If not, no answer has the id or the name of a task."""

    @property
    def named(self) -> int:
        """Number of tasks of each queue and state that are named."""
        return self.keep if self.show else 0


UNKNOWN: Final = -inf
"""The seconds of a task, in a row, where upstream does not say them: it comes after all others."""
Row = tuple[float, str, str, Hashable]
"""A task as it was read: the seconds that it has been in its state, its id, its name, and its origin. From that its
system makes the details; None where they are not known. A plain tuple, since there may be a million of them."""


class Task(NamedTuple):
    """The same of a task that is named, with None for unknown seconds."""

    seconds: float | None
    id: str
    name: str
    origin: Hashable


class Tasks(Sequence[Task]):
    """Tasks, packed: some 70 bytes each. Objects of 100,000 tasks would take as much memory as all else together."""

    __slots__ = ("_ends", "_origins", "_seconds", "_text")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        pieces: list[bytes] = []
        self._ends = array("I", [0])
        """Where the id of each task ends in the text, and where its name does."""
        self._seconds = array("d")
        origins: list[Hashable] = []
        for seconds, id_, name, origin in rows:
            for piece in (id_.encode(), name.encode()):
                pieces.append(piece)
                self._ends.append(self._ends[-1] + len(piece))
            self._seconds.append(seconds)
            origins.append(origin)
        self._text = b"".join(pieces)
        self._origins = tuple(origins)

    @classmethod
    def oldest(cls, rows: Iterable[Row], most: int) -> Self:
        """Return the tasks that have been in their state for longest, longest first.

        Of tasks as old as each other the id decides, so that two plans which read the same choose the same.
        """
        return cls(nlargest(most, rows))

    @property
    def origins(self) -> tuple[Hashable, ...]:
        """The origin of each task."""
        return self._origins

    def ids(self) -> Iterator[str]:
        """The id of each task."""
        for index in range(len(self)):
            yield self._piece(2 * index)

    def with_origins(self, origins: Iterable[Hashable]) -> Self:
        """Return the same tasks with these origins."""
        same = type(self)()
        same._text, same._ends, same._seconds = self._text, self._ends, self._seconds  # noqa: SLF001  its own
        same._origins = tuple(origins)  # noqa: SLF001
        return same

    def __len__(self) -> int:
        return len(self._origins)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Task, ...]: ...
    def __getitem__(self, index: int | slice) -> Task | tuple[Task, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        seconds = self._seconds[number]
        return Task(
            None if seconds == UNKNOWN else seconds,
            self._piece(2 * number),
            self._piece(2 * number + 1),
            self._origins[number],
        )

    def _piece(self, place: int) -> str:
        return self._text[self._ends[place] : self._ends[place + 1]].decode()


Make = Callable[[str, str, float | None, str | None, Mapping[str, str]], T_co]
"""Makes one of the model's tasks, such as a `Holder`, of its id, name, seconds, url and details."""


class Oldest(Sequence[T_co], Generic[T_co]):
    """The named tasks of a snapshot, which are made when they are looked at, as `Tasks` says.

    `details` has those of each origin, and `link` makes the link of a task from its id.
    """

    __slots__ = ("_details", "_link", "_make", "_tasks")

    def __init__(
        self,
        make: Make[T_co],
        tasks: Tasks,
        details: Mapping[Hashable, Mapping[str, str]],
        link: Callable[[str], str | None],
    ) -> None:
        self._make = make
        self._tasks = tasks
        self._details = details
        self._link = link

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T_co, ...]: ...
    def __getitem__(self, index: int | slice) -> T_co | tuple[T_co, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        task = self._tasks[index]
        details = self._details.get(task.origin, {})
        return self._make(task.id, task.name, task.seconds, self._link(task.id), details)
