"""The configuration file, or the environment, turned into one frozen, fully validated `Config`."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from exporter.sources import SYSTEMS, AnySource
from exporter.sources.settings import Settings


class ConfigError(Exception):
    """The configuration can't be used. `mistakes` has a line for each, with file, line and key."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Config(Settings):
    """Everything that a configuration file says."""

    sources: tuple[AnySource, ...] = Field(min_length=1, strict=False)
    """The upstreams to poll."""

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources have the name {twice[0]!r}; it is their label in every metric")
        return self


def load(path: Path) -> Config:
    """Read a configuration file. Raises `ConfigError` with all of its mistakes."""
    try:
        document = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8"]) from None
    except YAMLError as error:
        raise ConfigError([f"{path}{_yaml_mistake(error)}"]) from None
    if not isinstance(document, CommentedMap):
        raise ConfigError([f"{path}: has no `sources:`; see the configuration reference in README"])
    try:
        return Config.model_validate(document, context={"folder": path.parent})
    except ValidationError as error:
        raise ConfigError([f"{path}:{line}: {text}" for line, text in _mistakes(error, document)]) from None


def from_environment(environment: Mapping[str, str]) -> Config:
    """A source for each system whose own variables are set, with the meaning that its own client gives them.

    Raises `ConfigError` where nothing is set, or what is set can't be used.
    """
    sources: list[dict[str, Any]] = []
    variables: list[dict[str, str]] = []
    if url := environment.get("PREFECT_API_URL"):
        sources.append({"name": "prefect", "system": "prefect", "url": url} | _prefect_credentials(environment))
        variables.append({"url": "PREFECT_API_URL"})
    if key := environment.get("CLORO_API_KEY"):
        sources.append({"name": "cloro", "system": "cloro", "authorization": {"credentials": key}})
        variables.append({})
    if not sources:
        raise ConfigError(["nothing to poll: give --config.file, set PREFECT_API_URL or CLORO_API_KEY, or try --demo"])
    try:
        return Config.model_validate({"sources": sources})
    except ValidationError as error:
        raise ConfigError(
            [
                f"environment: {variables[int(loc[1])].get(str(loc[-1]), '.'.join(map(str, loc)))}: {_message(details)}"
                for details in error.errors(include_url=False, include_input=False)
                for loc in [details["loc"]]
            ]
        ) from None


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


def _yaml_mistake(error: YAMLError) -> str:
    """Line and reason, without the excerpt that the library's own text has: it may show a secret."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return ": is not YAML"
    # "found duplicate key "password" with value "…""
    problem = str(error.problem).partition(" with value ")[0]
    return f":{error.problem_mark.line + 1}: {problem}"


def _mistakes(error: ValidationError, document: CommentedMap) -> Iterator[tuple[int, str]]:
    """Line and text of each mistake, in the order of their lines."""
    found = []
    for details in error.errors(include_url=False, include_input=False):
        if details["type"] == "default_factory_not_called":
            continue  # follows from a mistake in another key
        # The word that chose a member of the union is in the location, but not in the document.
        loc = [part for index, part in enumerate(details["loc"]) if index != 2]
        found.append((_line(document, loc), f"{_key(loc)}: {_message(details)}"))
    yield from sorted(found)


def _line(document: CommentedMap, loc: list[int | str]) -> int:
    """The line of the deepest part of `loc` that is in the document, counted from 1."""
    line = 1
    node: object = document
    for part in loc:
        if isinstance(node, CommentedMap) and part in node:
            line = node.lc.key(part)[0] + 1
            node = node[part]
        elif isinstance(node, CommentedSeq) and isinstance(part, int):
            line = node.lc.item(part)[0] + 1
            node = node[part]
        else:
            break
    return line


def _key(loc: list[int | str]) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return key.lstrip(".") or "the file"


def _message(details: ErrorDetails) -> str:
    known = f"; it is one of {', '.join(SYSTEMS)}"
    match details["type"]:
        case "extra_forbidden":
            text = f"unknown key{_nearest(str(details['loc'][-1]), _keys_beside(details['loc']))}"
        case "missing":
            text = "is missing"
        case "union_tag_not_found":
            text = f"system is missing{known}"
        case "union_tag_invalid":
            tag = str(details["ctx"]["tag"])
            text = f"system {tag!r} is not known{_nearest(tag, SYSTEMS) or known}"
        case "string_type":
            text = "is not a string; put it in quotes"
        case "value_error":
            text = str(details["ctx"]["error"])
        case _:
            text = details["msg"].removeprefix("Input ")
    return text


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that would be known in the place of the last part of `loc`."""
    model: type[BaseModel] = Config
    for part in loc[:-1]:
        if part in SYSTEMS and model is Config:
            model = SYSTEMS[str(part)]
        elif part in model.model_fields and model is not Config:
            model = next(iter(_models_in(model.model_fields[str(part)].annotation)), model)
    return list(model.model_fields)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            yield candidate
