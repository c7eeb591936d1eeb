"""Detection of the protocol that a port speaks, to explain why a connection to it has failed.

The result explains an error; nothing else depends on it. Nothing secret is sent.
"""

import asyncio
import contextlib
import ssl
from enum import StrEnum
from typing import Final

from tickertape.net.outgoing import open_connection

_GREETING_TIMEOUT: Final = 0.3
"""Seconds for a greeting, which a NATS server sends without being asked."""

_TIMEOUT: Final = 1.0
"""Seconds for each question."""

_MAX_BYTES: Final = 64
"""Bytes that are read of a reply."""

_REQUEST: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class PortProtocol(StrEnum):
    """Protocol of a port."""

    NATS = "NATS"
    TLS = "TLS"
    HTTP = "HTTP"


async def detect_protocol(host: str, port: int) -> PortProtocol | None:
    """Return the protocol that a port speaks; None if it is unknown or the port is closed."""
    # TLS before HTTP, because servers with TLS may answer a plain request with an error in plain HTTP.
    for protocol, ask in (
        (PortProtocol.NATS, _sends_info),
        (PortProtocol.TLS, _accepts_tls),
        (PortProtocol.HTTP, _answers_http),
    ):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_TIMEOUT):
                if await ask(host, port):
                    return protocol
    return None


async def _sends_info(host: str, port: int) -> bool:
    reader, writer = await open_connection(host, port)
    try:
        async with asyncio.timeout(_GREETING_TIMEOUT):
            return (await reader.read(_MAX_BYTES)).startswith(b"INFO ")
    finally:
        writer.transport.abort()


async def _accepts_tls(host: str, port: int) -> bool:
    # Only the protocol matters, so any certificate will do.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await open_connection(host, port, tls=context)
    writer.transport.abort()
    return True


async def _answers_http(host: str, port: int) -> bool:
    reader, writer = await open_connection(host, port)
    try:
        writer.write(_REQUEST)
        return (await reader.read(_MAX_BYTES)).startswith(b"HTTP/1.")
    finally:
        writer.transport.abort()


__all__ = ["PortProtocol", "detect_protocol"]
