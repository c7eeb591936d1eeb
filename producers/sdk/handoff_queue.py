"""Bounded queue of events that a program's threads hand to the thread that publishes them.

Invariants:

1. Neither side ever waits for the other: there is one producer and one consumer, and no lock between them.
2. The limits are never exceeded, except by a single event that is larger than the size limit.
3. A handoff that leaves the queue without being taken has its future resolved.
"""

import concurrent.futures
import contextlib
from collections import deque
from typing import NamedTuple

from tickertape.producers.sdk.capacity import MAX_PENDING_BYTES
from tickertape.producers.sdk.errors import PublishDropped, closed_error
from tickertape.producers.sdk.publish_ack import Ack


class Handoff(NamedTuple):
    """Event on its way to the publishing thread.

    Attributes:
        subject: subject, without the deployment's prefix.
        payload: JSON, already checked against the contract.
        msg_id: ``Nats-Msg-Id``; None generates one.
        headers: additional headers.
        future: future to resolve; None if no caller waits for the outcome.
    """

    subject: str
    payload: bytes
    msg_id: str | None
    headers: dict[str, str] | None
    future: concurrent.futures.Future[Ack] | None


class HandoffQueue:
    """Queue of handoffs that drops the oldest when it is full.

    Args:
        max_events: events above which the oldest is dropped; None if the caller enforces its own limits.
        max_bytes: total bytes of their payloads above which the oldest is dropped, likewise.

    Attributes:
        dropped: number of events dropped; written by the thread that calls ``put``.
    """

    def __init__(self, max_events: int | None, max_bytes: int = MAX_PENDING_BYTES) -> None:
        self.dropped = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._queue: deque[Handoff] = deque()
        # Two counters with one writer each: a shared counter would need a lock.
        self._put_bytes = 0
        self._taken_bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, handoff: Handoff) -> None:
        """Append a handoff; only one thread at a time may call this."""
        size = len(handoff.payload)
        while self._max_events is not None and self._queue and self._is_full(self._max_events, size):
            with contextlib.suppress(IndexError):  # the consumer may have taken the last one meanwhile
                self._drop(self._queue.popleft())
        self._put_bytes += size
        self._queue.append(handoff)

    def take(self) -> Handoff | None:
        """Remove and return the oldest handoff, whose future can no longer be cancelled; None if empty."""
        while self._queue:
            # The producer may drop the last one meanwhile.
            with contextlib.suppress(IndexError):
                handoff = self._queue.popleft()
                self._taken_bytes += len(handoff.payload)
                if handoff.future is None or handoff.future.set_running_or_notify_cancel():
                    return handoff
        return None

    def abandon(self) -> int:
        """Fail every handoff in the queue, and return their number."""
        number = 0
        while (handoff := self.take()) is not None:
            number += 1
            if handoff.future is not None:
                handoff.future.set_exception(closed_error(handoff.subject))
        return number

    def _is_full(self, max_events: int, size: int) -> bool:
        return len(self._queue) >= max_events or self._put_bytes - self._taken_bytes + size > self._max_bytes

    def _drop(self, handoff: Handoff) -> None:
        # The producer corrects its own counter; the other one belongs to the consumer.
        self._put_bytes -= len(handoff.payload)
        if handoff.future is not None and not handoff.future.set_running_or_notify_cancel():
            return
        self.dropped += 1
        if handoff.future is not None:
            message = "dropped as the oldest event of a full queue"
            hint = "raise max_pending, or publish less"
            handoff.future.set_exception(PublishDropped(handoff.subject, message, hint))
