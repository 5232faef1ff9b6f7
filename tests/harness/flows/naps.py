"""A flow for a real worker to run; only Prefect's own Python imports this."""

import time
from pathlib import Path

from prefect import flow  # type: ignore[import-not-found]


@flow  # type: ignore[untyped-decorator]
def nap(seconds: float = 1, until: str | None = None) -> None:
    """Sleep so long, and then until there is a file at the path `until`, if one is named."""
    time.sleep(seconds)
    while until and not Path(until).exists():
        time.sleep(0.1)
