"""The real command as a child process, against fake upstreams on loopback."""

import ast
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from exporter import __version__
from exporter.demo.rows import Queue
from tests.harness import programs
from tests.harness.command import (
    COMMAND,
    SECRET,
    StartExporter,
    cloro,
    configure,
    environment,
    prefect,
    run,
    upstream_answer,
)
from tests.harness.lookalike import flow_run, small
from tests.harness.process import PATIENCE, answers, free_port, running
from tests.harness.upstream import Upstream, answer, never, serving

SLOTS = 'concurrency_queue_active_slots{pool="pool",queue="queue",source="prod",system="prefect"}'
CLORO_SLOTS = 'concurrency_queue_active_slots{pool="",queue="async",source="scraper",system="cloro"}'
UP = 'concurrency_exporter_source_up{source="prod",system="prefect"}'
RELOADED = "concurrency_exporter_config_last_reload_successful"
POLLED = 'concurrency_exporter_polls_total{outcome="success",source="prod",system="prefect"}'


def test_no_name_of_a_queue_stops_the_process(start: StartExporter, tmp_path: Path) -> None:
    """With Python's regular expressions, this name and this filter would take the only thread for years."""
    name = "a-" * 28 + "b"
    with serving(upstream_answer({name: 1, "queue": 3, "a-scratch": 2})) as upstream:
        filtered = prefect(upstream.url) | {"queues": {"exclude": "(.+-)*scratch(-.+)*"}}
        exporter = start("--config.file", configure(tmp_path, filtered))
        exporter.wait_for(SLOTS, 3)
        assert exporter.value(SLOTS.replace('queue="queue"', f'queue="{name}"')) == 1
        assert exporter.value(SLOTS.replace('queue="queue"', 'queue="a-scratch"')) is None
        assert exporter.client.get("/-/healthy").status_code == 200
        assert exporter.stop(signal.SIGTERM) == 0


def test_help_and_version() -> None:
    code, out, err = run("--help", CLORO_API_KEY=SECRET)
    assert (code, err) == (0, "")
    flags = set(re.findall(r"--[a-z.-]+[a-z]", out))
    assert flags >= {
        "--version",
        "--config.file",
        "--config.check",
        "--dry-run",
        "--demo",
        "--web.listen-address",
        "--web.enable-lifecycle",
        "--log.level",
        "--log.format",
    }
    assert ":10099" in out
    assert SECRET not in out
    python = ".".join(map(str, sys.version_info[:3]))
    assert run("--version") == (0, f"concurrency-exporter {__version__} (Python {python})\n", "")


def test_a_bad_flag_ends_the_command() -> None:
    code, out, err = run("--config.chekc")
    assert (code, out) == (2, "")
    assert err.endswith("concurrency-exporter: error: unrecognized arguments: --config.chekc\n")


def test_the_check(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text("sources:\n- {name: 1, system: cloro}\nmore: 1\n")
    code, out, err = run("--config.check", "--config.file", str(path))
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        f"{path}:2: sources[0].name: is not text; put it in quotes",
        f"{path}:3: more: unknown key; the keys here are sources",
    ]
    assert run("--config.check", CLORO_API_KEY=SECRET) == (0, "environment: 1 source(s), no errors\n", "")


SHORT = "stale_after is too short: when a poll overruns interval, good data expires before the next poll can finish"


