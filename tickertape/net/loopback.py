"""Address on which programs of this machine reach one another, where no address is configured.

It is 127.0.0.1, as everywhere in the documentation, except on machines that have IPv6 only. It is determined
once, at import: defaults of settings are constants.
"""

import socket
from typing import Final

from tickertape.urls import host_port

IPV4: Final = "127.0.0.1"
IPV6: Final = "::1"


def find_loopback() -> str:
    """Return 127.0.0.1, or ::1 if this machine has only the latter."""
    return IPV6 if not _exists(socket.AF_INET, IPV4) and _exists(socket.AF_INET6, IPV6) else IPV4


def _exists(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


LOOPBACK: Final = find_loopback()
"""Default address of ports that only this machine can reach, and of the servers that programs connect to."""


def loopback_url(scheme: str, port: int, path: str = "") -> str:
    """Return the URL of a server on this machine."""
    return f"{scheme}://{host_port(LOOPBACK, port)}{path}"
