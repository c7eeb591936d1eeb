"""What a probe makes of what it met: errors in words for people, and slowness."""

import asyncio
import contextlib
import socket
import ssl
from typing import Final

import h11
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result

MAX_ERROR_LENGTH: Final = 200
"""Characters of an error's text in an event."""

CHUNK: Final = 16 * 1024
_CLOSE_GRACE: Final = 0.5


def failed(error: str, latency: float | None = None) -> Result:
    """A result that says what went wrong."""
    return Result(Outcome.FAILED, error[:MAX_ERROR_LENGTH], latency)


def answered(latency: float, degraded_above: float | None, expires: float | None = None) -> Result:
    """A result of a gateway that is there, perhaps too slowly; ``expires`` is in UNIX seconds."""
    if degraded_above is not None and latency > degraded_above:
        error = f"answered in {latency * 1000:.0f} ms; more than {degraded_above * 1000:.0f} ms is slow"
        return Result(Outcome.DEGRADED, error, latency, expires)
    return Result(Outcome.OK, None, latency, expires)


def describe(error: Exception) -> str:
    """An error in words for people, without numbers of the operating system where it has words."""
    match error:
        case ConnectionRefusedError():
            text = "connection refused"
        case ConnectionResetError() | BrokenPipeError():
            text = "connection reset by the peer"
        case socket.gaierror():
            text = f"host name does not resolve: {error.strerror}"
        case ssl.SSLCertVerificationError():
            text = f"certificate refused: {error.verify_message}"
        case ssl.SSLError():
            text = f"TLS failed: {error.reason}"
        case h11.RemoteProtocolError():
            text = f"answer is no HTTP: {error}"
        case OSError(strerror=str(words)):
            text = words
        case _:
            text = str(error) or type(error).__name__
    return text[:MAX_ERROR_LENGTH]


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, without waiting long for a peer that does not."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_GRACE):
            await writer.wait_closed()