def test_data_that_one_slow_poll_would_let_expire(start: StartExporter, tmp_path: Path, upstream: Upstream) -> None:
    """With a poll of 3s that overruns an interval of 2s, the next good one may end only after 4s + 3s."""

    def source(stale_after: str) -> dict[str, Any]:
        return cloro(upstream.url) | {"interval": "2s", "timeout": "3s", "stale_after": stale_after}

    path = configure(tmp_path, source("6999ms"))
    code, out, err = run("--config.check", "--config.file", str(path))
    warning = {
        "level": "warning",
        "msg": SHORT,
        "source": "scraper",
        "stale_after_seconds": "6.999",
        "least_seconds": "7.0",
    }
    assert (code, out) == (0, f"{path}: 1 source(s), no errors\n")
    assert logfmt(err.rstrip()) | warning == logfmt(err.rstrip())

    exporter = start("--config.file", path)
    assert exporter.process.log_text().count(SHORT) == 1
    configure(tmp_path, source("7s"))
    exporter.process.send_signal(signal.SIGHUP)
    exporter.process.wait_until(lambda: "reloaded" in exporter.process.log_text(), what="it reloads")
    assert exporter.process.log_text().count(SHORT) == 1
    configure(tmp_path, source("5s"))
    exporter.process.send_signal(signal.SIGHUP)
    exporter.process.wait_until(lambda: exporter.process.log_text().count(SHORT) == 2, what="it warns again")


def test_nothing_to_poll() -> None:
    code, out, err = run()
    assert (code, out) == (1, "")
    assert re.fullmatch("nothing to poll: .*\n", err)


def test_a_dry_run_shows_what_was_found(tmp_path: Path, upstream: Upstream) -> None:
    path = configure(tmp_path, prefect(upstream.url, interval="10s"), cloro(upstream.url, interval="10s"))
    code, out, err = run("--dry-run", "--config.file", str(path))
    assert (code, err) == (0, "")
    table = [line.split() for line in out.splitlines()]
    assert table[0] == ["SOURCE", "SYSTEM", "OUTCOME", "POOLS", "QUEUES", "SERIES", "REQUESTS", "SECONDS"]
    assert [row[:5] + row[6:7] for row in table[1:3]] == [
        ["prod", "prefect", "success", "1", "1", "4"],
        ["scraper", "cloro", "success", "0", "1", "1"],
    ]
    assert [row[:5] for row in table[5:]] == [["prod", "pool", "queue", "3", "5"], ["scraper", "async", "2", "5", "-"]]
    assert len(upstream.requests) == 5


def test_a_dry_run_shows_who_holds_the_slots(tmp_path: Path) -> None:
    """The oldest of each queue first, as a table that no name breaks."""
    since = datetime.now(UTC) - timedelta(seconds=60)
    queues = [Queue("a", "q0"), Queue("a", "q1")]
    runs = [
        flow_run(1, "Running", queues[1], since),
        flow_run(2, "Pending", queues[0], since - timedelta(hours=1), worker="w1"),
        flow_run(3, "Running", queues[0], since, name="new\nline \u202e"),
        flow_run(4, "Running", queues[0], since - timedelta(hours=2)),
        flow_run(5, "Running", queues[0], since + timedelta(seconds=30)),
    ]
    with serving(small(queues=queues, runs=runs)) as upstream:
        settings = {"system": "prefect", "name": "prod", "url": f"{upstream.url}/api", "holders": {"keep": 2}}
        path = configure(tmp_path, settings)
        code, out, err = run("--dry-run", "--holders", "--config.file", str(path))
        without = run("--dry-run", "--config.file", str(path))[1]
        link = f"{upstream.url}/runs/flow-run/"
    assert (code, err) == (0, "")
    assert link not in without
    header, *table = next(part for part in out.split("\n\n") if "LINK" in part).splitlines()
    assert header.split() == ["SOURCE", "POOL", "QUEUE", "STATE", "SINCE", "NAME", "DETAILS", "ID", "LINK"]
    ids = [str(UUID(int=number)) for number in range(6)]
    etl = "flow=etl deployment=nightly"
    assert [re.split("  +", re.sub(r"  \d+s  ", "  ", line.strip())) for line in table] == [
        ["prod", "a", "q0", "RUNNING", "able-ibex", etl, ids[4], link + ids[4]],
        ["prod", "a", "q0", "PENDING", "able-ibex", f"{etl} worker=w1", ids[2], link + ids[2]],
        ["prod", "a", "q0", "RUNNING", "new\\nline \\u202e", etl, ids[3], link + ids[3]],
        ["prod", "a", "q0", "1 more"],
        ["prod", "a", "q1", "RUNNING", "able-ibex", etl, ids[1], link + ids[1]],
    ]


