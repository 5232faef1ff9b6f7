"""Which part of all that there is falls to one of several exporters that share their sources."""

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `total` exporters; `index` counts from 0.

    Names are divided, and not ids, because names distinguish series: a queue that is deleted and created again stays in
    its shard. An additional shard takes its part of the names from the others, and no other name moves. This is jump
    consistent hashing by Lamping and Veach (arXiv:1406.2294).
    """

    index: int = 0
    total: int = 1

    def owns(self, *name: str) -> bool:
        """Whether the thing of this name belongs to this shard: to exactly one of those of the same total."""
        return self.index == _owner(name, self.total)

    def __str__(self) -> str:
        return f"{self.index}/{self.total}"


WHOLE: Final = Shard()
"""The shard of an exporter that reads everything."""
_FACTOR: Final = 2862933555777941757
"""Of the generator of the paper, which has a period of 2^64."""


def _owner(name: tuple[str, ...], total: int) -> int:
    """The last shard that the name moves to while their number grows from 1 to `total`.

    To each shard that comes it moves by a chance of one in as many as there are then. Its generator tells at once which
    the next of these will be, so all names of a poll cost one hash each and few steps, however many shards there are.
    """
    # The same in all processes and versions of Python, which neither hash() nor the text of repr() is.
    state = int.from_bytes(blake2b(json.dumps(name).encode(), digest_size=8).digest(), "big")
    owner = following = 0
    while following < total:
        owner = following
        state = (state * _FACTOR + 1) % 2**64
        # A number in (0, 1] of 31 bits divides the shards so far.
        following = (owner + 1) * 2**31 // (state // 2**33 + 1)
    return owner
