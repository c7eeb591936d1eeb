"""Failure model of the demo: which gateway fails when, and for how long.

Failures are random within bounds. This module does no I/O and reads no clock.

Invariants:

1. At most ``MAX_FAILING`` gateways fail at a time, and each stays healthy for a while after a failure.
2. The first failure begins at ``FIRST_FAILURE_AT``, and every probe of that gateway detects it.
3. The same seed gives the same failures, however often ``advance`` is called, unless a gateway is restarted.
"""

import heapq
from collections.abc import Sequence
from random import Random
from typing import Final

from tickertape.demo.fleet import Condition, DemoGateway, Failure

MAX_FAILING: Final = 3
FIRST_FAILURE_AT: Final = 4.0
"""Seconds from the start to the first failure; by then the monitor has found every gateway healthy."""

SECOND_FAILURE_AFTER: Final = 4.0
"""Seconds from the first failure to the second."""

RESTART_TIME: Final = (2.0, 4.0)
"""Seconds that a restart takes."""

FAILURE_INTERVAL: Final = (5.0, 10.0)
"""Seconds from the start of one failure to the next, after the second failure."""

MIN_HEALTHY: Final = 20.0
"""Seconds that a gateway stays healthy after a failure."""


class FailureModel:
    """Schedule of the failures of a fleet.

    Args:
        fleet: gateways that may fail.
        random: source of randomness.
    """

    def __init__(self, fleet: Sequence[DemoGateway], random: Random) -> None:
        self._fleet = fleet
        self._random = random
        self._steps: list[tuple[float, str, Condition]] = []
        self._available_at = {gateway.id: 0.0 for gateway in fleet}  # when each gateway may fail next
        self._next_at = FIRST_FAILURE_AT
        self._failure_count = 0

    def advance(self, now: float) -> list[tuple[str, Condition]]:
        """Return the condition changes that are due.

        Args:
            now: seconds since the start; never goes back.
        """
        changes: list[tuple[str, Condition]] = []
        while True:
            step_at = self._steps[0][0] if self._steps else self._next_at
            if min(step_at, self._next_at) > now:
                return changes
            if self._steps and step_at <= self._next_at:
                _, gateway_id, condition = heapq.heappop(self._steps)
                changes.append((gateway_id, condition))
            else:
                self._start_failure(self._next_at)

    def restart(self, gateway_id: str, now: float) -> bool:
        """Make a gateway healthy after a restart, and cancel the remaining episodes of its failure.

        Returns:
            False if no gateway has this id.
        """
        if gateway_id not in self._available_at:
            return False
        pending = [step for step in self._steps if step[1] == gateway_id]
        if pending:
            healthy_at = min(now + self._random.uniform(*RESTART_TIME), max(at for at, _, _ in pending))
            self._steps = [step for step in self._steps if step[1] != gateway_id]
            self._steps.append((healthy_at, gateway_id, Condition.HEALTHY))
            heapq.heapify(self._steps)
        return True

    def _start_failure(self, now: float) -> None:
        self._next_at = now + (
            SECOND_FAILURE_AFTER if self._failure_count == 0 else self._random.uniform(*FAILURE_INTERVAL)
        )
        failing = sum(available_at - MIN_HEALTHY > now for available_at in self._available_at.values())
        candidates = [gateway for gateway in self._fleet if self._available_at[gateway.id] <= now]
        if failing >= MAX_FAILING or not candidates:
            return
        gateway = self._random.choice(candidates)
        failures = gateway.failures
        if self._failure_count == 0:
            # A user who has just opened the page should see a clear failure, not a slow or flapping gateway.
            clear = [f for f in failures if f.condition is not Condition.SLOW and f.episodes == 1]
            failures = tuple(clear) or failures
        self._failure_count += 1
        ends = self._schedule_episodes(gateway.id, self._random.choice(failures), now)
        self._available_at[gateway.id] = ends + MIN_HEALTHY

    def _schedule_episodes(self, gateway_id: str, failure: Failure, now: float) -> float:
        """Schedule all changes of a failure; return when the last episode ends."""
        for episode in range(failure.episodes):
            if episode:
                now += self._random.uniform(failure.min_seconds, failure.max_seconds)
            heapq.heappush(self._steps, (now, gateway_id, failure.condition))
            now += self._random.uniform(failure.min_seconds, failure.max_seconds)
            heapq.heappush(self._steps, (now, gateway_id, Condition.HEALTHY))
        return now
