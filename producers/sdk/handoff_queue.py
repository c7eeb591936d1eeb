"""The events on their way from a program's threads to the thread that publishes them: a bounded queue.

Invariants:

1. Neither side ever waits for the other: one puts, one takes, and no lock lies between them.
2. Never more parcels and bytes than the limits, but for one parcel that is larger than all of them.
3. Whoever leaves the queue without being taken has its future settled.
"""

import concurrent.futures
import contextlib
from collections import deque
from typing import NamedTuple

from tickertape.producers.sdk.capacity import MAX_PENDING_BYTES
from tickertape.producers.sdk.errors import PublishDropped, PublishError
from tickertape.producers.sdk.publish_ack import Ack


class Handoff(NamedTuple):
    """An event on its way to the thread.

    Attributes:
        subject: without the deployment's prefix.
        payload: valid already.
        msg_id: None for a fresh one.
        headers: more headers.
        future: to be settled; None when nobody asks.
    """

    subject: str
    payload: bytes
    msg_id: str | None
    headers: dict[str, str] | None
    future: concurrent.futures.Future[Ack] | None


class HandoffQueue:
    """The queue.

    Args:
        capacity: parcels above which the oldest is dropped; None when the caller counts them.
        size: bytes of their payloads, likewise.

    Attributes:
        dropped: how many; written by those who put.
    """

    def __init__(self, capacity: int | None, size: int = MAX_PENDING_BYTES) -> None:
        self.dropped = 0
        self._capacity = capacity
        self._size = size
        self._queue: deque[Handoff] = deque()
        # Two counters, each with one writer: a common one would need a lock.
        self._put_bytes = 0
        self._taken_bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, parcel: Handoff) -> None:
        """Append a parcel; only one thread at a time may call this."""
        size = len(parcel.payload)
        while self._capacity is not None and self._queue and self._is_full(self._capacity, size):
            with contextlib.suppress(IndexError):  # the other thread may have been faster
                self._drop(self._queue.popleft())
        self._put_bytes += size
        self._queue.append(parcel)

    def take(self) -> Handoff | None:
        """Take the oldest parcel; None when there is none. Its future is no longer to be cancelled."""
        while self._queue:
            with contextlib.suppress(IndexError):
                parcel = self._queue.popleft()
                self._taken_bytes += len(parcel.payload)
                if parcel.future is None or parcel.future.set_running_or_notify_cancel():
                    return parcel
        return None

    def abandon(self) -> int:
        """Fail everything in the queue, and return how many there were."""
        number = 0
        while (parcel := self.take()) is not None:
            number += 1
            if parcel.future is not None:
                parcel.future.set_exception(closed(parcel.subject))
        return number

    def _is_full(self, capacity: int, size: int) -> bool:
        return len(self._queue) >= capacity or self._put_bytes - self._taken_bytes + size > self._size

    def _drop(self, parcel: Handoff) -> None:
        self._put_bytes -= len(parcel.payload)
        if parcel.future is not None and not parcel.future.set_running_or_notify_cancel():
            return
        self.dropped += 1
        if parcel.future is not None:
            message = "it was the oldest of a full queue, and made room for a newer one"
            hint = "raise max_pending, or publish less"
            parcel.future.set_exception(PublishDropped(parcel.subject, message, hint))


def closed(subject: str) -> PublishError:
    """Make the error of an event that came too late."""
    return PublishError(subject, "the publisher is closed", "keep it open until everything is published")
