"""Queue, for the question why it is full, and since when."""

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard
from grafana_foundation_sdk.builders.prometheus import Dataquery

from dashboards.overview import UTILIZATION, WAITING
from dashboards.panels import (
    ACT,
    BAD,
    CLOSED,
    DATASOURCE,
    GOOD,
    NEAR,
    NEUTRAL,
    NO_RULES,
    POOLS,
    QUEUES,
    RECORDED,
    RECORDED_QUEUES,
    SCRAPED,
    STATES,
    UNKNOWN,
    Column,
    Query,
    board,
    durations,
    figure,
    fullest,
    lines,
    named,
    of_queues,
    row,
    rows,
)

TAKEN = of_queues("concurrency_queue_active_slots")
LIMIT = of_queues("concurrency_queue_slot_limit")
CHOSEN = f'{RECORDED_QUEUES}, resource="queue"'
ONLINE = f'max by (source, pool) (concurrency_pool_workers{{{POOLS}, status="ONLINE"}} @ end())'
RECORDED_POOLS = f'{RECORDED}, pool=~"$pool", resource="pool"'


def _mark(name: str, color: str, expression: str, title: str) -> AnnotationQuery:
    """Marks on the time axis, where the expression has a value."""
    query = Dataquery().expr(expression).ref_id("A").interval("1m").range()
    mark = AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(color).target(query)
    return mark.title_format(title).text_format("{{source}} {{pool}}/{{queue}}")


def _by_priority(system: str) -> list[Query]:
    """What goes first comes first: in Prefect the lowest number, in cloro the highest."""
    selector = QUEUES.replace('system=~"$system"', f'system=~"$system", system="{system}"')
    metric = "concurrency_queue_queued_tasks"
    if system == "prefect":
        summed = f"sum by (priority) (max by (source, system, pool, queue, priority) ({metric}{{{selector}}}))"
        padded = f'label_replace({summed}, "priority", "0$1", "priority", "([0-9])")'
        return [Query(padded, "prefect {{priority}}")]
    return [
        Query(
            f'sum(max by (source, system, pool, queue, priority) ({metric}{{{selector}, priority="{level}"}})) > 0',
            f"cloro {level}",
        )
        for level in (*range(10, 0, -1), "unknown")
    ]


