"""A throw-away PostgreSQL on loopback: trusting, and with nothing that would make it survive a crash."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.process import Process, ProcessError, accepts, free_port
from tests.harness.programs import libraries, postgres_program

_SUPERUSER = "postgres"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "jit": "off",
}


class PostgresCluster:
    """A context manager. Entering raises `ProcessError` when the cluster is not made or does not come up."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: Process | None = None
        # Not below a test's own folder, which is closed to the user that PostgreSQL runs as.
        self._home = Path(tempfile.gettempdir())

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def url(self, database: str) -> str:
        """Where Prefect finds a database of the cluster."""
        return f"postgresql+asyncpg://{_SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """URL of the new database, empty or a copy of `template`, which nobody may be connected to."""
        source = f' TEMPLATE "{template}"' if template else ""
        run_sql(self.url(_SUPERUSER), f'CREATE DATABASE "{name}"{source};', in_transaction=False)
        return self.url(name)

    def _start(self) -> None:
        data = self._home / "data"
        user = _unprivileged_user()
        if user:
            os.chown(self._home, user.pw_uid, user.pw_gid)

        def process(program: str, *flags: str | Path) -> Process:
            command = [postgres_program(program), "-D", data, *flags]
            env = os.environ | libraries()
            log = self._home / f"{program}.log"
            return Process(command, log=log, env=env, cwd=self._home, user=user.pw_name if user else None)

        created = process("initdb", "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        if code := created.wait_for_exit():
            raise ProcessError(f"initdb: exit code {code}\n{created.log_text()}")
        settings = [flag for name, value in _SETTINGS.items() for flag in ("-c", f"{name}={value}")]
        self._process = process("postgres", "-p", str(self.port), *settings)
        # It listens before it lets anyone in.
        self._process.wait_until(accepts(self.port), what="PostgreSQL listens")
        self._process.wait_until(self._lets_in, what="PostgreSQL lets us in")

    def _lets_in(self) -> bool:
        try:
            run_sql(self.url(_SUPERUSER), "SELECT 1;")
        except ProcessError:
            return False
        return True

    def _end(self) -> None:
        if self._process and self._process.exit_code is None:
            # Unlike SIGTERM this does not wait for its clients to leave.
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait_for_exit()
            except ProcessError:
                self._process.stop()
        shutil.rmtree(self._home)


def run_sql(url: str, script: str, *, in_transaction: bool = True) -> str:
    """What psql prints for the script, fields apart by `|`; raises `ProcessError` when a statement of it fails."""
    command: list[str | Path] = [postgres_program("psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
    command += ["--set=ON_ERROR_STOP=1", f"--dbname={url.replace('+asyncpg', '')}", "--file=-"]
    if in_transaction:
        command.append("--single-transaction")
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, check=False, env=os.environ | libraries()
    )
    if done.returncode:
        raise ProcessError(f"psql: exit code {done.returncode}\n{done.stderr}")
    return done.stdout.strip()


@contextmanager
def sql_session(url: str) -> Iterator[Callable[[str], None]]:
    """What runs statements in one session, which ends, and with it what it has locked, with the context."""
    command: list[str | Path] = [postgres_program("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    command += [f"--dbname={url.replace('+asyncpg', '')}", "--file=-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | libraries()
    ) as psql:
        assert psql.stdin
        assert psql.stdout
        asked, told = psql.stdin, psql.stdout

        def execute(statements: str) -> None:
            print(statements, "\\echo done", sep="\n", file=asked, flush=True)
            if told.readline() != "done\n":
                raise ProcessError(f"psql: {statements}")

        yield execute
        asked.close()


def _unprivileged_user() -> pwd.struct_passwd | None:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_SUPERUSER)
    except KeyError:
        return pwd.getpwnam("nobody")
