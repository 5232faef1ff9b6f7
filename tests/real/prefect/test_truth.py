"""Truth while it moves, in short: `make truth` polls more often."""

import asyncio
from pathlib import Path

import pytest

from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import PrefectServer, PrefectTemplates
from tests.measure.truth import HISTORY, PLANS, SETTINGS, STATUS, moving, watch


@pytest.mark.parametrize(("database", "plan"), [("sqlite", "sweep"), ("postgres", "each queue")])
def test_no_poll_of_a_server_that_moves_says_what_was_never_true(
    database: str, plan: str, tmp_path: Path, prefect_templates: PrefectTemplates, request: pytest.FixtureRequest
) -> None:
    if database == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        server = PrefectServer(tmp_path, settings=SETTINGS, database_url=prefect_templates.postgres(cluster, None))
    else:
        server = PrefectServer(tmp_path, settings=SETTINGS, template=prefect_templates.sqlite(None))
    with server, moving(server, seed=1) as writer:
        truth = asyncio.run(watch(server, writer, plan, 6))
    assert truth.false == []
    assert (truth.polls, truth.still) == (6, 1)
    assert truth.changes > truth.polls, "it moves"
    assert truth.values > 1000
    assert (truth.requests[STATUS] > 0) is (truth.requests[HISTORY] > 0) is (plan == "each queue"), PLANS
