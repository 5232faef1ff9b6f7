"""A file of settings, in YAML: read, checked against its model, and every mistake named with its line and key."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from exporter.settings.base import Settings

AnySettings = TypeVar("AnySettings", bound=Settings)


class ConfigError(Exception):
    """The configuration can't be used. `mistakes` has a line for each, with file, line and key."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def read(
    path: Path,
    model: type[AnySettings],
    if_empty: str,
    *,
    may_be_empty: bool = False,
    files: set[Path] | None = None,
) -> AnySettings:
    """Return the file as its model. Raises `ConfigError` with all of its errors.

    `if_empty` is the mistake of a file without keys; one that `may_be_empty` says what the model's defaults say. The
    files that it names are added to `files`, also those that can't be used.
    """
    try:
        document = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8"]) from None
    except YAMLError as error:
        raise ConfigError([f"{path}{_yaml_mistake(error)}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: is nested too deeply"]) from None
    except (ValueError, ArithmeticError, LookupError):  # whose texts show the value
        raise ConfigError(
            [f"{path}: is not valid YAML: a value looks like a number or a date but is not one; put it in quotes"]
        ) from None
    except Exception:  # noqa: BLE001  the library has no exception of its own for what it can't build, as `&a {<<: *a}`
        raise ConfigError(
            [f"{path}: is not valid YAML: an anchor (&), a tag (!) or a key (?) makes no sense"]
        ) from None
    if document is None and may_be_empty:
        document = CommentedMap()
    if not isinstance(document, CommentedMap):
        raise ConfigError([f"{path}: {if_empty}"])
    try:
        return model.model_validate(
            document, context={"folder": path.parent, "files": set() if files is None else files}
        )
    except ValidationError as error:
        raise ConfigError([f"{path}:{line}: {text}" for line, text in _mistakes(error, document, model)]) from None


def _yaml_mistake(error: YAMLError) -> str:
    """Line and reason, without the excerpts that the library's own text has: they may show a secret."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return ": is not valid YAML: it contains characters that YAML does not allow"
    # found duplicate key "password" with value "…"; found undefined alias '…'
    problem = re.sub(r" with value .*|(?<=undefined alias) .*", "", str(error.problem), flags=re.DOTALL)
    if error.context and error.context_mark:
        problem = f"{error.context} (line {error.context_mark.line + 1}), {problem}"
    return f":{error.problem_mark.line + 1}: is not valid YAML: {problem}"


def errors(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's errors, without those that only follow from an error in another key or list item."""
    found = error.errors(include_url=False)
    return [
        details
        for details in found
        if details["type"] != "default_factory_not_called"
        and not (details["type"] == "too_short" and any(len(other["loc"]) > 1 for other in found))
    ]


def _mistakes(error: ValidationError, document: CommentedMap, model: type[BaseModel]) -> Iterator[tuple[int, str]]:
    """Line and text of each mistake, in the order of their lines."""
    found = []
    for details in errors(error):
        place = _place(details["loc"], model)
        loc = place.keys
        if details["type"] in {"union_tag_invalid", "union_tag_not_found"}:
            loc.append(place.tag)
        found.append((_line(document, loc), f"{_key(loc)}: {message(details, model)}"))
    yield from sorted(found)


def _line(document: CommentedMap, loc: list[int | str]) -> int:
    """The line of the deepest part of `loc` that is in the document, counted from 1."""
    line = 1
    node: object = document
    for part in loc:
        if isinstance(node, CommentedMap) and part in node:
            # What a merge (`<<`) brought has no line here.
            if part in (node.lc.data or {}):
                line = node.lc.key(part)[0] + 1
            node = node[part]
        elif isinstance(node, CommentedSeq) and isinstance(part, int):
            if part in (node.lc.data or {}):  # a list with a tag has no lines
                line = node.lc.item(part)[0] + 1
            node = node[part]
        else:
            break
    return line