def test_holders_are_for_a_dry_run() -> None:
    code, out, err = run("--holders", "--demo")
    assert (code, out) == (2, "")
    assert "argument --holders: only with --dry-run" in err


def test_a_dry_run_of_each_shard_shows_its_part(tmp_path: Path) -> None:
    names = [f"queue-{number}" for number in range(12)]
    shown: list[list[str]] = []
    with serving(upstream_answer(dict.fromkeys(names, 3))) as upstream:
        path = configure(tmp_path, prefect(upstream.url, interval="10s"), cloro(upstream.url, interval="10s"))
        for index in range(3):
            code, out, err = run("--dry-run", f"--shard={index}/3", "--config.file", str(path))
            assert (code, err) == (0, "")
            shown.append(re.findall(r"^(?:prod +pool|scraper) +(\S+) +\d+ +5 ", out, re.MULTILINE))
        reads = [request.path for request in upstream.requests if request.path.endswith(("_status", "/status"))]
    assert sorted(name for part in shown for name in part) == sorted([*names, "async"])
    assert all(shown)
    assert len(reads) == len(set(reads)) == 13


def test_a_dry_run_fails_with_the_reason_and_shows_the_rest(tmp_path: Path, upstream: Upstream) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    path = configure(tmp_path, cloro(nobody, interval="10s"), prefect(upstream.url, interval="10s"))
    code, out, _ = run("--dry-run", "--config.file", str(path))
    assert code == 1
    assert out.splitlines()[-1] == (f"scraper failed (connect): GET {nobody}/v1/async/status: Connection refused")
    assert re.search(r"^scraper +cloro +failure +- +- +- +1 ", out, re.MULTILINE)
    assert re.search(r"^prod +pool +queue +3 +5 ", out, re.MULTILINE)


def test_a_dry_run_fails_when_a_queue_is_left_out(tmp_path: Path) -> None:
    with serving(upstream_answer({"good": 1, "bad": None})) as upstream:
        path = configure(tmp_path, prefect(upstream.url, interval="10s"))
        code, out, _ = run("--dry-run", "--config.file", str(path))
    assert code == 1
    assert re.search(r"^prod +pool +good +1 +5 ", out, re.MULTILINE)
    assert "prod left out queue 'bad' of pool 'pool' (http_status): POST " in out.splitlines()[-1]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ("--help", 0),
        ("--version", 0),
        ("--nonsense", 2),
        ("--demo --config.check", 0),
        ("--config.check", 1),
        ("--demo --dry-run", 0),
        ("--config.file=broken.yml --dry-run", 1),
    ],
)
def test_a_reader_that_has_gone(flags: str, status: int, stream: str, tmp_path: Path) -> None:
    """As of `--dry-run | head`: no traceback, and the exit status is the same as with a reader."""
    upstream = f"http://127.0.0.1:{free_port()}"
    configure(tmp_path, cloro(upstream, interval="10s")).rename(tmp_path / "broken.yml")
    reader, writer = os.pipe()
    os.close(reader)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writer}
    child = subprocess.Popen([*COMMAND, *flags.split()], env=environment(), cwd=tmp_path, text=True, **streams)
    os.close(writer)
    said = "".join(filter(None, child.communicate(timeout=60)))
    assert child.returncode == status, said
    assert not re.search("Traceback|BrokenPipe|Exception", said)


def test_output_that_can_not_be_written() -> None:
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "--demo", "--config.check"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    said = "can't write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_name_that_the_locale_lacks(tmp_path: Path) -> None:
    with serving(upstream_answer({"é🦆": 1})) as upstream:
        path = configure(tmp_path, prefect(upstream.url, interval="10s"))
        code, out, _ = run("--dry-run", "--config.file", str(path), PYTHONIOENCODING="ascii")
    assert code == 0
    assert "\\xe9\\U0001f986" in out


