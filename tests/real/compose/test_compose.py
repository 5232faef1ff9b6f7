"""deploy/compose at work: its parts find each other."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from exporter.flags import DEFAULT_PORT
from tests.harness import programs
from tests.harness.compose import SERVICES, laid_out
from tests.harness.process import running
from tests.harness.programs import missing, program


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[list[str | Path]]:
    """What to put before a command, so that it runs in a network where all names of services are those of loopback."""
    if os.getuid() or not shutil.which("ip"):
        raise missing("a network of its own takes root, and iproute2")
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *SERVICES)))
    script = 'ip link set lo up && mount --bind "$1" /etc/hosts && touch "$1.mounted" && exec sleep infinity'
    command: list[str | Path] = ["unshare", "--net", "--mount", "bash", "-c", script, "network", hosts]
    with running(command, log=tmp_path / "network.log") as network:
        network.wait_until(tmp_path.joinpath("hosts.mounted").exists, what="the network is up")
        yield ["nsenter", f"--target={network.pid}", "--net", "--mount"]


def test_the_parts_find_each_other(inside: list[str | Path], tmp_path: Path) -> None:
    def ask(url: str) -> Any:
        code = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=60).read().decode())"
        done = subprocess.run([*inside, sys.executable, "-Ic", code], stdout=subprocess.PIPE, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {"data": {}}

    def has(url: str, predicate: Callable[[Any], object]) -> Callable[[], bool]:
        return lambda: bool(predicate(ask(url)["data"]))

    def healths(rules: Any) -> set[str]:
        often = [group for group in rules["data"]["groups"] if group["interval"] <= 60]
        return {rule["health"] for group in often for rule in group["rules"]}

    etc = tmp_path / "etc"
    laid_out("prometheus", tmp_path)
    laid_out("alertmanager", tmp_path)
    commands: dict[str, list[str | Path]] = {
        "exporter": [sys.executable, "-m", "exporter", *SERVICES["exporter"]["command"]],
        "alertmanager": [
            programs.alertmanager(),
            f"--config.file={etc}/alertmanager/alertmanager.yml",
            f"--storage.path={tmp_path}/alertmanager",
            "--cluster.listen-address=",
        ],
        "prometheus": [
            program("prometheus"),
            f"--config.file={etc}/prometheus/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/prometheus",
        ],
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            process = stack.enter_context(running([*inside, *command], log=tmp_path / f"{name}.log"))
        api = "http://prometheus:9090/api/v1"
        process.wait_until(
            has(f"{api}/alertmanagers", lambda data: data.get("activeAlertmanagers")), what="Alertmanager is found"
        )
        process.wait_until(
            has(f"{api}/query?query=concurrency:slot_utilization:ratio", lambda data: data.get("result")),
            what="the rules record what was scraped",
        )
        process.wait_until(lambda: "unknown" not in healths(ask(f"{api}/rules")), what="all rules are evaluated")
        assert healths(ask(f"{api}/rules")) == {"ok"}
        (target,) = ask(f"{api}/targets")["data"]["activeTargets"]
        assert (target["scrapeUrl"], target["health"]) == (f"http://exporter:{DEFAULT_PORT}/metrics", "up")
