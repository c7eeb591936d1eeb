"""The publisher for programs without asyncio: blocking calls, from any thread.

Invariants:

1. ``publish`` returns only after JetStream said that the event is in the stream; else it raises.
2. What one thread submits is in the stream in that order.
3. No more than ``max_pending`` events are held; with ``drop_oldest`` as many again may be on their way to the
   thread.
4. A forked child is told that it cannot use its parent's publisher, in place of hanging.
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
from tickertape.producers.sdk.capacity import MAX_PENDING, MAX_PENDING_BYTES, WhenFull, check_limits
from tickertape.producers.sdk.errors import PublisherFull, PublishError
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue, closed
from tickertape.producers.sdk.publish_ack import Ack
from tickertape.producers.sdk.publisher import ACK_TIMEOUT, DEADLINE, Publisher, checked

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.credentials import Access

EXIT_TIMEOUT: Final = 5.0
"""Seconds that an open publisher may take when the interpreter ends."""


class SyncPublisher:
    """Publishes events to JetStream from a program without an event loop; safe in several threads.

    It connects at the first use, from a daemon thread::

        with SyncPublisher("nats://127.0.0.1:4222", name="my_service") as publisher:
            publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

    Args:
        url: address of NATS; several with commas.
        others: as of ``Publisher``; ``on_down`` and ``on_up`` are called in the daemon thread, and
            ``traceparent`` in the thread that publishes.
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
        Names(prefix)
        self.name = name
        self._make = functools.partial(
            Publisher,
            url,
            access=access,
            prefix=prefix,
            name=name,
            ack_timeout=ack_timeout,
            deadline=deadline,
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,
            when_full="drop_oldest" if when_full == "drop_oldest" else "block",
            traceparent=_nothing,  # asked in the thread of the caller
            on_down=on_down,
            on_up=on_up,
        )
        self._trace = traceparent or trace.current_span()
        self._when_full = when_full
        self._most_events = max_pending
        self._most_size = max_pending_bytes
        self._changed = threading.Condition()
        self._pending: dict[concurrent.futures.Future[Ack], int] = {}  # with their sizes, oldest first
        self._size = 0
        self._background: BackgroundThread | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._background else "not used yet"
        return f"<SyncPublisher {self.name} {state}, {len(self._pending)} in flight>"

    def __enter__(self) -> Self:
        self._of_this_process()
        with self._changed:
            self._started("an event")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(None if kind is None else 0.0)

    @property
    def pending(self) -> int:
        """Events in flight, or waiting for NATS."""
        return len(self._pending)

    @property
    def dropped(self) -> int:
        """Events given up for newer ones since the publisher was made."""
        return self._background.dropped if self._background else 0

    @property
    def closed(self) -> bool:
        """True when no more events are taken."""
        return self._closed

    def publish(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> Ack:
        """Publish an event on the subject that its fields name; return when the stream has it.

        Args:
            event: one of ``tickertape.contracts.events``.
            msg_id: ``Nats-Msg-Id``; events of one id within 2 minutes are one event. Fresh by default.
            headers: more headers, such as ``traceparent``.

        Raises:
            InvalidEvent: it breaks the contract; nothing was sent.
            PublishRejected: JetStream refused it.
            PublisherFull: there is no room, and the policy is ``raise``; nothing was sent.
            PublishDropped: it was given up for a newer one; the policy is ``drop_oldest``.
            PublishError: it was not acknowledged in time, or the publisher is closed.
            RuntimeError: in a forked child, or in a callback of this publisher.
        """
        return self.publish_raw(event.subject, event.encode(), msg_id=msg_id, headers=headers)

    def publish_raw(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Ack:
        """Publish JSON text, such as an event of an own type; otherwise like ``publish``.

        Args:
            subject: without the deployment's prefix.
            payload: one UTF-8 JSON object.
        """
        _not_in_background()
        return self._put(subject, checked(subject, payload), msg_id, headers).result()

    def submit(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> concurrent.futures.Future[Ack]:
        """Like ``publish``, but return a future as soon as there is room for the event.

        The future fails with what ``publish`` raises. Its callbacks run in the daemon thread; they must not
        take long, and not publish anything by waiting.

        Raises:
            InvalidEvent, PublisherFull, PublishError, RuntimeError: at once, as of ``publish``.
        """
        subject = event.subject
        return self._put(subject, checked(subject, event.encode()), msg_id, headers)

    def flush(self) -> None:
        """Wait until everything in flight is acknowledged or given up.

        Raises:
            PublishError: some of it failed; how much, and the first reason.
        """
        _not_in_background()
        self._of_this_process()
        with self._changed:
            futures = list(self._pending)
        if not futures:
            return
        concurrent.futures.wait(futures)
        errors = [error for one in futures if not one.cancelled() and (error := one.exception())]
        if errors:
            what = f"{len(errors)} of {len(futures)} events failed, the first: {errors[0]}"
            raise PublishError("several subjects", what, "publish these again under the same msg_id")

    def close(self, timeout: float | None = None) -> None:
        """Take no more events, wait for those in flight, and end the thread; nothing in a forked child.

        Args:
            timeout: seconds to wait for acknowledgements; None waits until each event's deadline. What is
                still in flight then fails with ``PublishError``.
        """
        if self._background is not None and self._background.pid != os.getpid():
            self._closed = True
            return
        _not_in_background()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._background is None:
            return
        self._background.close(timeout)
        _open.discard(self)
        with self._changed:
            left = list(self._pending)
        for future in left:  # only when the thread is stuck
            if not future.done():
                future.set_exception(closed("an event"))

    def _put(
        self, subject: str, payload: bytes, msg_id: str | None, headers: dict[str, str] | None
    ) -> concurrent.futures.Future[Ack]:
        if headers is not None or self._trace is not None:
            headers = trace.carried(headers, self._trace)
        self._of_this_process()  # before the lock: another thread may have held it at the fork
        size = len(payload)
        future: concurrent.futures.Future[Ack] = concurrent.futures.Future()
        parcel = Handoff(subject, payload, msg_id, headers, future)
        with self._changed:
            background = self._started(subject)
            while self._when_full != "drop_oldest" and not self._fits(size):
                if self._when_full == "raise":
                    what = f"{len(self._pending)} events of {self._size} bytes wait already"
                    raise PublisherFull(subject, what, "publish it later, or raise max_pending")
                _not_in_background()
                self._changed.wait()
                background = self._started(subject)
            self._pending[future] = size
            self._size += size
            future.add_done_callback(self._left)
            background.put(parcel)
        return future

    def _fits(self, size: int) -> bool:
        if len(self._pending) >= self._most_events:
            return False
        return self._size + size <= self._most_size or not self._pending

    def _left(self, future: concurrent.futures.Future[Ack]) -> None:
        with self._changed:
            self._size -= self._pending.pop(future, 0)
            self._changed.notify()

    def _started(self, subject: str) -> BackgroundThread:
        if self._closed:
            raise closed(subject)
        if self._background is None:
            capacity = self._most_events if self._when_full == "drop_oldest" else None
            parcels = HandoffQueue(capacity, self._most_size)
            self._background = BackgroundThread(self._make, parcels, name=f"{self.name}: publisher")
            _open.add(self)
        return self._background

    def _of_this_process(self) -> None:
        if self._background is not None and self._background.pid != os.getpid():
            raise RuntimeError(
                f"this SyncPublisher was used in process {self._background.pid}, and this is a fork of it;"
                " make one in each process"
            )


def _nothing() -> None:
    return None


def _not_in_background() -> None:
    if in_background():
        raise RuntimeError(
            "this would wait for its own thread; in a callback, use submit() while there is room"
        )


_open: WeakSet[SyncPublisher] = WeakSet()


@atexit.register
def _close_all() -> None:
    for publisher in list(_open):
        publisher.close(EXIT_TIMEOUT)


__all__ = ["EXIT_TIMEOUT", "SyncPublisher"]
