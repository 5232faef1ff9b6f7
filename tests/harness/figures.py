"""Figures that a command has measured, written into `docs/reliability.md`: nobody types them."""

import re
from datetime import UTC, datetime

from tests.harness.programs import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"


def publish(name: str, text: str) -> None:
    """Replace what lies between the markers of this name, and date it. Raises `LookupError` where they are missing."""
    document = DOCUMENT.read_text(encoding="utf-8")
    pattern = rf"(<!-- {name}: written by [^\n]*-->\n).*?(?=<!-- end of {name} -->)"
    day = f"On two shared cores, {datetime.now(UTC):%Y-%m-%d}:"
    new, times = re.subn(pattern, lambda match: f"{match[1]}{day}\n\n{text.strip()}\n", document, flags=re.DOTALL)
    if times != 1:
        raise LookupError(f"{times} places for {name} in {DOCUMENT}")
    DOCUMENT.write_text(new, encoding="utf-8")
