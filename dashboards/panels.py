"""What all panels share: colours that mean the same everywhere, variables, links, and the kinds of panels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import common as cb
from grafana_foundation_sdk.builders import dashboard as db
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as cm
from grafana_foundation_sdk.models import dashboard as dm
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.queries import BLOCKED, POOLS, SCRAPED
from exporter.config import ABOUT
from exporter.sources.about import Tone

GOOD: Final = "green"
NEAR: Final = "yellow"
ACT: Final = "orange"
BAD: Final = "red"
NEUTRAL: Final = "blue"
CLOSED: Final = "purple"
UNKNOWN: Final = "text"
WAIT: Final = ((GOOD, None), (NEAR, 600), (BAD, 1800))
"""Seconds for which tasks may wait: the last is what ConcurrencyOldestTaskWaitsTooLong compares with."""
HELD: Final = {
    "PENDING": ((GOOD, None), (ACT, 900)),
    "RUNNING": ((GOOD, None), (ACT, 6 * 3600)),
    "CANCELLING": ((GOOD, None), (ACT, 600)),
}
"""Seconds for which a holder may be in each state: what ConcurrencySlotHolderStuck compares with."""
FULL: Final = ((GOOD, None), (NEAR, 0.9), (BAD, 1))
"""Shares of the slots that are taken."""
FULL_LINE: Final = (("transparent", None), (BAD, 1))
"""Only a line, where all slots are taken."""
_TONES: Final[Mapping[Tone, str]] = {"neutral": NEUTRAL, "near": NEAR, "act": ACT, "closed": CLOSED}


def _colors(of_systems: Iterable[Mapping[str, Tone | None]], other: str) -> dict[str, str]:
    return {state: _TONES[tone] for states in of_systems for state, tone in states.items() if tone} | {other: UNKNOWN}


STATES: Final = _colors((about.holder_states for about in ABOUT.values()), "unknown")
"""The colour of each state of a holder."""
WAITING_STATES: Final = _colors((about.waiting_states for about in ABOUT.values()), "other")
"""The colour of each state of a task that waits."""
REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "queue_limit": ("limit of the queue", BAD),
    "pool_limit": ("limit of the pool", "dark-red"),
    "priority": ("a queue that goes first", "light-red"),
    "deployment_limit": ("deployment limit", NEAR),
    "no_worker": ("no worker", ACT),
    "none": ("nothing known", "dark-orange"),
    "retry": ("their own retry", "super-light-orange"),
    "queue_paused": ("queue is paused", CLOSED),
    "pool_paused": ("pool is paused", "dark-purple"),
    "zero_limit": ("a limit of 0", "light-purple"),
    "just_now": ("the next poll", GOOD),
    "unknown": ("not known", UNKNOWN),
}
"""Words for each reason why tasks wait, and its colour: limits are red, workers orange, decisions purple."""
SHADES: Final = ("dark-blue", "semi-dark-blue", "blue", "light-blue", "super-light-blue")
"""The colours of an order, the first of which is the most urgent."""

DATASOURCE: Final = cm.DataSourceRef(type_val="prometheus", uid="${datasource}")
POINTS: Final = 400
"""Of each series, at most: more can hardly be seen, and with hundreds of queues Prometheus takes seconds for them."""
NO_RULES: Final = "No data; this panel needs alerts/recording-rules.yml"
Steps = Sequence[tuple[str, float | None]]
"""Colours, each with the value from which it holds; the first has none."""


@dataclass(frozen=True)
class Query:
    """One query of a panel. `legend` is a template of labels; an instant query asks for the end of the range."""

    expression: str
    legend: str = ""
    instant: bool = False
    format: PromQueryFormat = PromQueryFormat.TIME_SERIES


def _target(query: Query, number: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend or "__auto")
    target = target.ref_id(chr(ord("A") + number)).datasource(DATASOURCE).format(query.format)
    return target.instant() if query.instant else target.range()


def _thresholds(steps: Steps) -> db.ThresholdsConfig:
    levels = [dm.Threshold(color=color, value=value) for color, value in steps]
    return db.ThresholdsConfig().mode(dm.ThresholdsMode.ABSOLUTE).steps(levels)


def _levels(steps: Steps) -> dict[str, Any]:
    """Thresholds of one field."""
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in steps]}


def _by_threshold() -> db.FieldColor:
    return db.FieldColor().mode(dm.FieldColorModeId.THRESHOLDS)


def mapping(names: Mapping[str, tuple[str, str]]) -> dm.ValueMap:
    """Texts and colours in the place of values."""
    results = enumerate(names.items())
    return dm.ValueMap(
        options={
            value: dm.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in results
        }
    )


def override(**properties: Any) -> list[dm.DynamicConfigValue]:
    """Properties of one field; `custom_cellOptions` is written for `custom.cellOptions`."""
    return [dm.DynamicConfigValue(id_val=name.replace("_", "."), value=value) for name, value in properties.items()]


def color(name: str) -> list[dm.DynamicConfigValue]:
    """A fixed colour for one field."""
    return override(color={"mode": "fixed", "fixedColor": name})


def _figures(title: str, question: str, queries: Sequence[Query], *, unit: str, empty: str, span: int) -> stat.Panel:
    panel = (
        stat.Panel()
        .title(title)
        .description(question)
        .datasource(DATASOURCE)
        .height(4)
        .span(span)
        .unit(unit)
        .no_value(empty)
        .color_scheme(_by_threshold())
        .color_mode(cm.BigValueColorMode.VALUE)
        .graph_mode(cm.BigValueGraphMode.NONE)
        .reduce_options(cb.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    return panel


def figure(
    title: str,
    question: str,
    query: str,
    *,
    unit: str = "short",
    steps: Steps = ((NEUTRAL, None),),
    empty: str = "No data",
    span: int = 4,
    mappings: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """One number."""
    panel = _figures(title, question, [Query(query, instant=True)], unit=unit, empty=empty, span=span)
    panel = panel.thresholds(_thresholds(steps))
    if mappings:
        panel = panel.mappings([mapping(mappings)])
    return panel if decimals is None else panel.decimals(decimals)


def figures(
    title: str,
    question: str,
    *queries: Query,
    steps: Mapping[str, Steps],
    unit: str = "short",
    empty: str = "No data",
    span: int = 4,
) -> stat.Panel:
    """A few numbers below each other, with their names. `steps` go by legend."""
    panel = _figures(title, question, queries, unit=unit, empty=empty, span=span)
    panel = panel.thresholds(_thresholds(((NEUTRAL, None),)))
    panel = panel.text_mode(cm.BigValueTextMode.VALUE_AND_NAME).orientation(cm.VizOrientation.HORIZONTAL)
    panel = panel.text(cb.VizTextDisplayOptions().title_size(14).value_size(64 // len(steps)))
    for name, levels in steps.items():
        panel = panel.override_by_name(name, override(thresholds=_levels(levels)))
    return panel


def lines(
    title: str,
    question: str,
    *queries: Query,
    unit: str = "short",
    stacked: bool = False,
    steps: Steps | None = None,
    colors: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    empty: str = "No data",
    span: int = 12,
    height: int = 8,
    maximum: float | None = None,
    reaches: float | None = None,
    minimum: float | None = 0,
    legend_width: int = 300,
) -> timeseries.Panel:
    """Values over time, on an axis that goes to `reaches` at least, or to `maximum` exactly.

    `colors`, `names` (what is shown in the place of a legend) and `dashed` (a limit, not a measurement) go by legend;
    widths are in pixels.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(question)
        .datasource(DATASOURCE)
        .height(height)
        .span(span)
        .max_data_points(POINTS)
        .unit(unit)
        .no_value(empty)
        .line_width(1)
        .fill_opacity(40 if stacked else 0)
        # A value without neighbours is a point; as a line it could not be seen.
        .show_points(cm.VisibilityMode.AUTO)
        .point_size(3)
        .span_nulls(False)
        .legend(
            cb.VizLegendOptions()
            .show_legend(True)
            .display_mode(cm.LegendDisplayMode.TABLE)
            .placement(cm.LegendPlacement.RIGHT)
            .calcs(["lastNotNull", "max"])
            .width(legend_width)
        )
        .tooltip(cb.VizTooltipOptions().mode(cm.TooltipDisplayMode.MULTI).sort(cm.SortOrder.DESCENDING))
    )
    if minimum is not None:
        panel = panel.min(minimum)
    if maximum is not None:
        panel = panel.max(maximum)
    if reaches is not None:
        panel = panel.axis_soft_max(reaches)
    if stacked:
        panel = panel.stacking(cb.StackingConfig().mode(cm.StackingMode.NORMAL).group("A"))
    if steps:
        style = cb.GraphThresholdsStyleConfig().mode(cm.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_thresholds(steps)).thresholds_style(style)
    for name, fixed in (colors or {}).items():
        shown = override(displayName=names[name]) if names and name in names else []
        panel = panel.override_by_name(name, [*color(fixed), *shown])
    for name in dashed:
        style_of_line = {"fill": "dash", "dash": [8, 6]}
        panel = panel.override_by_name(
            name, override(custom_lineStyle=style_of_line, custom_fillOpacity=0, custom_stacking={"mode": "none"})
        )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    return panel


