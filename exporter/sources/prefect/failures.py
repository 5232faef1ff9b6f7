"""Which failures end a poll, and which only leave something out of it."""

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Protocol, TypeVar

from exporter.model import FailureReason, Part, Unreadable
from exporter.sources.base import SourceError
from exporter.sources.prefect.api import MAX_NAME

H = TypeVar("H", bound=Hashable)
N = TypeVar("N", bound="Named")

_WHOLE_SERVER: Final[frozenset[FailureReason]] = frozenset({"connect", "tls", "auth", "rate_limited"})
"""Reasons that are not the fault of one queue: to go on would only ask a server that refuses again and again."""

_SHOWN_CHARACTERS: Final = 50
"""Number of characters that are shown of a name that is too long to be published."""


def raise_if_whole_server(error: SourceError) -> None:
    """Raise the error again if the fault is the whole server's, so that the poll ends."""
    if error.reason in _WHOLE_SERVER:
        raise error


def unreadable(error: SourceError, part: Part, pool: str = "", queue: str = "") -> Unreadable:
    """Return what this failure leaves out: the whole part, or of it one pool or one queue."""
    return Unreadable(part, error.reason, str(error), pool, queue)


class Named(Protocol):
    """A thing with a name that people have chosen."""

    @property
    def name(self) -> str:
        """The name."""
        ...


def with_fitting_names(
    url: str, part: Part, things: Iterable[N], where: Callable[[N], tuple[str, ...]] = lambda _: ()
) -> tuple[list[N], list[Unreadable]]:
    """The things whose name is short enough to be published, and what the others leave out of the part.

    `where` tells the name of the thing's pool, and of the queue if it is one.
    """
    fitting: list[N] = []
    missing: list[Unreadable] = []
    message = f"{url} lists a name of more than {MAX_NAME:,} characters, which would be in each of its series"
    for thing in things:
        if len(thing.name) <= MAX_NAME:
            fitting.append(thing)
        else:
            missing.append(Unreadable(part, "too_large", message, *map(_short, where(thing))))
    return fitting, missing


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"


def refuse_twins(url: str, names: Iterable[H], message: str) -> None:
    """Raise `SourceError` where the server at `url` has two things of one name: it tells their series apart."""
    seen: set[H] = set()
    for name in names:
        if name in seen:
            raise SourceError("contract", f"{url} lists {message.format(name)}")
        seen.add(name)
