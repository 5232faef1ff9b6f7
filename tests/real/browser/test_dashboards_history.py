"""The dashboards on a week of history, and with three hundred queues: their queries, and what a person sees of them.

The pictures are left in `.cache/dashboards`.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from dashboards.build import BUILDERS, FOLDER
from dashboards.queries import UTILIZATION, WAITING
from tests.harness import browser, fleet
from tests.harness.browser import LARGE, PICTURES, SMALL, Page, Visit, all_faults
from tests.harness.dashboard_mutants import MUTANTS, Bench, broken_rule, caught
from tests.harness.dashboards import (
    BOARDS,
    TITLES,
    Board,
    Variables,
    charts,
    dead_selectors,
    every_board,
    legends,
    marks,
    queries,
    series,
)
from tests.harness.history import history
from tests.harness.prometheus import PrometheusServer

WEEK = Variables(seconds=7 * 86400, step=600)


@pytest.fixture(scope="module")
def week_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus with eight days of history of ten queues, and all that the rules make of it."""
    with history(tmp_path_factory.mktemp("week"), fleet.week, days=8) as server:
        yield server


@pytest.fixture(scope="module")
def many_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A Prometheus with some hours of history of 300 queues, and all that the rules make of it."""
    with history(tmp_path_factory.mktemp("many"), fleet.many, days=0.1) as server:
        yield server


# --- Every query.


@every_board
def test_every_query_has_data_of_a_week(week_prometheus: PrometheusServer, board: Board) -> None:
    assert list(queries(week_prometheus, board, WEEK, fleet.PARTLY_EMPTY, all_targets=True)) == []


@every_board
def test_every_annotation_has_data_of_a_week(week_prometheus: PrometheusServer, board: Board) -> None:
    assert list(marks(week_prometheus, board, WEEK)) == []


@every_board
def test_nothing_is_selected_in_vain(week_prometheus: PrometheusServer, board: Board) -> None:
    dead = [problem for problem in dead_selectors(week_prometheus, board, WEEK) if "priority=" not in problem]
    assert dead == []


@pytest.mark.parametrize("name", ["overview", "queue", "capacity"])
def test_every_query_is_answered_with_300_queues(many_prometheus: PrometheusServer, name: str) -> None:
    """Legends stay short; the time that it takes is bounded by the samples that Prometheus reads for one query."""
    may_be_empty = TITLES - {"Worst queues first", "Saturation over time", "Slots", "Queues by need", "Why tasks wait"}
    chosen = Variables(seconds=2 * 3600, step=60)
    assert list(queries(many_prometheus, BOARDS[name], chosen, may_be_empty)) == []
    assert len(many_prometheus.label_values("queue", "concurrency_queue_slot_limit")) == 300


def legends_of(prometheus: PrometheusServer, title: str, chosen: Variables) -> list[str]:
    panel = next(panel for panel in charts(BOARDS["queue"]) if panel["title"] == title)
    return [text for target in panel["targets"] for text in legends(target, series(prometheus, target, chosen))]


def test_what_goes_first_comes_first(week_prometheus: PrometheusServer, many_prometheus: PrometheusServer) -> None:
    """In Prefect the lowest number, in cloro the highest."""
    of_week = legends_of(week_prometheus, "Waiting tasks by priority", WEEK)
    assert of_week == ["prefect 01", "prefect 02", "prefect 03", "cloro 8", "cloro 5"]
    of_many = legends_of(many_prometheus, "Waiting tasks by priority", Variables(seconds=2 * 3600, step=60))
    assert of_many == [f"prefect {level:02}" for level in range(1, 11)]


def test_the_figure_of_alerts_is_the_length_of_their_table(week_prometheus: PrometheusServer) -> None:
    targets = {panel["title"]: panel["targets"] for panel in charts(BOARDS["overview"])}
    firing = week_prometheus.query(Variables().fill(targets["Firing alerts"][0]["expr"]))
    pages, tickets = (week_prometheus.query(Variables().fill(target["expr"])) for target in targets["Alerts"])
    every = 'ALERTS{alertname=~"Concurrency.+", alertstate="firing"}'
    assert len(firing) == pages[0][1] + tickets[0][1] == len(week_prometheus.query(every))
    named = {(labels["alertname"], labels.get("what")) for labels, _ in firing}
    assert ("ConcurrencyNearLimit", "tag database") in named
    assert ("ConcurrencyNearLimit", "tag reports") in named
    assert ("ConcurrencySlotHolderStuck", "RUNNING") in named


@pytest.mark.parametrize(
    "chosen",
    [
        Variables(source="cloro-prod"),
        Variables(source="prefect-prod", pool="ecs-ml"),
        Variables(source="prefect-prod", pool="ecs-ml", queue="training"),
    ],
    ids=lambda chosen: f"{chosen.source} {chosen.pool} {chosen.queue}",
)
def test_alerts_are_those_of_what_is_chosen_and_of_what_is_above(
    week_prometheus: PrometheusServer, chosen: Variables
) -> None:
    """A limit of a source has no pool: whoever looks at a pool has to know that it is full."""
    target = next(panel for panel in charts(BOARDS["overview"]) if panel["title"] == "Firing alerts")["targets"][0]
    found = {
        (labels["alertname"], *(labels.get(name, "") for name in ("source", "pool", "queue", "limit")))
        for labels in series(week_prometheus, target, chosen)
    }
    every = series(week_prometheus, target, Variables())
    wanted = {
        (labels["alertname"], *(labels.get(name, "") for name in ("source", "pool", "queue", "limit")))
        for labels in every
        if all(re.fullmatch(getattr(chosen, name) + "|", labels.get(name, "")) for name in ("source", "pool", "queue"))
    }
    assert found == wanted
    assert 0 < len(found) < len(every)
    assert any(limit for *_, limit in found) == (chosen.source == "prefect-prod")


def test_there_is_a_state_at_every_moment(week_prometheus: PrometheusServer) -> None:
    """Also of a pool whose queues are all full, and of a queue that is paused."""
    target = next(panel for panel in charts(BOARDS["overview"]) if panel["title"] == "Saturation over time")["targets"][
        0
    ]
    now = time.time()
    found = week_prometheus.matrix(WEEK.fill(target["expr"]), now - WEEK.seconds, now, WEEK.step)
    assert {len(values) for _, values in found} == {WEEK.seconds // WEEK.step + 1}
    states = {labels["name"]: {value for _, value in values} for labels, values in found}
    assert "warehouse" in states
    assert [name for name, of in states.items() if "4" in of] == ["docker-internal/legacy-imports"]
    assert states["docker-internal/legacy-imports"] == {"4"}


def test_the_worst_is_the_full_queue_with_the_most_waiting_tasks(many_prometheus: PrometheusServer) -> None:
    """With hundreds of queues dozens are full at once: which of them is seen first is no accident."""
    panel = next(panel for panel in charts(BOARDS["overview"]) if panel["title"] == "Worst queues first")
    by_query = {
        name: {labels["queue"]: value for labels, value in many_prometheus.query(Variables().fill(expression))}
        for name, expression in (
            ("score", panel["targets"][-1]["expr"]),
            ("utilization", UTILIZATION),
            ("waiting", WAITING),
        )
    }
    ranked = sorted(by_query["score"], key=by_query["score"].__getitem__, reverse=True)
    full = [queue for queue in ranked if by_query["utilization"][queue] >= 1 and by_query["waiting"][queue]]
    assert len(full) > 40
    assert ranked[: len(full)] == full
    waiting = [by_query["waiting"][queue] for queue in full]
    assert waiting == sorted(waiting, reverse=True)
    assert len(set(waiting)) > 5


def test_each_layer_sees_what_only_it_can_see(week_prometheus: PrometheusServer, tmp_path: Path) -> None:
    """`make mutants` tries all; a layer that has gone blind is noticed here."""
    only = {
        "queries": ["one side of an `or` is dead", "a dead query: a condition that never holds"],
        "browser": [
            "a panel that is cut off: too narrow",
            "a legend that is cut off: too low",
            "a table that is cut off: too low",
        ],
    }
    bench = Bench(week_prometheus, tmp_path)
    for layer, faults in only.items():
        some = [mutant for mutant in MUTANTS if mutant.what in faults]
        assert len(some) == len(faults)
        assert [str(mutant) for mutant, said in caught(bench, some, [layer]).items() if not said] == []
        assert [str(mutant) for mutant in some if broken_rule(mutant.made())] == []


# --- What a person sees of the week.


@pytest.fixture(scope="module")
def week(week_prometheus: PrometheusServer) -> list[Page]:
    shown = {"from": "now-7d", "to": "now"}
    queue = {"var-source": "prefect-prod", "var-pool": "kubernetes-prod", "var-queue": "default"}
    visits = [
        Visit("capacity", "light", params=shown, fill=("What if the limit were", "30")),
        Visit("capacity", "dark", params=shown, follow="Overview"),
        Visit("overview", "dark", params=shown, choose=("Source", "cloro-prod")),
        Visit("queue", "dark", params=shown | queue, follow="Capacity"),
        Visit("overview", "light", sizes=[SMALL], params=shown, follow="legacy-imports"),
        Visit("exporter", "light", sizes=[LARGE], params=shown),
    ]
    return browser.render(week_prometheus.url, FOLDER, visits, pictures=PICTURES / "week")


def test_a_week_is_legible(week: list[Page]) -> None:
    assert all_faults(week, fleet.EMPTY, fleet.LEGIBLE) == []


def then(pages: list[Page], name: str, theme: str) -> Page:
    return next(page["then"] for page in pages if (page["name"], page["theme"]) == (name, theme) and "then" in page)


def test_a_choice_in_a_drop_down_changes_the_queries(week: list[Page]) -> None:
    queries = [query["expr"] for query in then(week, "overview", "dark")["queries"]]
    assert len([query for query in queries if 'source=~"cloro-prod"' in query]) > 10
    assert all(re.search(r'source=~"cloro-prod\|?"', query) for query in queries if "source=~" in query)


def test_a_choice_leaves_what_there_is_of_it(week: list[Page]) -> None:
    page = next(page for page in week if (page["name"], page["theme"]) == ("overview", "dark"))
    before, after = (
        {variable["name"]: variable.get("options") for variable in seen["variables"]}
        for seen in (page, then(week, "overview", "dark"))
    )
    assert {"kubernetes-prod", "ecs-ml"} <= set(before["pool"])
    assert {"async", "etl"} <= set(before["queue"])
    assert after["source"] == before["source"]
    assert after["pool"] == []
    assert after["queue"] == ["async"]


def test_another_what_if_limit_changes_the_queries_and_the_figures(week: list[Page]) -> None:
    done = then(week, "capacity", "light")
    changed = [query["expr"] for query in done["queries"] if "30" in query["expr"]]
    assert any("vector(30)" in query for query in changed)
    assert any(">= bool 30" in query for query in changed)
    assert re.search(r"what if\s+30\s+30", done["shown"]["Demand against another limit"]["text"])
    share = r"async\s+20\s+\d\d\.\d%\s+(\d+\.\d)%"
    before = next(page for page in week if (page["name"], page["theme"]) == ("capacity", "light"))
    shares = [re.search(share, page["shown"]["With the other limit"]["text"]) for page in (before, done)]
    assert shares[0]
    assert shares[1]
    assert float(shares[0][1]) > float(shares[1][1]) > 10


def test_alerts_and_pauses_are_marked_on_graphs(week: list[Page]) -> None:
    for page in week:
        if page["name"] == "queue":
            for panel in page["panels"]:
                seen = page["shown"][panel["title"]]["annotations"]
                assert ("ConcurrencySlotsSaturated: a paging alert fired" in seen) == (panel["type"] == "timeseries")
                # Each day is one region, and what is paused is another queue.
                assert len(seen) < 30
                assert not any(mark.startswith("Paused") for mark in seen)


def test_links_carry_what_is_chosen(week: list[Page]) -> None:
    """A link was followed: the other dashboard has the same choice, in its variables and in its queries."""
    done = then(week, "queue", "dark")
    url = urlsplit(done["url"])
    assert url.path == "/d/concurrency-capacity"
    carried = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert carried["from"] == "now-7d"
    assert carried["var-datasource"] == "prom"
    assert carried["var-job"] == "$__all"
    assert (carried["var-source"], carried["var-pool"], carried["var-queue"]) == (
        "prefect-prod",
        "kubernetes-prod",
        "default",
    )
    values = {variable["name"]: variable["value"] for variable in done["variables"]}
    assert (values["source"], values["pool"], values["queue"]) == ("prefect-prod", "kubernetes-prod", "default")
    assert all('queue=~"default"' in query["expr"] for query in done["queries"] if "queue=~" in query["expr"])
    assert "etl" not in done["shown"]["Queues by need"]["text"]


def test_every_dashboard_links_to_the_others(week: list[Page]) -> None:
    for page in week:
        others = [name.capitalize() for name in BUILDERS if name != page["name"]]
        assert [text for text, _ in page["links"]] == others
        for _, url in page["links"]:
            assert re.match(r"/d/concurrency-\w+\?var-datasource=prom&var-job=\$__all&.*&from=now-7d&to=now", url)
    assert "/d/concurrency-overview?" in then(week, "capacity", "dark")["url"]


def test_a_row_leads_to_its_queue(week: list[Page]) -> None:
    done = then(week, "overview", "light")
    assert "/d/concurrency-queue?var-datasource=prom&var-source=prefect-prod&" in done["url"]
    values = {variable["name"]: variable["value"] for variable in done["variables"]}
    assert values["queue"] == "legacy-imports"
    assert values["pool"] == "docker-internal"
    assert re.search(r"limit\s+2\s+2", done["shown"]["Slots"]["text"])
    # It is paused, which is marked on its graphs.
    assert "Paused: prefect-prod" in done["shown"]["Slots"]["annotations"]


# --- Three hundred queues.


def test_300_queues_are_legible(many_prometheus: PrometheusServer) -> None:
    """No legend and no timeline of all of them, tables that end, and the worst on top."""
    shown = {"from": "now-2h", "to": "now"}
    visits = [Visit(name, sizes=[SMALL], params=shown) for name in ("overview", "queue", "capacity")]
    may_be_empty = {
        "Time to drain": "Not draining",
        "Next limit reached": "Not growing",
        "When the limit is reached": "No queue is growing",
        "Firing alerts": "No alert is firing",
        "Other limits": "No other limits",
    }
    readable = {
        "overview": {
            "Full, and tasks wait": r"\n43$",
            "Worst queues first": r"(?s)^Worst queues first.*?nightly-batch-of-customer-\d\d\d\s+100%",
        },
        "queue": {"Utilization by queue": r"nightly-batch-of-customer-\d\d\d"},
        "capacity": {"Queues by need": r"nightly-batch-of-customer-\d\d\d"},
    }
    pages = browser.render(many_prometheus.url, FOLDER, visits, pictures=PICTURES / "many")
    assert all_faults(pages, may_be_empty, readable) == []
    for page in pages:
        for panel in page["panels"]:
            if panel["title"] == "Waiting tasks by priority":
                assert [one["name"] for one in panel["fields"]] == [f"prefect {level:02}" for level in range(1, 11)]
            names = {one["name"] for one in panel["fields"]}
            assert len(names) <= 15, panel["title"]
            assert all(one["points"] <= 50 for one in panel["fields"] if panel["type"] == "table"), panel["title"]
