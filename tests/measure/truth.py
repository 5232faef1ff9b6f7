"""Truth while it moves: `make truth` polls real Prefect servers that never stand still, and compares each value.

`python -m tests.measure.truth --polls=200` polls by each plan so many times, on SQLite and on PostgreSQL. It exits
with 1 where a poll says what was true at no moment of it.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from exporter.metrics.body import Body
from exporter.metrics.exposition import render
from exporter.metrics.text import Format
from exporter.shard import WHOLE
from exporter.sources.base import Source
from exporter.sources.prefect import PrefectConfig
from tests.harness.comparison import assert_equal_to_readings
from tests.harness.exporter import series
from tests.harness.moving import Judge, Writer
from tests.harness.postgres import PostgresCluster
from tests.harness.prefect import PrefectServer
from tests.harness.reader import Reading, read

PAGE: Final = 20
"""Rows of a page, so that few runs fill several."""
STATUS: Final = "/work_queues/{id}/concurrency_status"
HISTORY: Final = "/flow_runs/history"
SETTINGS: Final = {"PREFECT_SERVER_API_DEFAULT_LIMIT": str(PAGE)}
PLANS: Final = {"sweep": ".*", "each queue": "even-.*"}
"""The pools that a source reads, by the plan that it takes for them: of few queues, each is asked."""
DATABASES: Final = ("sqlite", "postgresql")


@dataclass
class Truth:
    """What came of the polls of one plan."""

    polls: int = 0
    still: int = 0
    """Polls while the writer stood still, each compared exactly."""
    changes: int = 0
    """Requests that changed the server while a poll ran."""
    values: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    false: list[str] = field(default_factory=list)


async def watch(server: PrefectServer, writer: Writer, plan: str, count: int) -> Truth:
    """Poll so many times while the writer writes, and a tenth as often while it stands still."""
    truth = Truth()
    settings = {"name": "prefect", "system": "prefect", "url": server.api_url, "timeout": "2m", "interval": "2m"}
    config = PrefectConfig.model_validate(settings | {"pools": {"include": PLANS[plan]}})
    source = config.build(WHOLE, lambda endpoint, *_: truth.requests.update([endpoint]))
    try:
        with writer.writing():
            while truth.polls < count and not writer.error:
                begun = time.monotonic()
                snapshot = await source.poll()
                ended = time.monotonic()
                assert snapshot.unreadable == (), snapshot.unreadable
                with writer.standing_still():
                    moments = writer.moments_between(begun, ended)
                    worlds = [moment.world.only(config.pools.admits) for moment in moments]
                    if truth.polls % 10 == 0:
                        truth.still += 1
                        await _compare_exactly(server, source, config)
                judge = Judge(worlds)
                judge.look_at(snapshot)
                truth.polls += 1
                truth.changes += len(moments) - 1
                truth.values += judge.values
                truth.false += [f"poll {truth.polls}: {one}" for one in judge.false]
    finally:
        await source.close()
    return truth


async def _compare_exactly(server: PrefectServer, source: Source, config: PrefectConfig) -> None:
    """Every value of a poll of a server that stands still is that of an independent reading."""
    with closing(server.client()) as client:
        before = _only(read(client), config)
        snapshot = await source.poll()
        after = _only(read(client), config)
    rendered = render(snapshot, source=config.name, system=config.system, max_series=config.max_series)
    found = series(b"".join(Body([rendered], Format.CLASSIC).plain(b"")).decode())
    assert_equal_to_readings(found, before, after, counted=True)


def _only(reading: Reading, config: PrefectConfig) -> Reading:
    pools = {name: pool for name, pool in reading.pools.items() if config.pools.admits(name)}
    return replace(reading, pools=pools, queues={key: one for key, one in reading.queues.items() if key[0] in pools})


@contextmanager
def moving(server: PrefectServer, seed: int) -> Iterator[Writer]:
    """A writer for that server, which does not write yet."""
    with closing(server.client()) as client:
        yield Writer(client, seed)


def main() -> int:
    """Print what came of it; the status is 1 where a value was false."""
    parser = argparse.ArgumentParser(prog="python -m tests.measure.truth")
    parser.add_argument("--polls", type=int, default=200, help="polls by each plan on each database")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=DATABASES, help="only on this one")
    parser.add_argument("--plan", choices=PLANS, help="only by this one")
    parser.add_argument("--verbose", action="store_true", help="print the requests too")
    arguments = parser.parse_args()
    print(f"{'database':10} {'plan':10} {'polls':>5} {'still':>5} {'changes':>7} {'values':>8} {'false':>5}")
    wrong = 0
    for database in [arguments.database] if arguments.database else DATABASES:
        for plan in [arguments.plan] if arguments.plan else PLANS:
            with ExitStack() as stack:
                home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                url = None
                if database == "postgresql":
                    url = stack.enter_context(PostgresCluster()).create_database("truth")
                server = stack.enter_context(PrefectServer(home, database_url=url, settings=SETTINGS))
                writer = stack.enter_context(moving(server, arguments.seed))
                truth = asyncio.run(watch(server, writer, plan, arguments.polls))
            print(
                f"{database:10} {plan:10} {truth.polls:>5} {truth.still:>5} {truth.changes:>7} {truth.values:>8}"
                f" {len(truth.false):>5}",
                *truth.false,
                sep="\n",
                flush=True,
            )
            if arguments.verbose:
                print(dict(truth.requests))
            wrong += len(truth.false)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
