"""Small faults put into the dashboards, to see which layer notices. `make mutants` tries all, and lists them.

The layers: the rules that a dashboard keeps, the types that @grafana/schema publishes, its queries on a Prometheus with
a week of history, and a browser that renders it with Grafana's published packages.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dashboards.build import BUILDERS, FOLDER
from tests.harness import browser, fleet
from tests.harness.browser import SMALL, Visit, faults
from tests.harness.dashboards import RULES, Board, Variables, charts, dead_selectors, marks, queries
from tests.harness.history import history
from tests.harness.prometheus import PrometheusServer

LAYERS: Final = ("rules", "schema", "queries", "browser")
WEEK: Final = Variables(seconds=7 * 86400, step=1800)


@dataclass(frozen=True)
class Mutant:
    """A fault in one dashboard."""

    board: str
    what: str
    change: Callable[[Board], None]

    def __str__(self) -> str:
        return f"{self.board}: {self.what}"

    def made(self) -> Board:
        """The dashboard with the fault. Raises `AssertionError` where the change changes nothing."""
        before: Board = json.loads((FOLDER / f"{self.board}.json").read_text(encoding="utf-8"))
        after = deepcopy(before)
        self.change(after)
        assert after != before, self
        return after


def _panel(board: Board, title: str) -> Any:
    return next(panel for panel in board["panels"] if panel["title"] == title)


def _in_panel(title: str, change: Callable[[Any], object]) -> Callable[[Board], None]:
    return lambda board: (change(_panel(board, title)), None)[1]


def _query(title: str, old: str, new: str, number: int = 0) -> Callable[[Board], None]:
    def change(board: Board) -> None:
        target = _panel(board, title)["targets"][number]
        target["expr"] = target["expr"].replace(old, new, 1)

    return change


def _defaults(title: str, **values: Any) -> Callable[[Board], None]:
    return _in_panel(title, lambda panel: panel["fieldConfig"]["defaults"].update(values))


def _options(title: str, **values: Any) -> Callable[[Board], None]:
    return _in_panel(title, lambda panel: panel["options"].update(values))


def _place(title: str, **values: int) -> Callable[[Board], None]:
    return _in_panel(title, lambda panel: panel["gridPos"].update(values))


def _property(title: str, column: str, name: str, value: Any) -> Callable[[Board], None]:
    def change(panel: Any) -> None:
        override = next(one for one in panel["fieldConfig"]["overrides"] if one["matcher"]["options"] == column)
        next(one for one in override["properties"] if one["id"] == name)["value"] = value

    return _in_panel(title, change)


def _variable(name: str, change: Callable[[Any], object]) -> Callable[[Board], None]:
    return lambda board: (change(next(v for v in board["templating"]["list"] if v["name"] == name)), None)[1]


def _transformation(title: str, name: str, change: Callable[[Any], object]) -> Callable[[Board], None]:
    return _in_panel(title, lambda panel: change(next(one for one in panel["transformations"] if one["id"] == name)))


MUTANTS: Final[Sequence[Mutant]] = (
    # Queries.
    Mutant("overview", "a misspelt metric", _query("Tasks waiting", "queued_tasks", "queue_tasks")),
    Mutant("overview", "a wrong label in a selector", _query("Sources down", "source=~", "sources=~")),
    Mutant("overview", "a wrong label in a grouping", _query("Worst queues first", "by (source,", "by (sources,")),
    Mutant("overview", "a query that can't be parsed", _query("Free slots", "sum(", "sum((")),
    Mutant(
        "overview", "a dead query: a value that no label has", _query("Tasks waiting", "pool=~", 'pool="none", pool=~')
    ),
    Mutant("overview", "a dead query: a condition that never holds", _query("Pools", "> 0)", "> 99)")),
    Mutant(
        "overview",
        "one side of an `or` is dead",
        _query("Oldest wait", "count(", 'count(up{job=~"$job", instance=~"$instance", instance="x"}) or 0 * count('),
    ),
    Mutant("overview", "a query that asks nothing", _query("Alerts", "count(", "vector(0) or 0 * count(")),
    Mutant("queue", "an unknown variable", _query("Tasks waiting", "$queue", "$queues")),
    Mutant("queue", "not limited to the chosen job", _query("Slots", 'job=~"$job", ', "")),
    Mutant(
        "overview", "alerts that are not limited to the chosen queue", _query("Firing alerts", ', queue=~"$queue|"', "")
    ),
    Mutant("overview", "alerts of which those without a pool are left out", _query("Alerts", "$pool|", "$pool")),
    Mutant("exporter", "a rate over a fixed window", _query("CPU", "$__rate_interval", "1m")),
    Mutant("exporter", "a counter without a rate", _query("Polls by outcome", "rate(", "max_over_time(")),
    Mutant("exporter", "a histogram without le", _query("Duration of polls", "by (le, source)", "by (source)")),
    Mutant(
        "queue",
        "a legend with a label that is not there",
        _in_panel("Holders by state", lambda panel: panel["targets"][0].update(legendFormat="{{status}}")),
    ),
    Mutant(
        "queue",
        "one legend for all series",
        _in_panel("Pool", lambda panel: panel["targets"][0].update(legendFormat="pool")),
    ),
    Mutant("capacity", "a what-if limit that does nothing", _query("With the other limit", "$what_if", "10", 2)),
    Mutant(
        "queue",
        "an annotation of alerts that do not exist",
        lambda board: board["annotations"]["list"][0]["target"].update(
            expr='ALERTS{alertname="No", source=~"$source"}'
        ),
    ),
    Mutant(
        "queue",
        "an annotation that older versions can't read",
        lambda board: board["annotations"]["list"][0].pop("expr"),
    ),
    # Units, texts, colours.
    Mutant("overview", "a broken unit", _defaults("Oldest wait", unit="secs")),
    Mutant("overview", "no unit", _in_panel("Oldest wait", lambda panel: panel["fieldConfig"]["defaults"].pop("unit"))),
    Mutant("capacity", "another unit: seconds for a share", _property("Queues by need", "p95", "unit", "s")),
    Mutant("overview", "no description", _in_panel("Tasks waiting", lambda panel: panel.pop("description"))),
    Mutant(
        "overview",
        "a description that is no question",
        _in_panel("Tasks waiting", lambda panel: panel.update(description="Tasks")),
    ),
    Mutant("queue", "no text for no data", _defaults("Time to drain", noValue="")),
    Mutant(
        "queue",
        "another colour for a state",
        _in_panel(
            "Holders by state",
            lambda panel: panel["fieldConfig"]["overrides"][0]["properties"][0]["value"].update(fixedColor="green"),
        ),
    ),
    Mutant(
        "overview",
        "a colour that Grafana does not have",
        _in_panel(
            "Free slots", lambda panel: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0].update(color="blau")
        ),
    ),
    Mutant(
        "overview",
        "thresholds that fall",
        _in_panel("Oldest wait", lambda panel: panel["fieldConfig"]["defaults"]["thresholds"]["steps"].reverse()),
    ),
    Mutant(
        "overview",
        "a mapping that no value has",
        _property("Sources", "Up", "mappings", [{"type": "value", "options": {"2": {"text": "up", "color": "green"}}}]),
    ),
    # Options.
    Mutant("overview", "a misspelt option", _options("Tasks waiting", colourMode="value")),
    Mutant("overview", "a value that an option does not have", _options("Tasks waiting", graphMode="lines")),
    Mutant(
        "queue",
        "a misspelt option of a field",
        _in_panel("Slots", lambda panel: panel["fieldConfig"]["defaults"]["custom"].update(fillOpacitiy=3)),
    ),
    Mutant(
        "queue",
        "an override of a property that there is not",
        _in_panel(
            "Slots",
            lambda panel: panel["fieldConfig"]["overrides"][0]["properties"].append(
                {"id": "custom.lineStile", "value": "dash"}
            ),
        ),
    ),
    Mutant(
        "queue",
        "an override of a series that there is not",
        _in_panel("Slots", lambda panel: panel["fieldConfig"]["overrides"][0]["matcher"].update(options="takn")),
    ),
    Mutant(
        "overview",
        "a matcher that there is not",
        _in_panel("Pools", lambda panel: panel["fieldConfig"]["overrides"][0]["matcher"].update(id="byNam")),
    ),
    Mutant(
        "overview",
        "a calculation that there is not",
        _in_panel("Tasks waiting", lambda panel: panel["options"]["reduceOptions"].update(calcs=["latest"])),
    ),
    Mutant(
        "overview",
        "a kind of panel that there is not",
        _in_panel("Tasks waiting", lambda panel: panel.update(type="singlestats")),
    ),
    # Tables.
    Mutant(
        "overview",
        "a transformation that there is not",
        _transformation("Pools", "organize", lambda one: one.update(id="organise")),
    ),
    Mutant(
        "overview",
        "a column of a table that is no table",
        _in_panel("Pools", lambda panel: panel["targets"][0].update(format="time_series")),
    ),
    Mutant("overview", "a table that is not merged", _in_panel("Pools", lambda panel: panel["transformations"].pop(0))),
    Mutant(
        "overview",
        "a column with another name",
        _transformation("Pools", "organize", lambda one: one["options"]["renameByName"].update(pool="Pol")),
    ),
    Mutant(
        "overview",
        "a column that is filtered out",
        _transformation(
            "Worst queues first",
            "filterFieldsByName",
            lambda one: one["options"]["include"]["names"].remove("Value #A"),
        ),
    ),
    # Places.
    Mutant("overview", "an overlap", _place("Oldest wait", x=6)),
    Mutant("overview", "a panel outside of the grid", _place("Sources down", x=22)),
    Mutant("overview", "a panel that is cut off: too narrow", _place("Pools", w=6)),
    Mutant("overview", "a column that is too narrow", _property("Firing alerts", "Alert", "custom.width", 120)),
    Mutant("queue", "a legend that is cut off: too low", _place("Utilization by queue", h=5)),
    Mutant("overview", "a table that is cut off: too low", _place("Worst queues first", h=6)),
    Mutant("overview", "rows of a timeline that are too low", _place("Saturation over time", h=5)),
    Mutant(
        "queue",
        "figures that are too small",
        _in_panel("Oldest holder", lambda panel: panel["options"].pop("text")),
    ),
    Mutant("overview", "two panels with one id", _in_panel("Oldest wait", lambda panel: panel.update(id=1))),
    # Variables, links, the dashboard itself.
    Mutant(
        "overview",
        "another data source",
        _in_panel("Tasks waiting", lambda panel: panel["targets"][0]["datasource"].update(uid="prometheus-1")),
    ),
    Mutant(
        "overview",
        "a variable that does not follow",
        _variable("queue", lambda one: one["query"].update(query="label_values(concurrency_queue_usage_known, queue)")),
    ),
    Mutant(
        "overview",
        "a variable of a label that there is not",
        _variable(
            "source", lambda one: one["query"].update(query=one["query"]["query"].replace(", source)", ", sources)"))
        ),
    ),
    Mutant("overview", "a variable without All", _variable("source", lambda one: one.update(includeAll=False))),
    Mutant("overview", "a variable that is not refreshed", _variable("source", lambda one: one.update(refresh=0))),
    Mutant("overview", "a link without what is chosen", lambda board: board["links"][0].update(includeVars=False)),
    Mutant("overview", "a link to nowhere", lambda board: board["links"][0].update(url="/d/queue")),
    Mutant(
        "overview",
        "a row's link to another queue",
        _property(
            "Worst queues first",
            "Queue",
            "links",
            [
                {
                    "title": "x",
                    "url": "/d/concurrency-queue?${datasource:queryparam}&var-queue=${__data.fields.Pool}",
                }
            ],
        ),
    ),
    Mutant("overview", "another uid", lambda board: board.update(uid="concurrency-overview-2")),
)


def broken_rule(board: Board) -> str:
    """What the first rule says that the board breaks; empty if it keeps all."""
    return _first(lambda: (problem for rule in RULES for problem in rule(board)))


class Bench:
    """The layers, each of which says what is wrong with some boards, by the name of their file."""

    def __init__(self, prometheus: PrometheusServer, folder: Path) -> None:
        self._prometheus = prometheus
        self._folder = folder

    def __call__(self, layer: str, boards: Mapping[str, tuple[str, Board]]) -> dict[str, str]:
        """The first thing that the layer says of each of the boards (name and content) that it refuses."""
        for file, (_, board) in boards.items():
            (self._folder / f"{file}.json").write_text(json.dumps(board), encoding="utf-8")
        return {file: text for file, text in getattr(self, f"_{layer}")(boards) if text}

    def _rules(self, boards: Mapping[str, tuple[str, Board]]) -> Iterator[tuple[str, str]]:
        for file, (_, board) in boards.items():
            yield file, broken_rule(board)

    def _queries(self, boards: Mapping[str, tuple[str, Board]]) -> Iterator[tuple[str, str]]:
        for file, (_, board) in boards.items():
            yield file, _first(lambda: self._of_queries(board))  # noqa: B023

    def _of_queries(self, board: Board) -> Iterator[str]:
        yield from queries(self._prometheus, board, WEEK, fleet.PARTLY_EMPTY, all_targets=True)
        yield from marks(self._prometheus, board, WEEK)
        yield from (problem for problem in dead_selectors(self._prometheus, board, WEEK) if "priority=" not in problem)

    def _schema(self, boards: Mapping[str, tuple[str, Board]]) -> Iterator[tuple[str, str]]:
        try:
            browser.script("check_schema.mjs", *(self._folder / f"{file}.json" for file in boards))
        except AssertionError as error:
            yield from ((file, text) for file, text in re.findall(r"(\w+)\.json: (.*)", str(error)))

    def _browser(self, boards: Mapping[str, tuple[str, Board]]) -> Iterator[tuple[str, str]]:
        visits = [Visit(file, sizes=[SMALL], params={"from": "now-7d", "to": "now"}) for file in boards]
        for page in browser.render(self._prometheus.url, self._folder, visits):
            name, board = boards[page["name"]]
            problems = list(faults(page, fleet.EMPTY, fleet.LEGIBLE.get(name, {})))
            missing = {panel["title"] for panel in charts(board)} - set(page["shown"])
            yield page["name"], next(iter([*problems, *missing]), "")


def _first(problems: Callable[[], Iterator[str]]) -> str:
    """What is said first. What a fault makes fail with an error is noticed, too."""
    try:
        return next(problems(), "")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def caught(bench: Bench, some: Sequence[Mutant], layers: Sequence[str] = LAYERS) -> dict[Mutant, dict[str, str]]:
    """For each mutant, what each layer says that notices it."""
    boards = {f"m{number:02}": (mutant.board, mutant.made()) for number, mutant in enumerate(some)}
    said = {layer: bench(layer, boards) for layer in layers}
    return {
        mutant: {layer: said[layer][file] for layer in layers if file in said[layer]}
        for file, mutant in zip(boards, some, strict=True)
    }


def main() -> int:
    """Try all mutants on all layers; 1 if one is caught by none."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with history(folder / "week", fleet.week, days=8) as prometheus:
            bench = Bench(prometheus, folder)
            sound = {
                board: (board, json.loads((FOLDER / f"{board}.json").read_text(encoding="utf-8"))) for board in BUILDERS
            }
            for layer in LAYERS:
                if complaints := bench(layer, sound):
                    print(f"{layer} complains where there is no fault: {complaints}")
                    return 1
            found = caught(bench, MUTANTS)
    for mutant, said in found.items():
        marks_ = " ".join(f"{layer if layer in said else '-':8}" for layer in LAYERS)
        print(f"{marks_ if said else 'NOT CAUGHT':36} {mutant}")
    missed = [mutant for mutant, said in found.items() if not said]
    print(f"{len(found)} mutants of dashboards, {len(missed)} not caught, in {time.monotonic() - start:.0f} s")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
