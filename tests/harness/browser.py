"""Dashboards in a real browser, with Grafana's published packages: see `tests/browser`."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harness import programs

FOLDER = programs.ROOT / "tests" / "browser"


def node() -> Path:
    """Path of Node; skips the test when it, or what `make test` installs for it, is missing."""
    found = shutil.which("node")
    if not found:
        raise programs.missing("node is not on PATH: apt install nodejs npm")
    if not (FOLDER / "node_modules" / "@grafana" / "ui").is_dir():
        raise programs.missing("the packages of tests/browser are not installed: make test installs them")
    return Path(found)


def chromium() -> Path:
    """Path of Chromium; skips the test when it is missing."""
    found = shutil.which("chromium")
    if not found:
        raise programs.missing("chromium is not on PATH: apt install chromium")
    return Path(found)


def script(name: str, *arguments: str | Path, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts there; `timeout` is in seconds."""
    command = [node(), FOLDER / name, *arguments]
    return subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, timeout=timeout, check=False, env=dict(os.environ)
    )


def render(prometheus: str, dashboards: Path, out: Path, names: Sequence[str], *, since: str) -> dict[str, Any]:
    """What a person would see of these dashboards, in two sizes and two themes; the pictures go to `out`.

    Raises `AssertionError` with what was printed where a page could not be rendered.
    """
    chromium()
    built = script("build.mjs")
    assert built.returncode == 0, built.stderr
    out.mkdir(parents=True, exist_ok=True)
    flags = ["--prom", prometheus, "--dashboards", str(dashboards), "--out", str(out), "--from", since]
    done = script("check.mjs", *flags, *names)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen
