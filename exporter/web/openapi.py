"""The OpenAPI document of the JSON API, made from the pydantic models of its parameters and answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from exporter.web.handlers import Handler
from exporter.web.parameters import Parameters
from exporter.web.schema import Error

_REFERENCE: Final = "#/components/schemas/{model}"
_ERRORS: Final = {
    "400": "A parameter is missing, unknown, repeated or has a bad value.",
    "404": "There is nothing of this name.",
    "503": "The data that would tell is missing: it has expired, there is none yet, or the poll could not read it.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A route of the API, below its prefix. `answers` is None for the document itself."""

    path: str
    handler: Handler
    takes: type[Parameters]
    answers: type[BaseModel] | None

    @property
    def about(self) -> str:
        """Its description, on one line."""
        return " ".join((self.handler.__doc__ or "").split())


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the document; its addresses are relative to where it is served."""
    described = [operation for operation in operations if operation.answers]
    models: list[type[BaseModel]] = [Error, *(operation.answers for operation in described if operation.answers)]
    _, schemas = models_json_schema([(model, "serialization") for model in models], ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "concurrency-exporter",
            "version": "1",
            "description": "The snapshots that the last polls of the sources took. Null means that the upstream server"
            " does not say, or that the exporter does not ask. No request causes one to an upstream server.",
        },
        "servers": [{"url": "../v1"}],
        "paths": {operation.path: {"get": _get(operation)} for operation in described},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"}},
        },
        "security": [{}, {"password": []}],
    }


def _get(operation: Operation) -> dict[str, Any]:
    name = operation.answers.__name__ if operation.answers else ""
    takes = operation.takes.model_json_schema()
    parameters = [
        {
            "name": parameter,
            "in": "query",
            "required": parameter in takes.get("required", ()),
            "description": about.pop("description"),
            "schema": {key: value for key, value in about.items() if key != "title"},
        }
        for parameter, about in takes["properties"].items()
    ]
    good = {
        "description": operation.about,
        "headers": {
            "ETag": {"schema": {"type": "string"}, "description": "Changes with the snapshot, and not with its age."},
            "Cache-Control": {
                "schema": {"type": "string"},
                "description": "`private`, and the seconds until the next poll as `max-age`.",
            },
        },
        "content": _json(name),
    }
    errors: dict[str, Any] = {
        status: {"description": text, "content": _json("Error")} for status, text in _ERRORS.items()
    }
    errors["503"]["headers"] = {
        "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until there may be data."}
    }
    return {
        "operationId": operation.path.removeprefix("/"),
        "summary": operation.about,
        "parameters": parameters,
        "responses": {"200": good, "304": {"description": "The client has this answer already."}} | errors,
    }


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REFERENCE.format(model=model)}}}
