"""Answers that break a contract: the poll fails, or a part of it, and the message says where."""

import asyncio
import json
from typing import Any, Final

import pytest

from exporter.model import Outcome
from exporter.sources import SYSTEMS
from tests.harness.cases import CASES, by_path
from tests.harness.cloro import PUBLISHED
from tests.harness.inprocess import OneSource
from tests.harness.process import PATIENCE
from tests.harness.upstream import answer, json_answer, serve
from tests.systems.cloro.case import STATUS
from tests.systems.prefect.case import A_QUEUES, ONE, POOLS, pool, queue, run, status

BREACHES: Final = {
    "missing": None,
    "string": '"3"',
    "boolean": "true",
    "fraction": "1.5",
    "negative": "-1",
    "2**63": str(2**63),
    "just-inexact": str(2**53 + 1),
    "NaN": "NaN",
    "Infinity": "Infinity",
    "1e400": "1e400",
    "exponent": "1e2",
    "object": "{}",
}

PLACES: Final[dict[str, tuple[str, str, Any, str, str, Outcome]]] = {
    "cloro": ("cloro", STATUS, PUBLISHED, "queuedTasks", "", "failure"),
    "pool": ("prefect", POOLS, pool(8, "a"), "concurrency_limit", "0.", "failure"),
    "queue": ("prefect", A_QUEUES, queue(1, "one"), "is_paused", "0.", "partial"),
    "status": ("prefect", ONE, status(run(11)), "active_slots", "", "partial"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("value", BREACHES.values(), ids=BREACHES)
async def test_a_field_that_breaks_the_contract(
    place: tuple[str, str, dict[str, Any], str, str, Outcome], value: str | None
) -> None:
    system, path, body, name, index, outcome = place
    if name == "is_paused" and value == "true":
        value = "1"
    others = {key: body[key] for key in body if key != name}
    text = json.dumps(others) if value is None else f'{json.dumps(others)[:-1]}, "{name}": {value}}}'
    broken = json_answer(f"[{text}]" if index else text)
    async with serve(CASES[system].failing({path: broken})) as upstream, OneSource(system, upstream.url) as exporter:
        state = await exporter.poll()
        assert state.outcome == outcome
        assert exporter.own("poll_errors_total", reason="contract") == 1
        message = exporter.logs[0]["error"]
        assert f"contract broken at {index}{name}: " in message
        assert f"{upstream.url}{path}" in message


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400", '"1"', "true", "[]"])
async def test_a_duration_that_breaks_the_contract(value: str) -> None:
    text = json.dumps(status(run(11, time_in_current_state="?"))).replace('"?"', value)
    async with (
        serve(CASES["prefect"].failing({ONE: json_answer(text)})) as upstream,
        OneSource("prefect", upstream.url) as exporter,
    ):
        assert (await exporter.poll()).outcome == "partial"
        assert await exporter.queues() == ["two", "three"]
        assert "contract broken at flow_runs.0.time_in_current_state" in exporter.logs[0]["error"]


@pytest.mark.parametrize(
    ("system", "path", "body", "says"),
    [
        ("cloro", STATUS, PUBLISHED | {"added": "\ud800"}, "Invalid JSON: "),
        ("cloro", STATUS, [PUBLISHED], "contract broken at the answer: Input should be an object"),
        ("cloro", STATUS, {}, "contract broken at queuedTasks: Field required (and 1 more)"),
        ("prefect", POOLS, [pool(8, "\ud800")], "Invalid JSON: "),
        ("prefect", POOLS, {"results": [], "count": 0}, "contract broken at the answer: Input should be a valid array"),
        ("prefect", POOLS, [[]], "contract broken at 0: Input should be an object"),
        ("prefect", POOLS, [pool(8, "a", id="8")], "contract broken at 0.id: Input should be a valid UUID"),
        ("prefect", POOLS, [pool(8, "a", id="\x1b]0;")], "found `` at 0"),
        ("prefect", POOLS, [pool(8, "a", id=8)], "contract broken at 0.id: "),
        ("prefect", POOLS, [pool(8, "a") | {"name": None}], "contract broken at 0.name: "),
    ],
    ids=[
        "cloro-surrogate", "cloro-list", "cloro-nothing", "surrogate", "object", "list", "id", "id-control-character",
        "id-number", "no-name",
    ],
)  # fmt: skip
async def test_a_shape_that_breaks_the_contract(system: str, path: str, body: object, says: str) -> None:
    async with (
        serve(CASES[system].failing({path: answer(body)})) as upstream,
        OneSource(system, upstream.url) as exporter,
    ):
        state = await exporter.poll()
        assert state.failure
        assert (state.failure.reason, len(upstream.requests)) == ("contract", 1)
        assert says in state.failure.message


@pytest.mark.parametrize("system", SYSTEMS)
async def test_an_answer_of_many_wrong_values(system: str) -> None:
    """Told of one by one, they would take minutes and gigabytes, in which no scrape is answered."""
    begins, at = CASES[system].many
    ends = "}" if "{" in begins else ""
    async with serve(by_path({})) as upstream, OneSource(system, upstream.url) as exporter:
        for values, reason, says in (
            (450_000, "contract", f"contract broken at {at}: Input should be an object"),
            (8_000_000, "too_large", "the answer has more than 500,000 values"),
        ):
            upstream.answer = CASES[system].failing(
                {CASES[system].first: json_answer(f"{begins}{'0,' * values}0]{ends}")}
            )
            async with asyncio.timeout(PATIENCE):
                state = await exporter.poll()
            assert state.failure
            assert state.failure.reason == reason
            assert says in state.failure.message
