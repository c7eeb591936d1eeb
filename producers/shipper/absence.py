"""Absence of a file stream's name: a folder that is missing for a while does not make its files new ones.

Invariants:

1. Positions are forgotten only after the name has been absent, from a folder that can be read, for the whole
   time that the operator has set; restarts do not shorten or extend it.
2. A file that is open, still exists somewhere and whose folder is missing is not taken for a rotated one.
"""

import os
from typing import Final

DEFAULT_FORGET_AFTER: Final = 7 * 86_400.0
"""Seconds after which the positions of an absent name are forgotten."""

LONG_AGO: Final = 1.0
"""UNIX seconds since which a name is absent whose files are forgotten."""

_SAVED_AFTER: Final = 60.0
"""Seconds of absence after which it is saved in a checkpoint; a rotation takes less."""


class Absence:
    """Time since which a name is absent.

    Args:
        since: UNIX seconds, from the last checkpoint; 0 if the name was not absent.

    Attributes:
        since: UNIX seconds since which the name is absent; 0 if it is not.
        folder_is_away: the folder of the name is missing or cannot be read.
        unreadable: the folder of the name exists, but cannot be read, so nothing is known.
    """

    def __init__(self, since: float = 0.0) -> None:
        self.since = since
        self.folder_is_away = False
        self.unreadable = False
        self._saved = bool(since)

    def __bool__(self) -> bool:
        return bool(self.since) or self.unreadable

    def end(self) -> bool:
        """Record that the name was found; return whether a checkpoint must save that."""
        saved, self._saved = self._saved, False
        self.since, self.folder_is_away, self.unreadable = 0.0, False, False
        return saved

    def record(self, path: str, now: float) -> bool:
        """Record that a name was not found at ``now`` in UNIX seconds.

        Returns:
            Whether a checkpoint must save that.
        """
        self.folder_is_away, self.unreadable = _folder_state(os.path.dirname(path))
        if self.unreadable:
            return False
        self.since = self.since or now
        if self._saved or now - self.since < _SAVED_AFTER:
            return False
        self._saved = True
        return True

    def lasts(self, seconds: float, now: float) -> bool:
        """Return whether the name has been absent for a number of seconds at ``now`` in UNIX seconds."""
        return bool(self.since) and now - self.since >= seconds

    def shift_clock(self, step: float) -> None:
        """Shift the time because the system clock was set by ``step`` seconds."""
        if self.since:
            self.since += step


def _folder_state(folder: str) -> tuple[bool, bool]:
    """Return whether a folder is missing or unreadable, and whether it is unreadable."""
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError):
        return True, False
    except OSError:
        return True, True
    return False, False
