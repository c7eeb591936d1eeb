"""System clock that reports when it is set, so that durations do not change.

The system clock of a host can be set: by an operator, by NTP after the start, or by a virtual machine that
resumes. A deadline of that clock is then missed by an hour, or expires early. So durations are measured by
the monotonic clock (``time.monotonic`` or the loop's ``time``), and the system clock is only for times that
others read or have written: timestamps, expiries, schedules, times of files.

Where one number serves both, as ``now`` of a component does, ``SteppedClock`` reports by how much the system
clock was set, and the component shifts its deadlines.
"""

import time
from collections.abc import Callable
from typing import Final

STEP: Final = 0.5
"""Seconds from which a difference between the clocks is a step, and not a gradual adjustment."""


def uptime() -> float:
    """Return the seconds since the start of the host, including those in which it was suspended."""
    # Where there is no such clock, the monotonic one may include them, too.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class SteppedClock:
    """System clock that notices when it is set.

    Args:
        on_step: called with the seconds by which the clock was set, before a time after that is returned;
            negative if it was set back.
        wall: returns the time of the system clock, UNIX seconds.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        on_step: Callable[[float], None],
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_step = on_step
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def __repr__(self) -> str:
        return f"SteppedClock({self._offset:.3f})"

    def now(self) -> float:
        """Return the time of the system clock, UNIX seconds."""
        now = self._wall()
        offset = now - self._monotonic()
        step = offset - self._offset
        if abs(step) >= STEP:
            self._offset = offset
            self._on_step(step)
        return now
