"""The requests that are accepted: what h11 reads, less what it leaves to each server to refuse."""

import ipaddress
import re
from http import HTTPStatus
from typing import Final

import h11

MAX_HEAD_BYTES: Final = 16 * 1024
"""Most bytes of a head. A scraper's has some hundreds, most of them passwords and cookies."""

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)
_HOST: Final = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|[A-Za-z0-9._~-]*)(?::(?P<port>[0-9]{0,5}))?")
_LAST_PORT: Final = 65535


class Requests(h11.Connection):
    """The requests of one client, as events of h11.

    `next_event` raises `h11.RemoteProtocolError` with a status also for what h11 lets pass: a head of more than
    `MAX_HEAD_BYTES` that comes at once, a version that is not HTTP/1, an invalid host, a body with two lengths.
    A body is read and dropped, unless `keeps_bodies`: no route uses one, and to keep it would let strangers fill the
    memory.
    """

    def __init__(self, *, keeps_bodies: bool = False) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self._keeps_bodies = keeps_bodies

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what came next."""
        # h11 looks at the length of a head only while its end has not come.
        begun = self.their_state is h11.IDLE
        before = len(self.trailing_data[0]) if begun else 0
        event = super().next_event()
        if isinstance(event, h11.Data) and not self._keeps_bodies:
            return h11.Data(data=b"")
        if isinstance(event, h11.Request):
            if before - len(self.trailing_data[0]) > MAX_HEAD_BYTES:
                raise _refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return _accepted(event)
        return event


def _accepted(request: h11.Request) -> h11.Request:
    """The request with the path alone for its target. Raises `h11.RemoteProtocolError`."""
    if not request.http_version.startswith(b"1."):
        raise _refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    headers = dict(request.headers)
    # Whoever stands in front of us may go by the one length and we by the other: a second request would hide between.
    if b"transfer-encoding" in headers and (b"content-length" in headers or request.http_version == b"1.0"):
        raise _refused(HTTPStatus.BAD_REQUEST)
    # h11 asks for a host in 1.1 alone.
    if not _is_host(headers.get(b"host", b"")) or (b"host" not in headers and request.http_version != b"1.0"):
        raise _refused(HTTPStatus.BAD_REQUEST)
    if request.target.startswith(b"/") or request.target == b"*":
        return request
    absolute = _ABSOLUTE.fullmatch(request.target)
    if not absolute or not absolute[1] or not _is_host(absolute[1]):
        raise _refused(HTTPStatus.BAD_REQUEST)
    host, path = absolute.groups()
    return h11.Request(
        method=request.method,
        target=path if path.startswith(b"/") else b"/" + path,
        # The address in the target is the one that counts, says RFC 9112.
        headers=[(b"host", host), *((name, value) for name, value in request.headers if name != b"host")],
        http_version=request.http_version,
    )


def _is_host(value: bytes) -> bool:
    """Whether this is a host and a port, or nothing, which is what a client sends that knows no name of ours."""
    match = _HOST.fullmatch(value.decode("latin-1"))
    if not match or int(match["port"] or 0) > _LAST_PORT:
        return False
    try:
        return match["ipv6"] is None or bool(ipaddress.IPv6Address(match["ipv6"]))
    except ValueError:
        return False


def _refused(status: HTTPStatus) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(status.phrase, error_status_hint=status)
