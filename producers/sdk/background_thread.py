"""A publisher on an event loop of its own, in a daemon thread, for programs that have no event loop.

Invariants:

1. ``put`` never waits: it appends to a queue, which the thread empties in order.
2. After ``close`` every parcel's future is settled, and the thread has ended, unless the system holds it.
3. A forked child never touches what belongs to its parent: neither the thread nor its sockets.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from tickertape.producers.sdk.drop_report import LINE_INTERVAL, LOGGER
from tickertape.producers.sdk.errors import PublishDropped, PublishError
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue, closed
from tickertape.producers.sdk.in_flight import AckFuture
from tickertape.producers.sdk.publish_ack import Ack
from tickertape.producers.sdk.publisher import Publisher

from tickertape.process.tasks import cancel_and_wait, race

BATCH: Final = 16
"""Events between two breaths of the thread: short, so that the program's own threads get their turn."""

IN_FLIGHT: Final = 2048
"""Events without an acknowledgement above which the thread waits, while NATS is there."""

_NAP: Final = 0.002
_LONGEST_POLL: Final = 0.2
_STUCK: Final = 1.0
"""Seconds beyond a close's own time after which the thread is left to itself; it is a daemon."""

_log = logging.getLogger(LOGGER)
_threads: set[int] = set()
_live: "WeakSet[BackgroundThread]" = WeakSet()
_inherited: list["BackgroundThread"] = []


