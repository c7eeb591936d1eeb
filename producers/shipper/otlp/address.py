"""Address on which OpenTelemetry logs are received: ``HOST:PORT``."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tickertape.urls import host_port, is_loopback

DEFAULT_PORT: Final = 4318
"""Standard port of OTLP/HTTP."""


@dataclass(frozen=True, slots=True)
class OtlpAddress:
    """Address to listen on.

    Attributes:
        host: name or address of this machine.
        port: port; 0 for a free one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return host_port(self.host, self.port)

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the address."""
        return not is_loopback(self.host)


def parse_address(text: str) -> OtlpAddress:
    """Read an address, such as ``127.0.0.1:4318``.

    Raises:
        ValueError: it is not one.
    """
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit("//"), None
    if not parts.hostname or parts.netloc != text or parts.username is not None:
        raise ValueError(f"{text!r} is not an address such as 127.0.0.1:{DEFAULT_PORT}")
    return OtlpAddress(parts.hostname, DEFAULT_PORT if port is None else port)
