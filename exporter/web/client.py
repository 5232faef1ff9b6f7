"""The client of a request: with which others it counts as one where each gets a share, and when it has gone."""

import ipaddress

from starlette.types import Receive


def network(host: str) -> str:
    """Return the address; of an IPv6 address its /64, which is the least that one client has to choose from."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a test's own, or a socket without addresses
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


async def gone(receive: Receive) -> None:
    """Wait until the client has gone. Nobody else asks for what it sends: no route has a use for a body."""
    while (await receive())["type"] != "http.disconnect":
        pass
