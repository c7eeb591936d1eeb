"""File system notifications that wake the shipper early; polling finds every change without them."""

import asyncio
import contextlib
import glob
import logging
import os
from collections.abc import Iterable
from typing import Final

from watchfiles import awatch

from tickertape.text import escape_surrogates

# It logs every change that it detects, and none of them is of interest to an operator.
logging.getLogger("watchfiles").setLevel(logging.WARNING)

_STEP: Final = 20
"""Milliseconds over which changes are collected into one notification."""


def folders_of(patterns: Iterable[str]) -> set[str]:
    """Return the existing folders in which files that match paths and globs can appear."""
    candidates = set()
    for pattern in patterns:
        folder = os.path.dirname(pattern)
        candidates |= set(glob.iglob(folder)) if glob.has_magic(folder) else {folder}
    return {folder for folder in candidates if os.path.isdir(folder)}


class FileWatcher:
    """Timer that a file system notification cuts short.

    Args:
        patterns: absolute paths and globs.

    Attributes:
        active: the operating system reports changes.
        changed_paths: paths that have changed since the owner last cleared them.
    """

    def __init__(self, patterns: list[str]) -> None:
        self.active = False
        self.changed_paths: set[str] = set()
        self._patterns = patterns
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Watch the folders until cancelled; return early where the system does not support it."""
        # watchfiles takes no name that is not UTF-8; files in such a folder are found by polling alone.
        folders = {folder for folder in folders_of(self._patterns) if escape_surrogates(folder) == folder}
        # The watch is not recursive, so files below a "**" are found by polling alone.
        if not folders or any("**" in pattern for pattern in self._patterns):
            return
        self.active = True
        try:
            # Without the default filter, which hides some names and costs time for each change.
            async for changes in awatch(
                *folders,
                watch_filter=None,
                recursive=False,
                step=_STEP,
                debounce=_STEP * 2,
                stop_event=self._stop,
            ):
                self.changed_paths.update(path for _, path in changes)
                self._changed.set()
        # watchfiles raises a group, for example when a file whose name is not UTF-8 changes.
        except* (OSError, RuntimeError):
            pass
        finally:
            self.active = False

    def stop(self) -> None:
        """Make ``run`` return."""
        self._stop.set()

    def wake(self) -> None:
        """Make ``wait`` return, although no file has changed."""
        self._changed.set()

    def notify(self, path: str) -> None:
        """Record that a path has changed, and end a wait."""
        self.changed_paths.add(path)
        self._changed.set()

    async def wait(self, seconds: float) -> None:
        """Wait until a file changes, or until the timeout expires."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()
