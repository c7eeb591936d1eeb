"""Resolution of a host name to all of its addresses, so that a program listens on each of them."""

import errno
import socket
from typing import Any, Final

from tickertape.net.outgoing import resolve_blocking

_LOOPBACK: Final = ("127.0.0.1", "::1")
"""Addresses of ``localhost`` (RFC 6761, 6.3), regardless of the hosts file: browsers try both."""

_UNAVAILABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})

Address = tuple[socket.AddressFamily, Any]
"""Address family and the argument of ``bind``."""


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host name without duplicates, IPv4 first.

    Raises:
        OSError: the name has no address.
    """
    hosts = _LOOPBACK if host.lower().rstrip(".") == "localhost" else (host,)
    found: dict[tuple[socket.AddressFamily, str], Address] = {}
    failure: OSError | None = None
    for name in hosts:
        try:
            results = resolve_blocking(name, port)
        except OSError as error:
            failure = error
            continue
        for family, _, _, _, address in results:
            found.setdefault((family, str(address[0])), (family, address))
    if not found:
        assert failure is not None
        raise failure
    return sorted(found.values(), key=lambda entry: entry[0] != socket.AF_INET)


def is_unavailable(error: OSError) -> bool:
    """Return whether the address does not exist on this machine, for example because IPv6 is disabled."""
    return error.errno in _UNAVAILABLE
