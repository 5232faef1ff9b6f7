"""Write the references in the documents from the code: flags, configuration, routes, metrics and alerts."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefinedType
from starlette.routing import Route

from docs import alerting, cost
from exporter.clock import Clock
from exporter.config import ABOUT
from exporter.flags import parser
from exporter.metrics.family import Family
from exporter.metrics.observed import OBSERVED
from exporter.metrics.own import OWN
from exporter.polling.store import Store
from exporter.polling.telemetry import Telemetry
from exporter.settings.base import FrozenDict
from exporter.settings.regex import FullMatch
from exporter.sources import SYSTEMS
from exporter.sources.about import About
from exporter.sources.base import SourceConfig
from exporter.web import api as json_api
from exporter.web import routes as web
from exporter.web.config import WebConfig
from exporter.web.schema import Error

ROOT: Final = Path(__file__).parent.parent
_FOLDERS: Final = ("docs", "alerts", "dashboards", "deploy")
_DEFAULTS: Final = {"timeout": "`interval`", "stale_after": "three times `interval`, or `timeout` if that is longer"}
"""Defaults that follow from another key, which no annotation tells."""


def flags() -> str:
    """A table of every flag. Not what `--help` prints: each version of Python breaks its lines in another way."""
    rows = []
    for action in parser()._actions:  # noqa: SLF001  argparse tells it in no other way
        value = action.metavar or ("" if action.choices is None else f"{{{','.join(action.choices)}}}")
        flag = f"`{action.option_strings[-1]} {value}`".replace(" `", "`")
        help_ = (action.help or "") % vars(action)
        (default,) = re.findall(r"\(default: (.*)\)$", help_) or [""]
        rows.append((flag, f"`{default}`" if default else "", re.sub(r" \(default: .*\)$", "", help_)))
    return _table(("flag", "default", "meaning"), rows)


def families() -> tuple[Family, ...]:
    """Every family that is published, those that are observed first."""
    return (*OBSERVED, *OWN)


def metrics() -> str:
    """A table of the families for each kind of thing that they tell of, and what they come from, for each system."""
    tables = defaultdict(list)
    for family in families():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        tables[_THINGS[family.name.split("_")[1]]].append((f"`{family.name}`", family.kind, labels, _help(family)))
    return "\n\n".join(
        [
            *(f"## {thing}\n\n{_table(_METRIC, rows)}" for thing, rows in tables.items()),
            *(f"## Where {about.title}'s values come from\n\n{_figures(about)}" for about in ABOUT.values()),
        ]
    )


_METRIC: Final = ("metric", "type", "labels", "meaning")


def _figures(about: About) -> str:
    return _table(("metric", "comes from"), [(f"`{name}`", f"{text}.") for name, text in about.figures.items()])


def reasons(system: str) -> str:
    """A table of the reasons for which the queued tasks of a system wait."""
    rows = [(f"`{name}`", f"{one.meaning}.", f"{one.remedy}.") for name, one in ABOUT[system].reasons.items()]
    return _table(("reason", "meaning", "what to do"), rows)


def environment() -> str:
    """A table of the variables that make a source without a file."""
    rows = []
    for system, about in ABOUT.items():
        for at, variable in enumerate(about.environment):
            sets = f"its `{variable.key}`" if at else f"`{variable.key}` of a source `{system}`"
            rows.append((f"`{variable.name}`", f"{sets}: {variable.note}" if variable.note else sets))
    return _table(("variable", "what it sets"), rows)


def endpoints() -> str:
    """A table of every route, told in the words of the function that answers it."""

    async def reload() -> str:
        return ""

    clock = Clock()
    store = Store(clock)
    rows = []
    for route in web.application(store, Telemetry(clock), reload).routes:
        if not isinstance(route, Route) or not route.endpoint.__doc__:
            raise TypeError(f"no docstring tells what is served at {route}")
        methods = ", ".join(sorted((route.methods or set()) - {"HEAD"}))
        rows.append((f"`{route.path}`", methods, " ".join(route.endpoint.__doc__.split())))
    return _table(("route", "method", "what it is"), rows)


def api() -> str:
    """The parameters of each route of the JSON API, and the fields of each object in its answers."""
    parts = ["## Routes"]
    models: dict[type[BaseModel], None] = {}
    for operation in json_api.operations():
        if answer := operation.answers:
            path, returns = f"{json_api.PREFIX}{operation.path}", f"Returns {_link(answer)}."
            parts.append(f"### {path}\n\n{operation.about} {returns}")
            if fields := operation.takes.model_fields:
                parts.append(_table(("parameter", "type", "meaning"), [_parameter(*field) for field in fields.items()]))
            models |= dict.fromkeys(_with_nested(answer))
    parts.append("## Objects")
    described: list[type[BaseModel]] = [*models, Error]
    for model in described:
        rows = [
            (f"`{name}`", _json_type(field.annotation), _about(field)) for name, field in model.model_fields.items()
        ]
        parts.append(f"### {model.__name__}\n\n{model.__doc__}\n\n{_table(('field', 'type', 'meaning'), rows)}")
    return "\n\n".join(parts)


def _parameter(name: str, field: FieldInfo) -> tuple[str, str, str]:
    required = ", required" if field.is_required() else ""
    return f"`{name}`{required}", _json_type(field.annotation).removesuffix(" or null"), _about(field)


def _about(field: FieldInfo) -> str:
    return (field.description or "").replace("\n", " ")


def _with_nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model, and those in its fields."""
    yield model
    for field in model.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            for inner in _nested(part):
                yield from _with_nested(inner)


