"""Addresses on which syslog is received: ``udp://``, ``tcp://``, ``tls://`` and ``relp://``."""

import ipaddress
from dataclasses import dataclass
from typing import Final, Literal, cast
from urllib.parse import urlsplit

Transport = Literal["udp", "tcp", "tls", "relp"]
"""Protocol of an address."""

_PORTS: Final = {"udp": 514, "tcp": 514, "tls": 6514, "relp": 2514}
"""Standard port of each protocol; RELP has only a common one."""


@dataclass(frozen=True, slots=True)
class SyslogAddress:
    """Address to listen on.

    Attributes:
        transport: protocol.
        host: name or address of this machine.
        port: port; 0 for a free one.
    """

    transport: Transport
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the address, and no certificate protects it."""
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        return not loopback and self.transport != "tls"


def parse_address(text: str) -> SyslogAddress:
    """Read an address, such as ``udp://127.0.0.1:5514``.

    Raises:
        ValueError: it is not one.
    """
    expected = "an address such as udp://127.0.0.1:5514, tcp://…, tls://… or relp://…"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not {expected}") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path or parts.query or parts.username:
        raise ValueError(f"{text!r} is not {expected}")
    transport = cast(Transport, parts.scheme)
    return SyslogAddress(transport, parts.hostname, _PORTS[transport] if port is None else port)
