"""Find the programs that the tests run, or say how to install them."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Program -> the names it may have on PATH, and what installs it. Debian renames alertmanager.
_ON_PATH = {
    "prometheus": (("prometheus",), "apt install prometheus"),
    "promtool": (("promtool",), "apt install prometheus"),
    "alertmanager": (("prometheus-alertmanager", "alertmanager"), "apt install prometheus-alertmanager"),
    "amtool": (("amtool",), "apt install prometheus-alertmanager"),
}


def program(name: str) -> Path:
    """Path of `prometheus`, `promtool`, `alertmanager` or `amtool`; skips the test when it is missing."""
    names, hint = _ON_PATH[name]
    for candidate in names:
        if found := shutil.which(candidate):
            return Path(found)
    raise _missing(f"{name} is not on PATH: {hint}")


def prefect_python() -> Path:
    """Path of the Python that has the Prefect server; skips the test when that environment was not made."""
    python = ROOT / ".cache" / "prefect" / "bin" / "python"
    if python.exists():
        return python
    raise _missing(
        "no Prefect server in .cache/prefect: python3 -m venv .cache/prefect"
        " && .cache/prefect/bin/pip install -r tests/requirements-prefect.txt"
    )


def _missing(reason: str) -> BaseException:
    # In CI a skip would hide that a whole part was never tested.
    in_ci = os.environ.get("CI", "").lower() in {"1", "true"}
    return pytest.fail.Exception(reason) if in_ci else pytest.skip.Exception(reason)
