"""The JSON of the Prefect server (3.9.1): one function for each kind of object, every field of its schema."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from exporter.demo.rows import Deployment, Limit, Pool, Queue, Rows, Run, Worker, ident, status
from exporter.demo.states import StateType

Json: TypeAlias = dict[str, Any]


def timestamp(moment: datetime | None) -> str | None:
    """A moment as the server writes it: UTC as `Z`, with six digits of fraction or none."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def pool(pool: Pool, active_slots: int, rows: Rows) -> Json:
    """`WorkPoolResponse`; `active_slots` (PENDING and RUNNING) is null without a limit."""
    return {
        **_stamped(pool.id, rows),
        "name": pool.name,
        "description": None,
        "type": pool.type,
        "base_job_template": {"job_configuration": {}, "variables": {"type": "object", "properties": {}}},
        "is_paused": False,
        "concurrency_limit": pool.limit,
        "status": "READY",
        "default_queue_id": str(ident("queue", pool.name, "default")),
        "storage_configuration": {
            "bundle_upload_step": None,
            "bundle_execution_step": None,
            "default_result_storage_block_id": None,
        },
        "active_slots": None if pool.limit is None else active_slots,
    }


def queue(queue: Queue, active_slots: int, rows: Rows) -> Json:
    """`WorkQueueResponse`; `active_slots` is null without a limit, and it depends on the endpoint who counts."""
    return {
        **_stamped(queue.id, rows),
        "name": queue.name,
        "description": "",
        "is_paused": queue.paused,
        "concurrency_limit": queue.limit,
        "priority": queue.priority,
        "work_pool_id": str(ident("pool", queue.pool)),
        "filter": None,
        "last_polled": timestamp(rows.unpolled.get(queue, rows.last_polled)),
        "work_pool_name": queue.pool,
        "status": "PAUSED" if queue.paused else "NOT_READY" if queue in rows.unpolled else "READY",
        "active_slots": None if queue.limit is None else active_slots,
    }


def slot_summary(run: Run, now: datetime) -> Json:
    """`FlowRunSlotSummary`; `time_in_current_state` in seconds."""
    return {
        "id": str(run.id),
        "name": run.name,
        "state_type": run.state.type,
        "state_name": run.state.name,
        "start_time": timestamp(run.started),
        "state_timestamp": timestamp(run.state.timestamp),
        "time_in_current_state": (now - run.state.timestamp).total_seconds(),
    }


def flow_run(run: Run, now: datetime) -> Json:
    """`FlowRunResponse`; the three durations in seconds."""
    flow_id = str(ident("flow", run.deployment.flow))
    return {
        "id": str(run.id),
        "created": timestamp(run.created),
        "updated": timestamp(run.state.timestamp),
        "name": run.name,
        "flow_id": flow_id,
        "state_id": str(run.state.id),
        "deployment_id": str(run.deployment.id),
        "deployment_version": None,
        "work_queue_id": str(run.queue.id),
        "work_queue_name": run.queue.name,
        "flow_version": None,
        "parameters": {},
        "idempotency_key": None,
        "context": {},
        "empirical_policy": {
            "max_retries": 0,
            "retry_delay_seconds": 0.0,
            "retries": None,
            "retry_delay": None,
            "pause_keys": [],
            "resuming": False,
            "retry_type": None,
        },
        "tags": list(run.deployment.tags),
        "labels": {
            "prefect.flow.id": flow_id,
            "prefect.deployment.id": str(run.deployment.id),
            **({"prefect.worker.name": run.worker} if run.worker else {}),
        },
        "parent_task_run_id": None,
        "state_type": run.state.type,
        "state_name": run.state.name,
        "run_count": 1 if run.started else 0,
        "expected_start_time": timestamp(run.expected_start),
        "next_scheduled_start_time": timestamp(run.due),
        "start_time": timestamp(run.started),
        "end_time": None,
        "total_run_time": _total_run_time(run),
        "estimated_run_time": _estimated_run_time(run, now),
        "estimated_start_time_delta": _lateness(run, now),
        "auto_scheduled": run.auto_scheduled,
        "infrastructure_document_id": None,
        "infrastructure_pid": None,
        "created_by": None,
        "work_pool_id": str(ident("pool", run.queue.pool)),
        "work_pool_name": run.queue.pool,
        "state": _state(run),
        "job_variables": {},
    }


