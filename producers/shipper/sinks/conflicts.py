"""Limit of conflicts: more than a restart or a takeover explains come from a second shipper."""

from collections import deque
from typing import Final

MAX_CONFLICTS: Final = 3
"""Conflicts within ``CONFLICT_WINDOW`` that end the shipper: fewer come from a restart or takeover."""

CONFLICT_WINDOW: Final = 60.0
"""Seconds over which conflicts are counted."""


class ConflictLimit:
    """Counter of the latest conflicts."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_CONFLICTS)

    def is_reached(self, now: float) -> bool:
        """Count a conflict at ``now`` in monotonic seconds; return whether these are too many."""
        self._times.append(now)
        return len(self._times) == MAX_CONFLICTS and now - self._times[0] < CONFLICT_WINDOW
