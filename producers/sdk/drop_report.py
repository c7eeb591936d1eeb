"""Report of the events that a publisher dropped: counted, logged by the program, and published to the stream.

Invariants:

1. Every dropped event is counted once and reported once in the stream; a report that fails is repeated.
2. The log gets at most one line per second, however many events are dropped.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from tickertape.contracts.events import SystemLog

LOGGER: Final = "tickertape"
"""Name of the standard logger that receives warnings about dropped events."""

LOG_INTERVAL: Final = 1.0
"""Minimum seconds between two log lines."""

QUIET_PERIOD: Final = 1.0
"""Seconds without a drop before the report is published, so that one outage produces one report."""

_log = logging.getLogger(LOGGER)


class DropReport:
    """Counters of a publisher's dropped events; no clock: ``now`` is in seconds of any monotonic clock.

    Args:
        name: name of the publisher; the source of its reports.

    Attributes:
        count: events dropped since the publisher was created.
        unreported: dropped events that no published report covers.
        report: future of the report that awaits its acknowledgement; None if there is none.
    """

    def __init__(self, name: str) -> None:
        self.name = name or "publisher"  # the contract does not allow an empty source
        self.count = 0
        self.unreported = 0
        self.report: asyncio.Future[Any] | None = None
        self._unlogged = 0
        self._logged_at = -LOG_INTERVAL
        self._dropped_at = -QUIET_PERIOD
        self._offline = False

    def __repr__(self) -> str:
        return f"<DropReport {self.count}, {self.unreported} unreported>"

    def add(self, number: int, now: float, *, offline: bool) -> None:
        """Count dropped events.

        Args:
            number: number of events.
            offline: whether NATS is unreachable, which the report then names as the reason.
        """
        # A new report begins, for which the reason of the previous one no longer holds.
        if not self.unreported:
            self._offline = False
        self.count += number
        self.unreported += number
        self._unlogged += number
        self._dropped_at = now
        self._offline |= offline
        self.log_if_due(now)

    def log_if_due(self, now: float) -> None:
        """Log the drops that have not been logged, unless the last line is too recent."""
        if self._unlogged and now - self._logged_at >= LOG_INTERVAL:
            number, self._unlogged, self._logged_at = self._unlogged, 0, now
            _log.warning("%s: %s", self.name, self._text(number))

    def is_due(self, now: float) -> bool:
        """Return whether a report should be published now."""
        return self.unreported > 0 and now - self._dropped_at >= QUIET_PERIOD

    def take(self) -> tuple[SystemLog, int]:
        """Return the event that reports all unreported drops, and their number."""
        number, self.unreported = self.unreported, 0
        return SystemLog(
            level="WARN", message=self._text(number), source=self.name, metadata={"dropped": number}
        ), number

    def restore(self, number: int) -> None:
        """Count drops as unreported again, because their report was not acknowledged."""
        self.unreported += number

    def publish(self, send: Callable[[SystemLog], asyncio.Future[Any]]) -> None:
        """Publish a report of all unreported drops, unless one still awaits its acknowledgement.

        Args:
            send: sends the event, and returns the future of its acknowledgement.
        """
        if self.report is not None or not self.unreported:
            return
        event, number = self.take()
        self.report = send(event)

        def handle_outcome(report: asyncio.Future[Any]) -> None:
            self.report = None
            if report.cancelled() or report.exception() is not None:
                self.restore(number)

        self.report.add_done_callback(handle_outcome)

    def _text(self, number: int) -> str:
        reason = "while NATS was unreachable" if self._offline else "because the stream could not keep up"
        return f"{number} {'event was' if number == 1 else 'events were'} dropped {reason}"
