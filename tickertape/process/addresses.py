"""Where a program of ours listens: all addresses that a name stands for, not the first of them."""

import errno
import socket
from typing import Any, Final

_LOOPBACK: Final = ("127.0.0.1", "::1")
"""What ``localhost`` is (RFC 6761, 6.3), whatever the resolver's file says: browsers try both."""

_UNAVAILABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})

Address = tuple[socket.AddressFamily, Any]
"""Family, and what ``bind`` takes."""


def resolve(host: str, port: int) -> list[Address]:
    """Look up the addresses that a name stands for, each once, IPv4 first.

    Raises:
        OSError: there is none.
    """
    hosts = _LOOPBACK if host.lower().rstrip(".") == "localhost" else (host,)
    found: dict[tuple[socket.AddressFamily, str], Address] = {}
    refused: OSError | None = None
    for one in hosts:
        try:
            answers = socket.getaddrinfo(one, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            refused = error
            continue
        except UnicodeError as error:
            # An empty label, or one of more than 63 bytes, does not get as far as the resolver.
            refused = OSError(errno.EINVAL, f"not a host name: {error.__cause__ or error}")
            continue
        for family, _, _, _, address in answers:
            found.setdefault((family, str(address[0])), (family, address))
    if not found:
        assert refused is not None
        raise refused
    return sorted(found.values(), key=lambda one: one[0] != socket.AF_INET)


def is_unavailable(error: OSError) -> bool:
    """Tell whether this machine just has not that address, as where IPv6 is switched off."""
    return error.errno in _UNAVAILABLE
