"""Outgoing connections, the resolution of host names for them, and their errors.

Invariants:

1. The caller's deadline covers the look-up of the name, too: cancelling it abandons the look-up.
2. A look-up that hangs does not delay the end of the process, and at most ``MAX_LOOKUPS`` run concurrently.
   Look-ups of the same name share one thread.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from tickertape.errors import TickertapeError
from tickertape.net.daemon_pool import DaemonPool

MAX_LOOKUPS: Final = 64
"""Concurrent look-ups of different names."""

LOOKUP_TIMEOUT: Final = 10.0
"""Seconds that a program without an event loop waits for a look-up."""

STREAM_LIMIT: Final = 64 * 1024
"""Bytes that a connection buffers before it stops reading from the socket."""


class InvalidHostName(TickertapeError, OSError):
    """Error of a text that can never be the name of a host."""


Results = Sequence[tuple[socket.AddressFamily, int, int, str, Any]]
"""Addresses as ``socket.getaddrinfo`` returns them."""

_pool: Final = DaemonPool(MAX_LOOKUPS, "resolve")
_pending: Final[dict[tuple[str, int], "Future[Results]"]] = {}


async def connect(host: str, port: int) -> socket.socket:
    """Connect a socket to the first address of a host that accepts the connection.

    Raises:
        OSError: the name does not resolve, or no address accepts the connection.
    """
    loop = asyncio.get_running_loop()
    failure = OSError(errno.EADDRNOTAVAIL, f"host {host!r} has no address")
    for family, kind, protocol, _, address in await resolve(host, port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


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
        return await asyncio.open_connection(
            sock=sock, ssl=tls, server_hostname=(server_name or host) if tls else None, limit=limit
        )
    except BaseException:
        sock.close()
        raise


async def resolve(host: str, port: int) -> Results:
    """Return the addresses of a host for a connection.

    Raises:
        OSError: the name does not resolve.
    """
    if (numeric := _parse_numeric(host, port)) is not None:
        return numeric
    return await asyncio.wrap_future(look_up(host, port))


def resolve_blocking(host: str, port: int, seconds: float = LOOKUP_TIMEOUT) -> Results:
    """Return the addresses like ``resolve``, without an event loop.

    Raises:
        OSError: the name does not resolve; TimeoutError if that takes too long.
    """
    if (numeric := _parse_numeric(host, port)) is not None:
        return numeric
    try:
        return look_up(host, port).result(seconds)
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"look-up of {host!r} took more than {seconds:g} s") from None


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
        case ssl.SSLError():
            return f"TLS failed: {error.reason}"
        case OSError(strerror=str(description)):
            return description
        case _:
            return str(error) or type(error).__name__


def look_up(host: str, port: int) -> "Future[Results]":
    """Start the look-up of a host name in a thread, or join one that is in progress.

    Returns:
        the addresses, or an OSError; it cannot be cancelled, but it can be abandoned.
    """
    key = (host, port)
    # Two threads may miss each other's look-up here, which only costs a second one.
    if (pending := _pending.get(key)) is not None:
        return pending
    try:
        future = _pool.submit(_get_addresses, host, port)
    except RuntimeError:
        # While the interpreter exits, no thread can start; a publisher still sends its last events then.
        future = Future()
        try:
            future.set_result(_get_addresses(host, port))
        except OSError as error:
            future.set_exception(error)
        return future
    _pending[key] = future
    future.add_done_callback(lambda _: _pending.pop(key, None))
    return future


def _get_addresses(host: str, port: int) -> Results:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        # The IDNA codec rejects empty labels and labels over 63 bytes before the resolver is called.
        raise InvalidHostName(f"not a host name: {error.__cause__ or error}") from None


def _parse_numeric(host: str, port: int) -> Results | None:
    """Return the address in a text, which needs no look-up; None for a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return None


os.register_at_fork(after_in_child=_pending.clear)
