"""Results of probes: readable errors, and degradation by latency."""

import asyncio
import contextlib
import socket
import ssl
from typing import Final

import h11
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result

MAX_ERROR_LENGTH: Final = 200
"""Maximum characters of an error in an event."""

CHUNK: Final = 16 * 1024
"""Bytes per read from a connection."""

_CLOSE_GRACE: Final = 0.5
"""Seconds for a connection to close."""


def failed(error: str, latency: float | None = None) -> Result:
    """Return a failed result with an error."""
    return Result(Outcome.FAILED, error[:MAX_ERROR_LENGTH], latency)


def answered(latency: float, degraded_above: float | None, expires: float | None = None) -> Result:
    """Return an ok result, or a degraded one above the latency limit; ``expires`` is in UNIX seconds."""
    if degraded_above is not None and latency > degraded_above:
        error = f"answered in {latency * 1000:.0f} ms; degraded above {degraded_above * 1000:.0f} ms"
        return Result(Outcome.DEGRADED, error, latency, expires)
    return Result(Outcome.OK, None, latency, expires)


def describe(error: Exception) -> str:
    """Describe an error for operators, without error numbers if there is a description."""
    # Subclasses come first: the errors of TLS and of name resolution are OSErrors, too.
    match error:
        case ConnectionRefusedError():
            text = "connection refused"
        case ConnectionResetError() | BrokenPipeError():
            text = "connection reset by the peer"
        case socket.gaierror():
            text = f"host name does not resolve: {error.strerror}"
        case ssl.SSLCertVerificationError():
            text = f"certificate rejected: {error.verify_message}"
        case ssl.SSLError():
            text = f"TLS failed: {error.reason}"
        case h11.RemoteProtocolError():
            text = f"response is not HTTP: {error}"
        case OSError(strerror=str(description)):
            text = description
        case _:
            text = str(error) or type(error).__name__
    return text[:MAX_ERROR_LENGTH]


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection; wait briefly for the peer."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_GRACE):
            await writer.wait_closed()
