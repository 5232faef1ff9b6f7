"""Where clients reach the routes: below a prefix, and behind a proxy, as Prometheus has both."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.settings.reader import ConfigError

_SEGMENTS: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")
_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Base:
    """The scheme that a client speaks, and the path below which it finds the routes, without a slash at its end."""

    scheme: str
    path: str


@dataclass(frozen=True, slots=True)
class Location:
    """The path below which the routes are served, without a slash at its end, and how a proxy presents them.

    `external_host` is empty where nothing is known of a proxy.
    """

    prefix: str = ""
    external: Base = Base("", "")
    external_host: str = ""

    def base(self, request: Request) -> Base:
        """Where the client of the request finds the routes.

        A proxy that passes `Host` on shows by it that the client came by the external URL. Anyone else came directly.
        """
        host = request.headers.get("Host", "")
        if self.external_host and _without_default_port(self.external.scheme, host) == self.external_host:
            return self.external
        return Base(request.url.scheme, self.prefix)

    def below(self, application: ASGIApp) -> ASGIApp:
        """Serve the application below the prefix; the page is found from `/` and from the prefix without a slash."""
        if not self.prefix:
            return application

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            path: str = scope["path"]
            if path.startswith(f"{self.prefix}/"):
                await application({**scope, "root_path": self.prefix}, receive, send)
                return
            answer: RedirectResponse | PlainTextResponse
            if path in {"/", self.prefix} and scope["method"] in {"GET", "HEAD"}:
                answer = RedirectResponse(f"{self.base(Request(scope)).path}/", HTTPStatus.FOUND)
            else:
                answer = PlainTextResponse("Not Found", HTTPStatus.NOT_FOUND)
            await answer(scope, receive, send)

        return served


def location(external_url: str | None, route_prefix: str | None) -> Location:
    """The meaning of `--web.external-url` and `--web.route-prefix`. Raises `ConfigError`."""
    mistakes: list[str] = []
    external, host = Base("", ""), ""
    if external_url is not None:
        flag = f"--web.external-url={external_url}"
        try:
            parts = urlsplit(external_url)
            host = _without_default_port(parts.scheme, parts.netloc) if parts.port != 0 else ""
        except ValueError:  # a port that is none, or half of an IPv6 address
            parts, host = urlsplit(""), ""
        if parts.scheme not in _PORTS or not parts.hostname or not host or "@" in host or parts.query or parts.fragment:
            mistakes.append(f"{flag}: is not a URL like https://example.com/concurrency")
        else:
            external = Base(parts.scheme, _normal(parts.path, flag, mistakes))
    prefix = (
        external.path if route_prefix is None else _normal(route_prefix, f"--web.route-prefix={route_prefix}", mistakes)
    )
    if mistakes:
        raise ConfigError(mistakes)
    return Location(prefix, external, host)


def _normal(path: str, flag: str, mistakes: list[str]) -> str:
    """The path with a slash before it and none behind it; the mistake is added where it can't be one of a URL."""
    stripped = path.strip("/")
    normal = f"/{stripped}" if stripped else ""
    if not _SEGMENTS.fullmatch(normal):
        mistakes.append(f"{flag}: is not a path like /concurrency")
    return normal


def _without_default_port(scheme: str, host: str) -> str:
    return host.lower().removesuffix(_PORTS.get(scheme, "")).removesuffix(":")
