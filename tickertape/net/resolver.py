"""Resolution of host names in threads: a name that hangs delays no other one.

``socket.getaddrinfo`` is called, not a DNS library, because that would ignore the sources of names that the
machine is configured for: the hosts file, mDNS, systemd-resolved, LDAP. A call cannot be interrupted, but it
keeps one thread only.

Invariants:

1. All look-ups of a name share one call. At most ``MAX_LOOKUPS`` calls run concurrently; names that hung, or
   that were never looked up, use at most ``MAX_SUSPECTS`` of them, so that the others are never delayed.
2. The last addresses of a name are used for ``LAST_ADDRESS_SECONDS`` while its look-ups hang or fail. A name
   that does not exist has none: that is an answer, not a failure (RFC 8767, section 5).
3. A caller waits ``LOOKUP_TIMEOUT`` for the first look-up of a name, and ``KNOWN_WAIT`` for a later one if
   there is an address to use, or if the previous one hung.
4. A look-up that hangs does not delay the end of the process, and cancelling a caller abandons it.
"""

import asyncio
import errno
import os
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tickertape.errors import TickertapeError
from tickertape.net.daemon_pool import DaemonPool

LOOKUP_TIMEOUT: Final = 2.0
"""Seconds that a connection waits for a name; a look-up that takes longer hangs."""

KNOWN_WAIT: Final = 0.1
"""Seconds that a connection waits for a look-up whose result it can do without."""

LAST_ADDRESS_SECONDS: Final = 3600.0
"""Seconds for which the last addresses are used while the name cannot be looked up."""

MAX_LOOKUPS: Final = 128
"""Concurrent look-ups, each in a thread."""

MAX_SUSPECTS: Final = 96
"""Concurrent look-ups of names that have not answered in time before."""

MAX_NAMES: Final = 10_000
"""Names that are remembered: a peer can redirect a program to any number of them."""

MAX_NUMERIC: Final = 4096
"""Addresses whose parsed form is remembered."""

_ABSENT: Final = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
)
"""Errors of ``getaddrinfo`` that say that the name has no address."""

Results = Sequence[tuple[socket.AddressFamily, int, int, str, Any]]
"""Addresses as ``socket.getaddrinfo`` returns them."""


class InvalidHostName(TickertapeError, OSError):
    """Error of a text that can never be the name of a host."""


class LookupTimeout(TickertapeError, OSError):
    """Failure of a look-up that has taken too long; it continues in its thread."""

    def __init__(self) -> None:
        super().__init__(f"name did not resolve within {LOOKUP_TIMEOUT:g} s")