def _json_type(annotation: Any) -> str:
    """A type as it is in JSON. A field that may be null says so."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _json_type(parts[0])
    if origin in {Union, UnionType}:
        return " or ".join(_json_type(part) for part in parts)
    if origin is Literal:
        return " or ".join(f"`{word}`" for word in parts)
    if origin in {list, dict}:
        return f"{'list' if origin is list else 'object'} of {_json_type(parts[-1])}"
    words = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
    return words.get(annotation) or _link(annotation)


def _link(model: type[BaseModel]) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"


def configuration() -> str:
    """A table of what all sources have, one of what is peculiar to each system, and one of each nested part."""
    parts = [f"Every source:\n\n{_keys(SourceConfig.model_fields)}"]
    nested: dict[type[BaseModel], list[str]] = {}
    for system, config in SYSTEMS.items():
        own = {name: field for name, field in config.model_fields.items() if _is_new(name, field)}
        parts.append(f"A source with `system: {system}`:\n\n{_keys(own)}")
        for name, field in config.model_fields.items():
            for model in _nested(field.annotation):
                names = nested.setdefault(model, [])
                names += [name] if name not in names else []
    for model, names in nested.items():
        parts.append(f"{' and '.join(f'`{name}`' for name in names)}:\n\n{_keys(model.model_fields)}")
    return "\n\n".join(parts)


def web_configuration() -> str:
    """A table of the top level of the web configuration, and one of each nested part."""
    parts = [_keys(WebConfig.model_fields)]
    for name, field in WebConfig.model_fields.items():
        parts += [f"`{name}`:\n\n{_keys(model.model_fields)}" for model in _nested(field.annotation)]
    return "\n\n".join(parts)


def series() -> str:
    """How many series each thing at upstreams adds to a Prometheus, and the sum of them all."""
    rows = [(f"{letter}: {what}", str(each)) for what, letter, each in cost.things()]
    total = " + ".join(f"{each} {letter}" if each > 1 else letter for _, letter, each in cost.things())
    return f"{_table(('how many there are', 'series for each'), rows)}\n\nTogether: {total}."


def fleets() -> str:
    """What Prefect servers of some sizes add."""
    rows = [(str(queues), *cost.fleet(queues)) for queues in (10, 100, 1_000)]
    return _table(
        ("queues", "series", "samples each second, scraped every 15 s", "KiB of a scrape, before gzip"),
        [(queues, f"{found:,}", f"{found / 15:,.0f}", f"{size / 1024:,.0f}") for queues, found, size in rows],
    )


def alerts() -> str:
    """A table of every alert that is shipped."""
    compares = {threshold.alert: f"{threshold.default}: {threshold.meaning}" for threshold in alerting.thresholds()}
    rows = []
    for rule in alerting.alerts():
        name = rule["alert"]
        link = f"[{name}](../alerts/runbooks/{name}.md)"
        rows.append(
            (link, rule["labels"]["severity"], rule["annotations"]["summary"], rule["for"], compares.get(name, ""))
        )
    return _table(("alert", "severity", "meaning", "for", "threshold"), rows)


def thresholds() -> str:
    """What each threshold is compared with, how to choose it, and what the last week would have said of it."""
    return "\n\n".join(
        f"### {threshold.alert}\n\n"
        f"`{threshold.name}`, {threshold.default}: {threshold.meaning}. {threshold.advice}".strip()
        + f"\n\n```promql\n{threshold.query}\n```"
        for threshold in alerting.thresholds()
    )


SECTIONS: Final[Mapping[str, Callable[[], str]]] = {
    "flags": flags,
    "configuration": configuration,
    "environment": environment,
    "web configuration": web_configuration,
    "endpoints": endpoints,
    "api": api,
    "metrics": metrics,
    "reasons of prefect": partial(reasons, "prefect"),
    "reasons of cloro": partial(reasons, "cloro"),
    "series": series,
    "fleets": fleets,
    "alerts": alerts,
    "thresholds": thresholds,
}
"""What is written between the markers of this name, in whichever document has them."""

_MARKED: Final = re.compile(r"<!-- ([a-z ]+): written by `make docs` -->\n.*?<!-- end of \1 -->", re.DOTALL)


def documents() -> list[Path]:
    """Every document of the project."""
    return sorted([*ROOT.glob("*.md"), *(path for folder in _FOLDERS for path in (ROOT / folder).rglob("*.md"))])


def sections(text: str) -> list[str]:
    """The names of the marked parts of a document."""
    return [match[1] for match in _MARKED.finditer(text)]


def generated(text: str) -> str:
    """The text of a document with what lies between each pair of markers written anew."""
    return _MARKED.sub(
        lambda match: (
            f"<!-- {match[1]}: written by `make docs` -->\n{SECTIONS[match[1]]()}\n<!-- end of {match[1]} -->"
        ),
        text,
    )


def _is_new(name: str, field: FieldInfo) -> bool:
    shared = SourceConfig.model_fields.get(name)
    return not shared or (shared.default, shared.description) != (field.default, field.description)


def _keys(fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        (
            f"`{name}`",
            _ANY_SYSTEM if name == "system" else _type(field.annotation),
            _default(name, field),
            (field.description or "").replace("\n", " "),
        )
        for name, field in fields.items()
    ]
    return _table(("key", "type", "default", "meaning"), rows)


def _default(name: str, field: FieldInfo) -> str:
    if name in _DEFAULTS:
        return _DEFAULTS[name]
    if field.is_required():
        return "required"
    match field.default:
        case None | BaseModel() | () | "" | FrozenDict() | PydanticUndefinedType():
            return ""
        case FullMatch():
            value = field.default.pattern
        case float():
            value = f"{field.default:g}s"
        case tuple():
            value = f"[{', '.join(map(str, field.default))}]"
        case _:
            value = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{value}`"


_ANY_SYSTEM: Final = " or ".join(f"`{system}`" for system in SYSTEMS)

_THINGS: Final = {"queue": "Queues", "pool": "Pools", "limit": "Limits", "exporter": "The exporter"}
"""What a family tells of, by the second word of its name."""

_TYPES: Final[Mapping[Any, str]] = {
    float: "duration",
    int: "number",
    bool: "boolean",
    Path: "file",
    SecretStr: "secret",
    FullMatch: "regular expression",
}


def _type(annotation: Any) -> str:
    """How a user would write a value of this type."""
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{word}`" for word in parts)
    if get_origin(annotation) is dict:
        return "mapping"
    if get_origin(annotation) is tuple:
        return f"list of {_type(parts[0])}"
    if get_origin(annotation) in {Union, UnionType} or hasattr(annotation, "__metadata__"):
        return _type(parts[0])
    return _TYPES.get(annotation, "mapping" if any(_nested(annotation)) else "string")


def _nested(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def _help(family: Family) -> str:
    return family.help.replace("|", "\\|")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in lines)


if __name__ == "__main__":
    for document in documents():
        document.write_text(generated(document.read_text(encoding="utf-8")), encoding="utf-8")
