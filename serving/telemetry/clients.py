"""Who is asking: the address that the trusted proxies saw, which no header of the client can change."""

import ipaddress
from functools import lru_cache

from starlette.types import Scope


def client_address(scope: Scope, trusted_proxies: int) -> str:
    """Address of the client, `unknown` if the server does not know it (a unix socket).

    Args:
        scope: an ASGI HTTP scope whose `client` is the TCP peer.
        trusted_proxies: how many proxies of ours stand in front. Each appends the address it saw to
            `X-Forwarded-For`, so the client is that many entries from the right; what stands further left was sent
            by the client itself and is ignored. With 0 the header is ignored.
    """
    peer: str = scope["client"][0] if scope.get("client") else "unknown"
    if trusted_proxies < 1:
        return peer
    hops = [
        hop.strip()
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ]
    if len(hops) < trusted_proxies:
        return peer
    return _address(hops[-trusted_proxies]) or peer


@lru_cache(maxsize=4096)
def bucket(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 network that an IPv6 customer holds as a whole."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _address(hop: str) -> str | None:
    """The address in `1.2.3.4`, `1.2.3.4:80`, `::1` or `[::1]:80`."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return None
