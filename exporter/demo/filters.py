"""The filters of the Prefect server: what may be asked of each kind of object, and whether one meets it.

A filter's criteria are combined by its `operator`: `and_`, unless it says `or_`. One that is null counts for nothing;
one that is empty is met by everything.
"""

from collections.abc import Mapping
from typing import Any

from exporter.demo.body import Criteria, Schema, any_, any_or_none, moment, one_of, text, uuid
from exporter.demo.rows import Deployment, Pool, Queue, Run, Worker, ident
from exporter.demo.states import StateType

WORKER_STATUSES = ("ONLINE", "OFFLINE")

_OPERATOR: Schema = {"operator": one_of("and_", "or_")}
_MOMENT: Schema = {"before_": moment, "after_": moment}

QUEUES: Schema = {**_OPERATOR, "id": any_(uuid), "name": any_(text)}
POOLS: Schema = {**QUEUES, "type": any_(text)}
WORKERS: Schema = {
    **_OPERATOR,
    "status": any_(one_of(*WORKER_STATUSES)),
    "last_heartbeat_time": _MOMENT,
}
DEPLOYMENTS: Schema = {**_OPERATOR, "id": any_(uuid)}
FLOWS: Schema = {**_OPERATOR, "id": any_(uuid), "name": any_(text)}
RUNS: Schema = {
    **_OPERATOR,
    "id": any_or_none(uuid),
    "state": {**_OPERATOR, "type": any_or_none(one_of(*StateType)), "name": any_or_none(text)},
    "expected_start_time": _MOMENT,
    "next_scheduled_start_time": _MOMENT,
}


def queue(queue: Queue, wanted: Criteria) -> bool:
    """Whether the queue meets criteria of `QUEUES`."""
    return _meets(wanted, {"id": queue.id, "name": queue.name})


def pool(pool: Pool, wanted: Criteria) -> bool:
    """Whether the pool meets criteria of `POOLS`."""
    return _meets(wanted, {"id": pool.id, "name": pool.name, "type": pool.type})


def worker(worker: Worker, wanted: Criteria) -> bool:
    """Whether the worker meets criteria of `WORKERS`."""
    return _meets(wanted, {"status": worker.status, "last_heartbeat_time": worker.last_heartbeat})


def deployment(deployment: Deployment, wanted: Criteria) -> bool:
    """Whether the deployment meets criteria of `DEPLOYMENTS`."""
    return _meets(wanted, {"id": deployment.id})


def flow(name: str, wanted: Criteria) -> bool:
    """Whether the flow of this name meets criteria of `FLOWS`."""
    return _meets(wanted, {"id": ident("flow", name), "name": name})


def run(run: Run, wanted: Criteria) -> bool:
    """Whether the run meets criteria of `RUNS`."""
    facts = {
        "id": run.id,
        "state": {"type": run.state.type, "name": run.state.name},
        "expected_start_time": run.expected_start,
        "next_scheduled_start_time": run.due,
    }
    return _meets(wanted, facts)


def _meets(wanted: Criteria, facts: Mapping[str, Any]) -> bool:
    met = [_met(criterion, facts[field]) for field, criterion in wanted.items() if field != "operator"]
    return not met or (any(met) if wanted.get("operator") == "or_" else all(met))


def _met(criterion: Criteria, fact: Any) -> bool:
    if isinstance(fact, Mapping):
        return _meets(criterion, fact)
    return all(_compare(comparison, fact, value) for comparison, value in criterion.items())


def _compare(comparison: str, fact: Any, value: Any) -> bool:
    if comparison == "any_":
        return fact in value
    if comparison == "not_any_":
        return fact not in value
    if fact is None:
        return False
    return bool(fact <= value if comparison == "before_" else fact >= value)
