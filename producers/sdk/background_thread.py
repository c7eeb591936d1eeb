"""Daemon thread that runs a publisher on its own event loop, for programs that have none.

Invariants:

1. ``put`` never waits: it appends to a queue that the thread empties in order.
2. After ``close``, the future of every handoff is resolved, and the thread has ended unless it is stuck in a
   system call.
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

from tickertape.producers.sdk.drop_report import LOG_INTERVAL, LOGGER
from tickertape.producers.sdk.errors import PublishDropped, PublishError, closed_error
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue
from tickertape.producers.sdk.in_flight import AckFuture
from tickertape.producers.sdk.publish_ack import Ack
from tickertape.producers.sdk.publisher import Publisher

from tickertape.process.tasks import cancel_and_wait, race
from tickertape.text import count

BATCH: Final = 16
"""Events after which the thread yields; few, so that the program's other threads can run."""

MAX_IN_FLIGHT: Final = 2048
"""Events without an acknowledgement above which the thread pauses, while NATS is connected."""

_PAUSE: Final = 0.002
"""Seconds between two checks of a condition for which there is no event."""

_MAX_POLL_INTERVAL: Final = 0.2
"""Seconds; upper bound of the poll interval, which grows while the queue stays empty."""

_STUCK_TIMEOUT: Final = 1.0
"""Seconds beyond the timeout of ``close`` after which the thread is abandoned; as a daemon, it does not keep
the program from exiting.
"""

_log = logging.getLogger(LOGGER)
_thread_ids: set[int] = set()
_live: "WeakSet[BackgroundThread]" = WeakSet()
_inherited: list["BackgroundThread"] = []


