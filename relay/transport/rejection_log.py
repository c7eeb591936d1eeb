"""Rate-limited log of rejected clients: the first are logged individually, the others only counted.

Invariants:

1. There are at most ``LINES`` lines per close code and two summary lines in ``WINDOW`` seconds, however many
   clients are rejected.
2. No line contains data that a client sent, which could be a misplaced token; only the client itself is sent
   the details.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

from tickertape.relay.core.connection_limits import Limit

log = logging.getLogger("tickertape.rejections")

WINDOW: Final = 10.0
"""Seconds after which rejections are summarized and the count starts over."""

LINES: Final = 5
"""Maximum lines per close code within one window."""

_LOGGED_INDIVIDUALLY: Final = frozenset({Limit.MESSAGE_RATE, Limit.AUTH_TIME})
"""Limits that close a session, which is logged with a line of its own."""


class RejectionLog:
    """Rate-limited log of rejections and of sessions that the relay closes for a client fault."""

    def __init__(self) -> None:
        self._window_start = 0.0
        self._counts: Counter[int] = Counter()
        self._limits: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"RejectionLog({self._counts.total()} in this window)"

    def record(self, code: int, reason: str, address: str, session: str = "") -> None:
        """Count a rejection, and log it unless the window is full.

        Args:
            code: close code of the rejection.
            reason: fixed short text; it must not contain data from the client.
            address: client address.
            session: session id; empty if there was no session.
        """
        code = int(code)
        self._counts[code] += 1
        if self._counts[code] > LINES:
            return
        fields = {"code": code, "reason": reason, "address": address}
        if session:
            log.warning(
                "closed session %s from %s: %s (%d)", session, address, reason, code,
                extra={**fields, "session": session},
            )  # fmt: skip
        else:
            log.warning("rejected client %s: %s (%d)", address, reason, code, extra=fields)

    def tick(self, now: float, limits: Mapping[Limit, int]) -> None:
        """Log a summary once the window is over; called every second.

        Args:
            now: seconds.
            limits: number of times that each limit was exceeded since the start.
        """
        if now - self._window_start < WINDOW:
            return
        self._window_start = now
        unlogged = {str(code): count - LINES for code, count in sorted(self._counts.items()) if count > LINES}
        self._counts.clear()
        if unlogged:
            log.warning("further rejections: %s", _format_counts(unlogged), extra={"rejected": unlogged})
        totals = Counter(
            {str(limit): count for limit, count in limits.items() if limit not in _LOGGED_INDIVIDUALLY}
        )
        # Both are totals since the start; the difference of two Counters has positive entries only.
        exceeded, self._limits = totals - self._limits, totals
        if exceeded:
            log.warning(
                "connections rejected by limits: %s",
                _format_counts(exceeded),
                extra={"limits": dict(exceeded)},
            )


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
