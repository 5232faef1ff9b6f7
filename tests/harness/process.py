"""Run a server as a child process: start it, wait until it is ready, stop it."""

import os
import random
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from http.client import HTTPConnection, HTTPException
from itertools import cycle, islice
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

Condition = Callable[[], bool]

PATIENCE: Final = 600
"""Seconds after which what has not happened never will, however slow the machine is: it ends a hang, no more."""

_POLL_SECONDS = 0.05
_TAIL_LINES = 40
_BLOCK = 200
"""Ports of one process: those that it had in the last minute may not be free yet."""


class ProcessError(RuntimeError):
    """A child process died, or was not ready in time; the message carries the end of its log."""


class Process:
    """A running child process whose output is added to a file.

    Starts at once. `user` is whom it runs as, if not ourselves. Raises `OSError` when the command cannot be run.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as output:
            # A session of its own: an interrupt typed at the terminal reaches the tests, which then stop the
            # child in order.
            self._child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                user=user,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._child.poll()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def send_signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def wait_until(self, condition: Condition, *, what: str, timeout: float = PATIENCE) -> None:
        """Poll until `condition` holds; `what` says in an error what was waited for.

        Raises `ProcessError` when the process ends first or `timeout` (seconds) passes.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            if self.exit_code is not None:
                raise self._error(f"ended with exit code {self.exit_code} before {what}")
            if time.monotonic() >= deadline:
                raise self._error(f"not within {timeout:g} s: {what}")
            time.sleep(_POLL_SECONDS)

    def wait_for_exit(self, *, timeout: float = PATIENCE) -> int:
        """Exit code of a process that ends by itself; `ProcessError` after `timeout` seconds."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"still running after {timeout:g} s") from None

    def stop(self, *, grace: float = 60) -> int:
        """End it with SIGTERM, after `grace` seconds with SIGKILL; return the exit code."""
        if self.exit_code is None:
            self._child.terminate()
            try:
                self._child.wait(grace)
            except subprocess.TimeoutExpired:
                # The whole group, which is ours alone, so that no worker of it is left behind.
                os.killpg(self._child.pid, signal.SIGKILL)
        return self._child.wait()

    def _error(self, message: str) -> ProcessError:
        tail = "\n".join(self.log_text().splitlines()[-_TAIL_LINES:])
        return ProcessError(f"{self.name}: {message}\n--- end of {self.log.name} ---\n{tail or '(empty)'}")


@contextmanager
def running(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[Process]:
    """A `Process` that is stopped at the end of the block."""
    process = Process(command, log=log, env=env, cwd=cwd)
    try:
        yield process
    finally:
        process.stop()


def answers(url: str, *, status: int = 200) -> Condition:
    """Holds once a GET of the `http://` `url` is answered with `status`."""
    parts = urlsplit(url)

    def condition() -> bool:
        # Not httpx: it loads the certificate store at every call, which costs a starting server its time.
        with closing(HTTPConnection(parts.netloc, timeout=PATIENCE)) as connection:
            try:
                connection.request("GET", parts.path)
                return connection.getresponse().status == status
            except (OSError, HTTPException):
                return False

    return condition


def accepts(port: int) -> Condition:
    """Holds once something listens on the loopback `port`."""

    def condition() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
        except OSError:
            return False

    return condition


def logs(process: Process, pattern: str) -> Condition:
    """Holds once the log of `process` has a match of the regular expression `pattern`."""
    compiled = re.compile(pattern)
    return lambda: compiled.search(process.log_text()) is not None


def free_port() -> int:
    """A loopback TCP port that nothing listens on, and that no other process is given by this.

    A server needs seconds until it binds it.
    """
    for port in islice(_ports(), _BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of the {_BLOCK} ports of this process is free")


@cache
def _ports() -> Iterator[int]:
    """A block of ports for this process, over and over.

    From below the range that the kernel gives to outgoing connections. Whose a block is tells a socket without a file,
    which ends with the process.
    """
    blocks = range(20_000, 32_000, _BLOCK)
    for first in random.SystemRandom().sample(blocks, len(blocks)):
        owner = socket.socket(socket.AF_UNIX)
        try:
            owner.bind(f"\0ports of the tests of concurrency-exporter, from {first}")
        except OSError:
            owner.close()
            continue
        owner.detach()
        return cycle(range(first, first + _BLOCK))
    raise RuntimeError("too many processes have asked for free ports")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """In this process, nothing can be opened. What is known of a file without opening it can still be asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
