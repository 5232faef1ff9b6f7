"""Why runs wait, by the order in which a Prefect server hands them out: for the exporter's reasons to be compared with.

Written from the server's own query, `get-runs-from-worker-queues.sql.jinja`, on the rows of one reading, one rule after
the other. It knows nothing of plans, and of nothing that is unknown.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta

from tests.harness.reader import Pool, Queue, Reading, WaitingRun

FREE = "free"
"""The reason of a run that the next worker gets: the exporter tells `just_now` from `none`."""
POLLED_WITHIN = timedelta(seconds=60)


def reasons(reading: Reading, *, paused_queues_count: bool = True) -> dict[tuple[str, str], Counter[str]]:
    """The reasons of the waiting runs of each queue."""
    of_runs = reasons_of_runs(reading, paused_queues_count=paused_queues_count)
    return {key: Counter(of_runs[run.id] for run in queue.runs) for key, queue in reading.queues.items()}


def reasons_of_runs(reading: Reading, *, paused_queues_count: bool = True) -> dict[str, str]:
    """The reason of each waiting run, by its id. On PostgreSQL the runs of a paused queue count for no pool."""
    found = {}
    for pool in reading.pools.values():
        queues = [queue for queue in reading.queues.values() if queue.pool == pool.name]
        taken = sum(queue.taken for queue in queues if paused_queues_count or not queue.is_paused)
        asked = [queue for queue in queues if not queue.is_paused and _is_polled(reading, queue)]
        offered = {queue.name: [] if pool.is_paused else _of_queue(reading, queue) for queue in asked}
        in_order = sorted(
            ((queue.priority, run.due, run.id) for queue in asked for run in offered[queue.name]),
        )
        handed_out = in_order if pool.limit is None else in_order[: max(0, pool.limit - taken)]
        for queue in queues:
            goes_ahead = any(priority < queue.priority for priority, _, _ in in_order)
            for run in queue.runs:
                found[run.id] = _own(reading, pool, queue, run) or _by_limits(
                    run,
                    offered[queue.name],
                    {one for _, _, one in handed_out},
                    goes_ahead=goes_ahead,
                )
    return found


def _is_polled(reading: Reading, queue: Queue) -> bool:
    return queue.last_polled is not None and queue.last_polled >= reading.at - POLLED_WITHIN


def _of_queue(reading: Reading, queue: Queue) -> Sequence[WaitingRun]:
    """The oldest due runs of the queue that fit into its free slots, without those that no worker ever gets."""
    due = sorted(
        (run for run in queue.runs if not run.in_process and run.due <= reading.at), key=lambda run: (run.due, run.id)
    )
    return due if queue.limit is None else due[: max(0, queue.limit - queue.taken)]


def _own(reading: Reading, pool: Pool, queue: Queue, run: WaitingRun) -> str | None:
    if run.in_process:
        return "retry"
    if pool.is_paused:
        return "pool_paused"
    if queue.is_paused:
        return "queue_paused"
    of_deployment = reading.limits.get(f"deployment:{run.deployment}")
    closed = of_deployment is not None and of_deployment.active and of_deployment.limit == 0
    if pool.limit == 0 or queue.limit == 0 or closed:
        return "zero_limit"
    if not _is_polled(reading, queue):
        return "no_worker"
    return "deployment_limit" if run.state_name == "AwaitingConcurrencySlot" else None


def _by_limits(run: WaitingRun, offered: Sequence[WaitingRun], handed_out: Collection[str], *, goes_ahead: bool) -> str:
    if run not in offered:
        return "queue_limit"
    if run.id in handed_out:
        return FREE
    return "priority" if goes_ahead else "pool_limit"
