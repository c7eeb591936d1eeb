"""The probes: one look at a gateway over TCP or HTTP, each with a hard limit of time.

Invariants:

1. ``run`` always returns within the probe's limit; what goes wrong out there is a result, no exception.
2. Nothing that a peer sends can make it hold more than a named bound of memory.
3. Every connection is closed when ``run`` returns.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import h11

from producers.monitor.config import Check, HttpProbe, TcpProbe, parse_address
from producers.monitor.health import Outcome, Result

MAX_BODY_BYTES: Final = 64 * 1024
"""Body of an answer that is read; a health page is small, and the rest says nothing more."""

MAX_ERROR_LENGTH: Final = 200
"""Characters of an error's text in an event."""

_CLOSE_GRACE: Final = 0.5
_CHUNK: Final = 16 * 1024


async def run(check: Check) -> Result:
    """Probe once.

    Args:
        check: ``timeout`` is for connecting and answering; ``hold`` comes on top.
    """
    probe = check.probe
    try:
        if isinstance(probe, TcpProbe):
            return await _tcp(probe, check.timeout)
        return await _http(probe, check.timeout)
    except TimeoutError:
        return Result(Outcome.FAILED, f"no answer within {check.timeout:g} s")
    except (OSError, h11.RemoteProtocolError, ssl.SSLError) as error:
        return Result(Outcome.FAILED, describe(error))


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


async def _tcp(probe: TcpProbe, limit: float) -> Result:
    host, port = parse_address(probe.address)
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.timeout(limit):
        reader, writer = await asyncio.open_connection(host, port, limit=_CHUNK)
    connected = clock()
    latency = connected - began
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(probe.hold):
                # What the peer says is of no interest; only that it does not hang up.
                while await reader.read(_CHUNK):
                    pass
                held = clock() - connected
                error = f"peer closed the connection after {held:.1f} s; it must hold {probe.hold:g} s"
                return Result(Outcome.FAILED, error, latency)
        return Result(Outcome.OK, None, latency)
    finally:
        await _close(writer)


async def _http(probe: HttpProbe, limit: float) -> Result:
    url = urlsplit(probe.url)
    tls = url.scheme == "https"
    host = url.hostname or ""
    port = url.port or (443 if tls else 80)
    clock = asyncio.get_running_loop().time
    began = clock()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=_tls() if tls else None, limit=_CHUNK
            )
            status = await _ask(reader, writer, probe.method, _target(probe.url), url.netloc)
    finally:
        if writer is not None:
            await _close(writer)
    latency = clock() - began
    if status != probe.status:
        return Result(Outcome.FAILED, f"answered {status}, wanted {probe.status}", latency)
    if probe.degraded_above is not None and latency > probe.degraded_above:
        error = f"answered in {latency * 1000:.0f} ms; more than {probe.degraded_above * 1000:.0f} ms is slow"
        return Result(Outcome.DEGRADED, error, latency)
    return Result(Outcome.OK, None, latency)


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str, host: str
) -> int:
    """Send one request, read its answer to the end or to the bound; return the status."""
    http = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", host),
        ("User-Agent", "tickertape-monitor"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ]
    if method == "POST":
        headers.append(("Content-Length", "0"))
    writer.write(http.send(h11.Request(method=method, target=target, headers=headers)) or b"")
    writer.write(http.send(h11.EndOfMessage()) or b"")
    await writer.drain()
    status = 0
    body = 0
    while body <= MAX_BODY_BYTES:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_CHUNK)
            if not data and not status:
                raise ConnectionAbortedError(errno.ECONNABORTED, "peer closed without an answer")
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += len(event.data)
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)) or event is h11.PAUSED:
            break
    return status


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CLOSE_GRACE):
            await writer.wait_closed()
