"""The configuration file, or the environment, turned into one frozen, fully validated `Config`."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import structlog
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from exporter.settings.base import Settings
from exporter.settings.reader import ConfigError, errors, message, read
from exporter.sources import AnySource

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
    sources: list[dict[str, Any]] = []
    if url := variables.get("PREFECT_API_URL"):
        sources.append({"name": "prefect", "system": "prefect", "url": url} | _prefect(variables))
    if key := variables.get("CLORO_API_KEY"):
        sources.append({"name": "cloro", "system": "cloro", "authorization": {"credentials": key}})
    if not sources:
        raise ConfigError(["nothing to poll: give --config.file, set PREFECT_API_URL or CLORO_API_KEY, or try --demo"])
    try:
        config = Config.model_validate({"sources": sources})
    except ValidationError as error:
        raise ConfigError(
            [f"environment: {_variable(details['loc'][2:])}: {message(details, Config)}" for details in errors(error)]
        ) from None
    if ignored := sorted(_OF_PREFECTS_CLIENT_ONLY & variables.keys()) if "PREFECT_API_URL" in variables else []:
        log.warning("Prefect's client reads these variables, and the exporter does not", variables=",".join(ignored))
    return config


_VARIABLES: Final[dict[tuple[int | str, ...], str]] = {
    ("prefect", "url"): "PREFECT_API_URL",
    ("prefect", "authorization"): "PREFECT_API_KEY",
    ("prefect", "basic_auth"): "PREFECT_API_AUTH_STRING",
    ("prefect", "http_headers"): "PREFECT_CLIENT_CUSTOM_HEADERS",
    ("prefect", "tls_config"): "PREFECT_API_SSL_CERT_FILE",
    ("cloro", "authorization"): "CLORO_API_KEY",
}
"""What can be wrong in the environment, by the system and the key of its source."""

_OF_PREFECTS_CLIENT_ONLY: Final = frozenset(
    {
        *("PREFECT_API_ENABLE_HTTP2", "PREFECT_API_REQUEST_TIMEOUT", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"),
        *("PREFECT_CLIENT_MAX_RETRIES", "PREFECT_CLIENT_RETRY_EXTRA_CODES", "PREFECT_CLIENT_RETRY_JITTER_FACTOR"),
        *("PREFECT_PROFILE", "PREFECT_PROFILES_PATH"),
    }
)
"""What changes how Prefect's own client connects, and not how the exporter does."""

_HEADERS: Final = TypeAdapter(dict[str, str], config=ConfigDict(hide_input_in_errors=True))
_BOOLEAN: Final = TypeAdapter(bool)


def _variable(loc: tuple[int | str, ...]) -> str:
    """The variable that a key of a source comes from, and the name of the header if it is one of several."""
    variable = _VARIABLES[loc[:2]]
    return f"{variable}: {loc[2]}" if loc[1:2] == ("http_headers",) and loc[2:] else variable


def _prefect(variables: Mapping[str, str]) -> dict[str, Any]:
    """How to reach Prefect, by the rules of its own client, which sends the auth string where a key is set too."""
    headers = _custom_headers(variables.get("PREFECT_CLIENT_CUSTOM_HEADERS", "{}"))
    settings: dict[str, Any] = {"http_headers": {name: {"secrets": [value]} for name, value in headers.items()}}
    if auth_string := variables.get("PREFECT_API_AUTH_STRING"):
        username, colon, password = auth_string.partition(":")
        if colon:
            settings["basic_auth"] = {"username": username, "password": password}
        else:  # Prefect's client sends it as it is
            try:
                encoded = base64.b64encode(auth_string.encode()).decode()
            except UnicodeEncodeError:
                mistake = "environment: PREFECT_API_AUTH_STRING: has a character that is not Unicode"
                raise ConfigError([mistake]) from None
            settings["authorization"] = {"type": "Basic", "credentials": encoded}
    elif key := variables.get("PREFECT_API_KEY"):
        settings["authorization"] = {"credentials": key}
    if _is_set(variables, "PREFECT_API_TLS_INSECURE_SKIP_VERIFY"):
        settings["tls_config"] = {"insecure_skip_verify": True}
    elif file := variables.get("PREFECT_API_SSL_CERT_FILE"):
        settings["tls_config"] = {"ca_file": file}
    return settings


def _custom_headers(text: str) -> dict[str, str]:
    try:
        return _HEADERS.validate_json(text)
    except ValidationError:
        mistake = 'is not a JSON object of texts, like {"X-Name": "value"}'
        raise ConfigError([f"environment: PREFECT_CLIENT_CUSTOM_HEADERS: {mistake}"]) from None


def _is_set(variables: Mapping[str, str], name: str) -> bool:
    try:
        return _BOOLEAN.validate_python(variables.get(name, "false"))
    except ValidationError:
        raise ConfigError([f"environment: {name}: is neither true nor false"]) from None