class _Loop(asyncio.SelectorEventLoop):
    """Event loop that resolves names in its own thread: while the interpreter exits, no new one can start."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)


class BackgroundThread:
    """Thread that publishes the handoffs of a queue; it starts on creation.

    Args:
        make_publisher: creates the publisher; called in the thread.
        queue: handoffs to publish.
        name: name of the thread.
        poll_interval: initial seconds between two polls of the queue, growing while it is empty. With 0,
            ``put`` wakes the thread instead, which costs more than everything else that it does.
    """

    def __init__(
        self,
        make_publisher: Callable[[], Publisher],
        queue: HandoffQueue,
        *,
        name: str,
        poll_interval: float = 0.0,
    ) -> None:
        self.pid = os.getpid()
        self._make_publisher = make_publisher
        self._queue = queue
        self._poll_interval = poll_interval
        self._awake = False
        self._reported_drops = 0  # events dropped by the queue that the publisher has counted
        self._logged_at = -LOG_INTERVAL
        self._failed = 0  # events that failed, except those dropped for lack of capacity
        self._ending = False
        self._publisher: Publisher | None = None
        self._wake = asyncio.Event()
        self._loop: _Loop | None = None  # created in the thread, because asyncio logs while it creates one
        self._started = threading.Event()  # set when there is a loop
        self._close_timeout: float | None = 0.0
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _live.add(self)

    def __repr__(self) -> str:
        return f"<BackgroundThread {self._thread.name}, {len(self._queue)} queued, {self._publisher!r}>"

    @property
    def dropped(self) -> int:
        """Number of events dropped to admit newer ones."""
        publisher = self._publisher
        return (publisher.dropped if publisher else 0) + self._queue.dropped - self._reported_drops

    @property
    def failed(self) -> int:
        """Number of events that failed for other reasons."""
        return self._failed

    def put(self, handoff: Handoff) -> None:
        """Queue a handoff; only one thread at a time may call this."""
        self._queue.put(handoff)
        if not self._awake:
            self._awake = True
            # Without a loop, the thread has yet to check the queue for the first time.
            if self._loop is not None and not self._poll_interval:
                self._call(self._wake.set)

    def flush(self, timeout: float) -> bool:
        """Wait until every event put before is acknowledged or has failed; return False on timeout."""
        until = time.monotonic() + timeout
        if not self._started.wait(timeout) or self._loop is None:
            return False
        flushing = self._flush()
        try:
            flushed = asyncio.run_coroutine_threadsafe(flushing, self._loop)
        except RuntimeError:  # the loop is closed
            flushing.close()
            return False
        try:
            flushed.result(max(0.0, until - time.monotonic()))
        except (TimeoutError, concurrent.futures.CancelledError, RuntimeError):
            flushed.cancel()
            return False
        return True

    def close(self, timeout: float | None) -> None:
        """Publish the queue, close the publisher, and end the thread.

        Args:
            timeout: maximum seconds for all of this; None waits until each event's deadline.
        """
        if not self._ending:
            # Before the flag, because the thread reads it when it sees that it is ending.
            self._close_timeout = timeout
            self._ending = True
            self._started.wait(timeout)
            self._call(self._stop.set)
        self._thread.join(None if timeout is None else timeout + _STUCK_TIMEOUT)
        if self._thread.is_alive():
            self._failed += self._queue.abandon()

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function)

    # --- in the thread

    def _run(self) -> None:
        thread_id = threading.get_ident()
        _thread_ids.add(thread_id)
        try:
            loop = self._loop = _Loop()
            asyncio.set_event_loop(loop)
            self._started.set()
            try:
                loop.run_until_complete(self._publish())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
        finally:
            # Also after a failure, so that neither ``flush`` nor ``close`` waits for a loop that does not
            # exist.
            self._ending = True
            self._started.set()
            self._failed += self._queue.abandon()
            _thread_ids.discard(thread_id)

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        self._publisher = publisher = self._make_publisher()
        draining: asyncio.Task[None] | None = None
        try:
            await publisher.__aenter__()
            draining = asyncio.create_task(self._drain_when_woken(publisher), name="drain queue")
            await race(draining, self._stop.wait())
            timeout = self._close_timeout if self._ending else 0.0
            until = None if timeout is None else loop.time() + timeout
            # The draining task may be waiting for its next poll, so it is woken until the queue is empty.
            while self._queue and not draining.done() and (until is None or loop.time() < until):
                self._wake.set()
                await asyncio.sleep(_PAUSE)
            await publisher.close(None if until is None else max(0.0, until - loop.time()))
        finally:
            if draining is not None:
                await cancel_and_wait(draining)
            await publisher.close(0.0)
            # A pending task that the loop destroys makes asyncio log an error in the program that is ending.
            remaining = asyncio.all_tasks() - {asyncio.current_task()}
            for task in remaining:
                task.cancel()
            if remaining:
                await asyncio.wait(remaining, timeout=_STUCK_TIMEOUT)

    async def _drain_when_woken(self, publisher: Publisher) -> None:
        loop = asyncio.get_running_loop()
        interval = self._poll_interval
        while True:
            self._wake.clear()
            # Cleared before the queue is checked: a put() after the check wakes this task again.
            self._awake = False
            if self._queue:
                interval = self._poll_interval
                await self._drain(publisher)
            if interval:
                timer = loop.call_later(interval, self._wake.set)
                await self._wake.wait()
                timer.cancel()
                interval = min(_MAX_POLL_INTERVAL, interval * 1.1)
            else:
                await self._wake.wait()

    async def _drain(self, publisher: Publisher) -> None:
        number = 0
        while self._queue:
            number += 1
            if number % BATCH == 0:
                await asyncio.sleep(0)
            # While NATS is unreachable, the publisher accepts every event and drops the oldest.
            while publisher.online and publisher.pending >= MAX_IN_FLIGHT:  # noqa: ASYNC110 - no event to await
                await asyncio.sleep(_PAUSE)
            self._report_drops(publisher)
            if handoff := self._queue.take():
                await self._send(publisher, handoff)
        self._report_drops(publisher)

    async def _send(self, publisher: Publisher, handoff: Handoff) -> None:
        future = handoff.future
        try:
            ack = await publisher.send(
                handoff.subject, handoff.payload, msg_id=handoff.msg_id, headers=handoff.headers
            )
        except Exception as error:
            self._fail(future, error)
            return
        except asyncio.CancelledError:
            self._fail(future, closed_error(handoff.subject))
            raise
        ack.add_done_callback(functools.partial(self._resolve, future))

    def _resolve(self, future: concurrent.futures.Future[Ack] | None, ack: AckFuture) -> None:
        if ack.cancelled():
            error: BaseException | None = closed_error("an event")
        else:
            error = ack.exception()
        if error is None:
            if future is not None:
                future.set_result(ack.result())
            return
        self._fail(future, error)

    def _fail(self, future: concurrent.futures.Future[Ack] | None, error: BaseException) -> None:
        if not isinstance(error, PublishDropped):
            self._failed += 1
        if future is not None:
            future.set_exception(error)
        elif not isinstance(error, PublishDropped) and time.monotonic() - self._logged_at >= LOG_INTERVAL:
            # No caller receives this error, and the drop report does not count it.
            self._logged_at = time.monotonic()
            _log.warning(
                "%s: %s not published, last error: %s",
                self._thread.name,
                count(self._failed, "event"),
                error,
            )

    def _report_drops(self, publisher: Publisher) -> None:
        number = self._queue.dropped - self._reported_drops
        if number:
            self._reported_drops += number
            publisher.count_dropped(number)

    async def _flush(self) -> None:
        # Handoffs of the queue are not in flight yet, so the publisher's own flush does not cover them.
        while self._queue or self._publisher is None:
            self._wake.set()
            await asyncio.sleep(_PAUSE)
        with contextlib.suppress(PublishError):
            await self._publisher.flush()


def in_background() -> bool:
    """Return whether the current thread is a publisher's background thread."""
    return threading.get_ident() in _thread_ids


def _reset_in_child() -> None:
    # The threads do not exist in the child, and their ids may be reused. The objects are kept until the child
    # exits: collecting them would remove the parent's sockets from the epoll that both processes share.
    _thread_ids.clear()
    _inherited.extend(_live)
    _live.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)


__all__ = ["BATCH", "MAX_IN_FLIGHT", "BackgroundThread", "in_background"]
