"""Client addresses behind trusted proxies: ``Forwarded`` (RFC 7239) and ``X-Forwarded-For``.

The headers are read only from trusted peers, and only the entries that trusted proxies have added: from the
right, up to the first address that is not trusted. Entries further left may have been forged by the client.

If both headers are present, ``X-Forwarded-For`` takes precedence: nearly every proxy appends to it, and
passes ``Forwarded`` on as the client sent it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

MAX_HOPS: Final = 32
"""Maximum number of entries that are read from a header, from the right; further entries are ignored."""

# Addresses contain no commas or spaces, so an unclosed quote sent by a client cannot hide what a proxy added.
_FOR: Final = re.compile(r'\bfor\s*=\s*"?([^",;\s]*)', re.IGNORECASE)
_PROTO: Final = re.compile(r'\bproto\s*=\s*"?([a-z]+)', re.IGNORECASE)


class Networks:
    """Set of addresses and networks.

    Args:
        text: comma-separated addresses and networks in CIDR notation; empty for none.

    Raises:
        ValueError: an entry is neither an address nor a network.
    """

    def __init__(self, text: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            try:
                # Strict: an address with a mistyped prefix (10.0.0.1/3) would otherwise be a huge network.
                self._networks.append(ip_network(part))
            except ValueError:
                raise ValueError(
                    f"{part[:60]!r} is neither an address nor a network such as 10.0.0.0/8, whose bits after "
                    "the prefix are 0"
                ) from None
        # A cache, since this is called for each socket, mostly with the same few addresses.
        self._contains = lru_cache(4096)(self._matches)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and bool(self._networks) and self._contains(address)

    def _matches(self, address: str) -> bool:
        # ``Admission`` counts IPv6 clients by their /64 and passes that; its first address stands for it.
        parsed = _parse(address.partition("/")[0])
        return parsed is not None and any(parsed in network for network in self._networks)


def client_address(peer: str, headers: Iterable[tuple[str, str]], trusted: Networks) -> str:
    """Return the address of the client that sent a request.

    Args:
        peer: address of the socket.
        headers: names in lower case, and values, in order.
        trusted: proxies whose headers are trusted.

    Returns:
        The nearest address that is not a trusted proxy, or the peer's address if the headers contain none.
    """
    if peer not in trusted:
        return peer
    forwarded: list[str] = []
    x_forwarded_for: list[str] = []
    for name, value in headers:
        if name == "forwarded":
            forwarded += _FOR.findall(value)
        elif name == "x-forwarded-for":
            x_forwarded_for += [part.strip() for part in value.split(",")]
    client = peer
    for hop in reversed((x_forwarded_for or forwarded)[-MAX_HOPS:]):
        address = _without_port(hop)
        if _parse(address) is None:
            break  # "unknown" or an obfuscated identifier: earlier hops cannot be trusted
        client = address
        if client not in trusted:
            break
    return client


def is_https(scheme: str, peer: str, headers: Iterable[tuple[str, str]], trusted: Networks) -> bool:
    """Return whether the client's own connection, to the relay or to a trusted proxy, is encrypted."""
    if scheme == "https":
        return True
    if peer not in trusted:
        return False
    for name, value in headers:
        # The last entry is that of the nearest proxy, the only one that is known to be trusted.
        if name == "x-forwarded-proto":
            return value.split(",")[-1].strip().lower() in ("https", "wss")
        if name == "forwarded" and (protocols := _PROTO.findall(value)):
            return str(protocols[-1]).lower() in ("https", "wss")
    return False


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    # Several colons without brackets are an IPv6 address without a port.
    return text.partition(":")[0] if text.count(":") == 1 else text


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families reports IPv4 clients as ::ffff:a.b.c.d.
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
