"""Positions of the files that are shipped to their end, while they could be mistaken for new ones."""

import contextlib
import os
from collections.abc import Collection, Container
from dataclasses import replace
from typing import Final

from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.position import FilePosition, Key, digest, key_of

MAX_COMPLETED: Final = 256
"""Files that are shipped to their end and remembered while they are visible."""


class CompletedFiles(dict[Key, FilePosition]):
    """Positions of completed files by device and inode, the oldest first.

    Args:
        roots: folders whose files may be read.
    """

    def __init__(self, roots: Roots) -> None:
        super().__init__()
        self._roots = roots
        # Modification times at which files were last compared with their positions.
        self._verified: dict[Key, int] = {}
        # Modification times of files that were found before the system clock was set back.
        self._known: dict[Key, int] = {}

    def is_unchanged(self, key: Key, path: str, status: os.stat_result) -> bool:
        """Return whether a file is shipped to its end, has not grown since, and does not reuse the inode.

        Raises:
            PathChanged: the path leads to another file by now.
            OSError: the file cannot be read at the moment.
        """
        position = self.get(key)
        if position is None or not position.done or position.offset != status.st_size:
            return False
        modified = status.st_mtime_ns
        # Hashes are read from disk only after a change, not in every scan.
        if self._verified.get(key) != modified:
            if not self.is_same(key, path):
                return False
            self._verified[key] = modified
        return True

    def is_same(self, key: Key, path: str) -> bool:
        """Return whether a file is the completed one with its key; if it reuses the inode, that one is gone.

        Raises:
            PathChanged: the path leads to another file by now.
            OSError: the file cannot be read at the moment.
        """
        try:
            fd = self._roots.open_same(path, key)
        except OSError as error:
            if may_pass(error):
                raise
            return False
        position = self[key]
        if has_position(fd, position):
            os.close(fd)
            if position.offset:
                return True
        self.mark_gone(key)
        return False

    def mark_gone(self, key: Key) -> None:
        """Give a file that is gone a key that no other file can have; forget an unread one."""
        position = self.pop(key, None)
        if position is not None and position.offset:
            inode = int(digest(position.generation.encode()), 16)
            gone = replace(position, device=0, inode=inode, done=True)
            self[gone.key] = gone

    def modified_since(self, path: str, moment: float) -> Collection[Key]:
        """Return the files beside a path that were modified after a time in UNIX seconds.

        If the folder cannot be read at the moment, return all completed files.
        """
        try:
            siblings = self._roots.listings.siblings(path, self)
            return {key_of(status) for _, status in siblings if status.st_mtime > moment}
        except OSError:
            return self.keys()

    def record_known(self, path: str, until: float, now: float, margin: float) -> None:
        """Record files that may appear to be new, as they are not remembered, because the clock was set back.

        Args:
            path: the path that the files were written under.
            until: UNIX seconds on the old clock; files that were modified later may be new.
            now: UNIX seconds on the new clock; files that were modified at about this time may be new.
            margin: seconds of tolerance around ``now``.
        """
        with contextlib.suppress(
            OSError
        ):  # a file that is shipped twice is better than one that is not shipped
            self._known = {
                key_of(status): status.st_mtime_ns
                for _, status in self._roots.listings.siblings(path, {*self, *self._known})
                if (status.st_mtime <= until and abs(status.st_mtime - now) > margin)
                or self.was_known(key_of(status), status)
            }

    def was_known(self, key: Key, status: os.stat_result) -> bool:
        """Return whether a file was found before the clock was set back, and has not been modified since."""
        return self._known.get(key) == status.st_mtime_ns

    def prune(self, visible: Container[Key], keep: Collection[Key] = ()) -> None:
        """Forget files that are neither visible nor kept, and the oldest beyond a limit."""
        for key in [key for key in self if key not in visible and key not in keep]:
            del self[key]
        for key in list(self)[:-MAX_COMPLETED]:
            del self[key]
        self._verified = {key: modified for key, modified in self._verified.items() if key in self}


def has_position(fd: int, position: FilePosition) -> bool:
    """Return whether an open file has everything that was shipped; close it unless it does.

    Raises:
        OSError: the file cannot be read; it is closed.
    """
    try:
        if position.matches(fd):
            return True
    except OSError:
        os.close(fd)
        raise
    os.close(fd)
    return False
