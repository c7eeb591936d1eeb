"""Report that NATS is connected but stores no events, as when the disk of nats-server is full.

Invariants:

1. Each stall is reported once, with its cause, and its end is reported once.
2. A lost connection is no stall: the connection reports it.
"""

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from tickertape.producers.sdk.drop_report import LOGGER

STALL_AFTER: Final = 5.0
"""Seconds without an acknowledgement, while connected and with events in flight, that make a stall: more than
the election of a leader usually takes, and two resends."""

EventT = TypeVar("EventT")

_log = logging.getLogger(LOGGER)


class StallReport:
    """State of a publisher's stall; no clock: ``now`` is in seconds of any monotonic clock.

    Args:
        name: name of the publisher, for the log.
        report: called with each line; None logs a warning.

    Attributes:
        stalled: whether a stall is reported and has not ended.
    """

    def __init__(self, name: str, report: Callable[[str], None] | None) -> None:
        self.stalled = False
        self._report = report or (lambda line: _log.warning("%s: %s", name, line))
        self._progress_at: float | None = None

    def __repr__(self) -> str:
        return f"<StallReport {'stalled' if self.stalled else 'no stall'}>"

    def record_ack(self, now: float) -> None:
        """Record that an event was stored, which ends a stall."""
        self._progress_at = now
        if self.stalled:
            self.stalled = False
            self._report("NATS stores events again")

    def restart(self) -> None:
        """Measure from the next check: the publisher is idle or offline."""
        self._progress_at = None

    def check(
        self, now: float, oldest: EventT | None, last_failure: Callable[[EventT], tuple[str, str]]
    ) -> None:
        """Report a stall if there is one; called regularly while connected.

        Args:
            now: current time.
            oldest: oldest event in flight; None if there is none.
            last_failure: returns message and hint for the last attempt to send an event.
        """
        if oldest is None:
            self.restart()
        elif self._progress_at is None:
            self._progress_at = now
        elif not self.stalled and now - self._progress_at >= STALL_AFTER:
            self.stalled = True
            message, hint = last_failure(oldest)
            self._report(f"{message}; {hint}; retrying")
