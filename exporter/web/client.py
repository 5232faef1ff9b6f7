"""Which clients count as one where each gets a share."""

import ipaddress


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