class _Loop(asyncio.SelectorEventLoop):
    """Resolves names in its own thread: at the interpreter's end there are no others to be had."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)


class BackgroundThread:
    """The thread; starts at once.

    Args:
        make: makes the publisher, in the thread.
        parcels: what is to be published.
        name: of the thread.
        poll: seconds between looks at the queue, more of them while nothing comes; so ``put`` need not
            wake the thread, which costs more than all else that it does. 0 wakes it.
    """

    def __init__(
        self, make: Callable[[], Publisher], parcels: HandoffQueue, *, name: str, poll: float = 0.0
    ) -> None:
        self.pid = os.getpid()
        self._make = make
        self._parcels = parcels
        self._poll = poll
        self._awake = False
        self._told = 0  # of the dropped parcels, how many the publisher knows of
        self._line_at = -LINE_INTERVAL  # of the log
        self._failed = 0  # given up, for another reason than want of room
        self._ending = False
        self._publisher: Publisher | None = None
        self._wake = asyncio.Event()
        self._loop: _Loop | None = None  # made in the thread, since asyncio logs while it makes one
        self._started = threading.Event()  # set when there is a loop
        self._timeout: float | None = 0.0  # of the close
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _live.add(self)

    def __repr__(self) -> str:
        return f"<BackgroundThread {self._thread.name}, {len(self._parcels)} queued, {self._publisher!r}>"

    @property
    def dropped(self) -> int:
        """Parcels given up for newer ones."""
        publisher = self._publisher
        return (publisher.dropped if publisher else 0) + self._parcels.dropped - self._told

    @property
    def failed(self) -> int:
        """Parcels given up for other reasons."""
        return self._failed

    def put(self, parcel: Handoff) -> None:
        """Queue a parcel; only one thread at a time may call this."""
        self._parcels.put(parcel)
        if not self._awake:
            self._awake = True
            # Without a loop the thread has its first look at the queue before it.
            if self._loop is not None and not self._poll:
                self._call(self._wake.set)

    def flush(self, timeout: float) -> bool:
        """Wait until everything put before is settled; tell whether it was in time."""
        until = time.monotonic() + timeout
        if not self._started.wait(timeout) or self._loop is None:
            return False
        what = self._flushed()
        try:
            asking = asyncio.run_coroutine_threadsafe(what, self._loop)
        except RuntimeError:  # the loop is closed
            what.close()
            return False
        try:
            asking.result(max(0.0, until - time.monotonic()))
        except (TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            asking.cancel()
            return False
        return True

    def close(self, timeout: float | None) -> None:
        """Send what is queued, close the publisher, and end the thread.

        Args:
            timeout: seconds for all of it; None waits for each event's deadline.
        """
        if not self._ending:
            self._timeout = timeout
            self._ending = True
            self._started.wait(timeout)
            self._call(self._stop.set)
        self._thread.join(None if timeout is None else timeout + _STUCK)
        if self._thread.is_alive():
            self._failed += self._parcels.abandon()

    def _call(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(what)

    # --- in the thread

    def _run(self) -> None:
        ident = threading.get_ident()
        _threads.add(ident)
        try:
            loop = self._loop = _Loop()
            asyncio.set_event_loop(loop)
            self._started.set()
            try:
                loop.run_until_complete(self._work())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
        finally:
            self._ending = True
            self._started.set()
            self._failed += self._parcels.abandon()
            _threads.discard(ident)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        self._publisher = publisher = self._make()
        feeding: asyncio.Task[None] | None = None
        try:
            await publisher.__aenter__()
            feeding = asyncio.create_task(self._feed(publisher), name="feed")
            await race(feeding, self._stop.wait())
            timeout = self._timeout if self._ending else 0.0
            until = None if timeout is None else loop.time() + timeout
            while self._parcels and not feeding.done() and (until is None or loop.time() < until):
                self._wake.set()
                await asyncio.sleep(_NAP)
            await publisher.close(None if until is None else max(0.0, until - loop.time()))
        finally:
            if feeding is not None:
                await cancel_and_wait(feeding)
            await publisher.close(0.0)
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=_STUCK)

    async def _feed(self, publisher: Publisher) -> None:
        loop = asyncio.get_running_loop()
        pause = self._poll
        while True:
            self._wake.clear()
            # Before the queue is looked at: who puts after that look wakes this task again.
            self._awake = False
            if self._parcels:
                pause = self._poll
                await self._empty(publisher)
            if pause:
                timer = loop.call_later(pause, self._wake.set)
                await self._wake.wait()
                timer.cancel()
                pause = min(_LONGEST_POLL, pause * 1.1)
            else:
                await self._wake.wait()

    async def _empty(self, publisher: Publisher) -> None:
        number = 0
        while self._parcels:
            number += 1
            if number % BATCH == 0:
                await asyncio.sleep(0)
            # While NATS is away its window takes what comes, and drops the oldest.
            while publisher.online and publisher.pending >= IN_FLIGHT:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(_NAP)
            self._tell_lost(publisher)
            if parcel := self._parcels.take():
                await self._send(publisher, parcel)
        self._tell_lost(publisher)

    async def _send(self, publisher: Publisher, parcel: Handoff) -> None:
        future = parcel.future
        try:
            ticket = await publisher.send(
                parcel.subject, parcel.payload, msg_id=parcel.msg_id, headers=parcel.headers
            )
        except Exception as error:
            self._give_up(future, error)
            return
        except asyncio.CancelledError:
            self._give_up(future, closed(parcel.subject))
            raise
        ticket.add_done_callback(functools.partial(self._settled, future))

    def _settled(self, future: concurrent.futures.Future[Ack] | None, ticket: AckFuture) -> None:
        if ticket.cancelled():
            error: BaseException | None = closed("an event")
        else:
            error = ticket.exception()
        if error is None:
            if future is not None:
                future.set_result(ticket.result())
            return
        self._give_up(future, error)

    def _give_up(self, future: concurrent.futures.Future[Ack] | None, error: BaseException) -> None:
        if not isinstance(error, PublishDropped):
            self._failed += 1
        if future is not None:
            future.set_exception(error)
        elif not isinstance(error, PublishDropped) and time.monotonic() - self._line_at >= LINE_INTERVAL:
            # Nobody else hears of it.
            self._line_at = time.monotonic()
            _log.warning("%s: %d events are lost, the last: %s", self._thread.name, self._failed, error)

    def _tell_lost(self, publisher: Publisher) -> None:
        number = self._parcels.dropped - self._told
        if number:
            self._told += number
            publisher.count_dropped(number)

    async def _flushed(self) -> None:
        while self._parcels or self._publisher is None:
            self._wake.set()
            await asyncio.sleep(_NAP)
        with contextlib.suppress(PublishError):
            await self._publisher.flush()


def in_background() -> bool:
    """Tell whether this is the thread of a publisher."""
    return threading.get_ident() in _threads


def _in_child() -> None:
    # The threads did not come along, and their identities may be given to others. What belongs to them is
    # kept for ever: collecting it would take the parent's sockets out of the epoll that both share.
    _threads.clear()
    _inherited.extend(_live)
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


__all__ = ["BATCH", "IN_FLIGHT", "BackgroundThread", "in_background"]
