"""A limit of memory as containers and systemd set it: a control group of Linux, of either version."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.programs import missing

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")
_LIMITS = {
    # Version 1 counts what TCP keeps apart, once that has a limit.
    _V1: ("memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"),
    _V2: ("memory.max",),
}
_MOST = {_V1: ("memory.max_usage_in_bytes", "memory.kmem.tcp.max_usage_in_bytes"), _V2: ("memory.peak",)}
_EVENTS = {_V1: "memory.oom_control", _V2: "memory.events"}


@dataclass(frozen=True)
class Group:
    """A control group with a limit."""

    folder: Path

    @property
    def command(self) -> tuple[str, ...]:
        """What to run a command with, so that it runs in here."""
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh")

    @property
    def most(self) -> int:
        """The most bytes that it has had, with those of TCP."""
        return sum(int((self.folder / name).read_text()) for name in _MOST[self.folder.parent])

    @property
    def killed(self) -> int:
        """How many processes had to be ended since it had no more."""
        lines = (self.folder / _EVENTS[self.folder.parent]).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def memory(limit: int) -> Iterator[Group]:
    """A group that may have so many bytes, until the context ends. Skips the test where none can be made."""
    parent = _V1 if _V1.is_dir() else _V2
    folder = parent / f"concurrency-exporter-{os.getpid()}"
    try:
        folder.mkdir()
        for name in _LIMITS[parent]:
            (folder / name).write_text(str(limit))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        raise missing(f"no control group for memory can be made: {error}") from None
    try:
        yield Group(folder)
    finally:
        folder.rmdir()
