"""A flow for a real worker to run; only Prefect's own Python imports this."""

import time

from prefect import flow  # type: ignore[import-not-found]


@flow  # type: ignore[untyped-decorator]
def nap(seconds: float = 1) -> None:
    time.sleep(seconds)
