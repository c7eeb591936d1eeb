"""What is logged of those who were refused: each at first, then only how many.

Invariants:

1. In ``WINDOW`` seconds there are at most ``LINES`` lines for each close code and two that add up, however
   many strangers come.
2. Nothing that a client sent is in them, since a token in the wrong place would be: it is told more.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

from tickertape.relay.core.connection_limits import Limit

log = logging.getLogger("tickertape.refused")

WINDOW: Final = 10.0
LINES: Final = 5

_TOLD: Final = frozenset({Limit.MESSAGE_RATE, Limit.AUTH_TIME})
"""Limits whose clients were told why, each with a line of its own."""


class RejectionLog:
    """Logs refusals, sparingly."""

    def __init__(self) -> None:
        self._since = 0.0
        self._seen: Counter[int] = Counter()
        self._limits: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"RejectionLog({self._seen.total()} in this window)"

    def record(self, code: int, reason: str, address: str, session: str = "") -> None:
        """Somebody was refused, or sent away for a fault.

        Args:
            code: of the close that goes with it.
            reason: a word or two of ours; what the client is told may quote it.
            address: of the client.
            session: id of its session; empty when it never had one.
        """
        code = int(code)
        self._seen[code] += 1
        if self._seen[code] > LINES:
            return
        fields = {"code": code, "reason": reason, "address": address}
        if session:
            log.warning(
                "session %s from %s ended: %s (%d)", session, address, reason, code,
                extra={**fields, "session": session},
            )  # fmt: skip
        else:
            log.warning("a client from %s refused: %s (%d)", address, reason, code, extra=fields)

    def tick(self, now: float, limits: Mapping[Limit, int]) -> None:
        """Add up what the last window held, once it is over; called every second.

        Args:
            now: seconds.
            limits: how often each was met since the start.
        """
        if now - self._since < WINDOW:
            return
        self._since = now
        more = {str(code): count - LINES for code, count in sorted(self._seen.items()) if count > LINES}
        self._seen.clear()
        if more:
            log.warning("refused as well: %s", _listed(more), extra={"refused": more})
        there = Counter({str(limit): count for limit, count in limits.items() if limit not in _TOLD})
        met, self._limits = there - self._limits, there
        if met:
            log.warning("limits kept clients out: %s", _listed(met), extra={"limits": dict(met)})


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