def test_the_demo(start: StartExporter) -> None:
    exporter = start("--demo")
    exporter.process.wait_until(
        lambda: exporter.client.get("/-/ready").status_code == 200, what="every source was polled"
    )
    text = "\n".join(exporter.lines())
    assert re.search(
        r'^concurrency_queue_active_slots\{.*source="prefect-demo",system="prefect"\} ', text, re.MULTILINE
    )
    assert re.search(r'^concurrency_queue_active_slots\{.*source="cloro-demo",system="cloro"\} ', text, re.MULTILINE)
    assert exporter.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_it_soon_even_while_others_hang(
    start: StartExporter, tmp_path: Path, upstream: Upstream, number: signal.Signals
) -> None:
    upstream.answer = never
    path = configure(tmp_path, prefect(upstream.url, interval="60s"), cloro(upstream.url, interval="60s"))
    exporter = start("--config.file", path)
    exporter.process.wait_until(lambda: len(upstream.requests) == 2, what="both polls hang")
    with socket.create_connection(("127.0.0.1", exporter.port)) as idle:
        # A scraper that keeps its connection, and one that has sent half of a request.
        assert exporter.client.get("/metrics").status_code == 200
        idle.sendall(b"GET /metrics HT")
        assert exporter.stop(number) == 0
        idle.settimeout(PATIENCE)
        assert idle.recv(1000) == b"", "it did not wait until the request was too late"
    log = exporter.process.log_text()
    assert "poll failed" not in log, "nor until the polls were"
    assert "Traceback" not in log
    assert log.splitlines()[-1].endswith("level=info msg=stopped")


def test_a_signal_before_anything_is_ready(tmp_path: Path) -> None:
    handles_sigterm = re.compile(r"^SigCgt:\s+[0-9a-f]*[4-7c-f][0-9a-f]{3}$", re.MULTILINE)
    with running([*COMMAND, "--demo"], log=tmp_path / "log", env=environment()) as process:
        status = Path(f"/proc/{process.pid}/status")
        process.wait_until(lambda: handles_sigterm.search(status.read_text()) is not None, what="it handles SIGTERM")
        process.send_signal(signal.SIGTERM)
        assert process.wait_for_exit() == 0
    assert "Traceback" not in process.log_text()


def test_a_signal_ends_a_dry_run(tmp_path: Path, upstream: Upstream) -> None:
    upstream.answer = never
    path = configure(tmp_path, prefect(upstream.url, interval="60s"))
    command = [*COMMAND, "--dry-run", "--config.file", str(path)]
    with running(command, log=tmp_path / "log", env=environment()) as process:
        process.wait_until(lambda: bool(upstream.requests), what="the poll hangs")
        process.send_signal(signal.SIGTERM)
        # Not killed by it: the first process of a container would then ignore it.
        assert process.wait_for_exit() >= 0
    assert "Traceback" not in process.log_text()


def test_it_starts_without_its_upstream_and_recovers(start: StartExporter, tmp_path: Path) -> None:
    with serving(upstream_answer({"queue": 3})) as upstream:
        good, upstream.answer = upstream.answer, lambda _: answer({"detail": "starting"}, 503)
        expires_soon = prefect(upstream.url) | {"timeout": "4s", "stale_after": "9s"}
        exporter = start("--config.file", configure(tmp_path, expires_soon))
        exporter.wait_for_polls("prod", "failure", 1)
        assert exporter.client.get("/-/ready").status_code == 200
        assert (exporter.value(UP), exporter.value(SLOTS)) == (0, None)
        upstream.answer = good
        exporter.wait_for(SLOTS, 3)
        assert exporter.value(UP) == 1
    exporter.wait_for(UP, 0)
    exporter.wait_for(SLOTS, None)
    events = map(logfmt, exporter.process.log_text().splitlines()[1:])
    lines = [event for event in events if not is_skip(event["msg"])]
    assert [told for told, _ in groupby((line["level"], line["msg"]) for line in lines)] == [
        ("warning", "poll failed"),
        ("info", "poll succeeded again"),
        ("warning", "poll failed"),
    ]
    # Each trouble once: at its end upstream may have broken off a poll, and then there is nobody.
    errors = [line["error"] for line in lines if "error" in line]
    assert len(set(errors)) == len(errors) <= 3
    assert "503" in errors[0]


