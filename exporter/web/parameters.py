"""The parameters of a request: what each route takes, and how a client is told what is wrong with them."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.requests import Request

from exporter.views import Wanted

MOST_PARAMETERS: Final = 50


class ParametersError(ValueError):
    """A parameter is missing, unknown, repeated or has a bad value; the message names it."""


class Parameters(BaseModel):
    """What a route takes. A field that is a list may be repeated."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OneSource(Parameters):
    """Something of one source."""

    source: str = Field(min_length=1)
    """Name of the source."""


class OneQueue(OneSource):
    """One queue."""

    pool: str = ""
    """Name of the pool; empty or absent for a system without pools."""
    queue: str = Field(min_length=1)
    """Name of the queue."""


class OneLimit(OneSource):
    """One limit that is neither a queue nor a pool."""

    kind: str = Field(min_length=1)
    """Kind of the limit: `global`, `tag` or `deployment`."""
    limit: str = Field(min_length=1)
    """Name of the limit."""


class HeadroomOf(OneQueue):
    """A queue, and limits that its tasks need too."""

    kind: list[str] = Field(default=[])
    """Kind of a limit. `kind` and `limit` come in pairs, which can be repeated."""
    limit: list[str] = Field(default=[])
    """Name of the limit of that kind."""

    @property
    def limits(self) -> list[tuple[str, str]]:
        """Kind and name of each. Raises `ParametersError` if they are no pairs."""
        if len(self.kind) != len(self.limit):
            raise ParametersError(f"{len(self.kind)} kind and {len(self.limit)} limit are no pairs; give one for each")
        return list(zip(self.kind, self.limit, strict=True))


def _blank_is_absent(value: object) -> object:
    """A form sends its empty fields too."""
    return None if value == "" else value


_Flag = Annotated[bool | None, BeforeValidator(_blank_is_absent)]


class LimitFilter(Parameters):
    """A filter, and a page of what passes it."""

    text: str = ""
    """Text that is part of a name, in upper or lower case."""
    source: str = ""
    """Name of the source."""
    system: str = ""
    """System of the source, such as `prefect`."""
    full: _Flag = None
    """`true` for those without a free slot, `false` for the others."""
    page: int = Field(default=1, ge=1, le=1_000_000)
    """Number of the page, which has up to 100."""

    @property
    def wanted(self) -> Wanted:
        """The filter."""
        return Wanted(**self.model_dump(exclude={"page"}))


class QueueFilter(LimitFilter):
    """A filter of queues, and a page of them."""

    waiting: _Flag = None
    """`true` for queues in which tasks wait, `false` for the others."""
    paused: _Flag = None
    """`true` for paused queues, `false` for the others."""


class NoParameters(Parameters):
    """The route takes none."""


P = TypeVar("P", bound=Parameters)


def parameters(request: Request, takes: type[P]) -> P:
    """Read the query string of a request. Raises `ParametersError`."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
    except UnicodeDecodeError:
        raise ParametersError("a parameter is not UTF-8") from None
    except ValueError:
        raise ParametersError(f"there are more than {MOST_PARAMETERS} parameters") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        field = takes.model_fields.get(name)
        if field is not None and field.annotation == list[str]:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise ParametersError(f"{name}: is there more than once")
        else:
            found[name] = value
    try:
        return takes.model_validate(found)
    except ValidationError as error:
        raise ParametersError("; ".join(_mistakes(error, takes))) from None


def _mistakes(error: ValidationError, takes: type[Parameters]) -> Iterator[str]:
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        name = one["loc"][0]
        if one["type"] == "missing":
            yield f"{name}: is missing"
        elif one["type"] == "extra_forbidden":
            yield f"{name}: is no parameter of this route; it takes {', '.join(takes.model_fields) or 'none'}"
        else:
            yield f"{name}: {one['msg']}"
