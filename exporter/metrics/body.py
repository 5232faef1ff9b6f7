"""The ready part of an answer to a scrape: the text of some snapshots, joined once and compressed once."""

import asyncio
import zlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from exporter.metrics.exposition import Rendered
from exporter.metrics.text import Format, joined
from exporter.threads import in_thread

if TYPE_CHECKING:
    Compressed = tuple[bytes, zlib._Compress]  # noqa: SLF001  the type has no other name


class Body:
    """The text of some snapshots, and the same compressed, to which each scrape adds its live end.

    gzip is a stream. Its beginning is the same for all the scrapes between two polls, so it is compressed once, and a
    scrape goes on from a copy of the compressor's state: an answer costs what its live end costs.
    """

    def __init__(self, rendered: Iterable[Rendered], format_: Format) -> None:
        self._text = joined(block for one in rendered for block in one.blocks[format_])
        self._compressed: Compressed | None = None
        self._compressing = asyncio.Lock()

    def plain(self, end: bytes) -> tuple[bytes, bytes]:
        """Return the whole answer in two parts; the first is the same object for all scrapes."""
        return self._text, end

    async def gzipped(self, end: bytes) -> tuple[bytes, bytes]:
        """Return the same two parts as one gzip member.

        The first scrape compresses the text in a thread, which takes tenths of a second for many megabytes. Those that
        come meanwhile wait for it.
        """
        async with self._compressing:
            if self._compressed is None:
                self._compressed = await in_thread(_compressed, self._text)
        compressed, compressor = self._compressed
        rest = compressor.copy()
        return compressed, rest.compress(end) + rest.flush()


def _compressed(text: bytes) -> "Compressed":
    compressor = zlib.compressobj(level=6, wbits=zlib.MAX_WBITS | 16)
    # The flush ends the bytes so far at a byte's boundary: what follows can be joined to them.
    return compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH), compressor


class BodyCache:
    """Bodies of all sources together and of each source, kept until another snapshot is live."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, Format], tuple[list[Rendered], Body]] = {}

    def body(self, live: Mapping[str, Rendered], format_: Format, source: str | None) -> Body:
        """Return the body of the snapshots in `live`, by the name of their source; of one source, or of all for None.

        The body of a source that has none, or that there is not, is empty.
        """
        rendered = [one for name, one in live.items() if source in {None, name}]
        key = source, format_
        if key not in self._kept or self._kept[key][0] != rendered:
            self._kept = {kept: body for kept, body in self._kept.items() if kept[0] is None or kept[0] in live}
            self._kept[key] = rendered, Body(rendered, format_)
        return self._kept[key][1]
