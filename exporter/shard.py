"""Which part of all that there is falls to one of several exporters that share their sources."""

import json
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Final


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `total` exporters; `index` counts from 0.

    What is shared out are names, which series are told apart by, and not ids: a queue that is made anew under its name
    stays where it was. Each name belongs to the shard whose hash of it is the greatest (rendezvous hashing), so one
    shard more takes its part of the names from the others, and no other name moves.
    """

    index: int = 0
    total: int = 1

    def owns(self, *name: str) -> bool:
        """Whether the thing of this name belongs to this shard: to exactly one of those of the same total."""
        return self.index == max(range(self.total), key=partial(_weight, name))

    def __str__(self) -> str:
        return f"{self.index}/{self.total}"


WHOLE: Final = Shard()
"""The shard of an exporter that reads everything."""


def _weight(name: tuple[str, ...], shard: int) -> bytes:
    # The same in all processes and versions of Python, which neither hash() nor the text of repr() is.
    return blake2b(json.dumps([shard, *name]).encode(), digest_size=8).digest()
