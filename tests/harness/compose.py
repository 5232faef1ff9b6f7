"""deploy/compose as its files say."""

from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from tests.harness.programs import ROOT

COMPOSE = ROOT / "deploy/compose/compose.yaml"


SERVICES: dict[str, Any] = YAML(typ="safe").load(COMPOSE)["services"]


def mounts(service: str) -> dict[PurePosixPath, Path]:
    """What a service sees of the project: path in its container -> path here."""
    found = {}
    for volume in SERVICES[service].get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"]
            found[PurePosixPath(target)] = (COMPOSE.parent / source).resolve(strict=True)
    return found


def laid_out(service: str, folder: Path) -> Path:
    """A folder with these files where the container has them."""
    for target, source in mounts(service).items():
        path = folder / target.relative_to("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(source)
    return folder
