"""What answers a request, and how the errors are answered that it raises."""

from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from exporter.polling.store import View
from exporter.views import NotFoundError, NotKnownError, retry_after
from exporter.web.parameters import ParametersError

Handler = Callable[[Request, View], Awaitable[Response]]
"""Answers a request from what is known at the moment at which it came. Its docstring is for users."""

_STATUSES: Final[dict[type[Exception], HTTPStatus]] = {
    ParametersError: HTTPStatus.BAD_REQUEST,
    NotFoundError: HTTPStatus.NOT_FOUND,
    NotKnownError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def with_errors(handler: Handler, answer: Callable[[View, HTTPStatus, Exception], Awaitable[Response]]) -> Handler:
    """The handler, whose errors are answered by `answer`; what is not known yet, with `Retry-After`."""

    @wraps(handler)
    async def answered(request: Request, view: View) -> Response:
        try:
            return await handler(request, view)
        except tuple(_STATUSES) as error:
            response = await answer(view, _STATUSES[type(error)], error)
            if isinstance(error, NotKnownError):
                response.headers["Retry-After"] = str(retry_after(error, view))
            return response

    return answered