def build() -> Dashboard:
    """The dashboard."""
    shares = {f"{state}": shade for state, shade in STATES.items()}
    return (
        board("queue", since="3h")
        .annotation(
            _mark(
                "Alerts",
                BAD,
                'ALERTS{alertname=~"Concurrency.+", alertstate="firing", source=~"$source", queue=~"$queue"}',
                "{{alertname}}",
            )
        )
        .annotation(_mark("Pauses", CLOSED, f"concurrency_queue_paused{{{QUEUES}}} == 1", "Paused"))
        .with_panel(
            figure(
                "Utilization",
                "How many of the chosen queues' slots are taken?",
                f"sum({TAKEN} and {LIMIT}) / (sum({LIMIT}) > 0)",
                unit="percentunit",
                steps=((GOOD, None), (NEAR, 0.9), (BAD, 1)),
                empty="No limit",
            )
        )
        .with_panel(
            figure(
                "Free slots",
                "How much more could run at once?",
                f"sum(clamp_min({LIMIT} - {TAKEN}, 0))",
                steps=((BAD, None), (GOOD, 1)),
                empty="No limit",
            )
        )
        .with_panel(figure("Tasks waiting", "How much could start now?", f"sum({WAITING})", empty="Not known"))
        .with_panel(
            figure(
                "Oldest wait",
                "For how long has the oldest of them waited?",
                f"max({of_queues('concurrency_queue_waiting_duration_max_seconds')})",
                unit="s",
                steps=((GOOD, None), (NEAR, 600), (BAD, 1800)),
                empty="Nothing waits",
            )
        )
        .with_panel(
            figure(
                "Oldest holder",
                "For how long has a holder been in its state?",
                f"max(concurrency_queue_state_duration_max_seconds{{{QUEUES}}})",
                unit="s",
                steps=((GOOD, None), (NEAR, 3600), (ACT, 21600)),
                empty="No holders",
            )
        )
        .with_panel(
            figure(
                "Time to drain",
                "When is the backlog gone, if it goes on like this?",
                f'max(concurrency:drain_time:seconds{{{RECORDED_QUEUES}, resource="queue"}})',
                unit="s",
                empty="Not draining",
            )
        )
        .with_panel(
            lines(
                "Slots",
                "Are all slots taken, and since when?",
                Query(f"sum({TAKEN})", "taken"),
                Query(f"sum({LIMIT})", "limit"),
                Query(f"sum({WAITING})", "waiting"),
                colors={"taken": NEUTRAL, "limit": BAD, "waiting": ACT},
                dashed=("limit",),
            )
        )
        .with_panel(
            lines(
                "Holders by state",
                "What are the runs doing that hold the slots?",
                Query(f"sum by (state) ({of_queues('concurrency_queue_slot_holders', ', state')})", "{{state}}"),
                stacked=True,
                colors=shares,
                empty="The system does not list holders",
            )
        )
        .with_panel(
            durations(
                "State durations",
                "For how long have the holders been in their state: do some hang?",
                f"sum by (le) (max by ({'source, system, pool, queue, state, le'})"
                f" (concurrency_queue_state_duration_seconds_bucket{{{QUEUES}}}))",
                empty="No holders",
            )
        )
        .with_panel(
            lines(
                "Oldest holder by state",
                "Which state has a holder that does not leave it?",
                Query(f"max by (state) (concurrency_queue_state_duration_max_seconds{{{QUEUES}}})", "{{state}}"),
                unit="s",
                colors=shares,
                empty="No holders",
            )
        )
        .with_panel(
            lines(
                "Waiting tasks by priority",
                "Which priorities wait? First is at the bottom: Prefect's lowest number, cloro's highest",
                *_by_priority("prefect"),
                *_by_priority("cloro"),
                stacked=True,
                empty="Nothing waits",
            ),
        )
        .with_panel(
            lines(
                "Waiting tasks by state",
                "Are they held back by slots, or by another limit (AwaitingConcurrencySlot)?",
                Query(f"sum by (state) ({of_queues('concurrency_queue_waiting_tasks', ', state')})", "{{state}}"),
                stacked=True,
                colors={"Scheduled": NEUTRAL, "Late": ACT, "AwaitingConcurrencySlot": CLOSED, "other": UNKNOWN},
                empty="The system does not tell",
            )
        )
        .with_panel(
            lines(
                "Growth of the backlog",
                "Does more arrive (above 0) than is drained (below), in tasks per minute?",
                Query(
                    f'sum(concurrency:waiting_tasks:deriv15m{{{RECORDED_QUEUES}, resource="queue"}}) * 60',
                    "net growth",
                ),
                unit="short",
                span=24,
                height=6,
                minimum=None,
                colors={"net growth": ACT},
                empty=NO_RULES,
            )
        )
        .with_panel(
            lines(
                "Utilization by queue",
                "Which of the chosen queues is it? The fullest ten over the time shown",
                Query(named(f"({UTILIZATION}) and on (source, pool, queue) {fullest(CHOSEN)}"), "{{source}}: {{name}}"),
                span=24,
                legend_width=420,
                unit="percentunit",
                steps=(("transparent", None), (BAD, 1)),
                empty="No limit",
            )
        )
        .with_row(row("Above the queue"))
        .with_panel(
            lines(
                "Pool",
                "Is the pool what is full? Utilization of the fullest ten",
                Query(
                    f"max by (source, pool) (concurrency_pool_active_slots{{{POOLS}}}"
                    f" / (concurrency_pool_slot_limit{{{POOLS}}} > 0))"
                    f" and on (source, pool) {fullest(RECORDED_POOLS)}",
                    "{{source}}: {{pool}}",
                ),
                unit="percentunit",
                steps=(("transparent", None), (BAD, 1)),
                empty="No pool has a limit",
            )
        )
        .with_panel(
            lines(
                "Workers online",
                "Is somebody there to take the work? Workers online, of the ten pools with the fewest",
                Query(
                    f'max by (source, pool) (concurrency_pool_workers{{{POOLS}, status="ONLINE"}})'
                    f" and on (source, pool) bottomk(10, {ONLINE})",
                    "{{source}}: {{pool}}",
                ),
                empty="No workers",
            )
        )
        .with_panel(
            rows(
                "Other limits",
                "Which limit that is no queue is full?",
                Column("Source", label="source"),
                Column("Limit", label="limit"),
                Column("Kind", label="kind"),
                Column(
                    "Utilization",
                    f"max by (source, limit, kind) (concurrency_limit_active_slots{{{SCRAPED}}})"
                    f" / (max by (source, limit, kind) (concurrency_limit_slots{{{SCRAPED}}}) > 0)",
                    unit="percentunit",
                    bar_to=1,
                    steps=((GOOD, None), (NEAR, 0.9), (BAD, 1)),
                ),
                Column("Taken", f"max by (source, limit, kind) (concurrency_limit_active_slots{{{SCRAPED}}})"),
                Column("Slots", f"max by (source, limit, kind) (concurrency_limit_slots{{{SCRAPED}}})"),
                Column(
                    "Enforced",
                    f"max by (source, limit, kind) (concurrency_limit_active{{{SCRAPED}}})",
                    mappings={"1": ("yes", GOOD), "0": ("no", UNKNOWN)},
                ),
                sort_by="Utilization",
                most=30,
                empty="No other limits",
                height=8,
            )
        )
    )
