"""The exporter writes no file: it does all that it does where none can be written, and opens none where it could."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.harness import programs
from tests.harness.certificates import authority, certificate
from tests.harness.command import cloro, environment, prefect, upstream_answer
from tests.harness.process import PATIENCE, free_port, running
from tests.harness.upstream import serving
from tests.harness.web import HASH, PASSWORD, trusting

# Every mount read-only, and not even root may write nevertheless.
READ_ONLY = """
set -e
cut -d' ' -f2 /proc/self/mounts | sort -r | while read -r mount; do
    mount -o remount,bind,ro "$(printf '%b' "$mount")" 2>/dev/null || true
done
for folder in /tmp /var/tmp /dev/shm "$HOME" "$PWD"; do
    if touch "$folder/written-by-a-test" 2>/dev/null; then echo "$folder can be written to"; exit 3; fi
done
exec setpriv --bounding-set=-all --no-new-privs "$@"
"""
UNSHARE = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"]

# Runs the command, and ends with what it did to files beyond reading them; Python tells of each such call.
WATCHED = """
import os, sys

done = []
changing = {"chmod", "chown", "link", "mkdir", "mkfifo", "remove", "rename", "rmdir", "symlink", "truncate", "utime"}

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], int):
        return  # a descriptor that is open already, such as that of standard error
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND):
        done.append(f"{event} {arguments}")
    elif event.startswith(("tempfile.", "shutil.", "sqlite3.")) or event.removeprefix("os.") in changing:
        done.append(f"{event} {arguments}")

sys.addaudithook(watch)
CANARY
from exporter import cli
code = cli.main()
print("\\n".join(["WATCHED", *done]))
sys.exit(code)
"""


def permitted() -> bool:
    """Whether this machine lets mounts be made read-only for one process."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False, timeout=PATIENCE).returncode == 0
    except FileNotFoundError:
        return False


def use(tmp_path: Path, *command: str) -> str:
    """Have the command poll, serve, reload, read again what changed and stop; returns its log."""
    authority(tmp_path)
    certificate(tmp_path, "server")
    port = free_port()
    texts = {"cert": (tmp_path / "server.pem").read_text(), "key": (tmp_path / "server.key").read_text()}
    web, path = tmp_path / "web.yml", tmp_path / "exporter.yml"
    web.write_text(json.dumps({"tls_server_config": texts, "basic_auth_users": {"alice": HASH}}))
    flags = [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle", "--log.level=debug"]
    flags += [f"--config.file={path}", f"--web.config.file={web}"]
    with serving(upstream_answer({"queue": 3, "bad": None})) as upstream:
        path.write_text(json.dumps({"sources": [prefect(upstream.url), cloro(upstream.url)]}))
        with (
            running([*command, *flags], log=tmp_path / "log", env=environment(PYTHONDONTWRITEBYTECODE="1")) as process,
            httpx.Client(
                base_url=f"https://127.0.0.1:{port}",
                verify=trusting(tmp_path),
                trust_env=False,
                auth=("alice", PASSWORD),
                timeout=PATIENCE,
            ) as client,
        ):
            process.wait_until(lambda: "listening" in process.log_text(), what="it listens")
            process.wait_until(lambda: client.get("/-/ready").status_code == 200, what="it is ready")
            assert "concurrency_queue_active_slots{" in client.get("/metrics").text
            assert "left out" in client.get("/").text
            path.write_text(json.dumps({"sources": [cloro("http://127.0.0.1:1")]}))
            web.write_text(json.dumps({"tls_server_config": texts, "basic_auth_users": {"alice": HASH, "b": HASH}}))
            assert client.post("/-/reload").text == "reloaded\n"
            path.write_text("sources: []")
            assert client.post("/-/reload").status_code == 500
            assert client.get("/metrics", auth=("b", PASSWORD)).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait_for_exit() == 0
    return process.log_text()


def test_it_works_where_no_file_can_be_written(tmp_path: Path) -> None:
    if not permitted():
        raise programs.missing("unshare may not make a namespace of mounts here")
    log = use(tmp_path, *UNSHARE, sys.executable, "-m", "exporter")
    assert "Traceback" not in log
    assert "Read-only" not in log


@pytest.mark.parametrize(("canary", "seen"), [("", 0), ("open('/dev/null', 'a').close()", 1)], ids=["it", "the watch"])
def test_it_opens_no_file_to_write(tmp_path: Path, canary: str, seen: int) -> None:
    log = use(tmp_path, sys.executable, "-c", WATCHED.replace("CANARY", canary))
    _, _, done = log.partition("WATCHED\n")
    assert len(done.splitlines()) == seen, done
    assert "Traceback" not in log
