"""Publisher for programs without asyncio: blocking calls, from any thread.

Invariants:

1. ``publish`` returns only after JetStream acknowledged the event; otherwise it raises.
2. Events that one thread submits are sent in that order; one that has to be sent again may be stored after
   later ones.
3. At most ``max_pending`` events are held; with ``drop_oldest``, as many again may be queued for the
   publishing thread.
4. A forked child that uses its parent's publisher receives an error instead of hanging.
"""

import atexit
import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from weakref import WeakSet

from tickertape.contracts.events import EventModel
from tickertape.producers.sdk import trace_context as trace
from tickertape.producers.sdk.background_thread import BackgroundThread, in_background
from tickertape.producers.sdk.capacity import (
    MAX_PENDING,
    MAX_PENDING_BYTES,
    Capacity,
    WhenFull,
    check_limits,
)
from tickertape.producers.sdk.errors import PublishError, closed_error
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue
from tickertape.producers.sdk.publish_ack import Ack
from tickertape.producers.sdk.publisher import ACK_TIMEOUT, DEADLINE, Publisher, encoded, validated

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.credentials import Access

EXIT_TIMEOUT: Final = 5.0
"""Maximum seconds that closing an open publisher takes when the interpreter exits."""


class SyncPublisher:
    """Thread-safe publisher of events to JetStream, for programs without an event loop.

    It connects on first use, in a daemon thread::

        with SyncPublisher("nats://127.0.0.1:4222", name="my_service") as publisher:
            publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

    Args:
        url: address of NATS; several are separated by commas.
        access: as for ``Publisher``.
        prefix: as for ``Publisher``.
        name: as for ``Publisher``.
        ack_timeout: as for ``Publisher``.
        deadline: as for ``Publisher``.
        max_pending: as for ``Publisher``.
        max_pending_bytes: as for ``Publisher``.
        when_full: as for ``Publisher``.
        traceparent: as for ``Publisher``; called in the thread that publishes the event.
        on_down: as for ``Publisher``; called in the daemon thread.
        on_up: as for ``Publisher``; called in the daemon thread.
    """

    def __init__(
        self,
        url: str = connection.DEFAULT_URL,
        *,
        access: Access | None = None,
        prefix: str = "",
        name: str = "tickertape-publisher",
        ack_timeout: float = ACK_TIMEOUT,
        deadline: float = DEADLINE,
        max_pending: int = MAX_PENDING,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        when_full: WhenFull = "block",
        traceparent: trace.Provider | None = None,
        on_down: Callable[[ConnectFailure], None] | None = None,
        on_up: Callable[[], None] | None = None,
    ) -> None:
        check_limits(max_pending, max_pending_bytes, when_full)
        # Raises for an illegal prefix now; in the thread, the error would only fail later events.
        Names(prefix)
        self.name = name
        self._make_publisher = functools.partial(
            Publisher,
            url,
            access=access,
            prefix=prefix,
            name=name,
            ack_timeout=ack_timeout,
            deadline=deadline,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
            # 'raise' is decided in the caller's thread, which is the one that needs the exception.
            when_full="drop_oldest" if when_full == "drop_oldest" else "block",
            traceparent=trace.no_trace_context,  # added to the headers in the caller's thread
            on_down=on_down,
            on_up=on_up,
        )
        self._trace = traceparent or trace.opentelemetry_provider()
        self._when_full = when_full
        self._max_events = max_pending
        self._max_bytes = max_pending_bytes
        self._capacity = Capacity(max_pending, max_pending_bytes)  # used under the lock, without its waiters
        self._changed = threading.Condition()
        self._pending: dict[concurrent.futures.Future[Ack], int] = {}  # payload sizes, oldest first
        self._background: BackgroundThread | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._background else "not used yet"
        return f"<SyncPublisher {self.name} {state}, {len(self._pending)} in flight>"

    def __enter__(self) -> Self:
        self._check_process()
        with self._changed:
            self._ensure_started("an event")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(None if kind is None else 0.0)

    @property
    def pending(self) -> int:
        """Number of events in flight, including those that wait for NATS."""
        return len(self._pending)

    @property
    def dropped(self) -> int:
        """Number of events dropped to admit newer ones since the publisher was created."""
        return self._background.dropped if self._background else 0

    @property
    def closed(self) -> bool:
        """Whether the publisher is closed and rejects new events."""
        return self._closed

    def publish(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> Ack:
        """Publish an event on the subject derived from its fields; return when it is stored in the stream.

        Args:
            event: an event of ``tickertape.contracts.events``, or of a custom model.
            msg_id: ``Nats-Msg-Id``; the stream stores one event per id within 2 minutes. Unique by default.
            headers: additional headers, such as ``traceparent``.

        Raises:
            InvalidEvent: it violates the contract; it was not sent.
            PublishRejected: JetStream rejected it.
            PublishDenied: this NATS user may not publish it, or may not receive its acknowledgement.
            PublisherFull: the publisher is at capacity, and the policy is ``raise``; it was not sent.
            PublishDropped: it was dropped to admit a newer one; the policy is ``drop_oldest``.
            PublishError: it was not acknowledged in time, or the publisher is closed.
            RuntimeError: the call was made in a forked child, or in a callback of this publisher.
        """
        return self.publish_raw(event.subject, encoded(event), msg_id=msg_id, headers=headers)

    def publish_raw(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Ack:
        """Publish JSON text, such as an event without a model; otherwise like ``publish``.

        Args:
            subject: subject, without the deployment's prefix.
            payload: a JSON object in UTF-8.
            msg_id: as for ``publish``.
            headers: as for ``publish``.
        """
        _reject_callback()
        return self._put(subject, validated(subject, payload), msg_id, headers).result()

    def submit(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> concurrent.futures.Future[Ack]:
        """Send an event like ``publish``, but return a future without waiting for the acknowledgement.

        The future fails with the errors that ``publish`` raises. Its callbacks run in the daemon thread: they
        must be quick, and must not block on another ``publish``.

        Raises:
            InvalidEvent: as for ``publish``.
            PublisherFull: as for ``publish``.
            PublishError: the publisher is closed.
            RuntimeError: as for ``publish``.
        """
        subject = event.subject
        return self._put(subject, validated(subject, encoded(event)), msg_id, headers)

    def flush(self) -> None:
        """Wait until every event in flight is acknowledged or has failed.

        Raises:
            PublishError: events failed; the message has their number and the first error.
        """
        _reject_callback()
        self._check_process()
        with self._changed:
            futures = list(self._pending)
        if not futures:
            return
        concurrent.futures.wait(futures)
        errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
        if errors:
            message = f"{len(errors)} of {len(futures)} events failed, the first: {errors[0]}"
            raise PublishError("several subjects", message, "publish them again with the same msg_id")

    def close(self, timeout: float | None = None) -> None:
        """Reject new events, wait for those in flight, and end the thread; does nothing in a forked child.

        Args:
            timeout: seconds to wait for acknowledgements; None waits until each event's deadline. Events that
                are still in flight then fail with ``PublishError``.
        """
        if self._background is not None and self._background.pid != os.getpid():
            self._closed = True
            return
        _reject_callback()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._background is None:
            return
        self._background.close(timeout)
        _open.discard(self)
        with self._changed:
            remaining = list(self._pending)
        for future in remaining:  # the thread resolves them all, unless it is stuck
            if not future.done():
                future.set_exception(closed_error("an event"))

    def _put(
        self, subject: str, payload: bytes, msg_id: str | None, headers: dict[str, str] | None
    ) -> concurrent.futures.Future[Ack]:
        if headers is not None or self._trace is not None:
            headers = trace.with_traceparent(headers, self._trace)
        self._check_process()  # before the lock, which another thread may have held at the fork
        size = len(payload)
        future: concurrent.futures.Future[Ack] = concurrent.futures.Future()
        handoff = Handoff(subject, payload, msg_id, headers, future)
        with self._changed:
            background = self._ensure_started(subject)
            while self._when_full != "drop_oldest" and not self._capacity.fits(size):
                if self._when_full == "raise":
                    raise self._capacity.full_error(subject)
                _reject_callback()
                self._changed.wait()
                background = self._ensure_started(subject)
            self._pending[future] = size
            self._capacity.reserve(size)
            # Handed over under the lock, in the order in which callers were admitted. If the queue drops
            # another event for this one, that event's callback takes the lock again, which is reentrant.
            future.add_done_callback(self._on_done)
            background.put(handoff)
        return future

    def _on_done(self, future: concurrent.futures.Future[Ack]) -> None:
        with self._changed:
            if (size := self._pending.pop(future, None)) is not None:
                self._capacity.release(size)
            self._changed.notify()

    def _ensure_started(self, subject: str) -> BackgroundThread:
        if self._closed:
            raise closed_error(subject)
        if self._background is None:
            max_events = self._max_events if self._when_full == "drop_oldest" else None
            queue = HandoffQueue(max_events, self._max_bytes)
            self._background = BackgroundThread(self._make_publisher, queue, name=f"{self.name}: publisher")
            _open.add(self)
        return self._background

    def _check_process(self) -> None:
        if self._background is not None and self._background.pid != os.getpid():
            raise RuntimeError(
                f"this SyncPublisher belongs to process {self._background.pid}, of which this is a fork;"
                " create one in each process"
            )


def _reject_callback() -> None:
    if in_background():
        raise RuntimeError(
            "this call would block its own thread; in a callback, use submit() while below capacity"
        )


_open: WeakSet[SyncPublisher] = WeakSet()


@atexit.register
def _close_all() -> None:
    for publisher in list(_open):
        publisher.close(EXIT_TIMEOUT)


__all__ = ["EXIT_TIMEOUT", "SyncPublisher"]
