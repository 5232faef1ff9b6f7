"""The configuration file, or the environment, turned into one frozen, fully validated `Config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from exporter.settings.base import Settings
from exporter.settings.reader import ConfigError, errors, message, read
from exporter.sources import AnySource


class Config(Settings):
    """Everything that a configuration file says."""

    sources: tuple[AnySource, ...] = Field(min_length=1, strict=False)
    """The upstreams to poll."""

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [source.name for source in self.sources]
        twice = [index for index, name in enumerate(names) if name in names[:index]]
        if twice:
            problem = PydanticCustomError("duplicate_name", "another source has this name, its label in every metric")
            places = [("sources", index, self.sources[index].system, "name") for index in twice]
            raise ValidationError.from_exception_data(
                "Config", [InitErrorDetails(type=problem, loc=place, input=None) for place in places]
            )
        return self


def load(path: Path) -> Config:
    """Read a configuration file. Raises `ConfigError` with all of its mistakes."""
    return read(path, Config, if_empty="has no `sources:`; see docs/configuration.md")


def from_environment(environment: Mapping[str, str]) -> Config:
    """A source for each system whose own variables are set, with the meaning that its own client gives them.

    Raises `ConfigError` where nothing is set, or what is set can't be used.
    """
    sources: list[dict[str, Any]] = []
    if url := environment.get("PREFECT_API_URL"):
        sources.append({"name": "prefect", "system": "prefect", "url": url} | _prefect_credentials(environment))
    if key := environment.get("CLORO_API_KEY"):
        sources.append({"name": "cloro", "system": "cloro", "authorization": {"credentials": key}})
    if not sources:
        raise ConfigError(["nothing to poll: give --config.file, set PREFECT_API_URL or CLORO_API_KEY, or try --demo"])
    try:
        return Config.model_validate({"sources": sources})
    except ValidationError as error:
        raise ConfigError(
            [f"environment: {_VARIABLES[details['loc'][2:]]}: {message(details, Config)}" for details in errors(error)]
        ) from None


_VARIABLES: Final[dict[tuple[int | str, ...], str]] = {
    ("prefect", "url"): "PREFECT_API_URL",
    ("prefect", "authorization", "credentials"): "PREFECT_API_KEY",
    ("prefect", "basic_auth", "username"): "PREFECT_API_AUTH_STRING",
    ("prefect", "basic_auth", "password"): "PREFECT_API_AUTH_STRING",
    ("cloro", "authorization", "credentials"): "CLORO_API_KEY",
}
"""What can be wrong in the environment, by the system and the key of its source."""


def _prefect_credentials(environment: Mapping[str, str]) -> dict[str, Any]:
    """Prefect's own client sends the auth string where both are set."""
    if auth_string := environment.get("PREFECT_API_AUTH_STRING"):
        username, colon, password = auth_string.partition(":")
        if not colon:
            raise ConfigError(["environment: PREFECT_API_AUTH_STRING: is not of the form user:password"])
        return {"basic_auth": {"username": username, "password": password}}
    if key := environment.get("PREFECT_API_KEY"):
        return {"authorization": {"credentials": key}}
    return {}