class LookupsExhausted(TickertapeError, OSError):
    """Failure to start a look-up, which says nothing about the name.

    Args:
        reason: what is lacking.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"name was not looked up: {reason}")
        self.errno = errno.EAGAIN


@dataclass(eq=False, slots=True)
class _Name:
    """State of a name.

    Attributes:
        host: the name.
        lookup: look-up in progress.
        requested: start of the look-up in progress, including its wait for a thread, in monotonic seconds.
        began: start of its thread; None while it waits for one.
        answered: whether the latest look-up ended in time; None before the first one has ended.
        addresses: last addresses.
        resolved: when they were looked up.
        failed: whether the latest look-up that has ended failed.
    """

    host: str
    lookup: "Future[Results] | None" = None
    requested: float = 0.0
    began: float | None = None
    answered: bool | None = None
    addresses: Results = ()
    resolved: float = 0.0
    failed: bool = False


class Resolver:
    """Shared look-ups of all names of a process; any thread may call it.

    Args:
        clock: returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pool = DaemonPool(MAX_LOOKUPS, "resolve")
        self._reset()
        # A forked child has none of the threads.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._names: OrderedDict[str, _Name] = OrderedDict()
        self._trusted: deque[_Name] = deque()  # waiting for a thread
        self._suspects: deque[_Name] = deque()
        self._running = 0
        self._running_suspects = 0

    async def resolve(self, host: str, *, last: bool = True) -> tuple[Results, bool]:
        """Return the addresses of a name.

        Args:
            host: the name.
            last: whether its last addresses may be used if the look-up hangs or fails.

        Returns:
            the addresses, with port 0, and whether they are the result of a look-up that has just ended.

        Raises:
            OSError: the name does not resolve.
        """
        name, lookup = self._request(host)
        known = self._last_addresses(name) if last else ()
        limit = KNOWN_WAIT if known or name.answered is False else LOOKUP_TIMEOUT
        if not lookup.done():
            waiting = asyncio.wrap_future(lookup)
            try:
                await asyncio.wait({waiting}, timeout=max(0.0, name.requested + limit - self._clock()))
            finally:
                waiting.cancel()
        if lookup.done():
            if (failure := lookup.exception()) is None:
                return lookup.result(), True
            # The addresses are asked for again: a name that does not exist has lost them.
            if not last or not (known := self._last_addresses(name)):
                raise failure
        if known:
            return known, False
        if name.began is None:
            raise LookupsExhausted("too many look-ups of other names hang")
        raise LookupTimeout

    def look_up(self, host: str) -> "Future[Results]":
        """Start the look-up of a name, or join one that is in progress.

        Returns:
            the addresses, with port 0, or an OSError; it cannot be cancelled, but it can be abandoned.
        """
        return self._request(host)[1]

    def count_outdated(self) -> int:
        """Return the number of names whose last addresses are used, because their look-ups hang or fail."""
        with self._lock:
            now = self._clock()
            return sum(
                name.failed or (name.lookup is not None and now - name.requested > LOOKUP_TIMEOUT)
                for name in self._names.values()
                if self._last_addresses(name)
            )

    def _request(self, host: str) -> "tuple[_Name, Future[Results]]":
        with self._lock:
            name = self._names.pop(host, None) or _Name(host)
            self._names[host] = name  # the most recently used one
            if len(self._names) > MAX_NAMES:
                self._names.popitem(last=False)
            lookup = name.lookup
            if lookup is None:
                lookup = name.lookup = Future()
                lookup.set_running_or_notify_cancel()
                name.requested, name.began = self._clock(), None
                (self._trusted if name.answered else self._suspects).append(name)
                self._start_waiting()
            return name, lookup

    def _last_addresses(self, name: _Name) -> Results:
        return name.addresses if self._clock() - name.resolved < LAST_ADDRESS_SECONDS else ()

    def _start_waiting(self) -> None:
        """Start the look-ups for which there are threads."""
        while self._trusted and self._running < MAX_LOOKUPS:
            self._start(self._trusted.popleft(), suspect=False)
        while self._suspects and self._running < MAX_LOOKUPS and self._running_suspects < MAX_SUSPECTS:
            self._start(self._suspects.popleft(), suspect=True)

    def _start(self, name: _Name, *, suspect: bool) -> None:
        assert name.lookup is not None
        name.began = self._clock()
        self._running += 1
        self._running_suspects += suspect
        try:
            self._pool.submit(self._run, name, name.lookup, suspect)
        except RuntimeError:
            if threading.main_thread().is_alive():
                self._end(name, name.lookup, suspect, LookupsExhausted("this process has no further thread"))
            else:
                # While the interpreter exits, no thread can start; a publisher still sends its last events.
                self._run(name, name.lookup, suspect)

    def _run(self, name: _Name, lookup: "Future[Results]", suspect: bool) -> None:
        outcome: Results | Exception
        try:
            outcome = _get_addresses(name.host)
        except Exception as error:
            outcome = error
        self._end(name, lookup, suspect, outcome)

    def _end(
        self, name: _Name, lookup: "Future[Results]", suspect: bool, outcome: Results | Exception
    ) -> None:
        with self._lock:
            now = self._clock()
            assert name.began is not None
            if isinstance(outcome, LookupsExhausted):
                name.began = None
            else:
                name.answered = now - name.began <= LOOKUP_TIMEOUT
            name.lookup = None
            name.failed = isinstance(outcome, Exception)
            if not isinstance(outcome, Exception):
                name.addresses, name.resolved = outcome, now
            elif isinstance(outcome, socket.gaierror) and outcome.errno in _ABSENT:
                name.addresses = ()
            self._running -= 1
            self._running_suspects -= suspect
            self._start_waiting()
        if isinstance(outcome, Exception):
            lookup.set_exception(outcome)
        else:
            lookup.set_result(outcome)


def parse_numeric(host: str, port: int, **options: int) -> Results | None:
    """Return the address in a text, which needs no look-up; None for a name.

    Args:
        host, port: of the peer.
        options: family, type, proto and flags as for ``socket.getaddrinfo``; a stream by default.
    """
    options = {"type": socket.SOCK_STREAM, **options}
    options["flags"] = options.get("flags", 0) | socket.AI_NUMERICHOST
    # The number of an interface in an address such as fe80::1%eth0 changes.
    has_zone = isinstance(host, str) and "%" in host
    return (_parse_numeric.__wrapped__ if has_zone else _parse_numeric)(host, port, **options)


@lru_cache(MAX_NUMERIC)  # a call takes longer than a connection to the same machine
def _parse_numeric(host: str, port: int, **options: int) -> Results | None:
    try:
        return tuple(socket.getaddrinfo(host, port, **options))
    except (OSError, UnicodeError):
        return None


def with_port(addresses: Results, port: int) -> Results:
    """Return addresses with another port."""
    return [
        (family, kind, protocol, name, (address[0], port, *address[2:]))
        for family, kind, protocol, name, address in addresses
    ]


def _get_addresses(host: str) -> Results:
    try:
        return socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        # The IDNA codec rejects empty labels and labels over 63 bytes before the resolver is called.
        raise InvalidHostName(f"not a host name: {error.__cause__ or error}") from None
