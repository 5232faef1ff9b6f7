"""What a dashboard has to be, by the rules and by its queries on a real Prometheus; each check tells what is wrong.

What Grafana's dashboard-linter asks for, and what looks at it here:

| Rule of the linter | Here |
| --- | --- |
| template-datasource-rule | `has_variables` |
| template-job-rule, template-instance-rule | `has_variables` |
| template-label-promql-rule | `has_variables`; a Prometheus answers them in `test_every_variable_has_options` |
| template-on-time-change-reload-rule | `has_variables` |
| panel-datasource-rule | `asks_and_answers` |
| panel-title-description-rule | `asks_and_answers` |
| panel-units-rule | `asks_and_answers`, for every kind of panel |
| panel-no-targets-rule | `asks_and_answers` |
| target-promql-rule | `selects_what_is_declared`, and a Prometheus in `queries` |
| target-rate-interval-rule | `selects_what_is_declared` |
| target-counter-agg-rule | `selects_what_is_declared` |
| target-job-rule, target-instance-rule | `selects_what_is_declared`, but no instance of recorded series and `ALERTS` |
| uneditable-dashboard | `is_stable` |
"""

import json
import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import promql_parser
import pytest

from dashboards import panels
from dashboards.build import BUILDERS, FOLDER
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import selectors, undeclared

Board = dict[str, Any]
COLORS: Final = {
    panels.GOOD,
    panels.NEAR,
    panels.ACT,
    panels.BAD,
    panels.NEUTRAL,
    panels.CLOSED,
    panels.UNKNOWN,
    *panels.SHADES,
    *(color for _, color in panels.REASONS.values()),
    "transparent",
}
CHAIN: Final = ("job", "instance", "system", "source", "pool", "queue")


