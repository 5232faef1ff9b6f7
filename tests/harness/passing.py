"""A pass-through in front of a real server: it forwards each request, and can do something just before."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from tests.harness.prefect import PrefectServer
from tests.harness.upstream import Request, Upstream, answer, serving

Before = Callable[[Request], bytes | None]
"""Called before each request is forwarded; what it returns is answered instead."""


@contextmanager
def passing(server: PrefectServer, before: Before) -> Iterator[Upstream]:
    """Serve what the server serves until the context ends; its API is below `/api` of the upstream's address."""
    with closing(server.client()) as client:

        def forward(request: Request) -> bytes:
            instead = before(request)
            if instead is not None:
                return instead
            url = f"{server.api_url.removesuffix('/api')}{request.path}"
            got = client.request(request.method, url, content=request.body, headers=_kept(request))
            return answer(got.content, got.status_code, media_type=got.headers["Content-Type"])

        with serving(forward) as upstream:
            yield upstream


def _kept(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in {"content-type", "authorization"}}
