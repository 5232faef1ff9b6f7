"""Queue: shows why a queue is full, and since when."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery, Dashboard
from grafana_foundation_sdk.builders.prometheus import Dataquery

from dashboards.panels import (
    ACT,
    BAD,
    CLOSED,
    DATASOURCE,
    FULL,
    FULL_LINE,
    GOOD,
    HELD,
    NEUTRAL,
    NO_RULES,
    SHADES,
    STATES,
    UNKNOWN,
    WAIT,
    WAITING_STATES,
    Column,
    Query,
    board,
    durations,
    figure,
    figures,
    lines,
    reasons,
    row,
    rows,
)
from dashboards.queries import (
    ALERTED,
    FREE,
    LIMIT,
    NAMED,
    OLDEST_WAIT,
    POOLS,
    QUEUE,
    QUEUES,
    RECORDED_POOLS,
    RECORDED_QUEUES,
    SCRAPED,
    TAKEN,
    UTILIZATION,
    WAITING,
    fullest,
    named,
    of_queues,
)
from exporter.config import ABOUT

ONLINE = f'max by (source, pool) (concurrency_pool_workers{{{POOLS}, status="ONLINE"}} @ end())'
GROWTH = f"concurrency:waiting_tasks:deriv15m{{{RECORDED_QUEUES}}} * 60"
STUCK = f"concurrency:state_duration_threshold:seconds{{{RECORDED_QUEUES}}}"
HELD_FOR = f"max by (state) (concurrency_queue_state_duration_max_seconds{{{QUEUES}}})"
STARTED = f'concurrency_queue_state_duration_seconds_bucket{{{QUEUES}, state="RUNNING", le=~"60([.]0)?"}}'


def _mark(name: str, color: str, expression: str, title: str, text: str, *, enabled: bool = True) -> AnnotationQuery:
    """Marks on the time axis, where the expression has a value; newer versions of Grafana read the target alone."""
    query = Dataquery().expr(expression).ref_id("A").interval("1m").range()
    mark = AnnotationQuery().name(name).datasource(DATASOURCE).enable(enabled).icon_color(color).target(query)
    mark = mark.expr(expression).step("1m")
    return mark.title_format(title).text_format(text)


def _alerts(severity: str) -> str:
    """One mark for each alert, though hundreds of queues may have it: so many marks would hide the graph."""
    return f'max by (alertname) (ALERTS{{{ALERTED}, alertstate="firing", severity="{severity}"}})'


PRIORITIES: Final = {system: about.priorities for system, about in ABOUT.items() if about.priorities}
"""How the systems number their priorities."""
_COLOURED: Final = 20
"""So many priorities have a colour where there is no last one."""


def _goes_first() -> str:
    low = [f"{ABOUT[system].title}'s" for system, priorities in PRIORITIES.items() if priorities.rise]
    high = [f"{ABOUT[system].title}'s" for system, priorities in PRIORITIES.items() if not priorities.rise]
    return f"{' and '.join(low)} lowest number, {' and '.join(high)} highest"


def _urgency(system: str) -> dict[str, str]:
    """The colour of each priority, by its legend: what goes first is the darkest."""
    levels = PRIORITIES[system].levels(_COLOURED)
    if PRIORITIES[system].rise:
        return {f"{system} {level:02}": SHADES[min(at, len(SHADES) - 1)] for at, level in enumerate(levels)}
    return {f"{system} {level}": SHADES[at * len(SHADES) // len(levels)] for at, level in enumerate(levels)}


def _by_priority(system: str) -> list[Query]:
    """What goes first comes first: a legend is sorted by name, so numbers that rise need no query of their own."""
    selector = QUEUES.replace('system=~"$system"', f'system=~"$system", system="{system}"')
    metric = "concurrency_queue_queued_tasks"
    if PRIORITIES[system].rise:
        summed = f"sum by (priority) (max by ({QUEUE}, priority) ({metric}{{{selector}}}))"
        padded = f'label_replace({summed}, "priority", "0$1", "priority", "([0-9])")'
        return [Query(padded, f"{system} {{{{priority}}}}")]
    return [
        Query(f'sum(max by ({QUEUE}, priority) ({metric}{{{selector}, priority="{level}"}})) > 0', f"{system} {level}")
        for level in (*PRIORITIES[system].levels(_COLOURED), "unknown")
    ]


def build() -> Dashboard:
    """The dashboard."""
    return (
        board("queue", since="3h")
        .annotation(_mark("Pages", BAD, _alerts("page"), "{{alertname}}", "a paging alert fired"))
        .annotation(_mark("Tickets", ACT, _alerts("ticket"), "{{alertname}}", "a ticket fired", enabled=False))
        .annotation(
            _mark(
                "Pauses", CLOSED, f"max by (source) (concurrency_queue_paused{{{QUEUES}}}) == 1", "Paused", "{{source}}"
            )
        )
        .with_panel(
            figure(
                "Utilization",
                "What share of the slots of the selected queues is in use?",
                f"sum({TAKEN} and {LIMIT}) / (sum({LIMIT}) > 0)",
                unit="percentunit",
                steps=FULL,
                empty="No limit",
            )
        )
        .with_panel(
            figure(
                "Free slots",
                "How many more tasks could run at once?",
                f"sum({FREE})",
                steps=((BAD, None), (GOOD, 1)),
                empty="No limit",
            )
        )
        .with_panel(
            figure(
                "Tasks waiting",
                "How many tasks could start now if they had a slot and a worker?",
                f"sum({WAITING})",
                empty="Not known",
            )
        )
        .with_panel(
            figure(
                "Oldest wait",
                "How long has the oldest task waited?",
                f"max({OLDEST_WAIT})",
                unit="s",
                steps=WAIT,
                empty="Nothing waits",
            )
        )
        .with_panel(
            figures(
                "Oldest holder",
                "How long has the oldest holder been in each state?",
                Query(f"sort_desc({HELD_FOR})", "{{state}}", instant=True),
                unit="s",
                steps=HELD,
                empty="No holders",
            )
        )
        .with_panel(
            figure(
                "Time to drain",
                "At the current rate, when is the backlog gone? The last task in the queue waits that long",
                f"max(concurrency:drain_time:seconds{{{RECORDED_QUEUES}}})",
                unit="s",
                steps=WAIT,
                empty="Not draining",
            )
        )
        .with_panel(
            lines(
                "Slots",
                "Are all slots in use, and since when?",
                Query(f"sum({TAKEN})", "taken"),
                Query(f"sum({LIMIT})", "limit"),
                Query(f"sum({WAITING})", "waiting"),
                colors={"taken": NEUTRAL, "limit": BAD, "waiting": ACT},
                dashed=("limit",),
            )
        )
        .with_panel(reasons("Do tasks wait for slots, or for something that more slots would not change?", span=12))
        .with_panel(
            lines(
                "Holders by state",
                "In which states are the runs that hold the slots?",
                Query(f"sum by (state) ({of_queues('concurrency_queue_slot_holders', ', state')})", "{{state}}"),
                stacked=True,
                colors=STATES,
                empty="The system does not list holders",
            )
        )
        .with_panel(
            durations(
                "State durations",
                "How long have holders been in their state? Do some hang?",
                f"sum by (le) (max by ({QUEUE}, state, le)"
                f" (concurrency_queue_state_duration_seconds_bucket{{{QUEUES}}}))",
                empty="No holders",
            )
        )
        .with_panel(
            lines(
                "Oldest holder by state",
                "In which state is a holder stuck? A dashed line is the threshold of ConcurrencySlotHolderStuck,"
                " shown once"
                " half of it is reached",
                Query(HELD_FOR, "{{state}}"),
                Query(
                    f"min by (state) ({STUCK} < 2 * concurrency:state_duration:max{{{RECORDED_QUEUES}}})",
                    "{{state}} alert",
                ),
                unit="s",
                colors=STATES | {f"{state} alert": color for state, color in STATES.items() if state != "unknown"},
                dashed=[f"{state} alert" for state in STATES if state != "unknown"],
                legend_width=310,
                span=24,
                empty="No holders",
            )
        )
        .with_panel(
            lines(
                "Waiting tasks by priority",
                f"Which priorities wait? The priority that goes first is at the bottom: {_goes_first()}",
                *(query for system in PRIORITIES for query in _by_priority(system)),
                stacked=True,
                colors={legend: color for system in PRIORITIES for legend, color in _urgency(system).items()},
                height=11,
                empty="Nothing waits",
            ),
        )
        .with_panel(
            lines(
                "Waiting tasks by state",
                "Do tasks wait for slots, or for another limit (AwaitingConcurrencySlot)?",
                Query(f"sum by (state) ({of_queues('concurrency_queue_waiting_tasks', ', state')})", "{{state}}"),
                stacked=True,
                colors=WAITING_STATES,
                legend_width=310,
                height=11,
                empty="The system does not tell",
            )
        )
        .with_panel(
            lines(
                "Arrivals against drain",
                "Do more tasks arrive than are drained, in tasks per minute? The sources report how many tasks wait,"
                " not how"
                " many arrived and left, so only the difference is known: for growing queues, for shrinking queues, and"
                " in total. At least those runs were drained that began in the last minute and still run; cloro does"
                " not report them",
                Query(f"sum(clamp_min({GROWTH}, 0))", "growing queues"),
                Query(f"sum(clamp_max({GROWTH}, 0))", "shrinking queues"),
                Query(f"sum({GROWTH})", "net growth"),
                Query(f"sum(max by ({QUEUE}) ({STARTED}))", "began, at least"),
                span=24,
                height=7,
                unit="suffix:/min",
                minimum=None,
                legend_width=380,
                colors={
                    "growing queues": ACT,
                    "shrinking queues": GOOD,
                    "net growth": UNKNOWN,
                    "began, at least": NEUTRAL,
                },
                dashed=("net growth",),
                empty=NO_RULES,
            )
        )
        .with_panel(
            lines(
                "Utilization by queue",
                "Which of the selected queues is full? The ten fullest over the time range",
                Query(named(f"({UTILIZATION}) and on (source, pool, queue) {fullest(RECORDED_QUEUES)}"), NAMED),
                span=24,
                legend_width=560,
                unit="percentunit",
                steps=FULL_LINE,
                reaches=1,
                height=10,
                empty="No limit",
            )
        )
        .with_row(row("Above the queue"))
        .with_panel(
            lines(
                "Pool",
                "Is the pool full? Utilization of the ten fullest pools",
                Query(
                    f"max by (source, pool) (concurrency_pool_active_slots{{{POOLS}}}"
                    f" / (concurrency_pool_slot_limit{{{POOLS}}} > 0))"
                    f" and on (source, pool) {fullest(RECORDED_POOLS)}",
                    "{{pool}} ({{source}})",
                ),
                unit="percentunit",
                steps=FULL_LINE,
                reaches=1,
                legend_width=370,
                height=9,
                empty="No pool has a limit",
            )
        )
        .with_panel(
            lines(
                "Workers online",
                "Are there workers to take the tasks? The ten pools with the fewest workers online",
                Query(
                    f'max by (source, pool) (concurrency_pool_workers{{{POOLS}, status="ONLINE"}})'
                    f" and on (source, pool) bottomk(10, {ONLINE})",
                    "{{pool}} ({{source}})",
                ),
                steps=((BAD, None), ("transparent", 1)),
                legend_width=370,
                height=9,
                empty="No workers",
            )
        )
        .with_panel(
            rows(
                "Other limits",
                "Which global, tag or deployment limit is full?",
                Column("Source", label="source"),
                Column("Limit", label="limit"),
                Column("Kind", label="kind"),
                Column(
                    "Utilization",
                    f"max by (source, limit, kind) (concurrency_limit_active_slots{{{SCRAPED}}})"
                    f" / (max by (source, limit, kind) (concurrency_limit_slots{{{SCRAPED}}}) > 0)",
                    unit="percentunit",
                    bar_to=1,
                    steps=FULL,
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
