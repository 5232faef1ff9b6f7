"""What settings are made of, whatever file they come from: the model of them, and the files that they name."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

V = TypeVar("V")


def check_unicode(value: object) -> None:
    """Raise `ValueError` for a text with half of a surrogate pair, also within a list or a mapping."""
    match value:
        case SecretStr():
            check_unicode(value.get_secret_value())
        case str() if re.search("[\ud800-\udfff]", value):
            raise ValueError("has a character that is not Unicode")
        case tuple():
            for item in value:
                check_unicode(item)
        case dict():
            check_unicode((*value.keys(), *value.values()))


class Settings(BaseModel):
    """A part of the configuration: unknown keys are errors, and a value never shows a secret."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True, strict=True
    )

    @field_validator("*")
    @classmethod
    def _encodable(cls, value: object) -> object:
        """YAML and the environment can bring half of a surrogate pair, which no metric and no header can carry."""
        check_unicode(value)
        return value


class FrozenDict(dict[str, V]):
    """A mapping that can be hashed, as the settings that it belongs to."""

    def __hash__(self) -> int:  # type: ignore[override]
        """The same for equal mappings."""
        return hash(frozenset(self.items()))


class BlankIsAbsent(Settings):
    """Settings of which a key without a value is as if it were not there, as Go's readers of YAML have it."""

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, keys: Any) -> Any:
        if not isinstance(keys, dict):
            return keys
        return {key: value for key, value in keys.items() if value not in (None, "") or key not in cls.model_fields}


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    """A path that is relative is meant from the configuration file's folder, as in Prometheus."""
    context = info.context or {}
    path = context.get("folder", Path()) / path
    context.get("files", set()).add(path)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"can't read the file {path}: {error.strerror}") from None


ExistingFile = Annotated[Path, Field(strict=False), AfterValidator(_existing_file)]
"""A path of a file that can be read; its content is read when it is used."""


Stamps = dict[Path, tuple[int, int, int] | None]
"""What tells that a file has changed, or who may read it, by its path; None for one that can't be found."""


def stamps(files: Iterable[Path]) -> Stamps:
    """What the files are like now."""
    return {file: _stamp(file) for file in files}


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_size, status.st_ino
