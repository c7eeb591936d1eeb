"""Timeouts of tailed files, measured by a monotonic clock: setting the system clock changes none of them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ROTATION_GRACE: Final = 5.0
"""Seconds without growth after which a rotated file is complete: its writer has then opened the next."""

HALF_LINE_AFTER: Final = 60.0
"""Seconds without growth after which a line without a line break is shipped as it is."""

MULTILINE_TIMEOUT: Final = 0.25
"""Seconds without growth after which an event no longer waits for continuation lines. Loggers write a
traceback in one go, and the last line of a quiet log reaches the feed with this delay."""

TICK: Final = 0.02
"""Seconds by which a modification time may lag behind the clock, because kernels update it in ticks."""

CLOCK_MARGIN: Final = 2.0
"""Seconds of tolerance between file times and the clock; less than ``ROTATION_GRACE``."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Timeouts of the files of one shipper, in seconds.

    Attributes:
        grace: seconds without growth after which a rotated file is complete.
        half_line_after: seconds without growth after which a line without a line break is shipped as it is.
        clock: returns monotonic seconds.
    """

    grace: float = ROTATION_GRACE
    half_line_after: float = HALF_LINE_AFTER
    clock: Callable[[], float] = time.monotonic

    def grown_at(self, age: float) -> float:
        """Return the time of the last growth of a file, from which timeouts count.

        Args:
            age: seconds since then by the time of the file, if nothing later was reported. It shortens only
                the wait of an event for continuation lines, as that time can be wrong.
        """
        return self.clock() - min(max(age, 0.0), MULTILINE_TIMEOUT)
