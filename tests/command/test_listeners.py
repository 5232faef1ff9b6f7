"""Where the exporter serves: several addresses, and sockets that systemd hands over."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from exporter.settings.reader import ConfigError
from exporter.web.listeners import listen_on
from tests.harness.command import COMMAND, SECRET, StartExporter, environment, run
from tests.harness.process import free_port, running
from tests.harness.programs import missing


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = run(f"--web.listen-address={address}", CLORO_API_KEY=SECRET)
    assert outcome == (1, "", f"--web.listen-address={address}: can't listen on this address: Address already in use\n")


def test_of_several_addresses_all_are_had_or_none() -> None:
    free = f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        code, out, err = run(
            *(f"--web.listen-address={address}" for address in (free, used, "nowhere")), CLORO_API_KEY=SECRET
        )
        assert (code, out) == (1, "")
        assert err.splitlines() == [
            f"--web.listen-address={used}: can't listen on this address: Address already in use",
            "--web.listen-address=nowhere: must have the form HOST:PORT",
        ]
        with pytest.raises(ConfigError):
            listen_on([free, used])
    (listener,) = listen_on([free])
    listener.close()


def test_all_addresses_are_served(start: StartExporter) -> None:
    ports = [free_port(), free_port()]
    flags = [f"--web.listen-address=[::1]:{ports[0]}", f"--web.listen-address=127.0.0.1:{ports[1]}"]
    exporter = start("--demo", *flags)
    urls = [str(exporter.client.base_url), f"http://[::1]:{ports[0]}", f"http://127.0.0.1:{ports[1]}"]
    for url in urls:
        assert httpx.get(f"{url}/-/healthy", trust_env=False, timeout=30).status_code == 200
    assert f"[::1]:{ports[0]},127.0.0.1:{ports[1]}" in exporter.process.log_text()
    exporter.process.stop()
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/-/healthy", trust_env=False, timeout=30)


# --- Sockets of systemd.


def test_it_serves_on_the_sockets_that_systemd_opened(tmp_path: Path) -> None:
    if not shutil.which("systemd-socket-activate"):
        raise missing("systemd-socket-activate is not on PATH: apt install systemd")
    path = tmp_path / "web.socket"
    ports = [free_port(), free_port()]
    listen = [f"--listen={one}" for one in (f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}", path)]
    command = ["systemd-socket-activate", *listen, *COMMAND, "--demo", "--web.systemd-socket"]
    with running(command, log=tmp_path / "log", env=environment()) as process:
        process.wait_until(lambda: process.log_text().count("Listening on") == 3, what="systemd listens")
        urls = [f"http://127.0.0.1:{ports[0]}", f"http://[::1]:{ports[1]}"]
        for url in urls:
            assert httpx.get(f"{url}/-/healthy", trust_env=False, timeout=60).status_code == 200
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, timeout=60) as client:
            assert client.get("http://localhost/metrics").status_code == 200
        (listening,) = (line for line in process.log_text().splitlines() if "msg=listening" in line)
        assert f"address=127.0.0.1:{ports[0]},[::1]:{ports[1]},{path}" in listening
    assert process.exit_code == 0
    assert "Traceback" not in process.log_text()


UDP = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
NOT_LISTENING = "socket.socket()"
A_FILE = "open(os.devnull)"
GOOD = "socket.create_server(('127.0.0.1', 0))"
HAND_OVER = """
import os, socket, sys
kept = [os.dup(one.fileno()) for one in (OPENED,)]
for number, descriptor in enumerate(kept):
    os.dup2(descriptor, 3 + number)
os.environ.update(LISTEN_FDS="COUNT", LISTEN_PID=str(os.getpid() + OFFSET), LISTEN_FDNAMES="web.socket")
os.execv(sys.executable, [sys.executable, "-m", "exporter", "--demo", "--web.systemd-socket"])
"""


@pytest.mark.parametrize(
    ("opened", "count", "offset", "reason"),
    [
        (GOOD, "0", 0, "systemd has handed over no socket"),
        (GOOD, "", 0, "systemd has handed over no socket"),
        (GOOD, "-1", 0, "systemd has handed over no socket"),
        (GOOD, "1", 1, "systemd has handed over no socket"),
        (UDP, "1", 0, "descriptor 3 of web.socket is not a socket that accepts connections"),
        (NOT_LISTENING, "1", 0, "descriptor 3 of web.socket is not a socket that accepts connections"),
        (A_FILE, "1", 0, "descriptor 3 of web.socket is not a socket that accepts connections"),
        (f"{GOOD}, {UDP}", "2", 0, "descriptor 4 is not a socket that accepts connections"),
        (GOOD, "900", 0, "descriptor [0-9]+ is not a socket that accepts connections"),
    ],
)
def test_what_is_no_socket_of_systemd(opened: str, count: str, offset: int, reason: str) -> None:
    code = HAND_OVER.replace("OPENED", opened).replace("COUNT", count).replace("OFFSET", str(offset))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"--web\.systemd-socket: {reason}.*\n", done.stderr)


def test_without_systemd_there_is_no_socket() -> None:
    code, out, err = run("--demo", "--web.systemd-socket")
    assert (code, out) == (1, "")
    assert err == "--web.systemd-socket: systemd has handed over no socket; start the exporter by a .socket unit\n"
