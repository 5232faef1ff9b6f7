"""What the exporter is made of: it fits together, and its licences allow what ours does."""

import re
import subprocess
import sys
from importlib.metadata import Distribution, distribution

import pytest
from packaging.requirements import Requirement

# By SPDX; each lets code be used in a program under Apache-2.0. The second is for files, which we do not change.
ALLOWED = {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "PSF-2.0", "ISC"} | {"MPL-2.0"}
# How packages that are older than SPDX's expressions name them.
NAMES = {
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def tree(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """A package with all that it needs to run."""
    if name not in found:
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                tree(re.sub(r"[-_.]+", "-", requirement.name).lower(), found)
    return found


PACKAGES = tree("concurrency-exporter", {})


def licences(package: Distribution) -> set[str]:
    """The licences that all hold, by SPDX where that is known; where one of several may be chosen, the one allowed."""
    metadata = package.metadata
    if expression := metadata["License-Expression"]:
        choices = [set(re.split(" AND ", choice.strip("() "))) for choice in expression.split(" OR ")]
        return next((choice for choice in choices if choice <= ALLOWED), choices[0])
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    return {NAMES.get(name, name) for name in classifiers or [metadata["License"] or "none"]}


def test_the_tree_is_whole() -> None:
    assert {"apscheduler", "h11", "httpcore", "pydantic-core", "markupsafe", "anyio", "tzlocal"} <= PACKAGES.keys()
    assert "pytest" not in PACKAGES


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_its_licence_is_compatible_with_ours(name: str) -> None:
    assert licences(PACKAGES[name]) <= ALLOWED


def test_the_versions_fit_together() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
