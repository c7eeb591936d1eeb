"""Bound on the pages of history that a relay holds, until their clients have read them.

Invariants:

1. Pages in memory take at most ``max_bytes`` together, or are a single page.
2. A client is counted against its own limit first, and clients take turns: one that holds less than others is
   next, and of those the one that has waited longest.
3. While clients wait, a client that does not read loses its page.
"""

import asyncio
import itertools
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError

MAX_CONCURRENT_PAGES: Final = 4
"""Maximum number of pages that one client may read, or wait for, simultaneously."""

MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of events in one page; if the page ends early, ``more`` is true."""

READ_BYTES: Final = 2 * MAX_PAGE_BYTES
"""Bytes that a page is counted with while it is read: its events, and their copy in one text."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes of all pages of a relay."""

WAIT_TIME: Final = 10.0
"""Seconds that a client waits for its turn, before it is asked to retry."""

STALL_TIME: Final = 2.0
"""Seconds without progress after which a client loses its page, if others wait."""


class Reservation:
    """Part of the budget that one page takes.

    Attributes:
        client: client that the page is for.
        bytes: bytes that the page is counted with.
        progress_at: time of the last progress, in seconds of the event loop.
    """

    __slots__ = ("_budget", "_loop", "_on_stall", "bytes", "client", "progress_at")

    def __init__(self, budget: "PageBudget", client: str) -> None:
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._on_stall: Callable[[], None] | None = None
        self.client = client
        self.bytes = READ_BYTES
        self.progress_at = 0.0

    def start_sending(self, size: int, on_stall: Callable[[], None]) -> None:
        """Record that the page is complete and waits for its client.

        Args:
            size: bytes of the page.
            on_stall: called if the client does not read while others wait; it must end the response.
        """
        self._on_stall = on_stall
        self._budget.resize(self, size)
        self.record_progress()

    def record_progress(self) -> None:
        """Record that the client has made room for a part of the page."""
        self.progress_at = self._loop.time()
        self._budget.sending[self] = None
        self._budget.sending.move_to_end(self)

    def finish(self) -> None:
        """Drop the reference to the response, which would keep its page until garbage collection."""
        self._on_stall = None

    def stall(self) -> None:
        """End the response, whose client does not read."""
        if self._on_stall is not None:
            self._on_stall()


class PageBudget:
    """Budget of all pages of history, in bytes.

    Args:
        max_bytes: maximum bytes of all pages; at least one page is always read.

    Attributes:
        used: bytes of all pages.
        sending: pages that wait for their clients, least recent progress first.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._in_flight: Counter[str] = Counter()
        self._held: Counter[str] = Counter()  # bytes by client
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}  # client and order of arrival
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self.used = 0
        self.sending: OrderedDict[Reservation, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"PageBudget({self.used} of {self._max_bytes} bytes, {len(self._waiting)} waiting)"

    @asynccontextmanager
    async def reserve(self, client: str) -> AsyncIterator[Reservation]:
        """Reserve memory for one page, and wait for it in turn.

        Args:
            client: token subject or address of the client.

        Raises:
            ProtocolError: the client has too many pages in flight (``too_many``), or there was no memory in
                time (``unavailable``).
        """
        if self._in_flight[client] >= MAX_CONCURRENT_PAGES:
            message = f"{MAX_CONCURRENT_PAGES} pages are already being read; wait for one to finish"
            raise ProtocolError(ErrorCode.TOO_MANY, message)
        # No ``await`` lies between the check and this line, so the limit is exact.
        self._in_flight[client] += 1
        try:
            reservation = Reservation(self, client)
            await self._acquire(client)
            try:
                yield reservation
            finally:
                reservation.finish()
                self.sending.pop(reservation, None)
                self.resize(reservation, 0)
        finally:
            _add(self._in_flight, client, -1)

    def resize(self, reservation: Reservation, size: int) -> None:
        """Count a page with another size than before."""
        change = size - reservation.bytes
        reservation.bytes = size
        self.used += change
        _add(self._held, reservation.client, change)
        self._admit()

    async def _acquire(self, client: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = (client, next(self._order))
        self._admit()
        try:
            async with asyncio.timeout(WAIT_TIME):
                await turn
        except BaseException as error:
            if self._waiting.pop(turn, None) is None and turn.done() and not turn.cancelled():
                self._give_back(client)  # admitted at the moment of the timeout, or of the cancellation
            if isinstance(error, TimeoutError):
                message = "the relay is sending too many pages of history; retry later"
                raise ProtocolError(ErrorCode.UNAVAILABLE, message) from None
            raise

    def _give_back(self, client: str) -> None:
        self.used -= READ_BYTES
        _add(self._held, client, -READ_BYTES)
        self._admit()

    def _admit(self) -> None:
        """Admit those that wait, as far as there is room."""
        while self._waiting and (not self.used or self.used + READ_BYTES <= self._max_bytes):
            turn = min(self._waiting, key=self._rank)
            client, _ = self._waiting.pop(turn)
            if turn.cancelled():
                continue
            self.used += READ_BYTES
            self._held[client] += READ_BYTES
            turn.set_result(None)
        if self._waiting and self._timer is None:
            self._drop_stalled()

    def _rank(self, turn: asyncio.Future[None]) -> tuple[int, int]:
        client, order = self._waiting[turn]
        return self._held[client], order

    def _drop_stalled(self) -> None:
        """End responses without progress while clients wait, and look again when the next one is due."""
        self._timer = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self.sending:
            reservation = next(iter(self.sending))
            if now < reservation.progress_at + STALL_TIME:
                break
            # Its memory is counted until its response has ended.
            del self.sending[reservation]
            reservation.stall()
        first = next(iter(self.sending), None)
        due = now + STALL_TIME if first is None else first.progress_at + STALL_TIME
        self._timer = loop.call_at(due, self._drop_stalled)


def _add(counter: Counter[str], key: str, amount: int) -> None:
    """Add to a count, which is deleted at zero, so that the counter does not grow with the clients."""
    counter[key] += amount
    if not counter[key]:
        del counter[key]
