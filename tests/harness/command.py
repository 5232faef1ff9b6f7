"""The command as a child process from its start to its end, and sources for it to poll."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.harness.process import PATIENCE, Process
from tests.harness.upstream import Request, answer

COMMAND = [sys.executable, "-m", "exporter"]
SECRET = "canary-5ecret"
OURS = ("PREFECT_", "CLORO_")
POOL_ID = "5b0d5b4e-0000-4000-8000-000000000001"


def environment(**more: str) -> dict[str, str]:
    """The environment of this process without what the command reads of it, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | more


def run(*flags: str, **more: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    done = subprocess.run(
        [*COMMAND, *flags], capture_output=True, text=True, timeout=PATIENCE, env=environment(**more), check=False
    )
    return done.returncode, done.stdout, done.stderr


def upstream_answer(queues: Mapping[str, int | None]) -> Callable[[Request], bytes]:
    """A Prefect server (and cloro) with these queues and their active slots; None is a queue that can't be read."""
    names = list(queues)

    def reply(request: Request) -> bytes:
        match request.path.removeprefix("/api").split("/"):
            case ["", "work_pools", "filter"]:
                pool = {"id": POOL_ID, "name": "pool", "type": "process", "is_paused": False}
                return answer([pool | {"concurrency_limit": None, "active_slots": None}])
            case ["", "work_pools", "pool", "queues", "filter"]:
                return answer(
                    [
                        {
                            "id": f"{POOL_ID[:-4]}{number:04}",
                            "name": name,
                            "is_paused": False,
                            "priority": 1,
                            "concurrency_limit": 5,
                        }
                        for number, name in enumerate(names)
                    ]
                )
            case ["", "work_queues", id_, "concurrency_status"]:
                slots = queues[names[int(id_[-4:])]]
                if slots is None:
                    return answer({"exception_message": 'a "broken"\nqueue'}, 500)
                page = {"count": 0, "limit": 200, "pages": 0, "page": 1, "flow_runs": []}
                return answer(page | {"active_slots": slots, "concurrency_limit": 5})
            case ["", "v1", "async", "status"]:
                return answer({"queuedTasks": 1, "processingTasks": 2, "concurrency": {"used": 2, "max": 5}})
        return answer({"detail": "Not Found"}, 404)

    return reply


def times(interval: str) -> dict[str, str]:
    """Polls that follow each other fast, but neither time out nor expire on a machine that is busy."""
    return {"interval": interval} | ({"timeout": "5m", "stale_after": "10m"} if interval.endswith("ms") else {})


def prefect(url: str, name: str = "prod", interval: str = "300ms") -> dict[str, Any]:
    """Settings of a source for `upstream_answer`."""
    settings = {"name": name, "system": "prefect", "url": f"{url}/api", **times(interval)}
    return {**settings, "collect": ["queues", "pools"]}


def cloro(url: str, name: str = "scraper", interval: str = "300ms") -> dict[str, Any]:
    """Settings of a source for `upstream_answer`, whose key is `SECRET`."""
    return {"name": name, "system": "cloro", "url": url, **times(interval), "authorization": {"credentials": SECRET}}


def configure(folder: Path, *sources: dict[str, Any]) -> Path:
    """A configuration file with these sources."""
    path = folder / "exporter.yml"
    path.write_text(json.dumps({"sources": sources}))
    return path


class Started:
    """The command on a port that it has chosen, and what it serves."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.process.wait_until(lambda: "listening" in self.process.log_text(), what="it listens")
        found = re.search(r"127\.0\.0\.1:(\d+)", self.process.log_text())
        assert found
        self.port = int(found[1])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=PATIENCE)

    def lines(self) -> list[str]:
        return self.client.get("/metrics").raise_for_status().text.splitlines()

    def value(self, series: str) -> float | None:
        """The value of the sample whose line begins with `series`."""
        return next((float(line.split()[-1]) for line in self.lines() if line.startswith(series)), None)

    def wait_for(self, series: str, value: float | None) -> None:
        self.process.wait_until(lambda: self.value(series) == value, what=f"{series} is {value}")

    def wait_for_polls(self, source: str, outcome: str, number: int) -> None:
        """Until so many polls of a Prefect source have ended like that."""
        series = f'concurrency_exporter_polls_total{{outcome="{outcome}",source="{source}",system="prefect"}}'
        self.process.wait_until(lambda: (self.value(series) or 0) >= number, what=f"{number} polls: {outcome}")

    def stop(self, number: signal.Signals) -> int:
        """The exit code."""
        self.process.send_signal(number)
        return self.process.wait_for_exit()


StartExporter = Callable[..., Started]


def outcome(*flags: str, **variables: str) -> tuple[int, str]:
    """Exit code, and all that the command printed."""
    code, out, err = run(*flags, **variables)
    return code, out + err


def source(name: str, url: str, **more: object) -> dict[str, object]:
    """A source whose credentials tell which one it is."""
    settings = {"name": name, "system": "cloro", "url": url, "interval": "20s"}
    return {**settings, "authorization": {"credentials": f"of-{name}"}, **more}


async def dry_run(folder: Path, *sources: dict[str, object], **variables: str) -> tuple[int, str]:
    """Exit code and output of a dry run of these sources."""
    path = folder / "exporter.yml"
    path.write_text(json.dumps({"sources": sources}))
    return await asyncio.to_thread(outcome, "--dry-run", f"--config.file={path}", **variables)
