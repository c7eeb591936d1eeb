"""Who a client is behind proxies that are trusted: ``Forwarded`` (RFC 7239) and ``X-Forwarded-For``.

Only a trusted peer's header is read, and of it only what trusted proxies have added: from the right, up to
the first address that is not trusted. What stands further left was written by the client itself.

Where both are there, ``X-Forwarded-For`` counts: nearly every proxy adds to it, and passes the other on as
the client wrote it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

MAX_HOPS: Final = 32
"""Proxies that a header may name; more of them are passed over."""

# No address has a comma or a space: a quote that a client left open cannot hide what a proxy added behind it.
_FOR: Final = re.compile(r'\bfor\s*=\s*"?([^",;\s]*)', re.IGNORECASE)
_PROTO: Final = re.compile(r'\bproto\s*=\s*"?([a-z]+)', re.IGNORECASE)


class Networks:
    """A set of addresses and networks.

    Args:
        text: addresses and networks in CIDR form, with commas; empty for none.

    Raises:
        ValueError: one of them is none.
    """

    def __init__(self, text: str) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            try:
                self._networks.append(ip_network(part, strict=False))
            except ValueError:
                raise ValueError(
                    f"{part[:60]!r} is neither an address nor a network such as 10.0.0.0/8"
                ) from None
        # A door asks for each socket; the same few addresses come again and again.
        self._has = lru_cache(4096)(self._look)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: object) -> bool:
        return isinstance(address, str) and bool(self._networks) and self._has(address)

    def _look(self, address: str) -> bool:
        parsed = _parsed(address.partition("/")[0])
        return parsed is not None and any(parsed in network for network in self._networks)


def client_address(peer: str, headers: Iterable[tuple[str, str]], trusted: Networks) -> str:
    """The address of the client that a request comes from.

    Args:
        peer: address of the socket.
        headers: names in lower case, and values; in order.
        trusted: proxies whose word counts.

    Returns:
        the nearest address that is not a trusted proxy's; the peer's when nothing says more.
    """
    if peer not in trusted:
        return peer
    hops: list[str] = []
    plain: list[str] = []
    for name, value in headers:
        if name == "forwarded":
            hops += _FOR.findall(value)
        elif name == "x-forwarded-for":
            plain += [part.strip() for part in value.split(",")]
    client = peer
    for hop in reversed((plain or hops)[-MAX_HOPS:]):
        address = _without_port(hop)
        if _parsed(address) is None:
            break  # "unknown", or an obfuscated name: who came before it cannot be told
        client = address
        if client not in trusted:
            break
    return client


def is_https(scheme: str, peer: str, headers: Iterable[tuple[str, str]], trusted: Networks) -> bool:
    """Tell whether a client's own connection is encrypted: ours, or that to a trusted proxy."""
    if scheme == "https":
        return True
    if peer not in trusted:
        return False
    for name, value in headers:
        if name == "x-forwarded-proto":
            return value.split(",")[-1].strip().lower() in ("https", "wss")
        if name == "forwarded" and (found := _PROTO.findall(value)):
            return str(found[-1]).lower() in ("https", "wss")
    return False


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