def charts(board: Board) -> list[dict[str, Any]]:
    """The panels that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


# --- The rules, most of them those of Grafana's dashboard-linter.


def is_stable(board: Board) -> Iterator[str]:
    """Links, bookmarks and provisioning go by the uid; what is edited by hand is lost."""
    if board.get("uid") not in {f"concurrency-{name}" for name in BUILDERS}:
        yield f"uid {board.get('uid')}"
    if board.get("editable") is not False:
        yield "can be edited"
    if not board.get("description", "").endswith("?"):
        yield "its description is no question"
    if board["schemaVersion"] < 39 or board.get("id") is not None:
        yield "can't be imported as it is"


def has_variables(board: Board) -> Iterator[str]:
    """Each is chained to those before it, refreshed, and used."""
    variables = board["templating"]["list"]
    source, *others = [variable for variable in variables if variable["type"] != "textbox"]
    if (source["name"], source["label"], source["type"]) != ("datasource", "Data source", "datasource"):
        yield "no variable for the data source"
    names = [variable["name"] for variable in others]
    if names != [name for name in CHAIN if name in names]:
        yield f"variables {names}"
    used = json.dumps([board["panels"], board["annotations"]] + [variable["query"] for variable in variables])
    for number, variable in enumerate(others):
        name, query = variable["name"], variable["query"]["query"]
        if (variable["multi"], variable["includeAll"], variable["refresh"]) != (True, True, 2):
            yield f"${name}: several, all, and new ones at another time, that has to be"
        if variable["datasource"]["uid"] != "${datasource}":
            yield f"${name}: another data source"
        if variable["allValue"] != (".*" if name == "pool" else ".+") or variable["label"] != name.capitalize():
            yield f"${name}: label or value for all"
        yield from (
            f"${name} does not follow ${before}" for before in names[:number] if f'{before}=~"${before}"' not in query
        )
    yield from (
        f"${variable['name']} is not used"
        for variable in variables
        if not re.search(rf"\$\{{?{variable['name']}", used)
    )


def answers_what_if(board: Board) -> Iterator[str]:
    """Below a row that names a variable, each panel depends on it."""
    named = ""
    for panel in board["panels"]:
        if panel["type"] == "row":
            named = next(iter(re.findall(r"\$(\w+)", panel["title"])), "")
        elif named and f"${named}" not in json.dumps(panel["targets"]):
            yield f"{panel['title']} does not depend on ${named}"


def has_places(board: Board) -> Iterator[str]:
    """Panels lie beside each other, within the grid, each with a number of its own."""
    ids = [panel["id"] for panel in board["panels"]]
    if len(set(ids)) < len(ids):
        yield "two panels have one id"
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        if not 0 <= place["x"] < place["x"] + place["w"] <= 24:
            yield f"{panel['title']}: outside of the grid"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    yield f"{panel['title']} overlaps {taken[x, y]}"
                    return
                taken[x, y] = panel["title"]


def has_links(board: Board) -> Iterator[str]:
    """To the other dashboards and to queues, with what is chosen and the time."""
    others = {f"/d/concurrency-{name}" for name in BUILDERS} - {f"/d/{board['uid']}"}
    if {link["url"] for link in board["links"]} != others:
        yield "does not link to each of the others"
    yield from (
        f"link {link['title']} carries not all"
        for link in board["links"]
        if not (link["includeVars"] and link["keepTime"])
    )
    for link in links_of_rows(board):
        fields = re.findall(r"var-(\w+)=\$\{__data\.fields\.(\w+):percentencode\}", link["url"])
        if (
            not re.match(r"/d/concurrency-\w+\?\$\{datasource:queryparam\}&", link["url"])
            or not link["url"].endswith("${__url_time_range}")
            or [(name, field.lower()) for name, field in fields]
            != [(name, name) for name in ("source", "pool", "queue")]
        ):
            yield f"link {link['title']}: {link['url']}"


def links_of_rows(board: Board) -> Iterator[dict[str, str]]:
    """The links of the cells of tables."""
    for panel in charts(board):
        for override in panel["fieldConfig"]["overrides"]:
            for prop in override["properties"]:
                if prop["id"] == "links":
                    yield from prop["value"]


def asks_and_answers(board: Board) -> Iterator[str]:
    """A panel asks a question, says its unit, and what it means that it has nothing to show."""
    for panel in charts(board):
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        if not title or "?" not in panel.get("description", ""):
            yield f"{title}: no question"
        for what in ("unit", "noValue"):
            if not defaults.get(what):
                yield f"{title}: no {what}"
        if not panel.get("targets"):
            yield f"{title}: no query"
        of = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        if any(source != {"type": "prometheus", "uid": "${datasource}"} for source in of):
            yield f"{title}: another data source"


def means_its_colours(board: Board) -> Iterator[str]:
    """Colours mean the same everywhere, and thresholds rise."""
    for panel in charts(board):
        title, config = panel["title"], panel["fieldConfig"]
        found = set(re.findall(r'"(?:fixedColor|color)": "([^"]+)"', json.dumps(panel)))
        if found - COLORS:
            yield f"{title}: colours {found - COLORS}"
        for override in config["overrides"]:
            # Numbers are coloured by what they mean.
            name = override["matcher"].get("options")
            fixed = {reason: color for reason, (_, color) in panels.REASONS.items()} | panels.STATES
            color = fixed.get(name) if panel["type"] != "stat" else None
            if color and {"id": "color", "value": {"mode": "fixed", "fixedColor": color}} not in override["properties"]:
                yield f"{title}: another colour for {name}"
        properties = [prop for override in config["overrides"] for prop in override["properties"]]
        thresholds = [prop["value"] for prop in properties if prop["id"] == "thresholds"]
        for levels in [config["defaults"].get("thresholds"), *thresholds]:
            values: list[Any] = [step["value"] for step in levels["steps"]] if levels else [None]
            if values[0] is not None or values[1:] != sorted(set(values[1:])):
                yield f"{title}: thresholds {values}"


UNJUDGED: Final = {
    "Tasks waiting": "many may be as it should be: for how long the oldest waits tells",
    "Slots": "the limit is drawn",
    "Holders by state": "for how long they hold tells",
    "Oldest holder by state": "what the alert compares with is drawn, for each state",
    "State durations": "a distribution; Oldest holder by state has the figures",
    "Waiting tasks by priority": "what waits is judged by its time",
    "Waiting tasks by state": "what waits is judged by its time",
    "Arrivals against drain": "a backlog that grows is no fault until it is too old",
    "When the limit is reached": "a date: whether that is soon depends on how long a higher limit takes",
    "Why tasks wait": "its colours are reasons",
    "Demand against another limit": "the other limit is drawn",
    "Polls by outcome": "its colours are outcomes",
    "Failures by reason": "anything in it is a failure",
    "Duration of polls": "no series has the interval; a poll that outlasts it is skipped, and counted as such",
    "Requests to upstream": "what upstream allows is in Rate limit left",
    "Requests by route": "what upstream allows is in Rate limit left",
    "Memory": "the limit of its container is not known here",
    "CPU": "the limit of its container is not known here",
    "Scrape duration": "scrape_timeout is not known here",
    "Samples of a scrape": "sample_limit is not known here",
}
"""Panels without a figure from which somebody has to act, and why they have none."""


def says_when_to_act(board: Board) -> Iterator[str]:
    """A panel has a threshold or a mapping in the colour of trouble, or a reason to have none."""
    for panel in charts(board):
        title, config = panel["title"], panel["fieldConfig"]
        properties = [prop for override in config["overrides"] for prop in override["properties"]]
        judging = [config["defaults"].get(name) for name in ("thresholds", "mappings")]
        judging += [prop["value"] for prop in properties if prop["id"] in {"thresholds", "mappings"}]
        colors = set(re.findall(r'"color": "([^"]+)"', json.dumps(judging)))
        if bool(colors & {panels.ACT, panels.BAD}) == (title in UNJUDGED):
            yield f"{title}: {'judged, though there is a reason not to' if title in UNJUDGED else 'when to act?'}"


def names_its_fields(board: Board) -> Iterator[str]:
    """What is overridden is there: the columns of a table; in a graph what the legend can be."""
    for panel in charts(board):
        overridden = {override["matcher"].get("options") for override in panel["fieldConfig"]["overrides"]}
        if panel["type"] == "table":
            steps = {one["id"]: one["options"] for one in panel["transformations"]}
            if list(steps) != ["merge", "sortBy", "limit", "filterFieldsByName", "organize"]:
                yield f"{panel['title']}: transformations {list(steps)}"
                continue
            organize, kept = steps["organize"], steps["filterFieldsByName"]
            shown = set(organize["renameByName"].values())
            if overridden != shown or len(shown) < len(organize["renameByName"]):
                yield f"{panel['title']}: columns {overridden ^ shown}"
            if not set(organize["renameByName"]) == set(organize["indexByName"]) == set(kept["include"]["names"]):
                yield f"{panel['title']}: the transformations disagree"
            if any(target.get("format") != "table" or not target.get("instant") for target in panel["targets"]):
                yield f"{panel['title']}: a query that makes no table"
        else:
            templates = [re.sub(r"\\\{\\\{\w+\\\}\\\}", ".+", re.escape(t["legendFormat"])) for t in panel["targets"]]
            for name in overridden:
                if not any(re.fullmatch(template, name) for template in templates):
                    yield f"{panel['title']}: nothing can be called {name}"


def selects_what_is_declared(board: Board) -> Iterator[str]:
    """Every metric and label exists, rates have Grafana's window, and the choice of job and instance holds."""
    for where, expression in expressions(board):
        yield from (f"{where}: {problem}" for problem in undeclared(Variables().fill(expression)))
        for function, window in re.findall(r"\b(i?rate|increase)\([^\[\]]*\[([^\]]+)\]", expression):
            if window != ("$__range" if function == "increase" else "$__rate_interval"):
                yield f"{where}: a {function} over {window}"
        for counter in re.findall(r"(?<!\w)\w+_total\b", expression):
            if not re.search(rf"(rate|increase)\({counter}\{{", expression):
                yield f"{where}: the counter {counter} is not turned into a rate"
        known = {variable["name"] for variable in board["templating"]["list"]}
        for name in re.findall(r"\$\{?([a-z_]\w*)", expression):
            if name not in known | {"__rate_interval", "__range", "__interval"}:
                yield f"{where}: no variable ${name}"
        # The linter wants job and instance everywhere; what rules recorded has no instance, nor have most alerts.
        # An alert without one of the other labels is of what is above the chosen: of a source, or of no exporter.
        for metric, selector in re.findall(r"([A-Za-z_]+(?::\w+)*)\{([^}]*)\}", expression):
            above = "|" if metric.startswith("ALERTS") else ""
            recorded = ["job"] if ":" in metric else ["job", "instance"]
            wanted = [label for label in CHAIN if label != "instance" and label in known] if above else recorded
            yield from (
                f"{where}: {metric} is not limited to ${label}"
                for label in wanted
                if f'{label}=~"${label}{above}"' not in selector
            )


