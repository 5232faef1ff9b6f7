"""Manifests as kubectl renders them, and what the APIs that they are for have to say about them."""

import io
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from cloudcoil.resources import get_model
from pydantic import ValidationError
from ruamel.yaml import YAML

from tests.harness.process import PATIENCE
from tests.harness.programs import kubectl

Manifest = dict[str, Any]


@cache
def rendered(kustomization: Path) -> list[Manifest]:
    """The objects of a kustomization. Raises `CalledProcessError`."""
    done = subprocess.run(
        [kubectl(), "kustomize", kustomization], stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True
    )
    return documents(done.stdout)


def documents(text: str) -> list[Manifest]:
    """The documents of a text in YAML."""
    return [document for document in YAML(typ="safe").load_all(io.StringIO(text)) if document]


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with an object in the eyes of its API: Kubernetes, the Prometheus operator or KEDA.

    An unknown key is wrong, which an API server would drop without a word. Quantities and enumerations are not looked
    at. Raises `ValueError` for a kind that none of them has.
    """
    model = get_model(manifest["kind"], api_version=manifest["apiVersion"])
    try:
        model.model_validate(manifest, extra="forbid")
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return []