def history(runs: Iterable[Run], start: datetime, interval: timedelta, intervals: int, now: datetime) -> list[Json]:
    """`HistoryResponse` of each interval: the runs that are expected to start in it, by the state they are in now."""
    by_state: defaultdict[tuple[int, StateType, str], list[Run]] = defaultdict(list)
    for run in runs:
        by_state[(run.expected_start - start) // interval, run.state.type, run.state.name].append(run)
    return [
        {
            "interval_start": timestamp(start + number * interval),
            "interval_end": timestamp(start + (number + 1) * interval),
            "states": [
                {
                    "state_type": state_type,
                    "state_name": name,
                    "count_runs": len(in_state),
                    "sum_estimated_run_time": sum(max(0.0, _estimated_run_time(run, now)) for run in in_state),
                    "sum_estimated_lateness": sum(_lateness(run, now) for run in in_state),
                }
                for (where, state_type, name), in_state in sorted(by_state.items())
                if where == number
            ],
        }
        for number in range(intervals)
    ]


def worker(worker: Worker, rows: Rows, now: datetime) -> Json:
    """`WorkerResponse`; `status` is derived from the last heartbeat when it is read."""
    return {
        **_stamped(worker.id, rows),
        "name": worker.name,
        "work_pool_id": str(ident("pool", worker.pool)),
        "last_heartbeat_time": timestamp(worker.last_heartbeat),
        "heartbeat_interval_seconds": int(worker.heartbeat_interval.total_seconds()),
        "status": status(worker.last_heartbeat, worker.heartbeat_interval, now),
    }


def limit(limit: Limit, rows: Rows) -> Json:
    """`GlobalConcurrencyLimitResponse`."""
    return {
        **_stamped(limit.id, rows),
        "active": limit.active,
        "name": limit.name,
        "limit": limit.limit,
        "active_slots": limit.active_slots,
        "slot_decay_per_second": limit.decay,
    }


def deployment(deployment: Deployment, queue: Queue, rows: Rows) -> Json:
    """`DeploymentResponse`; its `concurrency_limit` is always null, the limit is the global one of its own."""
    flow_id = str(ident("flow", deployment.flow))
    own_limit = rows.limit_of(deployment)
    return {
        **_stamped(deployment.id, rows),
        "name": deployment.name,
        "version": None,
        "description": None,
        "flow_id": flow_id,
        "paused": False,
        "schedules": [],
        "concurrency_limit": None,
        "global_concurrency_limit": limit(own_limit, rows) if own_limit else None,
        "concurrency_options": {"collision_strategy": "ENQUEUE", "grace_period_seconds": None} if own_limit else None,
        "job_variables": {},
        "parameters": {},
        "tags": list(deployment.tags),
        "labels": {"prefect.flow.id": flow_id},
        "work_queue_name": queue.name,
        "work_queue_id": str(queue.id),
        "last_polled": timestamp(rows.unpolled.get(queue, rows.last_polled)),
        "parameter_openapi_schema": {},
        "path": ".",
        "pull_steps": [],
        "entrypoint": f"flows/{deployment.flow}.py:{deployment.flow.replace('-', '_')}",
        "storage_document_id": None,
        "infrastructure_document_id": None,
        "created_by": None,
        "updated_by": None,
        "work_pool_name": queue.pool,
        "status": "READY",
        "enforce_parameter_schema": True,
    }


def flow(name: str, rows: Rows) -> Json:
    """`Flow`."""
    return {**_stamped(ident("flow", name), rows), "name": name, "tags": [], "labels": {}}


def _stamped(id_: UUID, rows: Rows) -> Json:
    created = timestamp(rows.created)
    return {"id": str(id_), "created": created, "updated": created}


def _total_run_time(run: Run) -> float:
    """Return how long it was RUNNING before its current state. It starts once, so RUNNING itself does not count yet."""
    return (run.state.timestamp - run.started).total_seconds() if run.started else 0.0


def _estimated_run_time(run: Run, now: datetime) -> float:
    running = run.state.type is StateType.RUNNING
    return _total_run_time(run) + ((now - run.state.timestamp).total_seconds() if running else 0.0)


def _lateness(run: Run, now: datetime) -> float:
    """Return how long after the expected time it started, or has not started yet."""
    return max(0.0, ((run.started or now) - run.expected_start).total_seconds())


def _state(run: Run) -> Json:
    waits = run.state.type in {StateType.SCHEDULED, StateType.PENDING}
    return {
        "id": str(run.state.id),
        "type": run.state.type,
        "name": run.state.name,
        "timestamp": timestamp(run.state.timestamp),
        "message": None,
        "data": None,
        "state_details": {
            "flow_run_id": str(run.id),
            "task_run_id": None,
            "child_flow_run_id": None,
            "scheduled_time": timestamp(run.due or run.expected_start) if waits else None,
            "cache_key": None,
            "cache_expiration": None,
            "deferred": False,
            "untrackable_result": False,
            "pause_timeout": None,
            "pause_reschedule": False,
            "pause_key": None,
            "run_input_keyset": None,
            "refresh_cache": None,
            "retriable": None,
            "transition_id": None,
            "task_parameters_id": None,
            "traceparent": None,
            "deployment_concurrency_lease_id": None,
        },
    }
