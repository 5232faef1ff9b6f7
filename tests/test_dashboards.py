"""The dashboards that are shipped: as the code builds them, by the rules, and with data for every panel."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dashboards import panels
from dashboards.build import BUILDERS, FOLDER, rendered
from tests.harness.exporter import exporter
from tests.harness.prefect import PrefectServer
from tests.harness.prometheus import PrometheusServer
from tests.harness.promql import ALERTS, undeclared

BOARDS = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in BUILDERS}
PANELS = [
    (name, panel) for name, board in BOARDS.items() for panel in board["panels"] if panel["type"] not in {"row", "text"}
]
TARGETS = [(name, panel, target) for name, panel in PANELS for target in panel["targets"]]
every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
every_panel = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[f"{name}-{panel['title']}" for name, panel in PANELS]
)
COLORS = {
    panels.GOOD,
    panels.NEAR,
    panels.ACT,
    panels.BAD,
    panels.NEUTRAL,
    panels.CLOSED,
    panels.UNKNOWN,
    "transparent",
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_json_is_what_the_code_builds(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == rendered(BUILDERS[name]), "run make dashboards"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(BUILDERS)


# --- The rules, most of them those of Grafana's dashboard-linter.


@every_board
def test_a_dashboard_is_stable_and_not_edited_by_hand(board: dict[str, Any]) -> None:
    assert board["uid"] in {f"concurrency-{name}" for name in BUILDERS}
    assert board["editable"] is False
    assert board["description"].endswith("?")
    assert board["schemaVersion"] >= 39
    assert board.get("id") is None


@every_board
def test_variables_are_chained_and_refreshed(board: dict[str, Any]) -> None:
    variables = board["templating"]["list"]
    source, *others = [variable for variable in variables if variable["type"] != "textbox"]
    assert (source["name"], source["label"], source["type"]) == ("datasource", "Data source", "datasource")
    for number, variable in enumerate(others):
        assert (variable["multi"], variable["includeAll"], variable["refresh"]) == (True, True, 2)
        assert variable["datasource"]["uid"] == "${datasource}"
        assert variable["allValue"] == (".*" if variable["name"] == "pool" else ".+")
        assert variable["label"] == variable["name"].capitalize()
        query = variable["query"]["query"]
        for before in others[:number]:
            assert f'{before["name"]}=~"${before["name"]}"' in query, (
                f"{variable['name']} does not follow {before['name']}"
            )
    names = [variable["name"] for variable in others]
    assert names == [name for name in ("job", "instance", "system", "source", "pool", "queue") if name in names]
    used = json.dumps([board["panels"], board["annotations"]] + [variable["query"] for variable in variables])
    for variable in variables:
        assert f"${variable['name']}" in used or f"${{{variable['name']}" in used


@every_board
def test_panels_lie_beside_each_other(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} overlaps {taken[x, y]}"
                taken[x, y] = panel["title"]


@every_board
def test_links_carry_what_is_chosen(board: dict[str, Any]) -> None:
    others = {f"/d/concurrency-{name}" for name in BUILDERS} - {f"/d/{board['uid']}"}
    assert {link["url"] for link in board["links"]} == others
    for link in board["links"]:
        assert link["includeVars"]
        assert link["keepTime"]
    for link in _links(board):
        assert re.match(r"/d/concurrency-\w+\?\$\{datasource:queryparam\}&", link["url"])
        assert link["url"].endswith("${__url_time_range}")
        fields = re.findall(r"var-(\w+)=\$\{__data\.fields\.(\w+):percentencode\}", link["url"])
        assert [(name, field.lower()) for name, field in fields] == [
            (name, name) for name in ("source", "pool", "queue")
        ]


def _links(board: dict[str, Any]) -> Iterator[dict[str, str]]:
    for panel in board["panels"]:
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            for prop in override["properties"]:
                if prop["id"] == "links":
                    yield from prop["value"]


def test_the_worst_queues_lead_to_their_dashboard() -> None:
    assert len(list(_links(BOARDS["overview"]))) >= 2
    assert len(list(_links(BOARDS["capacity"]))) >= 2


@every_panel
def test_a_panel_asks_a_question_and_says_its_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert "?" in panel["description"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]


@every_panel
def test_colours_mean_the_same_everywhere(panel: dict[str, Any]) -> None:
    text = json.dumps(panel)
    found = set(re.findall(r'"(?:fixedColor|color)": "([^"]+)"', text))
    assert found <= COLORS
    for state, color in panels.STATES.items():
        for override in panel["fieldConfig"]["overrides"]:
            if override["matcher"].get("options") == state:
                assert {"id": "color", "value": {"mode": "fixed", "fixedColor": color}} in override["properties"]


@every_panel
def test_thresholds_rise(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"].get("thresholds")
    overridden = [
        prop["value"]
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "thresholds"
    ]
    for thresholds in [*([defaults] if defaults else []), *overridden]:
        values = [step["value"] for step in thresholds["steps"]]
        assert values[0] is None
        assert values[1:] == sorted(set(values[1:]))


@every_panel
def test_fields_that_are_overridden_are_there(panel: dict[str, Any]) -> None:
    if panel["type"] != "table":
        return
    organize = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    kept = next(one["options"] for one in panel["transformations"] if one["id"] == "filterFieldsByName")
    assert set(organize["renameByName"]) == set(organize["indexByName"]) == set(kept["include"]["names"])
    shown = set(organize["renameByName"].values())
    assert {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} == shown
    assert len(shown) == len(organize["renameByName"])


@pytest.mark.parametrize(
    ("name", "panel", "target"), TARGETS, ids=[f"{n}-{p['title']}-{t['refId']}" for n, p, t in TARGETS]
)
def test_a_query_selects_what_is_declared(name: str, panel: dict[str, Any], target: dict[str, Any]) -> None:
    expression = Variables().fill(target["expr"])
    assert undeclared(expression) == []
    for function, window in re.findall(r"\b(i?rate|increase)\([^\[\]]*\[([^\]]+)\]", target["expr"]):
        assert window == ("$__range" if function == "increase" else "$__rate_interval")
    for counter in re.findall(r"(?<!\w)\w+_total\b", target["expr"]):
        assert re.search(rf"(rate|increase)\({counter}\{{", target["expr"]), "a counter that is not turned into a rate"
    # The linter wants job and instance everywhere; what rules recorded has no instance, so it is told apart.
    for metric, selector in re.findall(r"([a-z_]+(?::\w+)*)\{([^}]*)\}", target["expr"]):
        if metric.startswith("ALERTS"):
            continue
        wanted = ["job"] if ":" in metric else ["job", "instance"]
        for label in wanted:
            assert f'{label}=~"${label}"' in selector, f"{metric} of {name}/{panel['title']} is not limited to ${label}"


# --- Every query, on a real Prometheus.


@dataclass(frozen=True)
class Variables:
    """What is chosen in the drop-downs, as Grafana fills it in; everything by default."""

    job: str = ".+"
    instance: str = ".+"
    system: str = ".+"
    source: str = ".+"
    pool: str = ".*"
    queue: str = ".+"
    what_if: str = "10"

    def fill(self, text: str) -> str:
        values = {"__rate_interval": "20s", "__range": "1m", "__interval": "5s", **vars(self)}
        return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], match[0]), text)


NOT_IN_THE_DEMO = {
    ("exporter", "Failures by reason"): "nothing fails in the demo",
    ("queue", "Time to drain"): "only while a backlog shrinks",
    ("overview", "Firing alerts"): "alerts fire after minutes",
    ("capacity", "Limit reached"): "only where a trend rises",
    ("queue", "Waiting tasks by priority"): "of a level, only while tasks of it wait",
}
"""Panels that may be empty there, and why."""
ONLY_OF_CLORO = {"Rate limit left"}
ONLY_OF_PREFECT = {
    "Oldest wait",
    "Paused",
    "Pools",
    "Oldest holder",
    "Holders by state",
    "State durations",
    "Oldest holder by state",
    "Waiting tasks by state",
    "Pool",
    "Workers online",
    "Other limits",
}


def run(prometheus: PrometheusServer, target: dict[str, Any], chosen: Variables) -> list[dict[str, str]]:
    """The labels of the series that the panel would show."""
    expression = chosen.fill(target["expr"])
    if target.get("instant"):
        return [labels for labels, _ in prometheus.query(expression)]
    return prometheus.query_range(expression, seconds=60, step=5)


def legends(target: dict[str, Any], series: list[dict[str, str]]) -> list[str]:
    template = target["legendFormat"]
    if template == "__auto" or target.get("format") in {"heatmap", "table"}:
        return []
    return [legend(template, labels) for labels in series]


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template)


def check(
    prometheus: PrometheusServer,
    chosen: Variables,
    may_be_empty: set[str],
    boards: set[str],
    *,
    all_targets: bool = False,
) -> list[str]:
    """What is wrong with the panels of these dashboards, if this is chosen. Each, or each of its targets, has data."""
    wrong = []
    for name, panel in PANELS:
        if name not in boards:
            continue
        where = f"{name}: {panel['title']}"
        found = [(target, run(prometheus, target, chosen)) for target in panel["targets"]]
        empty = [chosen.fill(target["expr"]) for target, series in found if not series]
        is_empty = (all_targets and empty) or len(empty) == len(found)
        if is_empty and panel["title"] not in may_be_empty and (name, panel["title"]) not in NOT_IN_THE_DEMO:
            wrong.append(f"{where}: nothing from {empty}")
        shown = [legend for target, series in found for legend in legends(target, series)]
        if len(set(shown)) < len(shown):
            wrong.append(f"{where}: legends that are alike: {shown}")
        if len(shown) > 25:
            wrong.append(f"{where}: {len(shown)} legends")
        wrong += [
            f"{where}: no series has the label {label} of the legend"
            for target, series in found
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            if series and label != "pool" and not any(label in labels for labels in series)
        ]
    return wrong


def test_every_query_has_data(demo_prometheus: PrometheusServer) -> None:
    assert check(demo_prometheus, Variables(), set(), set(BOARDS), all_targets=True) == []


@pytest.mark.parametrize(
    ("chosen", "may_be_empty"),
    [
        (Variables(system="prefect"), ONLY_OF_CLORO),
        (Variables(source="prefect-demo"), ONLY_OF_CLORO),
        (Variables(system="cloro", source="cloro-demo"), ONLY_OF_PREFECT),
        (Variables(source="cloro-demo", queue="async"), ONLY_OF_PREFECT),
        (Variables(source="cloro-demo", pool="", queue="async"), ONLY_OF_PREFECT),
    ],
    ids=lambda value: value.source if isinstance(value, Variables) else "",
)
def test_every_query_has_data_of_one_source(
    demo_prometheus: PrometheusServer, chosen: Variables, may_be_empty: set[str]
) -> None:
    assert check(demo_prometheus, chosen, may_be_empty, set(BOARDS)) == []


def test_every_query_has_data_of_each_queue(demo_prometheus: PrometheusServer) -> None:
    """Of a queue with a limit and holders there is everything; of any other there is no error and no wrong legend."""
    queues = [labels for labels, _ in demo_prometheus.query('concurrency_queue_slot_limit{system="prefect"} > 0')]
    assert len(queues) >= 5
    may_be_empty = {panel["title"] for _, panel in PANELS} - {
        "Slots",
        "Utilization",
        "Queues by need",
        "Worst queues first",
    }
    for labels in queues:
        chosen = Variables(source=labels["source"], pool=labels["pool"], queue=labels["queue"])
        assert check(demo_prometheus, chosen, may_be_empty, {"overview", "queue", "capacity"}) == []


def test_nothing_is_wrong_where_nothing_is_chosen(demo_prometheus: PrometheusServer) -> None:
    everything = {panel["title"] for _, panel in PANELS}
    assert check(demo_prometheus, Variables(source="nobody"), everything, set(BOARDS)) == []


@every_board
def test_every_variable_has_options(demo_prometheus: PrometheusServer, board: dict[str, Any]) -> None:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"], re.DOTALL)
            assert query
            assert demo_prometheus.label_values(query[2], Variables().fill(query[1])), variable["name"]


def test_annotations_are_queries(demo_prometheus: PrometheusServer) -> None:
    for annotation in BOARDS["queue"]["annotations"]["list"]:
        expression = Variables().fill(annotation["target"]["expr"])
        assert undeclared(expression) == []
        demo_prometheus.query_range(expression, seconds=60, step=5)


def test_a_real_server_fills_the_panels(prefect_server: PrefectServer, tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    source = {"name": "real", "system": "prefect", "url": prefect_server.api_url, "interval": "5s"}
    config.write_text(json.dumps({"sources": [source]}), encoding="utf-8")
    rules = [str(ALERTS / name) for name in ("recording-rules.yml", "thresholds.yml")]
    with (
        exporter(tmp_path, "--config.file", config) as command,
        PrometheusServer(tmp_path, [command.address], config={"rule_files": rules}) as server,
    ):
        server.wait_for("count_over_time(concurrency:slot_utilization:ratio[1m]) > 3", timeout=60)
        empty = {panel["title"] for _, panel in PANELS} - {
            "Worst queues first",
            "Tasks waiting",
            "Slots",
            "Holders by state",
            "State durations",
            "Sources",
        }
        assert check(server, Variables(source="real"), empty, {"overview", "queue", "exporter"}) == []
