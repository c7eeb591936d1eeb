"""Positions of the files that are shipped to their end, while they could be mistaken for new ones."""

import os
from collections.abc import Collection, Container
from typing import Final

from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.position import FilePosition, Key

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
        """Return whether a file is the completed one with its key; if it reuses the inode, forget that one.

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
        del self[key]
        return False

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
