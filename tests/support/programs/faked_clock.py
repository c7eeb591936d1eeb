"""System clock of programs that a test sets, while they run, by libfaketime.

Only the clock that tells the time is set. The monotonic clock and the times of files are those of the kernel.
"""

import os
from pathlib import Path

from tests.support.browser.browser_desk import missing

_LIBRARY = "faketime/libfaketimeMT.so.1"


class FakedClock:
    """System clock of every program that has ``environment``.

    Args:
        file: file with the offset, which the programs read whenever they need the time.

    Attributes:
        offset: seconds by which the clock differs from the kernel's.
    """

    def __init__(self, file: Path) -> None:
        library = next((path for path in Path("/usr/lib").glob(f"*/{_LIBRARY}")), None)
        if library is None:
            missing("needs libfaketime; 'apt-get install faketime' brings it")
        self._file = file
        self.offset = 0
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, offset: int) -> None:
        """Set the clock to the kernel's plus a number of seconds."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+d}s\n")
        os.replace(new, self._file)  # a program may be reading it
        self.offset = offset
