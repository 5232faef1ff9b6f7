"""A stop that comes right after the start, at each step of it: as PID 1, which gets no signal without a handler."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import Condition, Process, free_port, logs
from tests.harness.programs import missing

ENV = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
BLOCKED = ("env", "--block-signal=TERM,INT")
"""What the image starts the command with."""


def pid_1(of: Process) -> int:
    children = Path(f"/proc/{of.pid}/task/{of.pid}/children").read_text().split()
    return int(children[0]) if children else 0


def runs(process: Process) -> Condition:
    """Holds once Python is what runs, before it has imported anything of ours."""

    def condition() -> bool:
        pid = pid_1(process)
        return bool(pid) and Path(f"/proc/{pid}/exe").resolve() == Path(sys.executable).resolve()

    return condition


def has_loaded(process: Process, library: str) -> Condition:
    """Holds once that library is imported, or is about to be."""

    def condition() -> bool:
        return bool(pid := pid_1(process)) and library in Path(f"/proc/{pid}/maps").read_text()

    return condition


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode:
        raise missing("no PID namespace can be made: takes root")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("inside", "when"),
    [(BLOCKED, "python"), (BLOCKED, "imports"), ((), "imports"), ((), "more imports"), ((), "listens")],
    ids=lambda value: value if isinstance(value, str) else "blocked" if value else "bare",
)
def test_a_stop_ends_it_whenever_it_comes(
    tmp_path: Path, inside: tuple[str, ...], when: str, number: signal.Signals
) -> None:
    command = (sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{free_port()}")
    process = Process(
        ["unshare", "--pid", "--fork", "--kill-child", *inside, *command], log=tmp_path / "exporter.log", env=ENV
    )
    try:
        moments: dict[str, Condition] = {
            "python": runs(process),
            "imports": has_loaded(process, "_asyncio"),
            "more imports": has_loaded(process, "pydantic_core"),
            "listens": logs(process, "msg=listening"),
        }
        process.wait_until(moments[when], what=when)
        subprocess.run(["kill", f"-{number.value}", str(pid_1(process))], check=True)
        assert process.wait_for_exit() == 0
        assert "Traceback" not in process.log_text()
    finally:
        process.stop()


@pytest.mark.parametrize("flag", ["--config.check", "--dry-run"])
def test_a_check_that_is_stopped_early_has_not_passed(tmp_path: Path, flag: str) -> None:
    process = Process([*BLOCKED, sys.executable, "-m", "exporter", "--demo", flag], log=tmp_path / "log")
    try:
        process.send_signal(signal.SIGTERM)
        assert process.wait_for_exit() in {-signal.SIGTERM, 128 + signal.SIGTERM}
    finally:
        process.stop()
