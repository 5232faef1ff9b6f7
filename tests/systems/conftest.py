"""What tests of all systems share."""

import os
import socket
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust none of the system's: to read them all takes most of the time of a test."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


@pytest.fixture
def closed_port() -> Iterator[socket.socket]:
    """A port of ours on which nothing listens yet: connections to it are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound
