"""A real Prefect server for tests, with a database of its own."""

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from tests.harness.postgres import PostgresCluster
from tests.harness.process import PATIENCE, Process, answers, free_port
from tests.harness.programs import prefect_python


class PrefectServer:
    """One Prefect server on loopback; a context manager.

    `services=False` leaves out the background services, so that states change only when a test changes
    them: nothing becomes Late, no lease expires. `auth_string` (`user:password`) turns basic auth on, `csrf`
    the CSRF protection. `settings` are further environment variables (`PREFECT_SERVER_API_DEFAULT_LIMIT`).
    `version` is one of the older versions that there is an environment of (`3.6.22`).

    The database is an SQLite file of its own, or the empty or migrated one at `database_url`
    (`postgresql+asyncpg://...`). `template` is the path of a migrated, empty SQLite database of the same version:
    copied in when the file exists, otherwise written by this start. Migrating takes as long as everything else in
    a start.

    Entering raises `ProcessError` when the server does not come up.
    """

    def __init__(
        self,
        home: Path,
        *,
        services: bool = False,
        auth_string: str | None = None,
        csrf: bool = False,
        settings: Mapping[str, str] | None = None,
        template: Path | None = None,
        version: str | None = None,
        database_url: str | None = None,
    ) -> None:
        self.home = home
        self.database_url = database_url
        self.auth_string = auth_string
        self.csrf = csrf
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.started = datetime.now(UTC)
        self._services = services
        self._settings = dict(settings or {})
        self._template = None if database_url else template
        self._version = version
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.started = datetime.now(UTC)
        self.home.mkdir(parents=True, exist_ok=True)
        if self._template and self._template.exists() and not self.database.exists():
            shutil.copyfile(self._template, self.database)
        command: list[str | Path] = [prefect_python(self._version), "-m", "prefect", "server", "start"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        if not self._services:
            command.append("--no-services")
        self._process = Process(command, log=self.home / "server.log", env=self._environment())
        try:
            self._process.wait_until(answers(f"{self.api_url}/health"), what="the Prefect server is healthy")
            if self._template and not self._template.exists():
                _copy_live_database(self.database, self._template)
        except BaseException:
            self._process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server; a later `with` on the same object starts it again on the same port and data."""
        if self._process:
            self._process.stop()

    @property
    def database(self) -> Path:
        """The SQLite file, where that is the database."""
        return self.home / "prefect.db"

    @property
    def process(self) -> Process:
        """The running server; `RuntimeError` before it was entered."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process

    def client(self) -> httpx.Client:
        """A client with the basic auth and CSRF headers that the server wants; the caller closes it."""
        client = httpx.Client(base_url=self.api_url, timeout=PATIENCE, trust_env=False)
        if self.auth_string:
            user, _, password = self.auth_string.partition(":")
            client.auth = httpx.BasicAuth(user, password)
        if self.csrf:
            # Fetching a token ends the one before of the same name, hence a name for each client.
            name = f"test-{uuid.uuid4()}"
            answer = client.get("/csrf-token", params={"client": name}).raise_for_status()
            client.headers.update({"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": answer.json()["token"]})
        return client

    def _environment(self) -> dict[str, str]:
        # A developer's own Prefect settings must not reach the server under test.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        return {
            **inherited,
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(self.home),
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            # It goes on without the services: after five minutes it ends what is Cancelling.
            **({} if self._services else {"PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_ENABLED": "false"}),
            **({"PREFECT_API_DATABASE_CONNECTION_URL": self.database_url} if self.database_url else {}),
            **({"PREFECT_SERVER_API_AUTH_STRING": self.auth_string} if self.auth_string else {}),
            **({"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true"} if self.csrf else {}),
            **self._settings,
        }


class PrefectApi:
    """What the tests change on a server, over its REST API.

    Every method raises `httpx.HTTPStatusError` when the server refuses.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def request(self, method: str, path: str, body: object = None, *, timeout: float = PATIENCE) -> Any:
        """The decoded answer, if there is one. Tries again for `timeout` seconds while the server is busy."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.TransportError:
                # The server closes the connection after a 503, and the next request on it fails.
                if time.monotonic() >= deadline:
                    raise
            else:
                # SQLite turns a writer away while another one is in, such as a background service.
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() >= deadline:
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
            time.sleep(0.1)

    def create_flow(self, name: str = "flow") -> str:
        """Id of the flow of this name, created when there is none."""
        return str(self.request("POST", "/flows/", {"name": name})["id"])

    def create_pool(self, name: str, *, kind: str = "process", limit: int | None = None, paused: bool = False) -> str:
        """Id of the new pool; the server gives it a queue called `default`."""
        body = {"name": name, "type": kind, "concurrency_limit": limit, "is_paused": paused}
        return str(self.request("POST", "/work_pools/", body)["id"])

    def create_queue(
        self,
        pool: str,
        name: str,
        *,
        limit: int | None = None,
        paused: bool = False,
        priority: int | None = None,
    ) -> str:
        """Id of the new queue. A priority that is taken moves the others down; None is the lowest."""
        body: dict[str, object] = {"name": name, "concurrency_limit": limit, "is_paused": paused}
        if priority is not None:
            body["priority"] = priority
        return str(self.request("POST", f"/work_pools/{quote(pool, safe='')}/queues", body)["id"])

    def create_run(self, flow: str, *, pool: str | None, queue: str | None, state: Mapping[str, object]) -> str:
        """Id of the new run in `state` (`{"type": ..., "name": ...}`).

        Without a pool the run knows its queue by name only; without both it is in no queue.
        """
        body: dict[str, object] = {
            "flow_id": flow,
            "state": state,
            # So that a request which is sent twice makes one run.
            "idempotency_key": str(uuid.uuid4()),
        }
        if pool is not None:
            body["work_pool_name"] = pool
        if queue is not None:
            body["work_queue_name"] = queue
        return str(self.request("POST", "/flow_runs/", body)["id"])

    def set_state(self, run: str, state: Mapping[str, object]) -> None:
        """Force a run into `state`, whatever state it is in; `RuntimeError` when it stays where it is."""
        answer = self.request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
        if answer["status"] != "ACCEPT":
            raise RuntimeError(f"state {state} of run {run} was not accepted: {answer}")


def _copy_live_database(source: Path, target: Path) -> None:
    # SQLite's own backup reads a consistent state while the server has the file open.
    unfinished = target.with_suffix(".part")
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(unfinished)) as copy:
        live.backup(copy)
    unfinished.rename(target)


StartPrefect = Callable[..., PrefectServer]


class PrefectTemplates:
    """Where the session's first Prefect server of each kind leaves its migrated database for those after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._migrated: set[str] = set()
        self._copies = 0

    def sqlite(self, version: str | None) -> Path:
        """The file for `PrefectServer(template=...)`."""
        return self._folder / f"{version or 'newest'}.db"

    def postgres(self, cluster: PostgresCluster, version: str | None) -> str:
        """URL of a new database in the cluster, migrated by a server of this version."""
        template = f"template-{version or 'newest'}"
        if template not in self._migrated:
            with PrefectServer(
                self._folder / template, version=version, database_url=cluster.create_database(template)
            ):
                self._migrated.add(template)
        self._copies += 1
        return cluster.create_database(f"copy-{self._copies}", template=template)
