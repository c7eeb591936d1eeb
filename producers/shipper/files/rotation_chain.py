"""The files that bear one name one after another: which there are, and in which order they are read.

Invariants:

1. Files are known by what they are and by what was read of them, never by their names or inodes alone.
2. What is in ``chain`` is in the order in which it was written; what came and was rotated while nobody looked
   takes its place there.
3. A file that is shipped to its end is remembered while it could be taken for a new one.
4. A file that was seen is ``wanted`` until it is open or surely gone, and no newer one is opened or read
   until then: a rotation may rename it between any two system calls.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Final

from tickertape.producers.shipper.files.rotation import (
    PathChanged,
    base_of,
    key_of,
    open_copy,
    open_same,
    siblings,
)
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import Parser
from tickertape.producers.shipper.position import FilePosition, Key, unread_position
from tickertape.producers.shipper.sinks.sink import Checkpoint

TICK: Final = 0.02
"""Seconds by which a file's time may lag behind the clock."""

CLOCK_MARGIN: Final = 2.0
"""Seconds; less than the grace after which a rotated file is done with."""

MAX_SCANS: Final = 8
"""Times that files are looked for while a rotation renames them."""

MAX_COMPLETED: Final = 256
"""Files that were shipped to their end and are remembered while they are in sight."""


