"""Files that settings name: their paths, and whether they have changed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    """Resolve a relative path from the folder of the configuration file, as Prometheus does."""
    context = info.context or {}
    path = context.get("folder", Path()) / path
    context.get("files", set()).add(path)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"can't read the file {path}: {error.strerror}") from None


ExistingFile = Annotated[Path, Field(strict=False), AfterValidator(_existing_file)]
"""The path of a file that can be read. Its content is read when it is used."""


Stamps = dict[Path, tuple[int, int, int] | None]
"""By path, values that differ once a file, or who may read it, has changed; None for a file that can't be found."""


def stamps(files: Iterable[Path]) -> Stamps:
    """Return the stamps of the files as they are now."""
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_size, status.st_ino
