"""Parts that a server does not have: they are left out, and asked for again when the server is another one."""

from collections import Counter
from typing import Final

import pytest

from exporter.model import FailureReason, Part
from exporter.report import report
from tests.harness.connections import hang_up
from tests.harness.inprocess import OneSource
from tests.harness.lookalike import (
    ALL,
    BROKEN,
    COUNT,
    LIMITS,
    NOT_ALLOWED,
    NOT_FOUND,
    OF_BACKLOG,
    POOLS,
    VERSION,
    WORKERS,
    asked,
    small,
    snapshot_of,
    timeless,
    without,
)
from tests.harness.upstream import Answer, answer, serve

UNSUPPORTED: Final[dict[str, tuple[Part, tuple[str, ...], bytes]]] = {
    "limits-404": ("limits", (LIMITS,), NOT_FOUND),
    "limits-405": ("limits", (LIMITS,), NOT_ALLOWED),
    "backlog-404": ("backlog", (COUNT + OF_BACKLOG,), NOT_FOUND),
    "workers-404": ("workers", WORKERS, NOT_FOUND),
    "workers-405": ("workers", WORKERS, NOT_ALLOWED),
}


@pytest.mark.parametrize(("part", "paths", "refusal"), UNSUPPORTED.values(), ids=UNSUPPORTED)
async def test_a_part_that_the_server_does_not_have(part: Part, paths: tuple[str, ...], refusal: bytes) -> None:
    fake = small()
    plain = paths[0].partition(" ")[0]
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        await exporter.poll()
        whole, whole_cost = timeless(await exporter.observed()), Counter(asked(upstream))
        assert whole_cost[VERSION] == 1
        assert "Not supported" not in await exporter.page("/")

        fake.faults = dict.fromkeys(paths, refusal)
        state = await exporter.poll()
        snapshot = snapshot_of(state)
        assert (state.outcome, snapshot.unsupported, snapshot.unreadable) == ("success", (part,), ())
        assert timeless(await exporter.observed()) == timeless(without(whole, part))
        assert f"<dt>Not supported by the server</dt><dd>{part}</dd>" in await exporter.page("/")
        assert exporter.own("queues_unreadable") == 0
        assert f"s has no {part}: this server does not support it" in report([state], exporter.telemetry.requests)
        asked(upstream)

        for _ in range(2):
            assert snapshot_of(await exporter.poll()).unsupported == (part,)
            cost = Counter(asked(upstream))
            assert cost[VERSION] == 1
            assert cost[plain] == (1 if plain == COUNT else 0)
        assert [(log["event"], log["parts"]) for log in exporter.logs] == [("not supported by this server", part)]

        # After a failed poll it is asked again, and told no second time.
        fake.faults[POOLS] = BROKEN
        assert (await exporter.poll()).outcome == "failure"
        del fake.faults[POOLS]
        asked(upstream)
        await exporter.poll()
        cost = Counter(asked(upstream))
        assert (cost[VERSION], cost[plain]) == (1, 2 if plain == COUNT else 1)
        events = [log["event"] for log in exporter.logs]
        assert events == ["not supported by this server", "poll failed", "poll succeeded again"]

        # Another version is asked again as well.
        await exporter.poll()
        fake.faults = {VERSION: answer("3.10.0")}
        assert snapshot_of(await exporter.poll()).unsupported == ()
        assert timeless(await exporter.observed()) == whole
        assert [(log["log_level"], log["event"]) for log in exporter.logs[-1:]] == [
            ("info", "everything is supported by this server now")
        ]
        asked(upstream)
        await exporter.poll()
        assert VERSION not in asked(upstream)


@pytest.mark.parametrize("refusal", [NOT_FOUND, NOT_ALLOWED], ids=["404", "405"])
async def test_a_server_that_does_not_tell_its_version(refusal: bytes) -> None:
    fake = small(faults={LIMITS: NOT_FOUND, VERSION: refusal})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        for _ in range(3):
            assert snapshot_of(await exporter.poll()).unsupported == ("limits",)
        assert Counter(asked(upstream))[LIMITS] == 1
        del fake.faults[VERSION]
        await exporter.poll()
        assert Counter(asked(upstream))[LIMITS] == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(BROKEN, "http_status"), (answer({}, 401), "auth"), (answer({}), "contract"), (hang_up(), "connect")],
    ids=["500", "401", "contract", "closes"],
)
async def test_a_version_that_can_not_be_asked_for_fails_the_poll(fault: bytes | Answer, reason: FailureReason) -> None:
    fake = small(faults={LIMITS: NOT_FOUND})
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, **ALL) as exporter:
        await exporter.poll()
        fake.faults[VERSION] = fault
        state = await exporter.poll()
        assert state.failure
        assert state.failure.reason == reason
        fake.faults = {}
        assert snapshot_of(await exporter.poll()).unsupported == ()


@pytest.mark.parametrize(
    "fault", [BROKEN, answer({}, 401), answer({}), hang_up()], ids=["500", "401", "contract", "closes"]
)
async def test_a_version_that_is_known_stays_while_it_can_not_be_asked_for(fault: bytes | Answer) -> None:
    """It is asked for at each poll then, and at every 20th when it has come."""
    fake = small()
    versions, polls = [], []
    async with serve(fake) as upstream, OneSource("prefect", upstream.url, collect=["pools"]) as exporter:
        for number in range(45):
            fake.faults = {VERSION: answer("3.8.8") if number < 20 else fault if number < 22 else answer("3.9.1")}
            versions.append(snapshot_of(await exporter.poll()).version)
            polls += [number] * (VERSION in asked(upstream))
    assert versions == ["3.8.8"] * 22 + ["3.9.1"] * 23
    assert polls == [0, 20, 21, 22, 42]