def expressions(board: Board) -> Iterator[tuple[str, str]]:
    """Every query, and where it is."""
    for panel in charts(board):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in board["annotations"].get("list", ()):
        yield f"annotation {annotation['name']}", annotation["target"]["expr"]


def marks_the_same(board: Board) -> Iterator[str]:
    """Older versions of Grafana read an annotation's query beside its target, newer ones within."""
    for annotation in board["annotations"].get("list", ()):
        target = annotation["target"]
        if (annotation.get("expr"), annotation.get("step")) != (target["expr"], target["interval"]):
            yield f"annotation {annotation['name']}: its target says something else"


RULES: Final[Sequence[Callable[[Board], Iterator[str]]]] = (
    is_stable,
    has_variables,
    answers_what_if,
    has_places,
    has_links,
    asks_and_answers,
    means_its_colours,
    says_when_to_act,
    names_its_fields,
    selects_what_is_declared,
    marks_the_same,
)


# --- Every query, on a real Prometheus.


@dataclass(frozen=True)
class Variables:
    """What is chosen in the drop-downs, as Grafana fills it in, everything by default; and the range that is shown."""

    job: str = ".+"
    instance: str = ".+"
    system: str = ".+"
    source: str = ".+"
    pool: str = ".*"
    queue: str = ".+"
    what_if: str = "10"
    seconds: int = 60
    step: int = 5

    def fill(self, text: str) -> str:
        """The expression with its variables replaced; one that is unknown stays."""
        values = {
            "__rate_interval": f"{4 * self.step}s",
            "__range": f"{self.seconds}s",
            "__interval": f"{self.step}s",
            **{name: str(value) for name, value in vars(self).items()},
        }
        return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], match[0]), text)