def _key(loc: list[int | str]) -> str:
    # A mistake is one line, whatever the key is.
    words = [f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else repr(part)}" for part in loc]
    return "".join(words).lstrip(".") or "the file"


def message(details: ErrorDetails, model: type[BaseModel]) -> str:
    """Describe an error in the words of a YAML file, and without the value, which may hold a secret."""
    context = details.get("ctx", {})
    place = _place(details["loc"], model)
    members = f"; it is one of {', '.join(place.members)}"
    match details["type"]:
        case "extra_forbidden":
            known = list(place.model.model_fields)
            near = _nearest(str(details["loc"][-1]), known)
            text = "unknown key" + (near or f"; the keys here are {', '.join(known)}")
        case "missing":
            text = "is missing"
        case "union_tag_not_found":
            text = f"is missing{members}"
        case "union_tag_invalid":
            text = f"is not a known {place.tag}" + (_nearest(str(context["tag"]), place.members) or members)
        case "value_error":
            text = str(context["error"])
        case "string_type" if details["input"] is not None and not isinstance(details["input"], list | dict):
            text = "is not text; put it in quotes"
        case "greater_than_equal":
            text = f"is less than {context['ge']}"
        case "less_than_equal":
            text = f"is more than {context['le']}"
        case "too_long":
            text = f"has more than {context['max_length']} item(s)"
        case "string_too_long":
            text = f"is longer than {context['max_length']} characters"
        case _ if details["input"] is None and details["type"] in _TYPES:
            text = f"has no value; it has to be {_TYPES[details['type']]}"
        case other:
            text = f"is not {_TYPES[other]}" if other in _TYPES else _OTHERS.get(other, details["msg"])
    return text


_TYPES: Final = {
    "string_type": "text",
    "int_type": "a whole number without quotes, like 1000",
    "bool_type": "true or false, without quotes",
    "dict_type": "a mapping, of lines like `key: value`",
    "model_type": "a mapping, of lines like `key: value`",
    "model_attributes_type": "a mapping, of lines like `key: value`",
    "tuple_type": "a list, of items that begin with `- `",
}
_OTHERS: Final = {
    "too_short": "is an empty list; name a source to poll",
    "string_too_short": "is empty",
    "string_unicode": "has a character that is not Unicode",
    "invalid_key": "unknown key; keys are words",
}


def _nearest(word: str, words: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


@dataclass(slots=True)
class _Place:
    """Where a mistake is: its keys in the document, and the model that the last of them belongs to.

    `members` are the models that may stand there, by the word under their key `tag` that chooses one.
    """

    model: type[BaseModel]
    keys: list[int | str] = field(default_factory=list)
    tag: str = ""
    members: dict[str, type[BaseModel]] = field(default_factory=dict)


def _place(loc: tuple[int | str, ...], model: type[BaseModel]) -> _Place:
    place = _Place(model)
    for part in loc:
        if part == "[key]":
            # pydantic says so where the key itself is the mistake.
            continue
        if part in place.members:
            # pydantic names the word that chose a member of the union, which is no key of the document.
            model = place.members[str(part)]
            continue
        place.keys.append(part)
        if isinstance(part, int):
            continue
        place.model = model
        if part in model.model_fields:
            annotation = model.model_fields[part].annotation
            place.tag, place.members = _union_in(annotation)
            model = next(_models_in(annotation), model)
    return place


def _union_in(annotation: object) -> tuple[str, dict[str, type[BaseModel]]]:
    """The key that tells the models of a union apart, and the models by its value; of the items, if it is a list."""
    for item in get_args(annotation):
        union, *rest = get_args(item) or (None,)
        for info in rest:
            if isinstance(info, FieldInfo) and isinstance(info.discriminator, str):
                tag = info.discriminator
                models: Iterable[type[BaseModel]] = get_args(union)
                return tag, {get_args(model.model_fields[tag].annotation)[0]: model for model in models}
    return "", {}


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            yield candidate
