"""Overview: shows what is saturated now."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    ACT,
    BAD,
    CLOSED,
    FULL,
    GOOD,
    HELD,
    NEAR,
    NEUTRAL,
    NO_RULES,
    REASONS,
    WAIT,
    Column,
    Query,
    board,
    figure,
    figures,
    queue_columns,
    reasons,
    row,
    rows,
    timeline,
)
from dashboards.queries import (
    ALERTED,
    BLOCKED,
    FREE,
    LIMIT,
    LIMITED,
    OLDEST_WAIT,
    POOLS,
    QUEUE,
    QUEUES,
    RECORDED,
    SCRAPED,
    TAKEN,
    UTILIZATION,
    WAITING,
    fullest,
    named,
    of_queues,
)

SATURATION = {
    "0": ("slots free", GOOD),
    "1": ("nearly full", NEAR),
    "2": ("full", ACT),
    "3": ("full, tasks wait", BAD),
    "4": ("paused", CLOSED),
}
"""Whether a slot is free, and whether tasks wait for one, where work is handed out at all."""
SHOWN = f'{RECORDED}, resource=~"queue|pool", pool=~"$pool"'
ALERT = "severity, alertname, source, pool, queue, limit, kind, state, instance"
"""What tells alerts apart: those of limits have `limit` and `kind`, of holders `state`, of exporters `instance`."""


def _firing(more: str = "") -> str:
    """Since when each alert fires, in milliseconds."""
    of = ALERTED + more
    firing = f'ALERTS_FOR_STATE{{{of}}} and ignoring (alertstate) ALERTS{{{of}, alertstate="firing"}}'
    return f"max by ({ALERT}) ({firing}) * 1000"


def _what(expression: str) -> str:
    """The alerts with a label `what`: what they are of that has no column of its own."""
    joined = f'label_join({expression}, "what", " ", "kind", "limit", "state", "instance")'
    return f'label_replace({joined}, "what", "$1", "what", " *(.*?) *")'


def build() -> Dashboard:
    """The dashboard."""
    saturated = f"concurrency:saturated:bool{{{SHOWN}}}"
    level = (
        f"3 * (concurrency:saturated_waiting:bool{{{SHOWN}}} == 1)"
        f" or (concurrency:slot_utilization:ratio{{{SHOWN}}} >= bool 0.9) + {saturated}"
    )
    paused = f"(concurrency:paused:bool{{{SHOWN}}} == 1)"
    level = f"({level}) unless {paused} or 4 * {paused}"
    shown = f"({level}) and on (source, system, resource, pool, queue) {fullest(SHOWN, 15)}"
    pages_first = f"""{_firing(', severity="page"')} * 2 or {_firing()}"""
    return (
        board("overview", since="6h")
        .with_panel(
            figure(
                "Full, and tasks wait",
                "In how many queues do tasks wait for the limit of the queue?",
                f"count({LIMITED} > 0 or (({UTILIZATION} >= 1) and {WAITING} > 0 unless {LIMITED}))"
                f" or 0 * count({WAITING})",
                steps=((GOOD, None), (BAD, 1)),
                empty="No queues",
            )
        )
        .with_panel(
            figure(
                "Tasks waiting",
                "How many tasks could start now if they had a slot and a worker?",
                f"sum({WAITING})",
                empty="No queues",
            )
        )
        .with_panel(
            figure(
                "Oldest wait",
                "How long has the oldest task waited?",
                f"max({OLDEST_WAIT}) or 0 * count({WAITING})",
                unit="s",
                steps=WAIT,
                empty="No queues",
            )
        )
        .with_panel(
            figure(
                "Free slots",
                "How many slots are free, in all queues with a limit?",
                f"sum({FREE})",
                steps=((BAD, None), (GOOD, 1)),
                empty="No limits",
            )
        )
        .with_panel(
            figures(
                "Alerts",
                "How many paging alerts and tickets are firing?",
                *(
                    Query(
                        f"""count({_firing(f', severity="{severity}"')}) or vector(0)""", f"{severity}s", instant=True
                    )
                    for severity in ("page", "ticket")
                ),
                steps={"pages": ((GOOD, None), (BAD, 1)), "tickets": ((GOOD, None), (ACT, 1))},
            )
        )
        .with_panel(
            figure(
                "Sources down",
                "How many sources cannot be polled? Their data is out of date",
                f"count(max by (source) (concurrency_exporter_source_up{{{SCRAPED}}}) == 0)"
                f" or 0 * count(concurrency_exporter_source_up{{{SCRAPED}}})",
                steps=((GOOD, None), (BAD, 1)),
                empty="No exporter",
            )
        )
        .with_panel(
            rows(
                "Worst queues first",
                "Which queues are full, how many tasks wait for them, and how long has a holder been in each state?"
                " Full queues come first, those with the most waiting tasks at the top. Mostly for: the reason that"
                " holds most of the waiting tasks",
                *queue_columns(115),
                Column("Utilization", UTILIZATION, width=130, unit="percentunit", bar_to=1, steps=FULL),
                Column("Taken", TAKEN, width=58),
                Column("Limit", LIMIT, width=55),
                Column("Free", FREE, width=50, steps=((BAD, None), (GOOD, 1))),
                Column("Waiting", WAITING, width=70),
                Column(
                    "Mostly for",
                    f"topk by ({QUEUE}) (1, {BLOCKED} > 0)",
                    label="reason",
                    width=165,
                    mappings=REASONS,
                ),
                Column("Oldest wait", OLDEST_WAIT, unit="s", width=98, steps=WAIT),
                *(
                    Column(
                        state.capitalize(),
                        f'max by ({QUEUE}) (concurrency_queue_state_duration_max_seconds{{{QUEUES}, state="{state}"}})',
                        unit="s",
                        width=90,
                        steps=steps,
                    )
                    for state, steps in HELD.items()
                ),
                Column(
                    "Paused",
                    of_queues("concurrency_queue_paused"),
                    width=70,
                    mappings={"0": ("no", GOOD), "1": ("paused", CLOSED)},
                ),
                hidden=f"2 - 1 / (1 + {WAITING}) and {LIMITED} > 0"
                f" or clamp_max({UTILIZATION}, 1) + ({UTILIZATION} >= bool 1) * (1 - 1 / (1 + {WAITING}))"
                f" or {UTILIZATION} or 0 * {WAITING}",
                sort_by="Utilization",
                most=30,
                empty="No queues",
                height=11,
            )
        )
        .with_panel(reasons("What holds the tasks back that wait: a limit, a missing worker, a pause, something else?"))
        .with_panel(
            timeline(
                "Saturation over time",
                "How long have the fullest queues and pools been full?",
                Query(named(shown), "{{resource}} {{name}} ({{source}})"),
                states=SATURATION,
                empty=NO_RULES,
                height=11,
            )
        )
        .with_row(row("Alerts, pools and sources"))
        .with_panel(
            rows(
                "Firing alerts",
                "Which alerts are firing? Pages come first, then tickets, the newest of each at the top",
                Column(
                    "Severity",
                    label="severity",
                    width=90,
                    mappings={"page": ("page", BAD), "ticket": ("ticket", ACT)},
                ),
                Column("Alert", label="alertname", width=290),
                *queue_columns(170),
                Column("What", label="what"),
                Column("Since", _what(_firing()), unit="dateTimeFromNow", width=140),
                hidden=_what(pages_first),
                sort_by="Since",
                most=50,
                empty="No alert is firing",
                height=14,
            )
        )
        .with_panel(
            rows(
                "Pools",
                "Does a pool hold its queues back: are all its slots in use, and are workers online?",
                Column("Source", label="source", width=130),
                Column("Pool", label="pool"),
                Column(
                    "Utilization",
                    f"max by (source, system, pool) (concurrency_pool_active_slots{{{POOLS}}})"
                    f" / (max by (source, system, pool) (concurrency_pool_slot_limit{{{POOLS}}}) > 0)",
                    unit="percentunit",
                    bar_to=1,
                    steps=FULL,
                ),
                Column(
                    "Workers",
                    f'max by (source, system, pool) (concurrency_pool_workers{{{POOLS}, status="ONLINE"}})',
                    steps=((BAD, None), (GOOD, 1)),
                    width=80,
                ),
                Column(
                    "Paused",
                    f"max by (source, system, pool) (concurrency_pool_paused{{{POOLS}}})",
                    mappings={"0": ("no", GOOD), "1": ("paused", CLOSED)},
                    width=80,
                ),
                sort_by="Utilization",
                most=30,
                empty="No pools",
                span=12,
                height=9,
            )
        )
        .with_panel(
            rows(
                "Sources",
                "Which source cannot be polled, and how old is its data?",
                Column("Source", label="source"),
                Column("System", label="system", width=90),
                Column(
                    "Up",
                    f"max by (source, system) (concurrency_exporter_source_up{{{SCRAPED}}})",
                    mappings={"1": ("up", GOOD), "0": ("down", BAD)},
                    width=70,
                ),
                Column(
                    "Age of the data",
                    "time() - max by (source, system)"
                    f" (concurrency_exporter_last_success_timestamp_seconds{{{SCRAPED}}})",
                    unit="s",
                    steps=((GOOD, None), (ACT, 120), (BAD, 600)),
                    width=145,
                ),
                Column(
                    "Queues unreadable",
                    f"max by (source, system) (concurrency_exporter_queues_unreadable{{{SCRAPED}}})",
                    steps=((NEUTRAL, None), (ACT, 1)),
                    width=160,
                ),
                sort_by="Age of the data",
                most=50,
                empty="No exporter",
                span=12,
                height=9,
            )
        )
    )
