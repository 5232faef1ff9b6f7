"""A real Alertmanager for tests."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import programs
from tests.harness.process import PATIENCE, answers, free_port, running
from tests.harness.promql import ALERTS
from tests.harness.upstream import Request, answer


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


class Webhook:
    """Notifications of an Alertmanager, as an `Answer`; the receiver of each is the path that it was sent to."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []

    def __call__(self, request: Request) -> bytes:
        """Take one notification."""
        self.alerts += [{"receiver": request.path, **alert} for alert in request.json["alerts"]]
        return answer({})

    def names(self, receiver: str) -> set[str]:
        """The names of the alerts that a receiver got."""
        return {alert["labels"]["alertname"] for alert in self.alerts if alert["receiver"] == receiver}

    def wait_for(self, name: str, status: str, source: str) -> dict[str, Any]:
        """Return the notification of an alert, once it has come."""

        def found() -> dict[str, Any] | None:
            for alert in self.alerts:
                labels = alert["labels"]
                if (labels["alertname"], alert["status"], labels.get("source")) == (name, status, source):
                    return alert
            return None

        result: dict[str, Any] = wait_until(found, f"{name} is {status} for {source}; there were {self.alerts}")
        return result


def wait_until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.1)
    return result


def alertmanager_config(folder: Path, webhook: str) -> Path:
    """The example that is shipped, with another receiver and without its waits."""
    text = (ALERTS / "alertmanager.yml").read_text(encoding="utf-8")
    text, receivers = re.subn(r"http://localhost:9099/", f"{webhook}/", text)
    text, waits = re.subn(r"(?m)^( *group_(?:wait|interval):) \w+$", r"\1 1s", text)
    assert (receivers, waits) == (2, 2)
    path = folder / "alertmanager.yml"
    path.write_text(text, encoding="utf-8")
    return path
