"""Connections to a host with several addresses, as RFC 8305 ("Happy Eyeballs") describes them.

An address that does not answer delays the connection by ``ATTEMPT_DELAY``, not by the time-out of TCP.
"""

import asyncio
import errno
import os
import socket
from itertools import chain, zip_longest
from typing import Any, Final

from tickertape.errors import TickertapeError
from tickertape.net.resolver import Results

ATTEMPT_DELAY: Final = 0.25
"""Seconds until the next address is tried while the previous ones have not answered (RFC 8305, section 5)."""

_UNUSABLE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
"""Errors for which this machine lacks the address family; they do not concern the peer."""

Address = tuple[socket.AddressFamily, int, int, str, Any]


class ConnectionFailed(TickertapeError, OSError):
    """Failure of a connection for a reason that the system has no text for, such as several reasons.

    Args:
        reason: what failed.
        number: error number of the system that comes closest.
    """

    def __init__(self, reason: str, number: int | None) -> None:
        super().__init__(reason)
        self.errno = number


async def connect_first(addresses: Results) -> socket.socket:
    """Connect a socket to one of several addresses: the first connection counts, the others are closed.

    Raises:
        OSError: no address accepts the connection; the error has the reasons of all of them.
    """
    waiting = interleave(addresses)
    if len(waiting) == 1:
        return await _connect(waiting[0])
    failures: list[tuple[str, OSError]] = []
    attempts: dict[asyncio.Task[socket.socket], str] = {}
    try:
        while waiting or attempts:
            if waiting:
                address = waiting.pop(0)
                attempts[asyncio.create_task(_connect(address))] = str(address[4][0])
            done, _ = await asyncio.wait(
                attempts,
                timeout=ATTEMPT_DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            # In the order of the addresses.
            for attempt in [attempt for attempt in attempts if attempt in done]:
                failure = attempt.exception()
                if failure is None:
                    del attempts[attempt]
                    return attempt.result()
                if not isinstance(failure, OSError):
                    raise failure
                failures.append((attempts.pop(attempt), failure))
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close)
    raise _combine(failures)


def interleave(addresses: Results) -> list[Address]:
    """Return addresses with alternating families, in which the order of each family is kept."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain(*zip_longest(*families.values())) if address is not None]


async def _connect(address: Address) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except OSError as error:
        sock.close()
        # asyncio puts the address in place of the description, which callers add in their own form.
        raise OSError(error.errno, os.strerror(error.errno)) if error.errno else error from None
    except BaseException:
        sock.close()
        raise
    return sock


def _close(attempt: "asyncio.Task[socket.socket]") -> None:
    """Close the connection of an attempt that succeeded too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def _combine(failures: list[tuple[str, OSError]]) -> OSError:
    """Return one error for the failures of all addresses."""
    if not failures:
        return OSError(errno.EADDRNOTAVAIL, "host has no address")
    relevant = [entry for entry in failures if entry[1].errno not in _UNUSABLE] or failures
    last = relevant[-1][1]
    if all(failure.errno == last.errno for _, failure in relevant):
        return last
    text = "; ".join(
        f"{address}: {(failure.strerror or str(failure)).lower()}" for address, failure in relevant
    )
    return ConnectionFailed(text, last.errno)
