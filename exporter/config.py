"""The configuration file, or the environment, turned into one frozen, fully validated `Config`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import structlog
from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from exporter.settings.base import Settings
from exporter.settings.reader import ConfigError, errors, message, read
from exporter.sources import SYSTEMS, AnySource
from exporter.sources.about import About

log = structlog.get_logger()


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
    # Those who make variables of files leave the end of the line in them.
    variables = {name: stripped for name, value in environment.items() if (stripped := value.rstrip("\r\n"))}
    made = {system: config for system, config in SYSTEMS.items() if config.about.is_set_up_by(variables)}
    sources: list[dict[str, Any]] = [
        {"name": system, "system": system} | config.from_environment(variables) for system, config in made.items()
    ]
    if not sources:
        first = " or ".join(about.environment[0].name for about in ABOUT.values() if about.environment)
        raise ConfigError([f"nothing to poll: give --config.file, set {first}, or try --demo"])
    for source in sources:  # as httpx, requests and curl do
        source["proxy_from_environment"] = True
    try:
        config = Config.model_validate({"sources": sources})
    except ValidationError as error:
        raise ConfigError(
            [f"environment: {_variable(details['loc'][2:])}{message(details, Config)}" for details in errors(error)]
        ) from None
    for system in made:
        if ignored := ",".join(sorted(ABOUT[system].ignored_environment & variables.keys())):
            log.warning(
                "the system's own client reads these variables, and the exporter does not",
                system=system,
                variables=ignored,
            )
    return config


def warn(configuration: Config) -> None:
    """Log settings that work only until something is slow."""
    for source in configuration.sources:
        if source.stale_after < source.least_stale_after:
            log.warning(
                "stale_after is too short: when a poll overruns interval, good data expires before the next poll"
                " can finish",
                source=source.name,
                stale_after_seconds=source.stale_after,
                least_seconds=source.least_stale_after,
            )


ABOUT: Final[Mapping[str, About]] = {system: config.about for system, config in SYSTEMS.items()}
"""What each system says about itself."""


def _variable(loc: tuple[int | str, ...]) -> str:
    """The variable that a key of a source comes from, and the name of the header if it is one of several.

    A mistake of the source as a whole is one in the variables of the proxy, and names them itself.
    """
    if len(loc) < 2:
        return ""
    variables = ABOUT[str(loc[0])].environment
    variable = next(one.name for one in variables if one.key.partition(".")[0] == loc[1])
    header = f"{loc[2]}: " if loc[1] == "http_headers" and loc[2:] else ""
    return f"{variable}: {header}"
