"""Who falls ill when, and for how long: by chance, but within bounds. No I/O and no clock.

Invariants:

1. At most ``MAX_ILL`` gateways are in the course of an ailment at a time, and each rests after one.
2. The first one begins at ``FIRST_AT`` and is a failure that every probe of it shows.
3. The same seed gives the same fates, however often ``advance`` is called, as long as nobody is restarted.
"""

import heapq
from collections.abc import Sequence
from random import Random
from typing import Final

from tickertape.demo.fleet import Ailment, Member, Mood

MAX_ILL: Final = 3
FIRST_AT: Final = 4.0
"""Seconds after the start: the monitor has just seen everybody well."""

SECOND_AFTER: Final = 4.0
RESTART: Final = (2.0, 4.0)
"""Seconds that a restart takes."""

BETWEEN: Final = (5.0, 10.0)
"""Seconds from one gateway that falls ill to the next."""

REST: Final = 20.0
"""Seconds after an ailment in which a gateway stays well."""


class Fates:
    """The fates of a fleet.

    Args:
        fleet: the gateways.
        random: where chance comes from.
    """

    def __init__(self, fleet: Sequence[Member], random: Random) -> None:
        self._fleet = fleet
        self._random = random
        self._steps: list[tuple[float, str, Mood]] = []
        self._rested_at = {member.id: 0.0 for member in fleet}
        self._next_at = FIRST_AT
        self._fallen = 0

    def advance(self, now: float) -> list[tuple[str, Mood]]:
        """Return the changes of mood that are due.

        Args:
            now: seconds since the start; never goes back.
        """
        changes: list[tuple[str, Mood]] = []
        while True:
            step_at = self._steps[0][0] if self._steps else self._next_at
            if min(step_at, self._next_at) > now:
                return changes
            if self._steps and step_at <= self._next_at:
                _, member, mood = heapq.heappop(self._steps)
                changes.append((member, mood))
            else:
                self._fall_ill(self._next_at)

    def restart(self, member: str, now: float) -> bool:
        """Have a gateway well again after a moment; whatever else was to befall it this time does not.

        Returns:
            False when there is no gateway of that name.
        """
        if member not in self._rested_at:
            return False
        ill = [step for step in self._steps if step[1] == member]
        if ill:
            well_at = min(now + self._random.uniform(*RESTART), max(at for at, _, _ in ill))
            self._steps = [step for step in self._steps if step[1] != member]
            self._steps.append((well_at, member, Mood.WELL))
            heapq.heapify(self._steps)
        return True

    def _fall_ill(self, now: float) -> None:
        self._next_at = now + (SECOND_AFTER if self._fallen == 0 else self._random.uniform(*BETWEEN))
        ill = sum(rested_at - REST > now for rested_at in self._rested_at.values())
        well = [member for member in self._fleet if self._rested_at[member.id] <= now]
        if ill >= MAX_ILL or not well:
            return
        member = self._random.choice(well)
        ailments = member.ailments
        if self._fallen == 0:
            ailments = tuple(a for a in ailments if a.mood is not Mood.SLOW and a.spells == 1) or ailments
        self._fallen += 1
        ends = self._run_its_course(member.id, self._random.choice(ailments), now)
        self._rested_at[member.id] = ends + REST

    def _run_its_course(self, member: str, ailment: Ailment, now: float) -> float:
        """Put the changes on the calendar; return when the gateway is well for good."""
        for spell in range(ailment.spells):
            if spell:
                now += self._random.uniform(ailment.least, ailment.most)
            heapq.heappush(self._steps, (now, member, ailment.mood))
            now += self._random.uniform(ailment.least, ailment.most)
            heapq.heappush(self._steps, (now, member, Mood.WELL))
        return now
