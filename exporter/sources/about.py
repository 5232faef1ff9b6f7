"""What a system says about itself, for people: the configuration, `--help`, documents and dashboards read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["neutral", "near", "act", "closed"]
"""What a state means, which the dashboards show as a colour: work goes on; it is about to; somebody should look; it is
held back, or comes to its end."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment that the system's own client reads, and what it sets.

    `key` is the key of a source; one in another is written `tls_config.ca_file`. `note` is for the documents, in
    Markdown: additional facts.
    """

    name: str
    key: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Priorities:
    """The priorities of a system: the one that goes first, and the last, if there is a last."""

    first: int
    last: int | None = None

    @property
    def rise(self) -> bool:
        """Whether a lower number goes before a higher one."""
        return self.last is None or self.last > self.first

    def levels(self, most: int) -> range:
        """The numbers in their order; where there is no last one, the first of them, `most`."""
        last = self.first + most - 1 if self.last is None else self.last
        return range(self.first, last + 1) if self.rise else range(self.first, last - 1, -1)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a queued task waits, and what to do about it: two sentences in Markdown without their full stops."""

    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class About:
    """One system.

    `figures` has every family that its sources publish, by name, and tells from what of the upstream's API the values
    come: a sentence in Markdown without its full stop. A test holds it against the golden files.
    """

    title: str
    """The name of the system, in text."""
    figures: Mapping[str, str]
    holder_states: Mapping[str, Tone] = field(default_factory=dict)
    """The states in which a task holds a slot: the values of `state` that its holders have."""
    waiting_states: Mapping[str, Tone | None] = field(default_factory=dict)
    """The states in which a task waits: the values of `state` that its queued tasks have. None has no colour of its
    own."""
    reasons: Mapping[str, Reason] = field(default_factory=dict)
    """The reasons for which its queued tasks wait: the values of `reason`. Of two that hold a task back, the first one
    counts. `unknown` is added to the reasons of every system."""
    priorities: Priorities | None = None
    """None where its queues have no priorities."""
    environment: tuple[Variable, ...] = ()
    """The variables that make a source without a file: the first of them makes it, the others add to it."""
    ignored_environment: frozenset[str] = frozenset()
    """Variables that change how the system's own client connects, and not how the exporter does."""

    def is_set_up_by(self, variables: Mapping[str, str]) -> bool:
        """Whether these variables make a source of the system."""
        return any(variable.name in variables for variable in self.environment[:1])
