"""Turns of the pages about gateways, which are computed in the event loop.

Invariants:

1. Between two slices of ``MAX_SECONDS``, of whatever pages, all other tasks run that are ready.
2. Pages take turns slice by slice. One page of a client is computed; what it requests meanwhile waits.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")

MAX_SECONDS: Final = 0.005
"""Seconds after which a page lets other tasks run."""


class _Queue:
    """Lock of all pages; the one that has waited longest is next. Unlike asyncio's, it has no event loop."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        if not self._held:
            self._held = True
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self.release()  # handed over at the moment of the cancellation
            raise

    def release(self) -> None:
        """Hand the lock over to the first that still waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return
        self._held = False


class Turn:
    """Turn of one page.

    Args:
        lock: lock of all pages.
    """

    __slots__ = ("_began", "_held", "_lock")

    def __init__(self, lock: _Queue) -> None:
        self._lock = lock
        self._held = False
        self._began = 0.0

    async def begin(self) -> None:
        """Wait for the turn."""
        await self._lock.acquire()
        self._held = True
        self._began = time.monotonic()

    def end(self) -> None:
        """End the turn; the next one begins after the tasks that are ready."""
        if self._held:
            self._held = False
            asyncio.get_running_loop().call_soon(self._lock.release)

    async def pause(self) -> None:
        """Let other tasks and pages run if the slice is over."""
        if time.monotonic() - self._began > MAX_SECONDS:
            self.end()
            await self.begin()

    async def compute(self, work: Generator[None, None, T]) -> T:
        """Return the result of a computation, which pauses where it yields."""
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: T = done.value
                return result
            await self.pause()


class PageTurns:
    """Turns of all pages of a relay."""

    def __init__(self) -> None:
        self._lock = _Queue()
        # A lock exists as long as a page of its client.
        self._clients: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[Turn]:
        """Wait for the turn of a client, and hold it while the context lasts.

        Args:
            client: token subject or address of the client.
        """
        own = self._clients.setdefault(client, asyncio.Lock())
        async with own:
            turn = Turn(self._lock)
            await turn.begin()
            try:
                yield turn
            finally:
                turn.end()
