"""What the tests of every system have to know of one: `tests/systems/<system>/case.py` has it as `CASE`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from exporter.sources import SYSTEMS
from tests.harness.upstream import Answer, Request, answer

Answers = Mapping[str, Answer | bytes]
"""What an upstream answers at each path."""


def by_path(answers: Answers) -> Answer:
    """An upstream that has these paths, and no other."""

    def next_answer(request: Request) -> Any:
        found = answers.get(request.path, answer({"detail": "Not Found"}, 404))
        return found if isinstance(found, bytes) else found(request)

    return next_answer


@dataclass(frozen=True)
class Case:
    """An upstream server of one system on which all is well, and how it is polled."""

    good: Answers
    """Its answers, in the order in which they are asked for."""
    queues: Sequence[str]
    """The names of its queues as they are published, in their order."""
    route: str
    """A route as `upstream_requests_total` names it."""
    requests: int = 1
    """How many requests of a poll go to this route."""
    connections: int = 1
    """The most connections that are opened to it."""
    path: str = ""
    """What follows host and port in `url`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the source: all but its name, system and URL."""
    many: tuple[str, str] = ("[", "0")
    """How the first answer begins, up to the first item of a list; and what a message calls this item."""
    credentials: Sequence[str] = ("value", "file")
    """Kinds of credentials that it is tested with."""
    besides: Answers = field(default_factory=dict)
    """What it answers in golden files without being told."""
    one_answer: Callable[[Any], Answer] | None = None
    """Where a golden file has only one answer: the upstream that gives it."""

    @property
    def first(self) -> str:
        """The path of the request that a poll begins with."""
        return next(iter(self.good))

    @property
    def works(self) -> Answer:
        """The upstream as it is where all is well."""
        return by_path(self.good)

    def failing(self, faults: Answers) -> Answer:
        """The upstream with some of its answers replaced."""
        return by_path({**self.good, **faults})

    def source(self, url: str) -> dict[str, Any]:
        """The settings of a source that polls this upstream at this address."""
        return {"url": f"{url}{self.path}", **self.settings}


def _case(system: str) -> Case:
    name = f"tests.systems.{system}.case"
    try:
        case: Case = import_module(name).CASE
    except ModuleNotFoundError as error:
        # A folder without __init__.py is a package, too: what is missing is the module.
        raise LookupError(f"{system} has no {name.replace('.', '/')}.py: see docs/adding-a-system.md") from error
    return case


CASES: Final = {system: _case(system) for system in SYSTEMS}
"""The case of each system. Without one of them, no test of all systems runs."""
