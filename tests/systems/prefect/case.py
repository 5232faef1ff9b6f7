"""A Prefect server on which all is well, as a table of answers: two pools, three queues, three holders.

For a server whose answers follow from rows, there is `tests/harness/lookalike.py`.
"""

from typing import Final

from tests.harness.cases import Case
from tests.harness.upstream import answer


def ident(number: int) -> str:
    """An id like a server's."""
    return f"00000000-0000-4000-8000-{number:012}"


def pool(number: int, name: str, **changed: object) -> dict[str, object]:
    """A row of `/work_pools/filter`."""
    whole = {"id": ident(number), "name": name, "type": "process", "is_paused": False}
    return whole | {"concurrency_limit": 9, "active_slots": 1, "status": "READY"} | changed


def queue(number: int, name: str, **changed: object) -> dict[str, object]:
    """A row of a listing of queues."""
    whole = {"id": ident(number), "name": name, "is_paused": False, "priority": 1, "concurrency_limit": 4}
    return whole | {"last_polled": None, "work_pool_id": ident(8)} | changed


def run(number: int, **changed: object) -> dict[str, object]:
    """A holder in the status of a queue."""
    whole = {"id": ident(number), "name": "able-ibex", "state_type": "RUNNING", "time_in_current_state": 2.5}
    return whole | changed


def status(*runs: object, **changed: object) -> dict[str, object]:
    """The answer of `concurrency_status` of a queue that these runs hold slots of."""
    whole = {"active_slots": len(runs), "concurrency_limit": 4, "flow_runs": runs, "count": len(runs)}
    return whole | {"limit": 200, "pages": 1, "page": 1} | changed


POOLS: Final = "/api/work_pools/filter"
A_QUEUES: Final = "/api/work_pools/a/queues/filter"
B_QUEUES: Final = "/api/work_pools/b/queues/filter"
ONE, TWO, THREE = (f"/api/work_queues/{ident(number)}/concurrency_status" for number in (1, 2, 3))

CASE: Final = Case(
    good={
        POOLS: answer([pool(8, "a"), pool(9, "b")]),
        A_QUEUES: answer([queue(1, "one"), queue(2, "two")]),
        B_QUEUES: answer([queue(3, "three")]),
        ONE: answer(status(run(11))),
        TWO: answer(status()),
        THREE: answer(status(run(12), run(13))),
    },
    queues=["one", "two", "three"],
    route="/work_queues/{id}/concurrency_status",
    requests=3,
    connections=4,
    path="/api",
    settings={"collect": ["queues", "pools"], "holders": {"show": False}},
    credentials=("type", "basic", "basic-file"),
    besides={"/api/admin/version": answer("3.9.1")},
)
