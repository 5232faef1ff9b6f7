"""Reading a listing by offset while it changes: pages overlap, and the overlap proves that no row was lost between two.

A row that leaves the listing moves all rows after it up by one. The row that would have come first on the next page is
then on the page that has been read already, and in neither of the two. So each page begins with the last rows of the
page before it. A page that has none of the rows read so far does not follow them without a gap: it is read again from
further ahead.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from exporter.sources.base import SourceError

R = TypeVar("R")

MAX_PAGES: Final = 1_000
"""Most pages of a listing that are read."""
_SHARE: Final = 20
"""An overlap is one row in so many: it costs that part more pages, and as many rows may go between two pages until one
is read again."""
_PATIENCE: Final = 20
"""Most pages in a row that bring nothing new. While rows leave faster than pages come, some are read in vain."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Some rows of a listing, from `offset` on; at most `size`, and fewer only at its end."""

    offset: int
    size: int
    rows: list[R]

    @property
    def end(self) -> int:
        """The offset after its last row: how many rows the listing has, for the last page."""
        return self.offset + len(self.rows)


async def overlapping(
    read: Callable[[int], Awaitable[Page[R]]],
    key: Callable[[R], Hashable],
    what: str,
    *,
    overlap: int | None = None,
    may_lose: bool = False,
) -> AsyncIterator[Page[R]]:
    """The pages of a listing, which together have every row that is in it from the first page to the last.

    That holds for a listing whose order never changes, such as one by id; rows that come or go meanwhile may be there
    or not, and rows of two pages are there twice. `read` gets the page at an offset, or at one that is less. `key` is
    what tells rows apart. Two pages share a twentieth of their rows, at most `overlap`.
    `may_lose` is for a caller who finds lost rows in another way: no page is read again.

    Raises `SourceError`, which begins with `what`, for pages that never end, that never meet, or that are too large.
    """
    seen: set[Hashable] = set()
    offset = in_vain = 0
    back = 1
    for _ in range(MAX_PAGES):
        page = await read(offset)
        if len(page.rows) > page.size:
            # A listing of such pages could take all the memory that there is.
            raise SourceError("contract", f"{what}: a page has {len(page.rows)} rows, and {page.size} were asked for")
        keys = [key(row) for row in page.rows]
        shared = min(overlap or page.size, -(-page.size // _SHARE))
        step = page.size - shared
        known = len(seen)
        if page.offset and not may_lose and seen.isdisjoint(keys):
            offset = max(page.offset - back * max(step, 1), 0)
            back *= 2
        else:
            yield page
            if len(page.rows) < page.size:
                return
            if step < 1:
                raise SourceError("contract", f"{what}: pages of {page.size} rows are too small to overlap")
            seen.update(keys)
            offset = page.end - shared
            back = 1
        in_vain = 0 if len(seen) > known else in_vain + 1
        if in_vain > _PATIENCE:
            raise SourceError(
                "contract",
                f"{what}: {_PATIENCE} pages up to the one at offset {page.offset} bring no further rows:"
                " either its offset is ignored, or rows go faster than they can be read",
            )
    raise SourceError("too_large", f"{what}: the listing does not end after {MAX_PAGES} pages")
