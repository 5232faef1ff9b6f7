"""Capacity, for the question whether a higher limit or a larger plan is needed."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, TextBoxVariable
from grafana_foundation_sdk.models.dashboard import VariableOption

from dashboards.panels import (
    ACT,
    BAD,
    GOOD,
    NEAR,
    NEUTRAL,
    NO_RULES,
    RECORDED_QUEUES,
    Column,
    Query,
    board,
    figure,
    fullest,
    lines,
    named,
    row,
    rows,
    to_queue,
)

CHOSEN = f'{RECORDED_QUEUES}, resource="queue"'
BY = "source, pool, queue"


def _over(function: str, metric: str) -> str:
    return f"max by ({BY}) ({function}({metric}{{{CHOSEN}}}[$__range]))"


def _quantile(quantile: float, metric: str) -> str:
    return f"max by ({BY}) (quantile_over_time({quantile}, {metric}{{{CHOSEN}}}[$__range]))"


LIMIT = f"max by ({BY}) (concurrency:slot_limit:max{{{CHOSEN}}})"
P95 = _quantile(0.95, "concurrency:slot_utilization:ratio")
AT_LIMIT = _over("avg_over_time", "concurrency:saturated:bool")
FOR_SLOTS = _over("avg_over_time", "concurrency:saturated_waiting:bool")
WAITS = f"(concurrency:waiting_tasks:sum{{{CHOSEN}}} > bool 0)"
FOR_WORKERS = (
    f"max by ({BY}) (avg_over_time(({WAITS} * (1 - concurrency:saturated:bool{{{CHOSEN}}}))[$__range:$__interval]))"
)
DEMAND = f"(concurrency:active_slots:max{{{CHOSEN}}} + concurrency:waiting_tasks:sum{{{CHOSEN}}})"
FIVE = f" and on (source, pool, queue) {fullest(CHOSEN, 5)}"
DAILY = f"sum by ({BY}) (avg_over_time(concurrency:active_slots:max{{{CHOSEN}}}[1d]))"
REACHED = f"(time() + ({LIMIT} - {DAILY}) / (deriv(({DAILY})[$__range:1h]) > 1e-7)) * 1000"


def build() -> Dashboard:
    """The dashboard."""
    what_if = TextBoxVariable("what_if").label("What if the limit were").default_value("10")
    what_if = what_if.current(VariableOption(text="10", value="10", selected=True))
    return (
        board("capacity", since="7d", refresh="5m")
        .with_variable(what_if)
        .with_panel(
            figure(
                "p95 utilization",
                "How full is the fullest of the chosen queues in its busy hours?",
                f"max({P95})",
                unit="percentunit",
                steps=((GOOD, None), (NEAR, 0.8), (BAD, 0.95)),
                empty="No limit",
                span=6,
            )
        )
        .with_panel(
            figure(
                "Share of the time at the limit",
                "For how much of the time had it no free slot?",
                f"max({AT_LIMIT})",
                unit="percentunit",
                steps=((GOOD, None), (NEAR, 0.1), (BAD, 0.25)),
                empty="No limit",
                span=6,
            )
        )
        .with_panel(
            figure(
                "Headroom at p95",
                "How many slots are left in busy hours, in the tightest queue?",
                f"min({LIMIT} - {_quantile(0.95, 'concurrency:active_slots:max')})",
                steps=((BAD, None), (NEAR, 1), (GOOD, 2)),
                empty="No limit",
                span=6,
                decimals=0,
            )
        )
        .with_panel(
            figure(
                "Limit reached",
                "When does the first queue reach its limit all day, at the trend of the time shown?",
                f"min({REACHED})",
                unit="dateTimeFromNow",
                steps=((ACT, None),),
                empty="Not growing",
                span=6,
            )
        )
        .with_panel(
            rows(
                "Queues by need",
                "Which queue needs a higher limit, and which needs workers?",
                Column("Source", label="source"),
                Column("Pool", label="pool"),
                Column("Queue", label="queue", link=to_queue()),
                Column("Limit", LIMIT, width=80),
                Column(
                    "p50",
                    _quantile(0.5, "concurrency:slot_utilization:ratio"),
                    unit="percentunit",
                    width=90,
                    decimals=0,
                ),
                Column(
                    "p95", P95, unit="percentunit", bar_to=1, steps=((GOOD, None), (NEAR, 0.8), (BAD, 0.95)), decimals=0
                ),
                Column(
                    "Max",
                    _over("max_over_time", "concurrency:slot_utilization:ratio"),
                    unit="percentunit",
                    width=90,
                    decimals=0,
                ),
                Column(
                    "At the limit",
                    AT_LIMIT,
                    unit="percentunit",
                    steps=((GOOD, None), (NEAR, 0.1), (BAD, 0.25)),
                    width=110,
                    decimals=1,
                ),
                Column(
                    "Waits for slots",
                    FOR_SLOTS,
                    unit="percentunit",
                    steps=((GOOD, None), (BAD, 0.1)),
                    width=130,
                    decimals=1,
                ),
                Column(
                    "Waits, slots free",
                    FOR_WORKERS,
                    unit="percentunit",
                    steps=((GOOD, None), (ACT, 0.1)),
                    width=150,
                    decimals=1,
                ),
                sort_by="At the limit",
                most=30,
                empty=NO_RULES,
                height=10,
            )
        )
        .with_panel(
            lines(
                "Utilization by day",
                "Is it getting fuller? p95 of the day before, of the five fullest queues",
                Query(
                    named(f"max by ({BY}) (concurrency:slot_utilization:p95_1d{{{CHOSEN}}}){FIVE}"),
                    "{{source}}: {{name}}",
                ),
                legend_width=380,
                unit="percentunit",
                steps=(("transparent", None), (BAD, 0.95)),
                empty=NO_RULES,
            )
        )
        .with_panel(
            lines(
                "Why tasks wait",
                "Do they wait for slots (the limit), or though slots are free (volume, workers)? In queues",
                Query(f"sum({WAITS} * concurrency:saturated:bool{{{CHOSEN}}})", "for slots"),
                Query(
                    f"sum({WAITS} * (1 - concurrency:saturated:bool{{{CHOSEN}}}))",
                    "though slots are free",
                ),
                stacked=True,
                colors={"for slots": BAD, "though slots are free": NEUTRAL},
                empty=NO_RULES,
            )
        )
        .with_row(row("What if the limit were $what_if?"))
        .with_panel(
            lines(
                "Demand against another limit",
                "How many slots would be taken, had there been enough?",
                Query(named(f"sum by ({BY}) ({DEMAND}){FIVE}"), "{{source}}: {{name}}"),
                Query("vector($what_if)", "what if"),
                span=24,
                legend_width=420,
                colors={"what if": BAD},
                dashed=("what if",),
                empty=NO_RULES,
            )
        )
        .with_panel(
            rows(
                "With the other limit",
                "For how much of the time would it have been full?",
                Column("Source", label="source"),
                Column("Pool", label="pool"),
                Column("Queue", label="queue", link=to_queue()),
                Column("Full now", AT_LIMIT, unit="percentunit", decimals=1),
                Column(
                    "Full then",
                    f"max by ({BY}) (avg_over_time(({DEMAND} >= bool $what_if)[$__range:$__interval]))",
                    unit="percentunit",
                    bar_to=1,
                    steps=((GOOD, None), (NEAR, 0.1), (BAD, 0.25)),
                    decimals=1,
                ),
                sort_by="Full then",
                most=30,
                empty=NO_RULES,
                height=8,
            )
        )
    )
