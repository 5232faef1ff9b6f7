"""Pages for people, made from templates of this package."""

import secrets
from datetime import UTC, datetime
from typing import Final

from jinja2 import Environment, PackageLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse

from exporter import __version__
from exporter.polling.store import View
from exporter.threads import in_thread
from exporter.web.guard import HEADERS

_TEMPLATES: Final = Environment(
    loader=PackageLoader("exporter.web"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


async def status(_: Request, view: View) -> HTMLResponse:
    """The status page: each source with its health, the age of its data and its last error."""
    return await _page("status.html", view)


async def _page(template: str, view: View) -> HTMLResponse:
    """Render a page off the event loop; it may have the one style that carries its nonce."""
    nonce = secrets.token_urlsafe(16)
    page = await in_thread(
        _TEMPLATES.get_template(template).render, version=__version__, view=view, utc=_utc, nonce=nonce
    )
    policy = f"{HEADERS['Content-Security-Policy']}; style-src 'nonce-{nonce}'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _utc(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
