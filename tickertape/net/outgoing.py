"""Outgoing connections and their errors, which name the phase that failed: the name, the connection, or TLS.

Invariant: the caller's deadline covers all phases; cancelling a caller abandons the look-up of the name and
closes the connection. ``describe_timeout`` tells the phase in which a deadline has passed.
"""

import asyncio
import contextlib
import errno
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing import Final

from tickertape.errors import TickertapeError
from tickertape.net.happy_eyeballs import ConnectionFailed, connect_first
from tickertape.net.resolver import InvalidHostName, Resolver, Results, parse_numeric, with_port

BLOCKING_TIMEOUT: Final = 10.0
"""Seconds that a program without an event loop waits for a look-up."""

STREAM_LIMIT: Final = 64 * 1024
"""Bytes that a connection buffers before it stops reading from the socket."""

_NO_NAME: Final = "name did not resolve"
_NO_CONNECTION: Final = "no connection"
_NO_TLS: Final = "no TLS handshake"

_ALERT: Final = re.compile("^(?:TLSV|SSLV).*_ALERT_(.+)$")
"""Reason of an error of OpenSSL for an alert that the peer sent."""

_resolver: Final = Resolver()


async def connect(host: str, port: int) -> socket.socket:
    """Connect a socket to the first address of a host that accepts the connection.

    Raises:
        OSError: the name does not resolve, or no address accepts the connection.
    """
    if (numeric := parse_numeric(host, port)) is not None:
        with _phase(_NO_CONNECTION):
            return await connect_first(numeric)
    with _phase(_NO_NAME):
        addresses, current = await _resolver.resolve(host)
    with _phase(_NO_CONNECTION):
        try:
            return await connect_first(with_port(addresses, port))
        except OSError as error:
            if current:
                raise
            failure = error
        # The host may have moved since its last address was looked up.
        try:
            newer, _ = await _resolver.resolve(host, last=False)
        except OSError as error:
            text = f"{describe_failure(failure)} at its last known address; {describe_failure(error)}"
            raise ConnectionFailed(text, failure.errno) from None
        if {address[4] for address in newer} <= {address[4] for address in addresses}:
            raise failure
        return await connect_first(with_port(newer, port))


def connect_blocking(host: str, port: int, seconds: float) -> socket.socket:
    """Connect like ``connect``, in a thread without an event loop.

    Returns:
        a blocking socket.

    Raises:
        OSError: the name does not resolve, or no address accepts the connection in time.
    """

    async def work() -> socket.socket:
        async with deadline(seconds):
            return await connect(host, port)

    sock = asyncio.run(work())
    sock.setblocking(True)
    return sock


