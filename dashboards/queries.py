"""What several dashboards ask Prometheus for: the series of what is chosen, and what they tell of queues."""

from typing import Final

SCRAPED: Final = 'job=~"$job", instance=~"$instance", system=~"$system", source=~"$source"'
"""Selects the series of the chosen exporters and sources."""
QUEUES: Final = f'{SCRAPED}, pool=~"$pool", queue=~"$queue"'
POOLS: Final = f'{SCRAPED}, pool=~"$pool"'
RECORDED: Final = 'job=~"$job", system=~"$system", source=~"$source"'
"""Selects what the recording rules made, which has no instance."""
RECORDED_QUEUES: Final = f'{RECORDED}, pool=~"$pool", queue=~"$queue", resource="queue"'
RECORDED_POOLS: Final = f'{RECORDED}, pool=~"$pool", resource="pool"'
ALERTED: Final = (
    'alertname=~"Concurrency.+", job=~"$job|", system=~"$system|", source=~"$source|", pool=~"$pool|", queue=~"$queue|"'
)
"""Selects the alerts of what is chosen, and of what is above it: an alert of a source has no pool, and that nothing is
exported has not even a source."""
QUEUE: Final = "source, system, pool, queue"
NAMED: Final = "{{name}} ({{source}})"
"""The legend of what `named` made. A legend is cut off at its end, so what tells the series apart comes first."""


def of_queues(metric: str, more: str = "") -> str:
    """One series for each chosen queue, however many exporters report it."""
    return f"max by ({QUEUE}{more}) ({metric}{{{QUEUES}}})"


TAKEN: Final = of_queues("concurrency_queue_active_slots")
LIMIT: Final = of_queues("concurrency_queue_slot_limit")
FREE: Final = f"clamp_min({LIMIT} - {TAKEN}, 0)"
UTILIZATION: Final = f"{TAKEN} / ({LIMIT} > 0)"
WAITING: Final = f"sum without (priority) ({of_queues('concurrency_queue_queued_tasks', ', priority')})"
BLOCKED: Final = of_queues("concurrency_queue_blocked_tasks", ", reason")
LIMITED: Final = f'max by ({QUEUE}) (concurrency_queue_blocked_tasks{{{QUEUES}, reason="queue_limit"}})'
"""Tasks that wait for the limit of their queue."""
OLDEST_WAIT: Final = of_queues("concurrency_queue_waiting_duration_max_seconds")


def named(expression: str) -> str:
    """The series with a label `name` to show: `pool/queue`, or what there is of the two."""
    joined = f'label_join({expression}, "name", "/", "pool", "queue")'
    return f'label_replace({joined}, "name", "$1", "name", "/?(.*?)/?")'


def fullest(selected: str, most: int = 10) -> str:
    """The resources with the highest utilization over all of the time shown: the same ones at every step of a graph.

    They are looked at as often as the graph has points, and not at each sample: Prometheus reads at most 50 million.
    """
    average = f"avg_over_time(concurrency:slot_utilization:ratio{{{selected}}}[$__range:$__interval] @ end())"
    return f"topk({most}, max by (source, system, resource, pool, queue) ({average}))"