def test_sighup_reads_the_file_again(start: StartExporter, tmp_path: Path, upstream: Upstream) -> None:
    path = configure(tmp_path, prefect(upstream.url))
    exporter = start("--config.file", path)
    exporter.wait_for(SLOTS, 3)
    assert exporter.value(RELOADED) == 1
    polls = exporter.value(POLLED) or 0

    configure(tmp_path, prefect(upstream.url), cloro(upstream.url))
    exporter.process.send_signal(signal.SIGHUP)
    exporter.wait_for(CLORO_SLOTS, 2)
    # A source that has not changed goes on.
    assert (exporter.value(POLLED) or 0) >= polls

    path.write_text(f"sources:\n- name: {SECRET}\n  systm: cloro\n")
    exporter.process.send_signal(signal.SIGHUP)
    exporter.wait_for(RELOADED, 0)
    assert (exporter.value(SLOTS), exporter.value(CLORO_SLOTS)) == (3, 2)

    configure(tmp_path, cloro(upstream.url))
    exporter.process.send_signal(signal.SIGHUP)
    exporter.wait_for(RELOADED, 1)
    assert exporter.value(CLORO_SLOTS) == 2
    assert not [line for line in exporter.lines() if "prod" in line]
    log = exporter.process.log_text()
    assert f"{path}:2: sources[0].system: is missing" in log
    assert SECRET not in log


def test_reload_over_http_wants_the_flag(start: StartExporter, tmp_path: Path, upstream: Upstream) -> None:
    path = configure(tmp_path, prefect(upstream.url))
    exporter = start("--config.file", path, "--web.enable-lifecycle")
    configure(tmp_path, prefect(upstream.url), cloro(upstream.url))
    response = exporter.client.post("/-/reload")
    assert (response.status_code, response.text) == (200, "reloaded\n")
    exporter.wait_for(CLORO_SLOTS, 2)
    path.write_text("sources: []\n")
    response = exporter.client.post("/-/reload")
    assert (response.status_code, response.text) == (
        500,
        f"{path}:1: sources: is an empty list; name a source to poll\n",
    )
    assert (exporter.value(RELOADED), exporter.value(CLORO_SLOTS)) == (0, 2)
    assert exporter.stop(signal.SIGTERM) == 0

    exporter = start("--config.file", configure(tmp_path, cloro(upstream.url)))
    assert exporter.client.post("/-/reload").status_code == 404


NASTY = 'a "queue"\n# level=error msg=x \\ \r\x1b[31m\u2028 🦆'
LOGFMT = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$)')


def logfmt(line: str) -> dict[str, str]:
    pairs = list(LOGFMT.finditer(line))
    assert "".join(pair[0] for pair in pairs) == line
    return {pair[1]: ast.literal_eval(pair[2]) if pair[2].startswith('"') else pair[2] for pair in pairs}


def is_skip(message: str) -> bool:
    """Of a poll that has taken longer than the interval, as on a busy machine it may."""
    return message.startswith("poll skipped")


