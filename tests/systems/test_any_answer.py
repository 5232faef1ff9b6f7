"""Any JSON in any place of an answer of each system: a poll fails for a reason that is known, or its series are valid.

`tests/fuzz` goes deeper for the systems that it knows; this needs no more than a case.
"""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.metrics.body import Body
from exporter.metrics.text import Format
from exporter.model import FAILURE_REASONS
from exporter.sources import SYSTEMS
from tests.fuzz import strict
from tests.harness.cases import CASES
from tests.harness.inprocess import OneSource
from tests.harness.json_places import changed, places
from tests.harness.upstream import answer, serve

NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([2**53 + 1, 2**64, -1, 10**400, 1e308, 5e-324]))
TEXTS = st.one_of(st.text(max_size=9), st.sampled_from(["\x00", "\n", '"', "\\", "# EOF", "\U0010ffff", "x" * 5_000]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def body_of(reply: bytes) -> Any:
    return json.loads(reply.partition(b"\r\n\r\n")[2])


async def poll_twice(system: str, path: str, document: Any) -> None:
    """Poll an upstream with this document at this path, and check all that is said of it."""
    async with (
        serve(CASES[system].failing({path: answer(document)})) as upstream,
        OneSource(system, upstream.url) as exporter,
    ):
        for _ in range(2):  # the second poll knows what the first has found
            state = await exporter.poll()
            reasons = {state.failure.reason} if state.failure else set()
            if state.published:
                reasons |= {one.reason for one in state.published.snapshot.unreadable}
            assert reasons <= set(FAILURE_REASONS) - {"internal"}, state.failure
            for format_ in Format:
                body = Body(exporter.view.live.values(), format_)
                strict.check(b"".join(body.plain(format_.value)), format_)
        assert "Traceback" not in repr(exporter.logs)
        assert (await exporter.get("/")).status_code == 200


@pytest.mark.parametrize("system", SYSTEMS)
@settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_in_any_place(system: str, data: st.DataObject) -> None:
    good = {path: reply for path, reply in CASES[system].good.items() if isinstance(reply, bytes)}
    path = data.draw(st.sampled_from(sorted(good)))
    document = body_of(good[path])
    place = data.draw(st.sampled_from(places(document)))
    asyncio.run(poll_twice(system, path, changed(document, place, data.draw(JSON))))
