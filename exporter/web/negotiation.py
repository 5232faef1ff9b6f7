"""Which of the text formats, and which encoding, a scraper asks for with its Accept headers (RFC 9110, 12.5)."""

from collections.abc import Iterator
from typing import Final

from exporter.metrics.text import Format

_OPENMETRICS = "application/openmetrics-text"
_CLASSIC = "text/plain"
_SERVED: Final = {
    (_OPENMETRICS, "1.0.0"): (Format.OPENMETRICS, f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"),
    (_OPENMETRICS, ""): (Format.OPENMETRICS, f"{_OPENMETRICS}; version=1.0.0; charset=utf-8"),
    # 1.0.0 differs from 0.0.4 in names that need quotes, and we have none.
    (_CLASSIC, "1.0.0"): (Format.CLASSIC, f"{_CLASSIC}; version=1.0.0; charset=utf-8"),
    (_CLASSIC, "0.0.4"): (Format.CLASSIC, f"{_CLASSIC}; version=0.0.4; charset=utf-8"),
    (_CLASSIC, ""): (Format.CLASSIC, f"{_CLASSIC}; version=0.0.4; charset=utf-8"),
}
_ESCAPING_SCHEMES = {"allow-utf-8", "underscores", "dots", "values"}


def negotiate(accept: str) -> tuple[Format, str]:
    """The format that `accept` prefers of those that we have, and its Content-Type; classic text if it has none.

    Prometheus 3 asks for an escaping scheme too, and wants to read it back. All schemes leave our names as they are.
    """
    for media_type, parameters in _preferred(accept):
        if served := _SERVED.get((media_type, parameters.get("version", ""))):
            format_, content_type = served
            escaping = parameters.get("escaping")
            return format_, content_type + (f"; escaping={escaping}" if escaping in _ESCAPING_SCHEMES else "")
    return _SERVED[_CLASSIC, ""]


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether `accept_encoding` names gzip."""
    return any(encoding == "gzip" for encoding, _ in _preferred(accept_encoding))


def _preferred(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The items of the header with their parameters, best first, without those that it refuses with `q=0`."""
    items = []
    for item in header.split(","):
        value, *rest = (part.strip() for part in item.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {name.strip().lower(): text.strip(' "') for name, _, text in pairs}
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0:
            items.append((quality, value.lower(), parameters))
    for _, value, parameters in sorted(items, key=lambda item: -item[0]):
        yield value, parameters
