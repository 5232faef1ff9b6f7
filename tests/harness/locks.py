"""`make locks`: what the image is made of, by version and hash, as pyproject.toml asks for it.

What is pinned stays pinned: delete a lock to have the newest.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.harness.programs import ROOT

RUNTIME = "requirements.txt"
BUILD = "requirements-build.txt"


def write(folder: Path) -> None:
    """Write both locks, for every Python and platform. Raises `subprocess.CalledProcessError`."""
    pyproject = ROOT / "pyproject.toml"
    needed = tomllib.loads(pyproject.read_text())["build-system"]["requires"]
    _lock(folder / RUNTIME, str(pyproject), "")
    _lock(folder / BUILD, "-", "\n".join(needed))


def _lock(output: Path, requirements: str, standard_input: str) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"),
            # As pip: where a network has an authority of its own, only the system knows it.
            "--system-certs",
            *("--generate-hashes", "--no-annotate", "--custom-compile-command=make locks"),
            *(f"--output-file={output}", requirements),
        ],
        input=standard_input,
        text=True,
        check=True,
    )


if __name__ == "__main__":
    write(ROOT)