@pytest.mark.parametrize(("log_format", "read"), [("logfmt", logfmt), ("json", json.loads)], ids=["logfmt", "json"])
def test_every_event_is_one_line(
    start: StartExporter, tmp_path: Path, log_format: str, read: Callable[[str], dict[str, str]]
) -> None:
    # An answer, and not a refused connection: its error is the same whatever else the machine does.
    with serving(upstream_answer({"good": 1, NASTY: None})) as upstream, serving(lambda _: answer({}, 500)) as broken:
        failing = cloro(broken.url, name="x=y\nz", interval="10s")
        path = configure(tmp_path, prefect(upstream.url, interval="2000ms"), failing)
        exporter = start("--config.file", path, f"--log.format={log_format}")
        exporter.wait_for_polls("prod", "partial", 2)
        assert exporter.stop(signal.SIGTERM) == 0
    text = exporter.process.log.read_bytes().decode()
    assert text.replace("\n", "").isprintable()
    events = [event for event in map(read, text.removesuffix("\n").split("\n")) if not is_skip(event["msg"])]
    assert [event["msg"] for event in events if event["level"] == "info"] == ["listening", "stopped"]
    warnings = sorted(
        (event["msg"], event["source"], event["reason"]) for event in events if event["level"] == "warning"
    )
    assert sorted(warnings) == [
        ("left out of the snapshot", "prod", "http_status"),
        ("poll failed", "x=y\nz", "http_status"),
    ], text
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["ts"]) for event in events)
    (left_out,) = (event for event in events if event["msg"] == "left out of the snapshot")
    assert left_out["queue"] == NASTY
    assert len(events) == 4


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    nobody, port = f"http://127.0.0.1:{free_port()}", free_port()
    path = configure(tmp_path, *(cloro(nobody, f"source-{number}", interval="10s") for number in range(100)))
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16384)
    command = [*COMMAND, f"--web.listen-address=127.0.0.1:{port}", "--config.file", str(path)]
    child = subprocess.Popen(command, stderr=writer, env=environment())
    os.close(writer)
    try:
        # Each of the sources has then failed and said so, which is more than the pipe holds.
        ready, deadline = answers(f"http://127.0.0.1:{port}/-/ready"), time.monotonic() + PATIENCE
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ready()
        log = os.read(reader, 65536)
        assert 0 < log.count(b"poll failed") < 100
        child.send_signal(signal.SIGHUP)
        while b"configuration reloaded" not in log:
            log += os.read(reader, 65536)
        events = [logfmt(line) for line in log.decode().splitlines()]
        lost = 100 - sum(event["msg"] == "poll failed" for event in events)
        assert f"{lost} log line(s) were lost, since they could not be written" in [one["msg"] for one in events]
    finally:
        child.kill()
        child.wait()
        os.close(reader)


def test_it_is_quiet_when_all_is_well(start: StartExporter, tmp_path: Path, upstream: Upstream) -> None:
    path = configure(tmp_path, prefect(upstream.url, interval="1000ms"), cloro(upstream.url, interval="1000ms"))
    exporter = start("--config.file", path)
    exporter.wait_for_polls("prod", "success", 4)
    (line,) = (line for line in map(logfmt, exporter.process.log_text().splitlines()) if not is_skip(line["msg"]))
    assert line | {"ts": "", "address": ""} == {
        "ts": "",
        "level": "info",
        "msg": "listening",
        "address": "",
        "version": __version__,
        "configuration": str(path),
        "tls": "false",
        "sources": "prod,scraper",
        "shard": "0/1",
    }


def test_the_level_is_the_least_that_is_logged(tmp_path: Path) -> None:
    path = configure(tmp_path, cloro("http://127.0.0.1:1", interval="10s"))
    _, _, err = run("--dry-run", "--log.level=error", "--config.file", str(path))
    assert err == ""


def test_what_a_client_does_is_not_logged_by_the_libraries() -> None:
    # asyncio's words where a client of TLS hangs up while it is answered: a flood of them makes ten each second.
    code = """
import logging
from exporter import logs
logs.configure("info", "logfmt")
logging.getLogger("asyncio").warning("socket.send() raised exception.")
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
logging.getLogger("asyncio").error("a fault")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert re.findall(r"level=.*", done.stderr) == ['level=error msg="a fault"']


def test_as_the_first_process_of_a_container(start: StartExporter, tmp_path: Path, upstream: Upstream) -> None:
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        permitted = subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        permitted = False
    if not permitted:
        raise programs.missing("unshare may not make a namespace of processes here")
    exporter = start("--config.file", configure(tmp_path, prefect(upstream.url)), inside=unshare)
    exporter.wait_for(SLOTS, 3)
    parent = exporter.process.pid
    (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert re.search(r"^NSpid:.*\t1$", Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
    os.kill(int(child), signal.SIGTERM)
    assert exporter.process.wait_for_exit() == 0
    assert "msg=stopped" in exporter.process.log_text()
