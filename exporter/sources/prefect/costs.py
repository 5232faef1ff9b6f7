"""Costs of requests, to choose the cheaper of two plans that read the same.

The unit is milliseconds of the server's one process, as measured on Prefect 3.6.22 to 3.9.1. Only the ratios matter.
"""

from typing import Final

RUNS_PAGE: Final = 120
"""A page of 200 runs: `POST /flow_runs/filter`."""
QUEUE_SLOTS: Final = 30
"""The slots of one queue: `concurrency_status` itself takes 12 to 20, and pages of its holders half of `RUNS_PAGE`."""
QUEUE_BACKLOG: Final = 40
"""The backlog of one queue: the number of its runs by state, and its oldest run."""
QUEUES_PAGE: Final = 50
"""A page of 200 queues of all pools: `POST /work_queues/filter`."""
POOL_QUEUES: Final = 20
"""The queues of one pool, where they fit on a page: `POST /work_pools/{name}/queues/filter`."""

_BESIDE: Final = 0.05
"""Part of what a poll costs anyway that values may cost which are only shown to people."""


def pages_beside(cost: float) -> int:
    """Return how many pages of runs cost little beside that: one at least."""
    return max(1, int(cost * _BESIDE / RUNS_PAGE))


def cheaper(at_once: float, one_by_one: float) -> bool:
    """Return whether listing everything at once costs no more than requesting things one by one."""
    return at_once <= one_by_one
