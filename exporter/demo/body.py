"""Reads the bodies of requests as the Prefect server does: what it takes, what it ignores, how it refuses.

The server refuses with the list of all that is wrong, except that a `limit` out of bounds has an answer of its own.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_LIMIT = 200
"""PREFECT_SERVER_API_DEFAULT_LIMIT: the default of `limit`, and the most that it may be."""

Location: TypeAlias = tuple[str | int, ...]
Reader: TypeAlias = "Callable[[Body, Any, Location], Any]"
"""Reads a value of the body; notes in the body what is wrong with it."""
Schema: TypeAlias = "Mapping[str, Schema | Reader]"
"""The shape of a filter: field → fields of it, or reader of its value."""
Criteria: TypeAlias = dict[str, Any]
"""A filter as it was read, in the shape of its schema; without what is null or absent."""


class InvalidRequestError(Exception):
    """The body of a request is not what the endpoint takes; the server answers 422."""

    def __init__(self, detail: list[dict[str, Any]], body: Any) -> None:
        super().__init__(detail)
        self.answer = {
            "exception_message": "Invalid request received.",
            "exception_detail": detail,
            "request_body": body,
        }


class Body:
    """The JSON object of a request, and what has been found wrong with it so far."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._wrong: list[dict[str, Any]] = []

    def limit(self) -> int:
        """`limit`, 0 to `MAX_LIMIT`; `MAX_LIMIT` when absent."""
        limit = self._integer("limit", MAX_LIMIT)
        if limit < 0:
            raise HTTPException(422, "Invalid limit: must be greater than or equal to 0.")
        if limit > MAX_LIMIT:
            raise HTTPException(422, f"Invalid limit: must be less than or equal to {MAX_LIMIT}.")
        return limit

    def offset(self) -> int:
        """`offset`, how many rows to leave out."""
        return self._integer("offset", 0, at_least=0)

    def page(self) -> int:
        """`page`, counted from 1."""
        return self._integer("page", 1, at_least=1)

    def sort(self, default: str, *others: str) -> str:
        """`sort`, one of these words."""
        word = self._fields.get("sort") or default
        return str(one_of(default, *others)(self, word, ("body", "sort")))

    def required(self, name: str, reader: Reader) -> Any:
        """A value that may be neither absent nor null."""
        value, where = self._fields.get(name), ("body", name)
        if value is None:
            self.wrong("missing", where, "Field required", None)
            return None
        return reader(self, value, where)

    def filter(self, name: str, schema: Schema) -> Criteria:
        """The criteria of one filter, such as `{"state": {"type": {"any_": {...}}}}`."""
        return self._read_filter(self._fields.get(name), schema, ("body", name)) or {}

    def check(self) -> None:
        """Refuse the request if anything in it was wrong."""
        if self._wrong:
            raise InvalidRequestError(self._wrong, self._fields)

    def wrong(self, kind: str, where: Location, message: str, value: Any, **context: Any) -> None:
        """Note that the value at this place is wrong."""
        entry = {"type": kind, "loc": where, "msg": message, "input": value}
        self._wrong.append({**entry, "ctx": context} if context else entry)

    def _integer(self, name: str, default: int, at_least: int | None = None) -> int:
        value, where = self._fields.get(name), ("body", name)
        if value is None:
            return default
        if not isinstance(value, int | float | str):
            self.wrong("int_type", where, "Input should be a valid integer", value)
            return default
        if isinstance(value, float) and not value.is_integer():
            message = "Input should be a valid integer, got a number with a fractional part"
            self.wrong("int_from_float", where, message, value)
            return default
        try:
            number = int(value)
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            self.wrong("int_parsing", where, message, value)
            return default
        if at_least is not None and number < at_least:
            message = f"Input should be greater than or equal to {at_least}"
            self.wrong("greater_than_equal", where, message, value, ge=at_least)
        return number

    def _read_filter(self, value: Any, schema: Schema, where: Location) -> Criteria | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            message = "Input should be a valid dictionary or object to extract fields from"
            self.wrong("model_attributes_type", where, message, value)
            return None
        criteria = {}
        for field, inner in value.items():
            known, place = schema.get(field), (*where, field)
            if known is None:
                self.wrong("extra_forbidden", place, "Extra inputs are not permitted", inner)
            elif isinstance(known, Mapping):
                criteria[field] = self._read_filter(inner, known, place)
            elif inner is not None or field == "operator":
                criteria[field] = known(self, inner, place)
        return {field: inner for field, inner in criteria.items() if inner is not None}


async def read_body(request: Request) -> Body:
    """The body of the request. None at all is `{}`; its content type does not matter."""
    raw = await request.body()
    try:
        fields = json.loads(raw) if raw else None
    except UnicodeDecodeError as error:
        raise HTTPException(400, "There was an error parsing the body") from error
    except json.JSONDecodeError as error:
        broken: dict[str, Any] = {
            "type": "json_invalid",
            "loc": ("body", error.pos),
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise InvalidRequestError([broken], raw.decode()) from error
    if fields is None:
        return Body({})
    if not isinstance(fields, dict):
        missing: dict[str, Any] = {"type": "missing", "loc": ("body", "limit"), "msg": "Field required", "input": None}
        raise InvalidRequestError([missing], fields)
    return Body(fields)


def any_or_none(item: Reader) -> Schema:
    """The criteria of `any_`, and `{"not_any_": [...]}`: none of these items; none at all is met by everything."""
    return {**any_(item), "not_any_": any_(item)["any_"]}


def any_(item: Reader) -> Schema:
    """The criterion `{"any_": [...]}`: one of these items."""

    def read(body: Body, value: Any, where: Location) -> frozenset[Any]:
        if not isinstance(value, list):
            body.wrong("list_type", where, "Input should be a valid list", value)
            return frozenset()
        return frozenset(item(body, inner, (*where, number)) for number, inner in enumerate(value))

    return {"any_": read}


def text(body: Body, value: Any, where: Location) -> str:
    """A string."""
    if not isinstance(value, str):
        body.wrong("string_type", where, "Input should be a valid string", value)
    return str(value)


def uuid(body: Body, value: Any, where: Location) -> UUID | None:
    """A UUID, with or without dashes."""
    if not isinstance(value, str):
        body.wrong("uuid_type", where, "UUID input should be a string, bytes or UUID object", value)
        return None
    try:
        return UUID(value)
    except ValueError as error:
        body.wrong("uuid_parsing", where, f"Input should be a valid UUID, {error}", value, error=str(error))
        return None


def moment(body: Body, value: Any, where: Location) -> datetime | None:
    """A moment in ISO 8601; one without an offset is taken for UTC."""
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        body.wrong("value_error", where, f"Value error, Unable to parse string [{value}]", value, error={})
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def number(body: Body, value: Any, where: Location) -> float:
    """A number, also one that is written as a string."""
    try:
        return float(value)
    except TypeError:
        body.wrong("float_type", where, "Input should be a valid number", value)
    except ValueError:
        message = "Input should be a valid number, unable to parse string as a number"
        body.wrong("float_parsing", where, message, value)
    return 0.0


def one_of(*words: str) -> Reader:
    """One of these words."""

    def read(body: Body, value: Any, where: Location) -> str:
        if value not in words:
            quoted = [f"'{word}'" for word in words]
            expected = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
            body.wrong("enum", where, f"Input should be {expected}", value, expected=expected)
        return str(value)

    return read
