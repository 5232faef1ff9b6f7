"""The states of a flow run: their names and types, and which of them hold a slot."""

from enum import StrEnum


class StateType(StrEnum):
    """The types of a run's state, in the server's order."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


STATE_TYPES = {
    "Pending": StateType.PENDING,
    "Submitting": StateType.PENDING,
    "InfrastructurePending": StateType.PENDING,
    "Running": StateType.RUNNING,
    "Retrying": StateType.RUNNING,
    "Cancelling": StateType.CANCELLING,
    "Scheduled": StateType.SCHEDULED,
    "Late": StateType.SCHEDULED,
    "AwaitingConcurrencySlot": StateType.SCHEDULED,
    "AwaitingRetry": StateType.SCHEDULED,
    "Paused": StateType.PAUSED,
    "Suspended": StateType.PAUSED,
    "Completed": StateType.COMPLETED,
    "Failed": StateType.FAILED,
    "Crashed": StateType.CRASHED,
    "Cancelled": StateType.CANCELLED,
}
"""The name of a state → its type."""

QUEUE_HOLDERS = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
"""The states that hold a slot, as a queue's `concurrency_status` and `/work_queues/filter` count."""
POOL_HOLDERS = (StateType.PENDING, StateType.RUNNING)
"""The states that hold a slot, as the endpoints below `/work_pools` count and the scheduler enforces."""