def reasons(question: str, *, span: int = 24, height: int = 8) -> timeseries.Panel:
    """Why tasks wait, over time. A reason that held no task at all is left out."""
    held = f"max by (reason) (max_over_time(({BLOCKED})[$__range:$__interval] @ end())) > 0"
    return lines(
        "Why tasks wait",
        question,
        Query(f"sum by (reason) ({BLOCKED}) and on (reason) ({held})", "{{reason}}"),
        stacked=True,
        colors={reason: shown for reason, (_, shown) in REASONS.items()},
        names={reason: words for reason, (words, _) in REASONS.items()},
        span=span,
        height=height,
        legend_width=320,
        empty="Nothing waits",
    )


def durations(title: str, question: str, query: str, *, empty: str, span: int = 12) -> heatmap.Panel:
    """A distribution over time, from the buckets of a gauge histogram."""
    return (
        heatmap.Panel()
        .title(title)
        .description(question)
        .datasource(DATASOURCE)
        .height(8)
        .span(span)
        .max_data_points(POINTS // 3)
        .unit("short")
        .no_value(empty)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s").axis_placement(cm.AxisPlacement.LEFT))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(32))
        .cell_gap(1)
        .show_legend()
        .with_target(_target(Query(query, "{{le}}", format=PromQueryFormat.HEATMAP), 0))
    )


def timeline(
    title: str,
    question: str,
    *queries: Query,
    states: Mapping[str, tuple[str, str]],
    empty: str,
    span: int = 24,
    height: int = 9,
) -> statetimeline.Panel:
    """States over time, one row for each series."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(question)
        .datasource(DATASOURCE)
        .height(height)
        .span(span)
        .max_data_points(POINTS)
        .unit("short")
        .no_value(empty)
        .mappings([mapping(states)])
        .thresholds(_thresholds(((UNKNOWN, None),)))
        .color_scheme(_by_threshold())
        .fill_opacity(75)
        .line_width(0)
        .row_height(0.85)
        .show_value(cm.VisibilityMode.NEVER)
        .merge_values(True)
        .legend(
            cb.VizLegendOptions()
            .show_legend(True)
            .display_mode(cm.LegendDisplayMode.LIST)
            .placement(cm.LegendPlacement.BOTTOM)
        )
    )
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    return panel


@dataclass(frozen=True)
class Column:
    """A column of a table: what is shown, and in which unit; with a label, that label of the rows.

    A label with a query is only in the rows that the query has.
    """

    title: str
    query: str | None = None
    label: str = ""
    unit: str = "short"
    steps: Steps | None = None
    bar_to: float | None = None
    mappings: Mapping[str, tuple[str, str]] | None = None
    width: int | None = None
    decimals: int | None = None
    link: str | None = None


def _to_queue() -> str:
    """A link of a table's row to the dashboard of its queue, with the same data source and time range."""
    fields = "&".join(
        f"var-{name.lower()}=${{__data.fields.{name}:percentencode}}" for name in ("Source", "Pool", "Queue")
    )
    return f"/d/concurrency-queue?${{datasource:queryparam}}&{fields}&${{__url_time_range}}"


def queue_columns(source_width: int | None = None) -> tuple[Column, ...]:
    """What a row is about, with a link to the dashboard of its queue."""
    return (
        Column("Source", label="source", width=source_width),
        Column("Pool", label="pool"),
        Column("Queue", label="queue", link=_to_queue()),
    )


def rows(
    title: str,
    question: str,
    *columns: Column,
    sort_by: str,
    most: int,
    empty: str,
    hidden: str | None = None,
    ascending: bool = False,
    span: int = 24,
    height: int = 10,
) -> table.Panel:
    """A table of instant queries that share their labels, sorted by one column, or by the query `hidden`."""
    queries = [column.query for column in columns if column.query] + ([hidden] if hidden else [])
    letters = {query: chr(ord("A") + number) for number, query in enumerate(queries)}
    names = {column.label: column.title for column in columns if column.label}
    names |= {
        f"Value #{letters[column.query]}": column.title for column in columns if column.query and not column.label
    }
    if len(queries) == 1:
        names = {"Value" if name == "Value #A" else name: title for name, title in names.items()}
    score = f"Value #{letters[hidden]}" if hidden else next(key for key, value in names.items() if value == sort_by)
    by_title = {column.title: number for number, column in enumerate(columns)}
    order = {key: by_title[title] for key, title in names.items()}
    panel = (
        table.Panel()
        .title(title)
        .description(question)
        .datasource(DATASOURCE)
        .height(height)
        .span(span)
        .unit("short")
        .no_value(empty)
        .cell_height(cm.TableCellHeight.SM)
        .with_transformation(dm.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dm.DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": score, "desc": not ascending}]})
        )
        .with_transformation(dm.DataTransformerConfig(id_val="limit", options={"limitField": most}))
        .with_transformation(
            dm.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(names)}})
        )
        .with_transformation(
            dm.DataTransformerConfig(
                id_val="organize", options={"excludeByName": {}, "indexByName": order, "renameByName": names}
            )
        )
    )
    for query, letter in letters.items():
        target = _target(Query(query, instant=True, format=PromQueryFormat.TABLE), ord(letter) - ord("A"))
        panel = panel.with_target(target)
    for column in columns:
        # A label that is not there stays empty: its cell's text goes into links.
        properties: dict[str, Any] = {"unit": column.unit, "noValue": "-" if column.query else ""}
        if column.decimals is not None:
            properties["decimals"] = column.decimals
        if column.steps:
            # No figure here is negative, and a cell without one is not to look good or bad.
            levels = [(UNKNOWN, None), *((color, value or 0) for color, value in column.steps)]
            properties |= {
                "thresholds": _levels(levels),
                "color": {"mode": "thresholds"},
                "custom_cellOptions": {"type": "color-text"},
            }
        if column.bar_to is not None:
            properties |= {
                "min": 0,
                "max": column.bar_to,
                "custom_cellOptions": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
            }
        if column.mappings:
            options = {
                value: {"text": text, "color": color, "index": index}
                for index, (value, (text, color)) in enumerate(column.mappings.items())
            }
            properties |= {
                "mappings": [{"type": "value", "options": options}],
                "custom_cellOptions": {"type": "color-text"},
            }
        if column.label:
            properties["custom_filterable"] = True
        if column.width:
            properties["custom_width"] = column.width
        if column.link:
            properties["links"] = [{"title": f"{column.title}: details", "url": column.link}]
        panel = panel.override_by_name(column.title, override(**properties))
    return panel


