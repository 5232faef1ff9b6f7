"""Find the programs that the tests run, or say how to install them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = Path("/")
DEPLOY = ROOT / "tests/deploy/node_modules"
UNPACKED = Path(".cache", "programs")
"""Where `tests/install-programs` puts what is not installed."""

# Program -> the names it may have on PATH, and what installs it. Debian renames alertmanager.
_ON_PATH = {
    "prometheus": (("prometheus",), "apt install prometheus"),
    "promtool": (("promtool",), "apt install prometheus"),
    "alertmanager": (("prometheus-alertmanager", "alertmanager"), "apt install prometheus-alertmanager"),
    "nginx": (("nginx",), "apt install nginx"),
    "amtool": (("amtool",), "apt install prometheus-alertmanager"),
    "slowhttptest": (("slowhttptest",), "apt install slowhttptest"),
    "vmalert": (("vmalert",), "apt install victoria-metrics"),
    "jq": (("jq",), "apt install jq"),
}


def program(name: str) -> Path:
    """Path of one of the programs above; skips the test when it is missing."""
    names, hint = _ON_PATH[name]
    # Debian has servers where only root looks for programs.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", str(ROOT / UNPACKED / "usr/sbin")])
    for candidate in names:
        if found := shutil.which(candidate, path=path):
            return Path(found)
    raise missing(f"{name} is not on PATH: {hint}")


def alertmanager() -> Path:
    """Path of Alertmanager; skips the test when it, or what Debian's needs beside it, is missing."""
    found = program("alertmanager")
    templates = SYSTEM / "usr/share/prometheus/alertmanager/default.tmpl"
    if found.name == "prometheus-alertmanager" and not templates.exists():
        raise missing(f"Debian's Alertmanager can't start without {templates}: tests/install-programs, as root")
    return found


def postgres_program(name: str) -> Path:
    """Path of `postgres`, `initdb` or `psql`; skips the test when it is missing."""
    if found := shutil.which(name):
        return Path(found)
    # Debian has these apart, in a folder for each version.
    for folder in (SYSTEM, ROOT / UNPACKED):
        for candidate in sorted(folder.glob(f"usr/lib/postgresql/*/bin/{name}"), reverse=True):
            return candidate
    raise missing(f"{name} is not on PATH: apt install postgresql")


def kubectl() -> Path:
    """Path of `kubectl`, of the version that is pinned; skips the test when it is missing."""
    pinned = DEPLOY / "kubectl" / "kubectl"
    if pinned.exists():
        return pinned
    if found := shutil.which("kubectl"):
        return Path(found)
    raise missing("no kubectl: make test, with npm")


def libraries() -> dict[str, str]:
    """What a program that was unpacked from a package needs in its environment to find the libraries beside it."""
    folders = [str(folder) for folder in (ROOT / UNPACKED).glob("usr/lib/*-linux-*")]
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}


def faketime(offset: Path) -> dict[str, str]:
    """What gives a program a wall clock that is off by what the file says (`-1h`), read each second.

    Skips the test when libfaketime is missing.
    """
    for folder in (SYSTEM, ROOT / UNPACKED):
        for library in folder.glob("usr/lib/*/faketime/libfaketimeMT.so.1"):
            return {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(offset),
                "FAKETIME_CACHE_DURATION": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
    raise missing("there is no libfaketime: apt install libfaketime")


def prefect_python(version: str | None = None) -> Path:
    """Path of the Python that has the Prefect server; skips the test when that environment was not made.

    `version` is one of the older ones; None is the one that most tests use.
    """
    name = f"prefect-{version}" if version else "prefect"
    python = ROOT / ".cache" / name / "bin" / "python"
    if python.exists():
        return python
    raise missing(
        f"no Prefect server in .cache/{name}: python3 -m venv .cache/{name}"
        f" && .cache/{name}/bin/pip install -r tests/requirements-{name}.txt"
    )


def python(version: str) -> Path:
    """Path of the Python of a minor version, like `3.13`; skips the test where there is none.

    It may be on PATH, beside others of pyenv, or brought by uv.
    """
    beside = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv and not beside:
        subprocess.run([uv, "python", "install", "--quiet", version], check=False, capture_output=True, timeout=120)
    asked = [uv, "python", "find", "--no-project", "--no-python-downloads", version] if uv else ["false"]
    found = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=20).stdout.strip()
    for candidate in (sys.executable, *map(str, beside), found):
        # A link of pyenv may be there for a version that it then does not run.
        asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if candidate and subprocess.run(asked, check=False, capture_output=True, text=True).stdout.strip() == version:
            return Path(candidate)
    raise missing(f"there is no Python {version}: uv python install {version}")


def missing(reason: str) -> BaseException:
    """What to raise where a program is missing: the test is skipped, or fails in CI."""
    # In CI a skip would hide that a whole part was never tested.
    in_ci = os.environ.get("CI", "").lower() in {"1", "true"}
    return pytest.fail.Exception(reason) if in_ci else pytest.skip.Exception(reason)
