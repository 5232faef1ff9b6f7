"""Regular expressions of the configuration, with the syntax and the meaning that they have in Prometheus."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Final, Protocol

import re2
from pydantic import BeforeValidator, InstanceOf

_SIGNS: Final = re.compile(r"\\[!-~]|[!-/:-@\[-`{-~]{1,4}")


class _Compiled(Protocol):
    def fullmatch(self, text: str, /) -> object: ...


@dataclass(frozen=True)
class FullMatch:
    """An RE2 expression that is anchored at both ends, as in Prometheus. Raises `ValueError` for any other syntax.

    RE2 needs time in proportion to the text. Python's `re` can need exponential time, and anyone who may name a queue
    chooses the text: one name would stop the whole process.
    """

    pattern: str
    _compiled: _Compiled = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if re.search(r"(?<!\\)(?:\\\\)*\\C", self.pattern):
            # RE2 has it, but not the RE2 of Prometheus: it matches a part of a character.
            raise ValueError(r"is not a regular expression in the syntax of RE2: invalid escape sequence: \C")
        options = re2.Options()
        # Prometheus compiles with this flag, so that a name with a newline can be matched.
        options.dot_nl = True
        # Only yes or no is asked, for which RE2 has its fastest way.
        options.never_capture = True
        # Its log is lines of another format on standard error.
        options.log_errors = False
        try:
            compiled = re2.compile(self.pattern, options)
        except UnicodeEncodeError:
            raise ValueError("has a character that is not Unicode") from None
        except re2.error as error:
            raise ValueError(f"is not a regular expression in the syntax of RE2: {_reason(error)}") from None
        object.__setattr__(self, "_compiled", compiled)

    def matches(self, text: str) -> bool:
        """Whether it matches the whole text."""
        return self._compiled.fullmatch(text) is not None


def _reason(error: Exception) -> str:
    """Return the reason that RE2 gives, without the part of the expression that it quotes: that may be all of it.

    Signs of the syntax, and one escape sequence, can't be a secret that was put in the wrong place: they stay.
    """
    (words,) = error.args
    reason, _, quoted = words.decode(errors="replace").partition(": ")
    return f"{reason}: {quoted}" if _SIGNS.fullmatch(quoted) else reason


def _regex(value: object) -> object:
    if isinstance(value, FullMatch):
        return value
    if not isinstance(value, str):
        raise ValueError("is not text; put it in quotes")  # noqa: TRY004  pydantic collects ValueErrors
    return FullMatch(value)


Regex = Annotated[InstanceOf[FullMatch], BeforeValidator(_regex)]
"""A regular expression in a file of settings."""
