"""A cloro account on which all is well."""

from typing import Final

from tests.harness.cases import Case
from tests.harness.cloro import KEY, PUBLISHED, Cloro
from tests.harness.upstream import answer

STATUS: Final = "/v1/async/status"

CASE: Final = Case(
    # Without a free slot, so that the reason why tasks wait is the same at each poll.
    good={STATUS: answer(PUBLISHED | {"concurrency": {"used": 5, "max": 5}})},
    queues=["async"],
    route=STATUS,
    settings={"authorization": {"credentials": KEY}},
    many=('{"queuedTasks": 1, "processingTasks": 1, "priorityBreakdown": [', "priorityBreakdown.0"),
    one_answer=lambda status: Cloro(status=status),
)
