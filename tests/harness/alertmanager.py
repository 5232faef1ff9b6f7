"""A real Alertmanager for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import programs
from tests.harness.process import answers, free_port, running


@contextmanager
def alertmanager(directory: Path, config: Path) -> Iterator[str]:
    """An Alertmanager with this configuration file on loopback: its address, `host:port`."""
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    command: list[str | Path] = [
        programs.alertmanager(),
        f"--config.file={config}",
        f"--storage.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",  # no cluster
    ]
    with running(command, log=directory / "alertmanager.log") as process:
        process.wait_until(answers(f"http://{address}/-/ready"), what="Alertmanager is ready")
        yield address
