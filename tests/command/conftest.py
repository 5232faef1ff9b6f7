"""Fixtures of the tests that run the command."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.command import COMMAND, Started, StartExporter, environment, upstream_answer
from tests.harness.process import Process
from tests.harness.upstream import Upstream, serving


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving(upstream_answer({"queue": 3})) as upstream:
        yield upstream


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartExporter]:
    """Start an exporter with these flags; it is stopped at the end of the test."""
    with ExitStack() as stack:

        def start(*flags: str | Path, inside: Sequence[str] = (), **more: str) -> Started:
            command = [*inside, *COMMAND, "--web.listen-address=127.0.0.1:0", *flags]
            log = tmp_path / f"log-{len(list(tmp_path.glob('log-*')))}"
            process = Process(command, log=log, env=environment(**more))
            stack.callback(process.stop, grace=3)
            exporter = Started(process)
            stack.callback(exporter.client.close)
            return exporter

        yield start