class RotationChain:
    """The files of one name.

    Args:
        path: the name, absolute.
        checkpoint: of the run before.
        parser: makes a parser for a file.
        grace: seconds, as of ``TailedFile``.

    Attributes:
        chain: files that are followed, the oldest first.
        past: files that were shipped to their end, or cannot be read now, by what they are.
        wanted: files that were seen, or are in the checkpoint, and are not open yet.
        lost: wanted files that are not there any more.
        held: a rotation was under way all the time, so a file may be missing here; the next look finds it.
        looked_at: UNIX seconds of the last look that found all files.
    """

    def __init__(
        self, path: str, checkpoint: Checkpoint | None, parser: Callable[[], Parser], grace: float
    ) -> None:
        self.path = path
        self.chain: deque[TailedFile] = deque()
        self.completed: dict[Key, FilePosition] = {}
        self.pending: dict[Key, FilePosition] = {}
        self.lost: list[FilePosition] = []
        self.deferred = False
        self.scanned_at = 0.0
        self._parser = parser
        self._grace = grace
        self._verified: dict[Key, int] = {}
        self._unsaved = False
        if checkpoint is not None:
            self.scanned_at = checkpoint.time
            self.restore(checkpoint.positions)

    def begin_scan(self) -> None:
        """Begin to look for its files: none is known to be missing yet."""
        self.deferred = False

    def defer(self) -> None:
        """Leave a file that a rotation moves to the next look."""
        self.deferred = True

    def end_scan(self, now: float) -> None:
        """Note that all its files are known up to now, unless one was left to the next look."""
        if not self.deferred:
            self.scanned_at = now

    def restore(self, positions: Iterable[FilePosition]) -> None:
        """Take over places of a checkpoint whose files are not open."""
        for position in positions:
            known, other = (self.completed, self.pending) if position.done else (self.pending, self.completed)
            known[position.key] = position
            other.pop(position.key, None)

    def open(self, path: str, found: os.stat_result, now: float, *, from_end: bool = False) -> None:
        """Follow a file after those that are followed already, but one that was rotated before the live one.

        Args:
            path: that leads to it.
            found: what it was when it was found.
            from_end: skip what it holds already.

        Raises:
            Renamed: the path leads to another file by now.
            OSError: it cannot be opened.
        """
        key = key_of(found)
        handle = open_same(path, key)
        status = os.fstat(handle)
        position = self.pending.pop(key, None) or self.completed.pop(key, None)
        if position is not None and not position.matches(handle):
            position = None  # the inode was used again, or the file was truncated
        offset = status.st_size if from_end else 0
        file = TailedFile(path, handle, self._parser(), now, position, offset, self._grace)
        last = self.chain[-1] if self.chain else None
        if last is not None and (last.path != self.path or last.is_rotated or path == self.path):
            last = None
        self._insert(file, status, before=last)
        self._unsaved = self._unsaved or from_end

    def add_pending(self, found: os.stat_result, path: str) -> None:
        """Note that a file was seen, and is to be opened by any name that it has later."""
        key = key_of(found)
        if key not in self.pending:
            self.pending[key] = (
                self.completed.pop(key) if key in self.completed else unread_position(key, path)
            )

    def open_after_restart(self, visible: Mapping[Key, str], now: float) -> None:
        """At a start, open what was rotated, and what has grown after its end, while nothing was followed.

        Args:
            in_sight: files that are found by their names, and are opened by them.
        """
        self._retry(lambda: self._reopen_grown(visible))
        self.open_pending(visible, now)
        if self.scanned_at:
            self.open_missed(self.scanned_at - CLOCK_MARGIN, now, {*visible, *self.completed})

    def _reopen_grown(self, visible: Container[Key]) -> None:
        for path, status in siblings(self.path):
            key = key_of(status)
            position = self.completed.get(key)
            if position is None or key in visible:
                continue
            if self.matches_completed(key, path) and status.st_size != position.offset:
                self.pending[key] = self.completed.pop(key)

    def open_pending(self, visible: Mapping[Key, str], now: float) -> None:
        """Open what is wanted and not in sight, or note that it is lost.

        Args:
            in_sight: files that are found by their names, and are opened by them.
        """

        def attempt() -> None:
            for position in list(self.pending.values()):
                self._open_pending_file(position, visible, now)

        self._retry(attempt)

    def _retry(self, attempt: Callable[[], object]) -> None:
        """Do what needs files to keep their names; after some attempts, leave it to the next look."""
        for _ in range(MAX_SCANS):
            with contextlib.suppress(PathChanged):
                attempt()
                return
        self.deferred = True

    def _open_pending_file(self, position: FilePosition, visible: Mapping[Key, str], now: float) -> None:
        """Open one file by any of its names, or a copy of it.

        Raises:
            Renamed: while it was looked for.
        """
        key = position.key
        path = visible.get(key) or self._path_of(position)
        # Of what was not read nothing is known but its inode, which another file may have by now.
        if path is not None and (position.offset or self.path in (path, base_of(path))):
            try:
                handle = open_same(path, key)
            except OSError:
                self.completed[key] = self.pending.pop(
                    key
                )  # it must not hold up others; each look tries again
                return
            if not position.matches(handle):
                os.close(handle)
            elif key in visible:
                os.close(handle)
                return
            else:
                del self.pending[key]
                self._add(path, handle, now, position)
                return
        del self.pending[key]
        copy = (
            open_copy(self.path, position.matches, {file.key for file in self.chain})
            if position.offset
            else None
        )
        if copy is not None:
            self.completed.pop(key_of(os.fstat(copy[1])), None)
            self._add(*copy, now, position)
        elif key not in visible:
            self.lost.append(position)

    def _path_of(self, position: FilePosition) -> str | None:
        """Find the name that a file has now, among those that a rotation gives."""
        return next((path for path, status in siblings(self.path) if key_of(status) == position.key), None)

    def open_missed(
        self, since: float, now: float, exclude: Collection[Key] = (), *, before: TailedFile | None = None
    ) -> bool:
        """Follow what came and was rotated between two looks, or while nothing was followed.

        Args:
            since: UNIX seconds; what was not written after that was seen.
            besides: files that are known.
            before: follow it before this one, unless it was written later; None means last.

        Returns:
            True when there is such a file.
        """
        count = len(self.chain)
        self._retry(lambda: self._open_missed(since, now, exclude, before))
        found = len(self.chain) > count
        if found and before is not None:
            before.mark_verified(now)
        return found

    def _open_missed(
        self, since: float, now: float, exclude: Collection[Key], before: TailedFile | None
    ) -> None:
        opened = {file.key for file in self.chain}
        for path, status in siblings(self.path):
            key = key_of(status)
            known = key in opened or key in exclude or key in self.pending
            if known or status.st_mtime <= since or base_of(path) != self.path:
                continue
            if key in self.completed and self.matches_completed(key, path):
                continue
            with contextlib.suppress(OSError):
                handle = open_same(path, key)
                if any(not file.ended and file.is_copied_in(handle) for file in self.chain):
                    os.close(handle)  # a copy: its file is about to be truncated, and is continued in it then
                    continue
                self._add(path, handle, now, before=before)

    def _add(
        self,
        path: str,
        handle: int,
        now: float,
        position: FilePosition | None = None,
        before: TailedFile | None = None,
    ) -> None:
        file = TailedFile(path, handle, self._parser(), now, position)
        if path != self.path:
            file.mark_rotated(now)
        self._insert(file, os.fstat(handle), before)

    def _insert(self, file: TailedFile, status: os.stat_result, before: TailedFile | None) -> None:
        """Put a file where it belongs: before those that are unread and were written later."""
        last = len(self.chain)
        if before is not None and not before.is_older_than(status):
            last = self.chain.index(before)
        later = (number for number, other in enumerate(self.chain) if other.is_unread_and_newer_than(status))
        self.chain.insert(min(next(later, last), last), file)

    def is_completed(self, key: Key, path: str, status: os.stat_result) -> bool:
        """Tell whether a file is shipped to its end, has not grown since, and is no other on its inode.

        Raises:
            Renamed: the path leads to another file by now.
        """
        position = self.completed.get(key)
        if position is None or not position.done or position.offset != status.st_size:
            return False
        stamp = status.st_mtime_ns
        if self._verified.get(key) != stamp:
            if not self.matches_completed(key, path):
                return False
            self._verified[key] = stamp
        return True

    def unverified_since(self, moment: float) -> bool:
        """Tell whether the live file was not looked at since a moment."""
        live = (file for file in self.chain if file.path == self.path and not file.is_rotated)
        return any(not file.ended and file.verified_at <= moment for file in live)

    def matches_completed(self, key: Key, path: str) -> bool:
        """Tell whether a file is one of the past, and not another on its inode: that is forgotten then.

        Raises:
            Renamed: the path leads to another file by now.
        """
        try:
            handle = open_same(path, key)
        except OSError:
            return False
        try:
            position = self.completed[key]
            if position.offset and position.matches(handle):
                return True
            del self.completed[key]
            return False
        finally:
            os.close(handle)

    def prune_completed(self, visible: Container[Key]) -> None:
        """Forget the files that were shipped to their end and are out of sight."""
        # While their successors are not read they could be taken for files that nobody has seen.
        for key in [key for key in self.completed if key not in visible and len(self.chain) <= 1]:
            del self.completed[key]
        for key in list(self.completed)[:-MAX_COMPLETED]:
            del self.completed[key]
        self._verified = {key: stamp for key, stamp in self._verified.items() if key in self.completed}
