"""The sockets that are served on: those of `--web.listen-address`, or those that systemd hands over."""

import os
import re
import socket
from collections.abc import Iterable, MutableMapping
from typing import Final

from exporter.settings.reader import ConfigError

_LAST_PORT: Final = 65535
_FIRST_DESCRIPTOR: Final = 3
"""Of those that systemd hands over; its protocol fixes this number."""
_BACKLOG: Final = 4_096
"""Connections that may wait to be accepted, which is also the default limit of Linux. When more come, Linux drops the
first packet of each, a scraper's too, which tries again after 1, 3 and 7 s."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; on all addresses where `host` is empty. Raises `OSError`, `OverflowError`."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    # Inherited by every connection. asyncio sets it only on sockets that it makes itself, and without it each answer
    # waits 40 ms for the acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def listen_on(addresses: Iterable[str]) -> list[socket.socket]:
    """Open a socket on each `HOST:PORT`: on all of them or, with `ConfigError`, on none."""
    listeners: list[socket.socket] = []
    mistakes: list[str] = []
    for address in addresses:
        try:
            listeners.append(_listen(address))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        for listener in listeners:
            listener.close()
        raise ConfigError(mistakes)
    return listeners


def from_systemd(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Take over the sockets of a systemd socket unit, and the variables that announce them: see sd_listen_fds(3).

    Raises `ConfigError` where there is none, or one of them does not accept connections.
    """
    pid, number, names = (environment.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    # Variables of another process are inherited by accident: the descriptors of these numbers are anything.
    if pid != str(os.getpid()) or not re.fullmatch("[0-9]{1,4}", number) or number == "0":
        raise ConfigError(
            ["--web.systemd-socket: systemd has handed over no socket; start the exporter by a .socket unit"]
        )
    listeners: list[socket.socket] = []
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(number)):
        try:
            os.set_inheritable(descriptor, False)
            listener = socket.socket(fileno=descriptor)
            accepts = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            accepts = 0
        if not accepts:
            name = names.split(":")[descriptor - _FIRST_DESCRIPTOR] if names.count(":") == int(number) - 1 else ""
            unit = f" of {name}" if name.isprintable() and name else ""
            raise ConfigError(
                [
                    f"--web.systemd-socket: descriptor {descriptor}{unit} is not a socket that accepts connections;"
                    " the unit needs ListenStream=, and no Accept=yes"
                ]
            )
        if listener.family in {socket.AF_INET, socket.AF_INET6}:
            # As for the sockets that we open: see `listen`.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listeners.append(listener)
    return listeners


def shown(listener: socket.socket) -> str:
    """The address as `HOST:PORT`, or the path of a Unix socket."""
    if listener.family not in {socket.AF_INET, socket.AF_INET6}:
        return str(listener.getsockname())
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not re.fullmatch(r".*:[0-9]{1,5}", address) or int(port) > _LAST_PORT:
        raise ConfigError([f"--web.listen-address={address}: must have the form HOST:PORT"])
    try:
        return listen(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        # The standard library's words for it go on with " (while attempting to bind …".
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise ConfigError([f"--web.listen-address={address}: can't listen on this address: {reason}"]) from None
