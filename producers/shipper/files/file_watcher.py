"""Wakes the shipper when a file changes; only a convenience: polling finds everything anyway."""

import asyncio
import contextlib
import glob
import logging
import os
from collections.abc import Iterable
from typing import Final

from watchfiles import awatch

# It tells every change that it sees, and none of them is news to an operator.
logging.getLogger("watchfiles").setLevel(logging.WARNING)

_STEP: Final = 20
"""Milliseconds in which changes are gathered."""


def folders_of(patterns: Iterable[str]) -> set[str]:
    """Folders in which files of some paths and globs can appear, as far as they are there."""
    found = set()
    for pattern in patterns:
        folder = os.path.dirname(pattern)
        found |= set(glob.iglob(folder)) if glob.has_magic(folder) else {folder}
    return {folder for folder in found if os.path.isdir(folder)}


class FileWatcher:
    """Sleeps until something changes, or for a time.

    Args:
        patterns: absolute paths and globs.
    """

    def __init__(self, patterns: list[str]) -> None:
        self.active = False
        """True while changes are told by the system."""
        self._patterns = patterns
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Watch, until cancelled; give up where the system cannot."""
        folders = folders_of(self._patterns)
        if not folders or any("**" in pattern for pattern in self._patterns):
            return
        with contextlib.suppress(OSError, RuntimeError):
            self.active = True
            async for _ in awatch(
                *folders, recursive=False, step=_STEP, debounce=_STEP * 2, stop_event=self._stop
            ):
                self._changed.set()
        self.active = False

    def stop(self) -> None:
        """Let ``run`` end."""
        self._stop.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a change, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()
