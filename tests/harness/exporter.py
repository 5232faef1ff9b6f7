"""The command under test as a child process, and its metrics as a test reads them."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.process import PATIENCE, Process, answers, free_port, running

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""The value of each series by its name and labels."""


@dataclass(frozen=True)
class Exporter:
    """A running command that serves on loopback."""

    url: str
    process: Process
    auth: tuple[str, str] | None = None
    prefix: str = ""

    @property
    def address(self) -> str:
        """`host:port`, as Prometheus has a target."""
        return self.url.removeprefix("http://")

    def get(self, path: str = "/metrics", **headers: str) -> httpx.Response:
        """The answer to one request, whatever its status."""
        return httpx.get(f"{self.url}{path}", headers=headers, auth=self.auth, trust_env=False, timeout=PATIENCE)

    def series(self, prefix: str = "concurrency_") -> Series:
        """The series on `/metrics` whose names begin with `prefix`."""
        return series(self.get(f"{self.prefix}/metrics").text, prefix)


@contextmanager
def exporter(
    directory: Path,
    *flags: str | Path,
    env: Mapping[str, str] | None = None,
    ready: bool = True,
    auth: tuple[str, str] | None = None,
    inside: Sequence[str] = (),
    prefix: str = "",
) -> Iterator[Exporter]:
    """Run the command with these flags on a free port, from when it serves (and is `ready`) until the context ends.

    Where it wants a name and a password, `auth` has them, and it counts as ready when it wants them. `inside` is the
    command that runs it, in its own place. `prefix` is the path below which it serves.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command: Sequence[str | Path] = (
        *inside,
        sys.executable,
        "-m",
        "exporter",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    )
    with running(command, log=directory / "exporter.log", env=env) as process:
        path = "/-/ready" if ready else "/-/healthy"
        process.wait_until(
            answers(url + prefix + path, status=401 if auth else 200), what=f"the exporter answers {path}"
        )
        yield Exporter(url, process, auth, prefix)


def troubles(process: Process) -> list[str]:
    """The errors and warnings in its log, without what a slow machine does to the polls of a source that is well."""
    lines = [line for line in process.log_text().splitlines() if re.search("level=(error|warning)", line)]
    return [line for line in lines if not re.search('msg="poll (skipped|failed" .*reason=timeout)', line)]


def series(text: str, prefix: str = "concurrency_") -> Series:
    """The series of an exposition in classic text; raises `AssertionError` for one that is there twice."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(prefix):
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, f"twice: {key}"
                found[key] = sample.value
    return found
