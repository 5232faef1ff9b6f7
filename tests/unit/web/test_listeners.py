"""Addresses to listen on: which can be had, and what is said of the others."""

import pytest

from exporter.settings.reader import ConfigError
from exporter.web.listeners import listen_on


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "must have the form HOST:PORT"),
        ("localhost", "must have the form HOST:PORT"),
        ("localhost:http", "must have the form HOST:PORT"),
        ("127.0.0.1:", "must have the form HOST:PORT"),
        ("127.0.0.1:65536", "must have the form HOST:PORT"),
        ("192.0.2.1:0", "can't listen on this address: Cannot assign requested address"),
    ],
)
def test_an_address_that_can_not_be_had(address: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        listen_on([address])
    assert raised.value.mistakes == [f"--web.listen-address={address}: {reason}"]


@pytest.mark.parametrize("address", [":0", "127.0.0.1:0", "[::1]:0", "localhost:0"])
def test_an_address_that_can_be_had(address: str) -> None:
    (listener,) = listen_on([address])
    with listener:
        assert listener.getsockname()[1]
