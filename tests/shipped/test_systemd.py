"""The unit of deploy/systemd, in the eyes of systemd."""

import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

from exporter.flags import DEFAULT_PORT, parser
from tests.harness.process import PATIENCE
from tests.harness.programs import ROOT, missing

UNIT = ROOT / "deploy/systemd/concurrency-exporter.service"
SOCKET = UNIT.with_suffix(".socket")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        raise missing("systemd-analyze is not on PATH: apt install systemd")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def section(path: Path, name: str) -> dict[str, str]:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    return dict(unit[name])


def service() -> dict[str, str]:
    return section(UNIT, "Service")


def test_systemd_has_no_complaints(tmp_path: Path) -> None:
    command, *_ = shlex.split(service()["ExecStart"])
    installed = Path(sys.executable).with_name(Path(command).name)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(command, str(installed)))
    shutil.copy(SOCKET, tmp_path)
    for each in (unit, tmp_path / SOCKET.name):
        done = analyze("verify", "--man=no", each)
        assert (done.returncode, done.stderr) == (0, "")


def test_it_is_exposed_to_little() -> None:
    done = analyze("security", "--no-pager", "--offline=true", "--threshold=12", UNIT)
    assert done.returncode == 0, done.stdout


def test_its_command_is_the_exporters() -> None:
    _, *flags = shlex.split(service()["ExecStart"])
    parsed = parser().parse_args(flags)
    assert parsed.config_file == Path("/etc/concurrency-exporter/concurrency-exporter.yml")
    assert service()["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_its_port_is_that_of_the_socket_unit() -> None:
    _, *flags = shlex.split(service()["ExecStart"])
    assert parser().parse_args(flags).web_systemd_socket
    assert section(UNIT, "Unit")["Requires"] == SOCKET.name
    assert section(SOCKET, "Socket") == {"ListenStream": str(DEFAULT_PORT)}
    assert service()["SocketBindDeny"] == "any", "it opens none itself"


def test_its_own_metrics_are_not_hidden_from_it() -> None:
    # Without /proc/stat, prometheus_client leaves out all metrics of the process.
    assert "ProcSubset" not in service()
