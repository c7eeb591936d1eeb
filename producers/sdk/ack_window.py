"""Window of published events that await acknowledgement; decides which to resend and which to give up on.

No I/O and no clock: ``now`` is an argument, in seconds of any monotonic clock.

Invariants:

1. An event leaves the window exactly once: acknowledged, failed, or cancelled by its caller.
2. A resend carries the ``Nats-Msg-Id`` of the first send, so that the stream stores the event once.
3. An event never stays in the window past its deadline.
4. 'Too many requests' slows down every event, with growing pauses and shrinking bursts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from tickertape.producers.sdk.publish_ack import TransientFailure

FutureT = TypeVar("FutureT")

RETRY_WAIT: Final = 0.25
"""Seconds before an event is resent after 'no responders' or 'busy' (ADR-22 of NATS)."""

MAX_RETRY_WAIT: Final = 2.0
"""Upper bound in seconds to which the wait doubles; a server can take a while to restore a large stream."""

FULL_BURST: Final = 2048
"""Events per sweep above which bursts are no longer limited."""

MIN_BURST: Final = 16
"""Minimum burst in events per sweep, however often the stream reports that it is busy."""

_MAX_DOUBLINGS: Final = 16
"""Bound of the exponent, so that the power of two stays a small number."""


@dataclass(slots=True)
class InFlightEvent(Generic[FutureT]):
    """Event that awaits acknowledgement.

    Attributes:
        token: last token of the reply subject.
        subject: subject in NATS, with the deployment's prefix.
        future: future that the caller awaits.
        deadline: time at which the event is given up.
        send_at: time of the next send; while a send awaits its reply, the time at which that times out.
        attempts: number of sends so far.
        failures: number of transient failures so far.
        failure: reason why the last send failed; None if there was no reply.
    """

    token: str
    subject: str
    payload: bytes
    headers: dict[str, str]
    future: FutureT
    deadline: float
    send_at: float
    attempts: int = 0
    failures: int = 0
    failure: TransientFailure | None = None


class AckWindow(Generic[FutureT]):
    """Events in flight, keyed by the token of their reply subject.

    Args:
        ack_timeout: seconds without an acknowledgement before an event is resent.
    """

    def __init__(self, ack_timeout: float) -> None:
        self.ack_timeout = ack_timeout
        self._events: dict[str, InFlightEvent[FutureT]] = {}

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<AckWindow {len(self._events)} in flight>"

    def events(self) -> Iterable[InFlightEvent[FutureT]]:
        """Return all events, oldest first."""
        return self._events.values()

    def add(self, event: InFlightEvent[FutureT]) -> None:
        """Add an event, before its first send."""
        self._events[event.token] = event

    def get(self, token: str) -> InFlightEvent[FutureT] | None:
        """Return the event that a reply belongs to; None if it has left, as on a duplicate reply."""
        return self._events.get(token)

    def remove(self, token: str) -> InFlightEvent[FutureT] | None:
        """Remove and return an event; None if it has left already."""
        return self._events.pop(token, None)

    def mark_sent(self, event: InFlightEvent[FutureT], now: float) -> None:
        """Record that an event was passed to the connection."""
        event.attempts += 1
        event.send_at = now + self.ack_timeout

    def retry_later(self, event: InFlightEvent[FutureT], failure: TransientFailure, now: float) -> None:
        """Record a transient failure, and schedule the next attempt with exponential backoff."""
        event.failure = failure
        event.send_at = now + min(MAX_RETRY_WAIT, RETRY_WAIT * 2.0**event.failures)
        event.failures = min(event.failures + 1, _MAX_DOUBLINGS)

    def postpone(self, event: InFlightEvent[FutureT], until: float) -> None:
        """Set the time of an event's next attempt."""
        event.send_at = until

    def resend_all(self, now: float) -> None:
        """Make every event due: the previous connection may have lost what it was sending."""
        for event in self._events.values():
            event.send_at = now

    def due(self, now: float) -> list[InFlightEvent[FutureT]]:
        """Return the events to send now, oldest first."""
        # The window is bounded, so a scan for each sweep costs less than a heap that every acknowledgement
        # updates.
        return [event for event in self._events.values() if event.send_at <= now]

    def expire(self, now: float) -> list[InFlightEvent[FutureT]]:
        """Remove and return the events whose deadline has passed."""
        expired = [event for event in self._events.values() if event.deadline <= now]
        for event in expired:
            del self._events[event.token]
        return expired


class SendPacer:
    """Pacer of all sends: JetStream's 'too many requests' concerns the stream, not a single event.

    After a 'too many requests' nothing is sent for a while, then one burst per sweep. Each further one halves
    the burst and doubles the pause; each burst that is accepted undoes part of that, until sending is no
    longer limited.

    Attributes:
        paused_until: time before which nothing is sent.
        burst: events per sweep; None if unlimited.
    """

    def __init__(self) -> None:
        self.paused_until = 0.0
        self.burst: int | None = None
        self._doublings = 0
        self._burst_accepted = False  # set by a burst, cleared by the next 'too many requests'

    def __repr__(self) -> str:
        return f"<SendPacer until {self.paused_until:g}, bursts of {self.burst}, {self._doublings} doublings>"

    def slow_down(self, now: float) -> None:
        """Record a 'too many requests': pause, and halve the burst."""
        if now < self.paused_until:
            return  # replies to the events of one burst arrive together and count as one
        self._burst_accepted = False
        self.paused_until = now + min(MAX_RETRY_WAIT, RETRY_WAIT * 2.0**self._doublings)
        self._doublings = min(self._doublings + 1, _MAX_DOUBLINGS)
        self.burst = max(MIN_BURST, (self.burst or FULL_BURST) // 2)

    def allowance(self, now: float) -> int | None:
        """Return how many events this sweep may send; None if unlimited."""
        if now < self.paused_until:
            return 0
        if self.burst is None:
            return None
        if self._burst_accepted:
            self._doublings = max(0, self._doublings - 1)
            self.burst += max(1, self.burst // 4)
            if self.burst >= FULL_BURST:
                self.burst = None
        # Assumed until a 'too many requests' arrives before the next burst.
        self._burst_accepted = True
        return self.burst