def _variable(name: str, label: str, query: str, all_value: str) -> db.QueryVariable:
    return (
        db.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(dm.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(all_value)
        .sort(dm.VariableSort.ALPHABETICAL_ASC)
        .current(dm.VariableOption(text="All", value="$__all", selected=True))
    )


_UP: Final = "concurrency_exporter_source_up"
_VARIABLES: Final = {
    "job": ("Job", f"label_values({_UP}, job)", ".+"),
    "instance": ("Instance", f'label_values({_UP}{{job=~"$job"}}, instance)', ".+"),
    "system": ("System", f'label_values({_UP}{{job=~"$job", instance=~"$instance"}}, system)', ".+"),
    "source": (
        "Source",
        f'label_values({_UP}{{job=~"$job", instance=~"$instance", system=~"$system"}}, source)',
        ".+",
    ),
    # cloro has no pools: to choose all is to choose those without one as well.
    "pool": ("Pool", f"label_values(concurrency_queue_usage_known{{{SCRAPED}}}, pool)", ".*"),
    "queue": ("Queue", f"label_values(concurrency_queue_usage_known{{{POOLS}}}, queue)", ".+"),
}
"""Label, query and the regular expression for all of them; each depends on those before it."""
DASHBOARDS: Final = {
    "overview": "What is saturated now?",
    "queue": "Why, and since when?",
    "capacity": "Do we need a higher limit?",
    "exporter": "Can I trust these graphs?",
}


def board(name: str, *, since: str, variables: Sequence[str] = tuple(_VARIABLES), refresh: str = "30s") -> db.Dashboard:
    """A dashboard without panels: its variables, and links to the others that carry what is chosen."""
    result = (
        db.Dashboard(f"Concurrency / {name.capitalize()}")
        .uid(f"concurrency-{name}")
        .description(DASHBOARDS[name])
        .tags(["concurrency"])
        .time(f"now-{since}", "now")
        .timezone("browser")
        .refresh(refresh)
        .tooltip(dm.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(db.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in variables:
        result = result.with_variable(_variable(variable, *_VARIABLES[variable]))
    for other, question in DASHBOARDS.items():
        if other != name:
            result = result.link(
                db.DashboardLink(other.capitalize())
                .type(dm.DashboardLinkType.LINK)
                .url(f"/d/concurrency-{other}")
                .tooltip(question)
                .icon("dashboard")
                .include_vars(True)
                .keep_time(True)
            )
    return result


def row(title: str) -> db.Row:
    """A heading."""
    return db.Row(title)


AnyPanel = Builder[dm.Panel]