def series(prometheus: PrometheusServer, target: dict[str, Any], chosen: Variables) -> list[dict[str, str]]:
    """The labels of the series that the panel would show."""
    expression = chosen.fill(target["expr"])
    if target.get("instant"):
        return [labels for labels, _ in prometheus.query(expression)]
    return prometheus.query_range(expression, seconds=chosen.seconds, step=chosen.step)


def legends(target: dict[str, Any], series: list[dict[str, str]]) -> list[str]:
    """What the legend says of each, in its order; nothing of what makes no legend."""
    template = target["legendFormat"]
    if template == "__auto" or target.get("format") in {"heatmap", "table"}:
        return []
    return [re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template) for labels in series]  # noqa: B023


def queries(
    prometheus: PrometheusServer,
    board: Board,
    chosen: Variables,
    may_be_empty: Container[str] = (),
    *,
    all_targets: bool = False,
    partly_empty: Container[str] = (),
) -> Iterator[str]:
    """What is wrong with the panels, if this is chosen. Each has data, but for those that may be empty.

    With `all_targets` each of its queries has, but for those that may be partly empty.
    """
    for panel in charts(board):
        where = f"{board['uid']}: {panel['title']}"
        try:
            found = [(target, series(prometheus, target, chosen)) for target in panel["targets"]]
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        empty = [chosen.fill(target["expr"]) for target, labels in found if not labels]
        title = panel["title"]
        missed = len(empty) == len(found) or (all_targets and empty and title not in partly_empty)
        if missed and title not in may_be_empty:
            yield f"{where}: nothing from {empty}"
        shown = [legend for target, labels in found for legend in legends(target, labels)]
        if len(set(shown)) < len(shown):
            yield f"{where}: legends that are alike: {shown}"
        if len(shown) > 25:
            yield f"{where}: {len(shown)} legends"
        for target, of in found:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                if of and label != "pool" and not any(label in labels for labels in of):
                    yield f"{where}: no series has the label {label} of the legend"


def marks(prometheus: PrometheusServer, board: Board, chosen: Variables) -> Iterator[str]:
    """The annotations that have no data, if this is chosen."""
    for annotation in board["annotations"].get("list", ()):
        if not series(prometheus, annotation["target"], chosen):
            yield f"{board['uid']}: annotation {annotation['name']}: nothing from {chosen.fill(annotation['expr'])}"


def dead_selectors(prometheus: PrometheusServer, board: Board, chosen: Variables) -> Iterator[str]:
    """What an expression selects and there is not, though the expression as a whole may have a result."""
    seen = set()
    for where, expression in expressions(board):
        for selector in selectors(promql_parser.parse(chosen.fill(expression))):
            text = selector.prettify()
            if text not in seen and not prometheus.query_range(text, seconds=chosen.seconds, step=chosen.step):
                yield f"{board['uid']}: {where}: nothing matches {text}"
            seen.add(text)


BOARDS: dict[str, Board] = {
    name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in BUILDERS
}

TITLES = {panel["title"] for board in BOARDS.values() for panel in charts(board)}
every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
