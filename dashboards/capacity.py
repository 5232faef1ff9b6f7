"""Capacity: shows whether a higher limit or a larger plan is needed."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, TextBoxVariable
from grafana_foundation_sdk.models.dashboard import VariableOption

from dashboards.panels import (
    ACT,
    BAD,
    FULL_LINE,
    GOOD,
    NEAR,
    NO_RULES,
    REASONS,
    Column,
    Query,
    board,
    figure,
    lines,
    queue_columns,
    row,
    rows,
)
from dashboards.queries import BLOCKED, NAMED, RECORDED_POOLS, RECORDED_QUEUES, fullest, named

BY = "source, pool, queue"
NEEDED = 0.1
"""The share of the time for which tasks wait, from which somebody should do something about it."""
FORESEEN = 180
"""Days for which a trend is believed."""


def _over_time(function: str, expression: str) -> str:
    """Over the time shown, at as many moments as a graph has points: a month of every sample is too much to read."""
    return f"max by ({BY}) ({function}(({expression})[$__range:$__interval]))"


def _quantile(quantile: float, expression: str) -> str:
    return f"max by ({BY}) (quantile_over_time({quantile}, ({expression})[$__range:$__interval]))"


def _of_queues(metric: str) -> str:
    return f"concurrency:{metric}{{{RECORDED_QUEUES}}}"


UTILIZATION = _of_queues("slot_utilization:ratio")
TAKEN = _of_queues("active_slots:max")
LIMIT = f"max by ({BY}) ({_of_queues('slot_limit:max')})"
HEADROOM = f"clamp_min({LIMIT} - {_quantile(0.95, TAKEN)}, 0)"
P95 = _quantile(0.95, UTILIZATION)
AT_LIMIT = _over_time("avg_over_time", _of_queues("saturated:bool"))
FOR_SLOTS = _over_time("avg_over_time", _of_queues("saturated_waiting:bool"))

# Of what waits, what neither a limit nor a decision holds back.
WAITING = _of_queues("slot_waiting_tasks:sum")
FULL = f"concurrency:saturated:bool{{{RECORDED_QUEUES}}} == 1"
POOL_FULL = f"concurrency:saturated:bool{{{RECORDED_POOLS}}} == 1"
NOT_HELD_BACK = (
    f'sum without (reason) (concurrency:blocked_tasks:sum{{{RECORDED_QUEUES}, reason=~"no_worker|none"}}'
    f' or concurrency:blocked_tasks:sum{{{RECORDED_QUEUES}, reason="unknown"}}'
    f" unless ignoring (reason) ({FULL}) unless ignoring (reason, queue, resource) ({POOL_FULL}))"
)
FOR_WORKERS = _over_time("avg_over_time", f"({NOT_HELD_BACK} or 0 * {WAITING}) > bool 0")
# A task that waits for an hour is a task-hour: what waits on average, times the hours that are shown.
POINTS = "scalar(count_over_time(vector(1)[$__range:$__interval]))"
HOURS = "scalar(count_over_time(vector(1)[$__range:1m])) / 60"
LOST = f"sum by (reason) (sum_over_time(({BLOCKED})[$__range:$__interval])) / {POINTS} * {HOURS}"

DEMAND = f"({TAKEN} + ({WAITING} or 0 * {TAKEN}))"
FIVE = f" and on ({BY}) {fullest(RECORDED_QUEUES, 5)}"

# Busy hours are the p95 of a day. At the limit they can't grow, so a queue that is there has reached it. The trend is
# that of a week, whatever is shown: what hours tell is the time of day. A queue that is new has none.
BUSY = _of_queues("slot_utilization:p95_1d")
TREND = f"max by ({BY}) (deriv({BUSY}[7d]) and {BUSY} offset 1d)"
# Not predict_linear: what that takes for now is the moment of each point, whatever the range is fixed to.
GROWN = f"(deriv({BUSY}[7d] @ end()) or 0 * {BUSY} @ end()) * 7 * 86400"
IN_A_WEEK = f"max by ({BY}) ({BUSY} @ end() + {GROWN})"
LEFT = f"(1 - max by ({BY}) ({BUSY}) > 0) / ({TREND} > 0) < {FORESEEN} * 86400"
REACHED = f"(time() + ({LEFT})) * 1000"


def build() -> Dashboard:
    """The dashboard."""
    what_if = TextBoxVariable("what_if").label("What if the limit were").default_value("10")
    what_if = what_if.current(VariableOption(text="10", value="10", selected=True))
    return (
        board("capacity", since="7d", refresh="5m")
        .with_variable(what_if)
        .with_panel(
            figure(
                "Queues short of slots",
                f"In how many queues did tasks wait for slots for more than {NEEDED:.0%} of the time?",
                f"count({FOR_SLOTS} > {NEEDED}) or 0 * count({LIMIT})",
                steps=((GOOD, None), (ACT, 1)),
                empty="No limit",
                span=6,
            )
        )
        .with_panel(
            figure(
                "Queues short of workers",
                f"In how many queues did tasks wait while slots were free, for more than {NEEDED:.0%} of the time?",
                f"count({FOR_WORKERS} > {NEEDED}) or 0 * count({WAITING})",
                steps=((GOOD, None), (ACT, 1)),
                empty=NO_RULES,
                span=6,
            )
        )
        .with_panel(
            figure(
                "Headroom",
                "How many slots are free in busy hours, in all selected queues? Each at its p95 over the time range",
                f"sum({HEADROOM})",
                steps=((BAD, None), (NEAR, 1), (GOOD, 2)),
                empty="No limit",
                span=6,
                decimals=0,
            )
        )
        .with_panel(
            figure(
                "Next limit reached",
                "At the trend of the last seven days, when does the next queue reach its limit in busy hours?",
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
                *queue_columns(115),
                Column("Limit", LIMIT, width=60),
                Column("p50", _quantile(0.5, UTILIZATION), unit="percentunit", width=60, decimals=0),
                Column(
                    "p95",
                    P95,
                    unit="percentunit",
                    width=130,
                    bar_to=1,
                    steps=((GOOD, None), (NEAR, 0.8), (BAD, 0.95)),
                    decimals=0,
                ),
                Column("Max", _over_time("max_over_time", UTILIZATION), unit="percentunit", width=60, decimals=0),
                Column("Headroom", HEADROOM, width=90, steps=((BAD, None), (NEAR, 1), (GOOD, 2)), decimals=0),
                Column("At the limit", AT_LIMIT, unit="percentunit", width=95, decimals=1),
                Column(
                    "Waits for slots",
                    FOR_SLOTS,
                    unit="percentunit",
                    steps=((GOOD, None), (BAD, NEEDED)),
                    width=120,
                    decimals=1,
                ),
                Column(
                    "Waits, slots free",
                    FOR_WORKERS,
                    unit="percentunit",
                    steps=((GOOD, None), (ACT, NEEDED)),
                    width=130,
                    decimals=1,
                ),
                hidden=f"{FOR_SLOTS} + {AT_LIMIT} or {AT_LIMIT} or 0 * {FOR_WORKERS} - 1",
                sort_by="At the limit",
                most=30,
                empty=NO_RULES,
                height=11,
            )
        )
        .with_panel(
            rows(
                "Time lost by reason",
                "What did waiting tasks wait for, in task-hours over the time range? The time lost to a limit is what a"
                " higher limit can save at most",
                Column("Reason", label="reason", mappings=REASONS),
                Column("Task-hours", f"{LOST} > 0", width=110, decimals=1),
                Column(
                    "Share",
                    f"({LOST} > 0) / on () group_left () sum({LOST})",
                    unit="percentunit",
                    bar_to=1,
                    width=190,
                    decimals=0,
                ),
                sort_by="Task-hours",
                most=12,
                empty="Nothing waited",
                span=10,
                height=9,
            )
        )
        .with_panel(
            lines(
                "Busy hours by day",
                "Do queues get fuller? The p95 of the previous day, for the five queues that will be"
                " the fullest in a week",
                Query(named(f"max by ({BY}) ({BUSY}) and topk(5, {IN_A_WEEK})"), NAMED),
                span=14,
                legend_width=510,
                unit="percentunit",
                reaches=1,
                steps=FULL_LINE,
                height=9,
                empty=NO_RULES,
            )
        )
        .with_panel(
            rows(
                "When the limit is reached",
                f"At the trend of the last seven days, which queues reach their limit within {FORESEEN} days? Queues at"
                " their limit are left out",
                *queue_columns(),
                Column("Limit", f"{LIMIT} and {REACHED}", width=90),
                Column("Busy hours", f"max by ({BY}) ({BUSY}) and {REACHED}", unit="percentunit", bar_to=1, decimals=0),
                Column("Slots more each day", f"{TREND} * 86400 * {LIMIT} and {REACHED}", width=180, decimals=2),
                Column("Reached", REACHED, unit="dateTimeAsIso", width=190),
                sort_by="Reached",
                ascending=True,
                most=10,
                empty="No queue is growing",
                height=7,
            )
        )
        .with_row(row("What if the limit were $what_if?"))
        .with_panel(
            lines(
                "Demand against another limit",
                "How many slots would have been in use, had there been enough? This is the maximum: waiting"
                " tasks might run"
                " one after another. Select a queue above; otherwise the five fullest are shown",
                Query(named(f"sum by ({BY}) ({DEMAND}){FIVE}"), NAMED),
                Query("vector($what_if)", "what if"),
                span=24,
                legend_width=540,
                height=8,
                colors={"what if": BAD},
                dashed=("what if",),
                empty=NO_RULES,
            )
        )
        .with_panel(
            rows(
                "With the other limit",
                "For what share of the time would the queue have been full?",
                *queue_columns(),
                Column("Limit", LIMIT, width=90),
                Column("Full now", AT_LIMIT, unit="percentunit", width=120, decimals=1),
                Column(
                    "Full then",
                    _over_time("avg_over_time", f"{DEMAND} >= bool $what_if"),
                    unit="percentunit",
                    bar_to=1,
                    steps=((GOOD, None), (NEAR, 0.1), (BAD, 0.25)),
                    decimals=1,
                ),
                sort_by="Full then",
                most=30,
                empty=NO_RULES,
                height=11,
            )
        )
    )
