"""Which failures end a poll, and which only leave something out of it."""

from typing import Final

from exporter.model import Part, Reason, Unreadable
from exporter.sources.base import SourceError

_WHOLE_SERVER: Final[frozenset[Reason]] = frozenset({"connect", "tls", "auth", "rate_limited"})
"""Reasons that are not the fault of one queue: to go on would only ask a server that refuses again and again."""


def left_out(error: SourceError, part: Part, pool: str = "", queue: str = "") -> Unreadable:
    """What this failure leaves out; raises it again where it is the whole server's."""
    if error.reason in _WHOLE_SERVER:
        raise error
    return Unreadable(part, error.reason, str(error), pool, queue)