async def open_connection(
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
    limit: int = STREAM_LIMIT,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream to a host, as ``asyncio.open_connection`` does.

    Args:
        host, port: address of the peer.
        tls: TLS context; None for a plain connection.
        server_name: name that the certificate must be valid for; None for ``host``.
        limit: bytes that are buffered.

    Raises:
        OSError: the connection or the TLS handshake failed.
    """
    sock = await connect(host, port)
    try:
        with handshake_phase() if tls else contextlib.nullcontext():
            return await asyncio.open_connection(
                sock=sock,
                ssl=tls,
                server_hostname=tls_name(server_name or host) if tls else None,
                limit=limit,
            )
    except BaseException:
        sock.close()
        raise


async def resolve(host: str, port: int) -> Results:
    """Return the addresses of a host for a connection.

    Raises:
        OSError: the name does not resolve.
    """
    if (numeric := parse_numeric(host, port)) is not None:
        return numeric
    with _phase(_NO_NAME):
        return with_port((await _resolver.resolve(host))[0], port)


def resolve_blocking(host: str, port: int, seconds: float = BLOCKING_TIMEOUT) -> Results:
    """Return the addresses like ``resolve``, without an event loop.

    Raises:
        OSError: the name does not resolve; TimeoutError if that takes too long.
    """
    if (numeric := parse_numeric(host, port)) is not None:
        return numeric
    try:
        return with_port(look_up(host).result(seconds), port)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"look-up of {host!r} took more than {seconds:g} s") from None


def count_outdated_names() -> int:
    """Return the number of names whose last addresses are used, because their look-ups hang or fail."""
    return _resolver.count_outdated()


def look_up(host: str) -> "Future[Results]":
    """Start the look-up of a host name in a thread, or join one that is in progress.

    Returns:
        the addresses, or an OSError; it cannot be cancelled, but it can be abandoned.
    """
    return _resolver.look_up(host)


@contextlib.asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """End a block that connects when its time is up; the TimeoutError says what has not happened."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, describe_timeout(error, seconds)) from error.__cause__


@contextlib.contextmanager
def handshake_phase() -> Iterator[None]:
    """Add the phase to the errors of a TLS handshake."""
    with _phase(_NO_TLS):
        try:
            yield
        except ssl.SSLError:
            raise
        except ConnectionError as error:
            # Without a number, the peer has closed the connection in an orderly manner.
            reason = describe_failure(error) if error.errno else "the peer closed the connection"
            raise ConnectionFailed(f"TLS failed: {reason}", error.errno or errno.ECONNRESET) from None


@contextlib.contextmanager
def _phase(failure: str) -> Iterator[None]:
    """Add a phase to the cancellation that ends it."""
    try:
        yield
    except asyncio.CancelledError as error:
        error.add_note(failure)
        raise


def tls_name(host: str) -> str:
    """Return the name of a host in certificates, which never have the dot at the end of an absolute name."""
    return host.removesuffix(".")


class PlainTextError(TickertapeError, ConnectionError):
    """Error for text that a peer sent without TLS, and that would count as received over TLS.

    Attributes:
        received: beginning of the text.
    """

    def __init__(self, received: bytes) -> None:
        super().__init__("the peer sent plain text before TLS began")
        self.received = received


async def start_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext, server_name: str
) -> None:
    """Start TLS on a plain connection.

    Args:
        reader, writer: stream of the connection.
        tls: TLS context.
        server_name: name that the certificate must be valid for.

    Raises:
        PlainTextError: the peer has sent more than was read, as another host on the way could have done.
        OSError: the TLS handshake failed.
    """
    await writer.drain()  # so that nothing suspends, and no text is received, after the next line
    if received := _read_buffered(reader):
        raise PlainTextError(received)
    with handshake_phase():
        await writer.start_tls(tls, server_hostname=tls_name(server_name))


def _read_buffered(reader: asyncio.StreamReader, size: int = 256) -> bytes:
    """Return bytes that have been received and not read, without waiting for any."""
    reading = reader.read(size)
    try:
        reading.send(None)
    except StopIteration as done:
        received: bytes = done.value
        return received
    reading.close()
    return b""


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write data to a connection.

    Raises:
        ConnectionResetError: the connection is closed. uvloop raises RuntimeError then, which callers of a
            socket do not expect.
    """
    try:
        writer.write(data)
    except RuntimeError as error:
        raise ConnectionResetError("connection lost") from error


def describe_timeout(error: TimeoutError, seconds: float, otherwise: str = "no response") -> str:
    """Describe a deadline that has passed, with the phase of the connection that it has ended.

    Args:
        error: raised by ``asyncio.timeout``, or by the connection.
        seconds: the deadline.
        otherwise: description if the connection was established.
    """
    if error.strerror:  # of the operating system, or described already
        return describe_failure(error)
    notes: list[str] = getattr(error.__cause__, "__notes__", [])
    return f"{notes[0] if notes else otherwise} within {seconds:g} s"


def describe_failure(error: BaseException) -> str:
    """Describe a failed connection for operators, without error numbers if there is a description."""
    # Subclasses come first: the errors of TLS and of name resolution are OSErrors, too.
    match error:
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionResetError(errno=errno.ECONNRESET) | BrokenPipeError():
            return "connection reset by the peer"
        case socket.gaierror():
            return f"host name does not resolve: {error.strerror}"
        case ssl.SSLCertVerificationError():
            return f"certificate rejected: {error.verify_message}"
        case ssl.SSLError(reason=str(reason)) if (alert := _ALERT.search(reason)) is not None:
            return f"TLS failed: the peer sent the alert '{alert[1].replace('_', ' ').lower()}'"
        case ssl.SSLError():
            return f"TLS failed: {error.reason}"
        case OSError(strerror=str(description)):
            return description
        case _:
            return str(error) or type(error).__name__


__all__ = [
    "InvalidHostName",
    "PlainTextError",
    "connect",
    "connect_blocking",
    "count_outdated_names",
    "deadline",
    "describe_failure",
    "describe_timeout",
    "handshake_phase",
    "look_up",
    "open_connection",
    "resolve",
    "resolve_blocking",
    "start_tls",
    "tls_name",
    "write",
]
