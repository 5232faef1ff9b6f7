"""A real Prefect worker, and the flow runs that it is given to run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.harness.prefect import PrefectApi, PrefectServer
from tests.harness.process import Condition, Process, logs
from tests.harness.programs import prefect_python

LASTING: Final = {"PREFECT_SERVER_SERVICES_FOREMAN_INACTIVITY_HEARTBEAT_MULTIPLE": "100"}
"""Settings of a server to which a worker is not gone because a slow machine lets it, or the test, wait for minutes."""

# Apart from the rest, because a run has its folder on its path, and prefect.py here would hide the real one.
_FOLDER = Path(__file__).parent / "flows"


class PrefectWorker:
    """A process worker for one pool of a server that has its services; a context manager.

    It asks for runs every second, and runs each of them as a process of its own, at most `limit` at a time. Leaving
    ends those too.
    """

    def __init__(
        self, server: PrefectServer, pool: str, home: Path, *, name: str = "worker", limit: int | None = None
    ) -> None:
        self.name = name
        self._server = server
        self._pool = pool
        self._home = home
        self._limit = limit
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._home.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            prefect_python(),
            "-m",
            "prefect",
            "worker",
            "start",
            "--type=process",
            "--install-policy=never",
        ]
        command += [f"--pool={self._pool}", f"--name={self.name}"]
        command += [f"--limit={self._limit}"] if self._limit else []
        self._process = Process(command, log=self._home / "worker.log", env=self._environment(), cwd=self._home)
        try:
            self._process.wait_until(logs(self._process, "started!"), what="the worker has started")
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    @property
    def process(self) -> Process:
        """The running worker; `RuntimeError` before it was entered."""
        if self._process is None:
            raise RuntimeError("the worker was not started")
        return self._process

    def _environment(self) -> dict[str, str]:
        auth = self._server.auth_string
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(self._home),
            # It has a folder of a fixed name there, which may be another user's.
            "TMPDIR": str(self._home),
            "PREFECT_API_URL": self._server.api_url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            **({"PREFECT_API_AUTH_STRING": auth} if auth else {}),
        }


@dataclass(frozen=True)
class Change:
    """A state that a run entered."""

    type: str
    name: str
    at: datetime


def create_nap_deployment(
    api: PrefectApi, pool: str, queue: str, *, name: str = "nap", limit: int | None = None
) -> str:
    """Id of a new deployment whose runs sleep, in this queue of a `process` pool."""
    body = {
        "name": name,
        "flow_id": api.create_flow("nap"),
        "work_pool_name": pool,
        "work_queue_name": queue,
        "entrypoint": "naps.py:nap",
        "path": str(_FOLDER),
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(_FOLDER)}}],
        "concurrency_limit": limit,
    }
    return str(api.request("POST", "/deployments/", body)["id"])


def start_nap(api: PrefectApi, deployment: str, *, seconds: float, until: Path | None = None) -> str:
    """Id of a new run that is due at once and sleeps so long, and until there is a file at `until`, if given."""
    parameters = {"seconds": seconds, "until": str(until) if until else None}
    body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
    return str(api.request("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])


def history(api: PrefectApi, run: str) -> list[Change]:
    """The states that a run has been in by the server's own record, the first one first."""
    states = api.request("GET", f"/flow_run_states/?flow_run_id={run}")
    changes = [Change(state["type"], state["name"], datetime.fromisoformat(state["timestamp"])) for state in states]
    return sorted(changes, key=lambda change: change.at)


def all_completed(api: PrefectApi, runs: Sequence[str]) -> Condition:
    """Holds once these runs are done; raises `AssertionError` when one of them has failed."""

    def condition() -> bool:
        types = [api.request("GET", f"/flow_runs/{run}")["state_type"] for run in runs]
        assert not {"FAILED", "CRASHED", "CANCELLED"}.intersection(types), types
        return set(types) == {"COMPLETED"}

    return condition
