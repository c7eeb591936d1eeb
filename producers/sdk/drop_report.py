"""What a publisher had to drop: counted, told in the program's log, and told in the stream when NATS is back.

Invariants:

1. Every dropped event is counted once, and told once in the stream: a report that failed is made again.
2. At most one line a second in the log, however many are dropped.
"""

import logging
from typing import Final

from tickertape.contracts.events import SystemLog

LOGGER: Final = "tickertape"
"""Name of the standard logger that hears of drops."""

LINE_INTERVAL: Final = 1.0
"""Seconds between two lines in the log."""

QUIET: Final = 1.0
"""Seconds without a drop before the stream is told, so that one outage is one event."""

_log = logging.getLogger(LOGGER)


class DropReport:
    """The counts of one publisher; no clock: ``now`` is in seconds of any monotonic clock.

    Args:
        name: the publisher's, which is the source of the reports.

    Attributes:
        count: since the publisher was made.
        untold: of these, how many the stream has not been told.
    """

    def __init__(self, name: str) -> None:
        self.name = name or "publisher"  # a source is never empty
        self.count = 0
        self.untold = 0
        self._unlogged = 0
        self._line_at = -LINE_INTERVAL
        self._last = -QUIET
        self._away = False

    def __repr__(self) -> str:
        return f"<DropReport {self.count}, {self.untold} untold>"

    def add(self, number: int, now: float, *, away: bool) -> None:
        """Count dropped events.

        Args:
            number: how many.
            away: True when NATS is away, which then is the reason.
        """
        if not self.untold:
            self._away = False
        self.count += number
        self.untold += number
        self._unlogged += number
        self._last = now
        self._away |= away
        self.say(now)

    def say(self, now: float) -> None:
        """Write the line that is due, if one is."""
        if self._unlogged and now - self._line_at >= LINE_INTERVAL:
            number, self._unlogged, self._line_at = self._unlogged, 0, now
            _log.warning("%s: %s", self.name, self._text(number))

    def due(self, now: float) -> bool:
        """Tell whether the stream is to be told now."""
        return self.untold > 0 and now - self._last >= QUIET

    def report(self) -> tuple[SystemLog, int]:
        """Make the event that tells of everything untold, and how many it tells of."""
        number, self.untold = self.untold, 0
        return SystemLog(
            level="WARN", message=self._text(number), source=self.name, metadata={"dropped": number}
        ), number

    def again(self, number: int) -> None:
        """Take a report back that did not arrive."""
        self.untold += number

    def _text(self, number: int) -> str:
        why = "while NATS was away" if self._away else "since they came faster than the stream took them"
        return f"{number} {'event was' if number == 1 else 'events were'} dropped {why}"
