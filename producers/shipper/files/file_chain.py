"""File chain: the files that have had one name, in the order in which they were written.

Invariants:

1. ``chain`` is in the order in which the files were written.
2. A file that is shipped to its end is remembered while it could be mistaken for a new one, and the files of
   an absent name while they may come back.
3. A file that is gone is remembered until checkpoints are later than that: it may have been compressed, and a
   compressed file that is later than the checkpoint is read after a restart, unless it is known.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import replace
from typing import Final

from tickertape.producers.shipper.absence import LONG_AGO, Absence
from tickertape.producers.shipper.content.losses import Losses
from tickertape.producers.shipper.content.uncompressor import Identity
from tickertape.producers.shipper.files.completed_files import CompletedFiles
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.files.rotation import names_of
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import Parser
from tickertape.producers.shipper.position import (
    FilePosition,
    Key,
    key_of,
    skipped_position,
    unread_position,
)
from tickertape.producers.shipper.sinks.sink import Checkpoint
from tickertape.producers.shipper.timing import CLOCK_MARGIN, Timing

MAX_HIDDEN: Final = 8
"""Files that no glob matches any more and that are remembered while they exist: they may be compressed
yet. Each adds some 250 bytes to a checkpoint."""

GONE_MARGIN: Final = 10.0
"""Seconds by which checkpoints must be later than the end of a file to forget it; > ``CLOCK_MARGIN``."""


class FileChain:
    """Files of one name: those that are tailed, those that are complete, and those still to be opened.

    Args:
        path: the absolute path that the files were written under.
        checkpoint: last checkpoint of the previous run.
        parser: factory of the parser for a file.
        roots: folders whose files may be read.
        timing: timeouts of its files.

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
        absence: absence of the path.
        moved_to: path that a rotation into another folder gives files before their numbers; empty for none.
        gone_at: UNIX seconds at which completed files were found to be gone.
        losses: losses of lines, which the owner reports.
    """

    def __init__(
        self,
        path: str,
        checkpoint: Checkpoint | None,
        parser: Callable[[], Parser],
        roots: Roots,
        timing: Timing,
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
        self.absence = Absence(checkpoint.absent_since if checkpoint is not None else 0.0)
        self._parser = parser
        self._roots = roots
        self._timing = timing
        self._unsaved = False
        self.moved_to = ""
        self.gone_at: dict[Key, float] = {}
        self.losses = Losses()
        self._hidden_skipped = checkpoint is not None
        # Compressed files, and whether each is what was looked for; unchanged ones are not read again.
        self._verdicts: dict[tuple[Identity, str], bool] = {}
        # Generations of which there is a compressed file that cannot be read.
        self._compressed_generations: set[str] = set()
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
        """Record that all files are known as of now, unless one was left to the next scan.

        While the name is absent, its files may be away; what happens to them then is looked for later.
        """
        if not self.deferred and not self.absence:
            self.scanned_at = now

    def record_presence(self, now: float, *, present: bool) -> None:
        """Record whether a scan has found the name."""
        changed = self.absence.end() if present else self.absence.record(self.path, now)
        self._unsaved = self._unsaved or changed

    def set_settled(self, *, settled: bool) -> None:
        """Record whether the system has reported no change of the files for ``MULTILINE_TIMEOUT``."""
        for file in self.chain:
            file.settled = settled

    def forget(self) -> None:
        """Forget all files that are not open, because the name has been absent for long."""
        if self.absence.since == LONG_AGO:
            return
        self.absence.since = LONG_AGO
        self.lost += [position for position in self.completed.values() if not position.done]
        self.completed.clear()
        self._unsaved = True

    def restore(self, positions: Iterable[FilePosition]) -> None:
        """Restore positions from a checkpoint whose files are not open."""
        for position in positions:
            target, other = (
                (self.completed, self.pending) if position.done else (self.pending, self.completed)
            )
            # A key is in one of the two only: of two positions with the same inode, the later one counts.
            self.completed.mark_gone(position.key)
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
            position = self.pending.get(key) or self.completed.get(key) or self._remounted(key)
            known = key if position is None else position.key
            if position is not None and not position.matches(fd):
                position = None  # the inode was reused, or the file was truncated
                self.completed.mark_gone(known)
            offset = status.st_size if from_end else 0
            file = TailedFile(path, fd, self._parser(), now, position, offset, self._timing)
            live = self.chain[-1] if self.chain else None
            if live is not None and (live.path != self.path or live.is_rotated or path == self.path):
                live = None
            self._insert(file, status, before=live)
        except OSError:
            os.close(fd)
            raise
        # Only now: after an error the next attempt needs the position again.
        self.pending.pop(known, None)
        self.completed.pop(known, None)
        # A skipped file needs a checkpoint, or the next start would ship its existing content.
        self._unsaved = self._unsaved or from_end

    def _remounted(self, key: Key) -> FilePosition | None:
        """Return the position of a file whose file system has another device number since it was mounted."""
        positions = (*self.pending.values(), *self.completed.values())
        same = (one for one in positions if one.inode == key[1] and one.device != key[0] and one.offset)
        return next(same, None)

    def add_pending(self, found: os.stat_result, path: str) -> None:
        """Record that a file was found and must be opened, whatever its name is by then."""
        key = key_of(found)
        if key not in self.pending:
            self.pending[key] = (
                self.completed.pop(key) if key in self.completed else unread_position(key, path)
            )

    def _siblings(self, keys: Collection[Key] = ()) -> list[tuple[str, os.stat_result]]:
        siblings = self._roots.listings.siblings(self.path, keys)
        return siblings + (self._roots.listings.siblings(self.moved_to, keys) if self.moved_to else [])

    def _all_names(self) -> set[str]:
        """Return the paths of which rotated files have derived their names."""
        return {*names_of(self.path), *([self.moved_to] if self.moved_to else [])}

    def _add(
        self,
        path: str,
        fd: int,
        now: float,
        position: FilePosition | None = None,
        before: TailedFile | None = None,
        *,
        is_uncompressed: bool = False,
    ) -> TailedFile:
        """Tail an open file, or the content of a compressed one; close it if it cannot be read."""
        timing = replace(self._timing, grace=0.0) if is_uncompressed else self._timing
        try:
            file = TailedFile(path, fd, self._parser(), now, position, timing=timing)
            file.is_uncompressed = is_uncompressed
            if path != self.path:
                file.mark_rotated()
            self._insert(file, os.fstat(fd), before)
        except OSError:
            os.close(fd)
            raise
        return file

    def _insert(self, file: TailedFile, status: os.stat_result, before: TailedFile | None) -> None:
        """Insert a file in order: before unread files that were modified later."""
        limit = len(self.chain)
        if before is not None and (file.is_uncompressed or not before.is_older_than(status)):
            limit = self.chain.index(before)
        newer = (i for i, other in enumerate(self.chain) if other.is_unread_and_newer_than(file, status))
        self.chain.insert(min(next(newer, limit), limit), file)

    def unverified_since(self, moment: float) -> bool:
        """Return whether the live file has not been verified after a time in UNIX seconds."""
        live = (file for file in self.chain if file.path == self.path and not file.is_rotated)
        return any(not file.ended and file.verified_at <= moment for file in live)

    def known_until(self, now: float) -> float:
        """Return the UNIX seconds after which files may have appeared that are unknown."""
        live = [file for file in self.chain if not file.is_rotated]
        known = min((file.verified_at for file in live), default=self.scanned_at or now)
        # A file that is read through its descriptor may have been renamed since the last scan, and others may
        # have had its name since.
        if not all(file.is_at_its_path() for file in live):
            known = min(known, self.scanned_at or known)
        return min([known, *(file.modified_at for file in self.chain if file.is_found_again)])

    def prune_completed(self, visible: Container[Key], now: float) -> None:
        """Forget completed files that are no longer visible, unless they may be away with their name."""
        if self.absence:
            self.completed.prune(self.completed)
            return
        hidden = [key for key in self.completed if key[0] and key not in visible]
        existing = self._existing(hidden)
        for key in hidden:
            if key not in existing:
                position = self.completed[key]
                if not position.done:
                    self.lost.append(position)
                self.completed.mark_gone(key)
        # A forgotten file could be taken for a missed one until the next is read.
        old = [key for key in hidden if key in existing][:-MAX_HIDDEN]
        forgotten = set(old) if len(self.chain) <= 1 else set[Key]()
        if forgotten:
            forgotten -= {*self.completed.modified_since(self.path, self.scanned_at - CLOCK_MARGIN)}
        gone = [key for key in self.completed if not key[0]]
        known_until = self.known_until(now) - GONE_MARGIN if gone else now
        self.gone_at = {key: at for key in gone if (at := self.gone_at.get(key, now)) >= known_until}
        self.completed.prune(visible, (existing - forgotten) | self.gone_at.keys())

    def _existing(self, keys: Collection[Key]) -> set[Key]:
        """Return which of completed files still exist beside the path, whatever their names are."""
        if not keys:
            return set()
        listings = self._roots.listings
        try:
            folders = {os.path.dirname(name) for name in self._all_names()}
            if all(any(key[1] in listings.inodes(folder) for folder in folders) for key in keys):
                return set(keys)  # at the cost of a system call
            found = {key_of(status) for _, status in self._siblings(keys)}
        except OSError:
            return set(keys)
        return found.intersection(keys)

    def skip_hidden(self, visible: Container[Key]) -> None:
        """Record, at the first scan, rotated files that are older: compressing them makes no new file.

        Args:
            visible: files that are read.
        """
        if self._hidden_skipped:
            return
        try:
            since = self.scanned_at - CLOCK_MARGIN
            older = ((path, key_of(found)) for path, found in self._siblings() if found.st_mtime <= since)
            for path, key in [item for item in older if item[1] not in visible][-MAX_HIDDEN:]:
                fd = self._roots.open_same(path, key)
                try:
                    self.completed[key] = skipped_position(fd, path)
                finally:
                    os.close(fd)
                self._unsaved = True
            self._hidden_skipped = True
        except PathChanged:
            self.defer()
        except OSError as error:
            if may_pass(error):
                self.defer(error)

    @property
    def flush_at(self) -> float:
        """Monotonic seconds at which the first buffered line is flushed; infinity if there is none."""
        return min((file.flush_at for file in self.chain), default=float("inf"))

    @property
    def paths(self) -> list[str]:
        """Paths of the files, whose changes announce new lines."""
        return [file.path for file in self.chain]

    @property
    def has_partial(self) -> bool:
        """Whether an incomplete line or event is buffered."""
        return any(file.has_partial for file in self.chain)

    @property
    def encoding(self) -> str:
        """Name of the encoding of the newest file; empty if none is tailed."""
        chain = list(self.chain)
        return chain[-1].decoder.encoding if chain else ""

    @property
    def lag(self) -> int:
        """Number of bytes that are not shipped yet."""
        return sum(file.lag for file in list(self.chain))  # a copy, since metrics are read in another thread
