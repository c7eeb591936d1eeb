"""The window of events sent and not yet acknowledged; decides what to send again and what to give up.

No I/O and no clock: ``now`` is an argument, in seconds of any monotonic clock.

Invariants:

1. An entry leaves the window once: acknowledged, failed, or withdrawn by its caller.
2. An entry is sent again under the ``Nats-Msg-Id`` that it had at first, so that the stream holds it once.
3. Whatever happens, an entry leaves at its deadline.
4. 'Too many requests' slows the whole link, by waits that grow and bursts that shrink.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from tickertape.producers.sdk.publish_ack import TransientFailure

AckFuture = TypeVar("AckFuture")

RETRY_WAIT: Final = 0.25
"""Seconds before an event is sent again after 'no responders' or 'busy' (ADR-22)."""

MAX_RETRY_WAIT: Final = 2.0
"""Seconds; the wait doubles up to this, since a large stream can take a while to be restored."""

FULL_BURST: Final = 2048
"""Events at one sweep above which bursts are no longer counted."""

LEAST_BURST: Final = 16


@dataclass(slots=True)
class InFlightEvent(Generic[AckFuture]):
    """One event in flight.

    Attributes:
        token: last token of its reply subject.
        subject: in NATS, with the deployment's prefix.
        ticket: what its caller waits for.
        deadline: when it is given up.
        send_at: when it is to be sent (again); the deadline of its acknowledgement while it is under way.
        tries: how often it was handed to the connection.
        refusal: why the last try failed; None when nothing was heard.
    """

    token: str
    subject: str
    payload: bytes
    headers: dict[str, str]
    ticket: AckFuture
    deadline: float
    send_at: float
    tries: int = 0
    refusals: int = 0
    refusal: TransientFailure | None = None


class AckWindow(Generic[AckFuture]):
    """Events in flight, by the token of their reply subject.

    Args:
        ack_timeout: seconds to wait for an acknowledgement before sending again.
    """

    def __init__(self, ack_timeout: float) -> None:
        self.ack_timeout = ack_timeout
        self._entries: dict[str, InFlightEvent[AckFuture]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<AckWindow {len(self._entries)} in flight>"

    def entries(self) -> Iterable[InFlightEvent[AckFuture]]:
        """All entries, oldest first."""
        return self._entries.values()

    def add(self, entry: InFlightEvent[AckFuture]) -> None:
        """Put an event under watch, before it is sent."""
        self._entries[entry.token] = entry

    def get(self, token: str) -> InFlightEvent[AckFuture] | None:
        """Entry of a reply; None when it has left, as after a second acknowledgement."""
        return self._entries.get(token)

    def remove(self, token: str) -> InFlightEvent[AckFuture] | None:
        """Take an entry out; None when it has left already."""
        return self._entries.pop(token, None)

    def sent(self, entry: InFlightEvent[AckFuture], now: float) -> None:
        """Note that an entry was handed to the connection."""
        entry.tries += 1
        entry.send_at = now + self.ack_timeout

    def refused(self, entry: InFlightEvent[AckFuture], refusal: TransientFailure, now: float) -> None:
        """Note a passing refusal: the entry is due again after a wait that grows."""
        entry.refusal = refusal
        entry.send_at = now + min(MAX_RETRY_WAIT, RETRY_WAIT * 2.0**entry.refusals)
        entry.refusals = min(entry.refusals + 1, 16)

    def postpone(self, entry: InFlightEvent[AckFuture], until: float) -> None:
        """Have an entry sent again at a moment."""
        entry.send_at = until

    def resend_all(self, now: float) -> None:
        """Make everything due: a new connection knows nothing of what the old one may have lost."""
        for entry in self._entries.values():
            entry.send_at = now

    def due(self, now: float) -> list[InFlightEvent[AckFuture]]:
        """Entries to send now, oldest first."""
        return [entry for entry in self._entries.values() if entry.send_at <= now]

    def expire(self, now: float) -> list[InFlightEvent[AckFuture]]:
        """Take out the entries whose deadline has passed."""
        expired = [entry for entry in self._entries.values() if entry.deadline <= now]
        for entry in expired:
            del self._entries[entry.token]
        return expired


class SendPacer:
    """How fast the whole link may go: JetStream's 'too many requests' is about the stream, not one event.

    After a refusal the link waits, then sends in bursts, one at each sweep. Bursts halve and waits double at
    each refusal; both recover with each burst that is taken, until nothing bounds the link any more.

    Attributes:
        until: nothing is handed over before.
        burst: events at one sweep; None when nothing bounds them.
    """

    def __init__(self) -> None:
        self.until = 0.0
        self.burst: int | None = None
        self._refusals = 0
        self._taken = False  # True when a burst went out, and no refusal came since

    def __repr__(self) -> str:
        return f"<SendPacer until {self.until:g}, bursts of {self.burst}, {self._refusals} refusals>"

    def busy(self, now: float) -> None:
        """Note a 'too many requests'."""
        if now < self.until:
            return  # one of the many that were under way together; they are one refusal
        self._taken = False
        self.until = now + min(MAX_RETRY_WAIT, RETRY_WAIT * 2.0**self._refusals)
        self._refusals = min(self._refusals + 1, 16)
        self.burst = max(LEAST_BURST, (self.burst or FULL_BURST) // 2)

    def allowance(self, now: float) -> int | None:
        """How many events may go at this sweep; None for any number."""
        if now < self.until:
            return 0
        if self.burst is None:
            return None
        if self._taken:
            self._refusals = max(0, self._refusals - 1)
            self.burst += max(1, self.burst // 4)
            if self.burst >= FULL_BURST:
                self.burst = None
        self._taken = True
        return self.burst
