"""The base classes of all settings, whatever file they come from."""

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, field_validator, model_validator

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
