"""Rotation chain: the files that have had one name, in the order in which they are read.

Invariants:

1. Files are identified by device, inode and what was read of them, never by name or inode alone.
2. ``chain`` is in the order in which the files were written; files that appeared and were rotated between two
   scans are inserted where they belong.
3. A file that is shipped to its end is remembered while it could be mistaken for a new one.
4. A file that was found stays in ``pending`` until it is open or certainly lost, and no newer file is opened
   or read until then: a rotation may rename it between any two system calls.
5. An error that may pass is no sign that a file is gone: the scan is deferred, and the next one repeats it.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Final

from tickertape.producers.shipper.files.completed_files import CompletedFiles, has_position
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.files.rotation import MAX_SCANS, base_of, names_of, open_copy, siblings
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import Parser
from tickertape.producers.shipper.position import FilePosition, Key, key_of, unread_position
from tickertape.producers.shipper.sinks.sink import Checkpoint

TICK: Final = 0.02
"""Seconds by which a modification time may lag behind the clock, because kernels update it in ticks."""

CLOCK_MARGIN: Final = 2.0
"""Seconds of tolerance between file times and the clock; less than ``ROTATION_GRACE``."""


class RotationChain:
    """Files of one name: those that are tailed, those that are complete, and those still to be opened.

    Args:
        path: the absolute path that the files were written under.
        checkpoint: last checkpoint of the previous run.
        parser: factory of the parser for a file.
        roots: folders whose files may be read.
        grace: seconds; see ``TailedFile``.

    Attributes:
        chain: tailed files, oldest first.
        completed: positions of files that are shipped to their end, or cannot be read at the moment.
        pending: positions of files that were found, or are in the checkpoint, and are not open yet.
        lost: positions of pending files that no longer exist.
        deferred: files were renamed or could not be read during this scan, so one may be missing; the next
            scan finds it.
        read_error: error for which the scan is deferred, if it is not a rename.
        resumed: the files of the previous run have been looked for.
        scanned_at: UNIX seconds of the last scan that found all files.
    """

    def __init__(
        self,
        path: str,
        checkpoint: Checkpoint | None,
        parser: Callable[[], Parser],
        roots: Roots,
        grace: float,
    ) -> None:
        self.path = path
        self.chain: deque[TailedFile] = deque()
        self.completed = CompletedFiles(roots)
        self.pending: dict[Key, FilePosition] = {}
        self.lost: list[FilePosition] = []
        self.deferred = False
        self.read_error: OSError | None = None
        self.resumed = checkpoint is None
        self.scanned_at = 0.0
        self._parser = parser
        self._roots = roots
        self._grace = grace
        self._unsaved = False
        if checkpoint is not None:
            self.scanned_at = checkpoint.time
            self.restore(checkpoint.positions)

    def begin_scan(self) -> bool:
        """Start a scan: no file is known to be missing yet. Return whether the previous one was deferred."""
        deferred, self.deferred, self.read_error = self.deferred, False, None
        return deferred

    def defer(self, error: OSError | None = None) -> None:
        """Leave a file to the next scan, because a rotation is renaming it or because of an error."""
        self.deferred = True
        self.read_error = self.read_error or error

    def end_scan(self, now: float) -> None:
        """Record that all files are known as of now, unless one was left to the next scan."""
        if not self.deferred:
            self.scanned_at = now

    def restore(self, positions: Iterable[FilePosition]) -> None:
        """Restore positions from a checkpoint whose files are not open."""
        for position in positions:
            target, other = (
                (self.completed, self.pending) if position.done else (self.pending, self.completed)
            )
            # A key is in one of the two only: of two positions with the same inode, the later one counts.
            target[position.key] = position
            other.pop(position.key, None)

    def open(self, path: str, found: os.stat_result, now: float, *, from_end: bool = False) -> None:
        """Tail a file after those that are tailed already; a rotated file comes before the live one.

        Args:
            path: path of the file.
            found: its status when it was found.
            now: UNIX seconds, here and in all methods.
            from_end: skip the existing content.

        Raises:
            PathChanged: the path leads to another file by now.
            OSError: the file cannot be opened.
        """
        key = key_of(found)
        fd = self._roots.open_same(path, key)
        try:
            status = os.fstat(fd)
            position = self.pending.get(key) or self.completed.get(key)
            if position is not None and not position.matches(fd):
                position = None  # the inode was reused, or the file was truncated
            offset = status.st_size if from_end else 0
            file = TailedFile(path, fd, self._parser(), now, position, offset, self._grace)
            live = self.chain[-1] if self.chain else None
            if live is not None and (live.path != self.path or live.is_rotated or path == self.path):
                live = None
            self._insert(file, status, before=live)
        except OSError:
            os.close(fd)
            raise
        # Only now: after an error the next attempt needs the position again.
        self.pending.pop(key, None)
        self.completed.pop(key, None)
        # A skipped file needs a checkpoint, or the next start would ship its existing content.
        self._unsaved = self._unsaved or from_end

    def add_pending(self, found: os.stat_result, path: str) -> None:
        """Record that a file was found and must be opened, whatever its name is by then."""
        key = key_of(found)
        if key not in self.pending:
            self.pending[key] = (
                self.completed.pop(key) if key in self.completed else unread_position(key, path)
            )

    def open_after_restart(self, visible: Mapping[Key, str], now: float) -> None:
        """Open files that were rotated, or grew after they were complete, while the shipper was not running.

        Args:
            visible: files that the globs match; they are opened by their paths.
        """
        # Files that the checkpoint knows come first, as the others are newer. The first step adds to the
        # pending files that the second one opens.
        self._retry(lambda: self._reopen_grown(visible))
        self.open_pending(visible, now)
        if self.scanned_at:
            self.open_missed(self.scanned_at - CLOCK_MARGIN, now, {*visible, *self.completed})
        self.resumed = not self.deferred

    def _reopen_grown(self, visible: Container[Key]) -> None:
        for path, status in siblings(self.path):
            key = key_of(status)
            position = self.completed.get(key)
            if position is None or key in visible:
                continue
            if self.completed.is_same(key, path) and status.st_size != position.offset:
                self.pending[key] = self.completed.pop(key)

    def open_pending(self, visible: Mapping[Key, str], now: float) -> None:
        """Open pending files that are not visible, or record that they are lost.

        Args:
            visible: files that the globs match; they are opened by their paths.
        """

        def attempt() -> None:
            for position in list(self.pending.values()):
                self._open_pending_file(position, visible, now)

        self._retry(attempt)

    def _retry(self, attempt: Callable[[], object]) -> None:
        """Retry an action while files are being renamed; leave it to the next scan after several attempts.

        An error is left to the next scan as well.
        """
        for _ in range(MAX_SCANS):
            try:
                attempt()
            except PathChanged:
                continue
            except OSError as error:
                self.defer(error)
            return
        self.defer()

    def _open_pending_file(self, position: FilePosition, visible: Mapping[Key, str], now: float) -> None:
        """Open a pending file at whatever path it has now, or a copy of the file.

        Raises:
            PathChanged: the file was renamed during the search.
            OSError: the file cannot be read at the moment.
        """
        key = position.key
        path = visible.get(key) or self._path_of(position)
        # An unread file is identified by its inode alone, which another file may have reused by now.
        if path is not None and (position.offset or {path, base_of(path)} & {*names_of(self.path)}):
            try:
                fd = self._roots.open_same(path, key)
            except OSError as error:
                if may_pass(error):
                    raise
                # It must not block the other files; every scan tries it again.
                self.completed[key] = self.pending.pop(key)
                return
            if has_position(fd, position):
                # A visible file is opened like a new one, by its path and with this position.
                if key in visible:
                    os.close(fd)
                else:
                    self._add(path, fd, now, position)
                    del self.pending[key]
                return
        # The file is gone or was truncated; what is not shipped may be in a copy. Any file matches an unread
        # position, so a copy of an unread file cannot be recognized.
        copy = (
            open_copy(self._roots, self.path, position.matches, {file.key for file in self.chain})
            if position.offset
            else None
        )
        if copy is not None:
            file = self._add(*copy, now, position)
            self.completed.pop(file.key, None)
        # A visible file was truncated in place, and is read from its start.
        elif key not in visible:
            self.lost.append(position)
        del self.pending[key]

    def _path_of(self, position: FilePosition) -> str | None:
        """Return the current path of a file among its siblings, or None."""
        return next((path for path, status in siblings(self.path) if key_of(status) == position.key), None)

    def open_missed(
        self, since: float, now: float, exclude: Collection[Key] = (), *, before: TailedFile | None = None
    ) -> bool:
        """Tail files that appeared and were rotated between two scans, or while the shipper was not running.

        Args:
            since: UNIX seconds; files that were not modified after this time are known already.
            exclude: files that are known.
            before: insert missed files before this one, except those that were modified later than it; None
                inserts them at the end.

        Returns:
            True if there are such files.
        """
        count = len(self.chain)
        self._retry(lambda: self._open_missed(since, now, exclude, before))
        if self.deferred:  # the next scan must look as far back
            self.scanned_at = min(self.scanned_at, since + CLOCK_MARGIN)
        opened = len(self.chain) > count
        if opened and before is not None:
            before.mark_verified(now)
        return opened

    def _open_missed(
        self, since: float, now: float, exclude: Collection[Key], before: TailedFile | None
    ) -> None:
        opened, names = {file.key for file in self.chain}, names_of(self.path)
        for path, status in siblings(self.path):
            key = key_of(status)
            known = key in opened or key in exclude or key in self.pending
            if known or status.st_mtime <= since or base_of(path) not in names:
                continue
            # A completed file with a new modification time was touched, or its inode is reused.
            if key in self.completed and self.completed.is_same(key, path):
                continue
            try:
                fd = self._roots.open_same(path, key)
            except OSError as error:
                if may_pass(error):
                    raise
                continue
            # When the original of a copy is truncated, reading continues in the copy.
            if not self._is_copy(fd):
                self._add(path, fd, now, before=before)

    def _is_copy(self, fd: int) -> bool:
        """Return whether an open file is a copy of a tailed one; close it if so, or if it cannot be read."""
        try:
            is_copy = any(not file.ended and file.is_copied_in(fd) for file in self.chain)
        except OSError:
            os.close(fd)
            raise
        if is_copy:
            os.close(fd)
        return is_copy

    def _add(
        self,
        path: str,
        fd: int,
        now: float,
        position: FilePosition | None = None,
        before: TailedFile | None = None,
    ) -> TailedFile:
        """Tail an open file, which is closed if it cannot be read; return it."""
        try:
            file = TailedFile(path, fd, self._parser(), now, position)
            if path != self.path:
                file.mark_rotated(now)
            self._insert(file, os.fstat(fd), before)
        except OSError:
            os.close(fd)
            raise
        return file

    def _insert(self, file: TailedFile, status: os.stat_result, before: TailedFile | None) -> None:
        """Insert a file in order: before unread files that were modified later."""
        limit = len(self.chain)
        if before is not None and not before.is_older_than(status):
            limit = self.chain.index(before)
        newer = (index for index, other in enumerate(self.chain) if other.is_unread_and_newer_than(status))
        self.chain.insert(min(next(newer, limit), limit), file)

    def unverified_since(self, moment: float) -> bool:
        """Return whether the live file has not been verified after a time in UNIX seconds."""
        live = (file for file in self.chain if file.path == self.path and not file.is_rotated)
        return any(not file.ended and file.verified_at <= moment for file in live)

    def prune_completed(self, visible: Container[Key]) -> None:
        """Forget completed files that are no longer visible."""
        # Until the next file is read, a completed file that is forgotten could be mistaken for a missed one.
        self.completed.prune(visible, keep=self.completed if len(self.chain) > 1 else ())
