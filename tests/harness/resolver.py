"""Instead of a name server, which a test can't have: the resolver of a command, that does what a file says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

NAME: Final = "upstream.invalid"
"""The name that it knows: of loopback, while it works."""

_STARTED_WITH_PYTHON: Final = """
import socket, time
from pathlib import Path

mode = Path(__file__).with_name("mode")
look_up = socket.getaddrinfo

def getaddrinfo(host, *more, **named):
    if host in {NAME, NAME.encode()}:
        # As a resolver does that asks again each second, but it never gives up.
        while mode.read_text() == "hangs":
            time.sleep(1)
        if mode.read_text() != "works":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        host = "127.0.0.1"
    return look_up(host, *more, **named)

socket.getaddrinfo = getaddrinfo
"""


class Resolver:
    """It works from the start; what it can do with a name instead is to say that there is none, or to hang."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(f"NAME = {NAME!r}\n{_STARTED_WITH_PYTHON}")
        self._mode = folder / "mode"
        self.env: Mapping[str, str] = {"PYTHONPATH": str(folder)}
        """What makes a command look names up here."""
        self.do("works")

    def do(self, what: Literal["works", "fails", "hangs"]) -> None:
        """Do this from now on."""
        new = self._mode.with_suffix(".new")
        new.write_text(what)
        new.replace(self._mode)
