import signal
import sys
import time
from pathlib import Path

import pytest

from tests.harness.process import Process, ProcessError, accepts, answers, free_port, logs, running


def test_an_early_death_is_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such database')"]
    expected = r"exit code 1 before it is ready(?s:.)*no such database"
    with running(command, log=tmp_path / "log") as process, pytest.raises(ProcessError, match=expected):
        process.wait_until(lambda: False, what="it is ready")


def test_a_missed_deadline_is_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    with running(["sh", "-c", "echo still loading; exec sleep 60"], log=tmp_path / "log") as process:
        process.wait_until(logs(process, "loading"), what="the first line")
        with pytest.raises(ProcessError, match=r"not within 0\.1 s: it is ready(?s:.)*still loading"):
            process.wait_until(lambda: False, what="it is ready", timeout=0.1)
    assert process.exit_code == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    process = Process(
        ["sh", "-c", "trap '' TERM; sleep 60 & echo child=$!; while :; do sleep 0.05; done"],
        log=tmp_path / "log",
    )
    process.wait_until(logs(process, r"child=\d+\n"), what="the child runs")
    child = Path("/proc", process.log_text().strip().removeprefix("child="))
    assert child.exists()
    assert process.stop(grace=0.2) == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while runs(child):
        assert time.monotonic() < deadline, "the child still runs"
        time.sleep(0.02)


def runs(process: Path) -> bool:
    """Whether a process, by its folder in `/proc`, has not ended."""
    try:
        return ") Z" not in (process / "stat").read_text()
    except OSError:
        return False


def test_waiting_for_http_and_for_a_port(tmp_path: Path) -> None:
    port = free_port()
    assert not accepts(port)()
    assert not answers(f"http://127.0.0.1:{port}/")()
    command = [
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(tmp_path),
        str(port),
    ]
    with running(command, log=tmp_path / "log") as process:
        process.wait_until(accepts(port), what="it listens")
        process.wait_until(answers(f"http://127.0.0.1:{port}/log"), what="it serves its log")
        assert not answers(f"http://127.0.0.1:{port}/nothing")()
