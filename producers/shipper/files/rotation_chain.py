"""Rotation chain: the files that have had one name, in the order in which they are read.

Invariants:

1. Files are identified by device, inode and what was read of them, never by name or inode alone.
2. Files that appeared and were rotated between two scans are inserted where they belong.
3. A file that was found stays in ``pending`` until it is open or certainly lost, and no newer file is opened
   or read until then: a rotation may rename it between any two system calls.
4. An error that may pass is no sign that a file is gone: the scan is deferred, and the next one repeats it.
"""

import contextlib
import os
from collections import ChainMap
from collections.abc import Callable, Container, Mapping

from tickertape.producers.shipper.content.losses import Loss
from tickertape.producers.shipper.content.uncompressor import Uncompressing
from tickertape.producers.shipper.files.completed_files import has_position
from tickertape.producers.shipper.files.compressed_files import CompressedChain
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.moved_files import find_moved, open_copy
from tickertape.producers.shipper.files.roots import PathChanged
from tickertape.producers.shipper.files.rotation import MAX_SCANS, base_of, names_of
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import ParsedEvent
from tickertape.producers.shipper.position import FilePosition, Key, key_of
from tickertape.producers.shipper.timing import CLOCK_MARGIN, TICK


class RotationChain(CompressedChain):
    """Search for the files of one name that rotations have moved."""

    def open_after_restart(self, visible: Mapping[Key, str], now: float) -> None:
        """Open files that were rotated, or grew after they were complete, while the shipper was not running.

        Args:
            visible: files that the globs match; they are opened by their paths.
        """
        # Files that the checkpoint knows come first, as the others are newer. The first step adds to the
        # pending files that the second one opens.
        if self.completed:
            self._retry(lambda: self._reopen_grown(visible))
        self.open_pending(visible, now)
        if self.scanned_at and not self.deferred:  # the next scan repeats all of this
            # Not one set of both, which would take quadratic time for many streams.
            known = ChainMap[Key, object](dict(self.completed), visible)  # type: ignore[arg-type]
            self.open_missed(self.scanned_at - CLOCK_MARGIN, now, known)
        self.resumed = not self.deferred

    def _reopen_grown(self, visible: Container[Key]) -> None:
        for path, status in self._siblings(self.completed):
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
            except Uncompressing:
                break
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
            self.completed.mark_gone(file.key)
        elif self._open_moved(position, now):
            pass
        # It may be away with its name, or is opened later in this scan.
        elif self.absence or _has_same_inode(position):
            self.completed[key] = position
        elif key not in visible:
            self.lost.append(position)
        # The visible file has the inode of the one that is gone, or was truncated; it is read from its start.
        elif position.offset:
            self.losses.report(
                f"{position.path}: truncated or replaced, with {position.offset} bytes shipped; lines after"
                " these, if there were any, are lost",
                is_certain=False,
            )
        del self.pending[key]

    def _open_moved(self, position: FilePosition, now: float) -> bool:
        """Open a file that was moved to another folder or compressed; return whether it was found."""
        if not position.offset:
            return False
        found = find_moved(self._roots, self.path, position)
        if found is not None:
            # What else was rotated to this folder is looked for there.
            self.moved_to = os.path.join(os.path.dirname(found[0]), os.path.basename(self.path))
            self._add(*found, now, position)
            return True
        return self.open_compressed(position, now)

    def _path_of(self, position: FilePosition) -> str | None:
        """Return the current path of a file among its siblings, or None."""
        siblings = self._siblings([position.key])
        return next((path for path, status in siblings if key_of(status) == position.key), None)

    def may_have_missed(self, found: Mapping[Key, tuple[str, os.stat_result]], paths: Container[str]) -> bool:
        """Return whether a file may have appeared and been rotated since the last scan.

        Args:
            found: files that the globs match.
            paths: their paths.
        """

        def is_renamed(file: TailedFile) -> bool:
            return file.key not in found or found[file.key][0] != file.path

        if self.chain and not is_renamed(self.chain[-1]):
            return False  # reading the live file detects what happens to it
        # Looking for files costs more than the checks here, so it happens only on a sign of a rotation.
        if any(not file.missing and is_renamed(file) for file in self.chain):
            return True
        # The file with this name is either the one that was completed or new, and missed files are looked for
        # before a new one is opened.
        if self.path in paths:
            return False
        # Without a live file only the folder tells: a rename or a new file changes its modification time.
        try:
            return os.stat(os.path.dirname(self.path)).st_mtime > self.scanned_at - CLOCK_MARGIN
        except OSError as error:
            return may_pass(error)

    def open_missed(
        self, since: float, now: float, exclude: Container[Key] = (), *, before: TailedFile | None = None
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
        known = set(self.chain)

        def attempt() -> None:
            self._open_missed(since, now, exclude, before)
            # Only now: the original is removed once its compressed file is complete.
            self.open_missed_compressed(since, now, before)

        self._retry(attempt)
        opened = set(self.chain) - known
        if self.deferred:  # the next scan must look as far back
            self.scanned_at = min(self.scanned_at, since + CLOCK_MARGIN)
        else:
            with contextlib.suppress(OSError):  # it is settled later
                self.losses.settle([file.size for file in opened])
        if opened and before is not None:
            before.mark_verified(now)
        return bool(opened)

    def _open_missed(
        self, since: float, now: float, exclude: Container[Key], before: TailedFile | None
    ) -> None:
        opened, names = {file.key for file in self.chain}, self._all_names()
        for path, status in self._siblings():
            key = key_of(status)
            known = key in opened or key in exclude or key in self.pending
            if known or status.st_mtime <= since or base_of(path) not in names:
                continue
            # A completed file with a new modification time was touched, has grown while it was away, or its
            # inode is reused.
            completed = self.completed
            if completed.was_known(key, status):
                continue
            position = completed[key] if key in completed and completed.is_same(key, path) else None
            if position is not None and position.offset == status.st_size:
                continue
            try:
                fd = self._roots.open_same(path, key)
            except OSError as error:
                if may_pass(error):
                    raise
                continue
            # When the original of a copy is truncated, reading continues in the copy.
            if position is not None or not self._is_copy(fd):
                self._add(path, fd, now, position, before=before)
                completed.pop(key, None)

    def observe(self, file: TailedFile, path: str, size: int) -> None:
        """Record at which path and with which size a scan has found a file."""
        file.update_path(path)
        with contextlib.suppress(OSError):  # reading it reports the error
            file.observe(size)

    def take_losses(self) -> list[Loss]:
        """Return the losses that are new."""
        for position in self.lost:
            self.losses.report(
                f"{position.path}: no longer found in any folder that may be read, with {position.offset}"
                " bytes shipped; lines after these are lost"
            )
        self.lost.clear()
        return self.losses.take()

    def continue_truncated(self, file: TailedFile, now: float) -> list[ParsedEvent] | None:
        """Continue in the copy of a truncated file, if there is one, and then in the file from its start.

        Returns:
            The last events of the file if it ends; None if it is not known yet whether there is a copy.
        """
        # What can fail comes first: until the successor is in the chain, the next read repeats all of this.
        successor, copy = file.next_generation(self._parser(), now), None
        try:
            copy = open_copy(self._roots, self.path, file.matches_copy, {other.key for other in self.chain})
            if copy is not None:
                path, fd = copy
                file.switch_to_copy(fd, path)
            has_copy = copy is not None or self.open_compressed_copy(file, now)
        except (OSError, Uncompressing) as error:
            successor.close()
            if copy is not None:
                os.close(copy[1])
            if isinstance(error, Uncompressing):
                return None
            raise
        self.chain.insert(self.chain.index(file) + 1, successor)
        unread, later = file.take_unread_sizes()
        last: list[ParsedEvent] = []
        if has_copy:
            file.mark_rotated()
            self.completed.mark_gone(file.key)
        else:
            later.insert(0, unread)
            file.end()
            # An incomplete line continues in the copy; without a copy its rest is lost with the file.
            last = file.finish(now)
        self.losses.add_missing(self.path, later)
        # The file may have been truncated more than once.
        self.open_missed(file.verified_at - TICK, now, before=successor)
        if self.deferred:  # the search is repeated before the successor is read
            successor.mark_verified(file.verified_at)
        return last

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


def _has_same_inode(position: FilePosition) -> bool:
    """Return whether a file is at its path, on a file system with another number since it was mounted."""
    try:
        status = os.lstat(position.path)
    except OSError:
        return False
    return status.st_ino == position.inode and status.st_dev != position.device


def may_have_work(file: TailedFile, now: float) -> bool:
    """Return whether a file has data to read, or is to be closed."""
    try:
        return file.may_have_data(now) or file.is_complete()
    except OSError:
        return True  # reading the file reports the error
