"""Discovery of the files that match paths and globs, and of the file stream that each belongs to.

Invariants:

1. Files are identified by device, inode and content, not by name: a rename does not make a new file.
2. Polling decides: no order is assumed in which a writer renames, copies, creates and truncates files.
3. A file that looks like the copy that a rotation makes of a tailed file is not read until it is clear what
   it is.
4. Only a folder that can be listed shows that a file is gone; a file whose status cannot be read is not gone.
"""

import errno
import itertools
import os
import stat
from collections.abc import Callable

from tickertape.producers.shipper.absence import DEFAULT_FORGET_AFTER, LONG_AGO
from tickertape.producers.shipper.content.compression import COMPRESSED
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.globs import expand, may_pass, pattern_of
from tickertape.producers.shipper.files.possible_copies import PossibleCopies
from tickertape.producers.shipper.files.roots import (
    MAX_WARNINGS,
    ForbiddenPath,
    PathChanged,
    Roots,
    is_within,
)
from tickertape.producers.shipper.files.rotation import base_of
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.given_paths import FolderGiven
from tickertape.producers.shipper.position import Key, key_of
from tickertape.producers.shipper.sinks.sink import StoredCheckpoint, is_retired
from tickertape.producers.shipper.timing import CLOCK_MARGIN


class FileDiscovery:
    """Source of the file streams that match paths and globs.

    Args:
        patterns: absolute paths and globs; ``**`` matches folders recursively.
        stored: last checkpoints by path.
        make_stream: factory of the file stream for a path and its checkpoint.
        roots: folders whose files may be read.
        from_end: on the very first run, skip the existing content of files.
        forget_after: seconds of absence of a path after which its files are forgotten.
        max_open: maximum number of files that are open simultaneously.
        warn: called with a line about a file that cannot be tailed, once per file and reason.

    Attributes:
        streams: file streams by path.
        read_error: path that the last scan could not read, and the error, if it may pass; the next scan reads
            it again.
    """

    def __init__(
        self,
        patterns: list[str],
        stored: dict[str, StoredCheckpoint],
        make_stream: Callable[[str, StoredCheckpoint | None], FileStream],
        *,
        roots: Roots,
        from_end: bool = False,
        forget_after: float = DEFAULT_FORGET_AFTER,
        max_open: int = 512,
        warn: Callable[[str], None],
    ) -> None:
        self.streams: dict[str, FileStream] = {}
        self.read_error: tuple[str, OSError] | None = None
        self.unreadable = False
        self.lost_files = self.lost_bytes = 0
        self._patterns = patterns
        self._stored = stored
        self._make_stream = make_stream
        self._roots = roots
        self._max_open = max_open
        self._forget_after = forget_after
        self._left_out = ""  # a path that the last scan found, for which there was no descriptor
        self._warn = warn
        self._warnings: set[str] = set()
        self._copies = PossibleCopies(roots)
        self._first_scan = True
        # UNIX seconds of the last scan that found everything.
        self._scanned_at = 0.0
        # Folders and paths whose content or status is unknown, because this scan could not read them.
        self._unknown: set[str] = set()
        self._owners: dict[Key, FileStream] = {}
        matches = pattern_of(patterns)
        # The checkpoints are those of the entire host; those that no pattern matches belong to other
        # shippers. The streams exist before the first scan, because their files may have been renamed to
        # names that no pattern matches.
        known = [path for path in stored if matches.fullmatch(path)]
        for path in known:
            if not is_retired(stored[path].checkpoint):
                self._stream(path, 0.0)
        # With a checkpoint this is not the very first run, and lines that were written since must be shipped.
        self._from_end = from_end and not known

    @property
    def forbidden(self) -> int:
        """Number of paths that the last scan found and that must not be read."""
        return len(self._roots.forbidden)

    def scan(self, now: float) -> None:
        """Find files that appeared, disappeared, or were renamed.

        Args:
            now: UNIX seconds.
        """
        self.read_error = None
        self.unreadable = False
        self._left_out = ""
        found = self._find_files()
        visible = {key: path for key, (path, _) in found.items()}
        paths = set(visible.values())
        with self._roots.listings.shared():
            for stream in self.streams.values():
                repeat = stream.begin_scan()
                stream.record_presence(now, present=stream.path in paths)
                if stream.absence.unreadable:
                    continue
                unknown_bases = map(base_of, self._unknown)
                if self._is_unknown(stream.path) or stream.path in unknown_bases:
                    stream.defer()
                    continue
                # Files that are pending or were missed are older than those that the globs show for the first
                # time, so they enter the chain before them.
                if not stream.resumed:
                    stream.open_after_restart(visible, now)
                else:
                    stream.open_pending(visible, now)
                    if not stream.deferred and (repeat or stream.may_have_missed(found, paths)):
                        stream.open_missed(stream.scanned_at - CLOCK_MARGIN, now, visible)
            for _, path, key, status in self._update_files(found, now):
                stream = self._owner(key, path) or self._stream(self._stream_path(path, paths), now)
                stream.skip_hidden(visible)
                if not stream.resumed:  # it was absent until now
                    stream.open_after_restart(visible, now)
                if not self._copies.may_be_copy(path, status, stream, now, first=self._first_scan):
                    self._open(stream, path, status, visible, now)
            for stream in self.streams.values():
                self._end_scan(stream, visible, now)
        self._retire_streams()
        if self.read_error is None and not any(stream.deferred for stream in self.streams.values()):
            self._scanned_at = now
            self._from_end = False
            self._copies.prune(found)
        self._first_scan = False
        if self._left_out:
            # Last: this is not an error of the files that are tailed, but the input is not complete either.
            self.read_error = self.read_error or (
                self._left_out, OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            )  # fmt: skip

    def _retire_streams(self) -> None:
        """Keep nothing but the last checkpoint of names whose files are forgotten."""
        for stream in [stream for stream in self.streams.values() if stream.absence.since == LONG_AGO]:
            if stored := stream.retire():
                self._stored[stream.path] = stored
                del self.streams[stream.path]

    def _end_scan(self, stream: FileStream, visible: dict[Key, str], now: float) -> None:
        if stream.absence.lasts(self._forget_after, now):
            stream.forget()
        # While something is unknown, a file that is not visible may still exist.
        stream.prune_completed(visible if not self._unknown else stream.completed, now)
        stream.end_scan(now)
        if stream.read_error is not None:
            self._record_error(stream.path, stream.read_error)
        for loss in stream.take_losses():
            self.lost_files += loss.is_certain
            self.lost_bytes += loss.size
            self._warn(loss.text)

    def _record_error(self, path: str, error: OSError) -> None:
        """Record an error of this scan; one that may pass shows that something may not have been found."""
        if not may_pass(error):
            self.unreadable = True
            self._warn_once(f"{path}: cannot be accessed: {error.strerror}; check its permissions")
            return
        self._warn_once(f"{path}: cannot be read: {error.strerror}; retrying")
        self.read_error = self.read_error or (path, error)

    def _record_unknown(self, path: str, error: OSError) -> None:
        if may_pass(error):
            self._unknown.add(path)
        self._record_error(path, error)

    def _is_unknown(self, path: str) -> bool:
        """Return whether a path, or a folder above it, could not be read in this scan."""
        return any(is_within(path, unknown) for unknown in self._unknown)

    def _open(
        self, stream: FileStream, path: str, status: os.stat_result, visible: dict[Key, str], now: float
    ) -> None:
        if not self._first_scan:  # another file may have had this name since the last scan
            stream.open_missed(stream.scanned_at - CLOCK_MARGIN, now, visible)
        try:
            # While an older file of this stream cannot be found, this one becomes pending instead: opening it
            # now would put it before the older one.
            if not stream.deferred:
                stream.open(path, status, now, from_end=self._from_end)
                return
        except PathChanged:
            stream.defer()
        except ForbiddenPath:
            return
        except OSError as error:
            if not may_pass(error):
                self.unreadable = True
                self._warn_once(f"{path}: cannot be opened: {error.strerror}; check its permissions")
                return
            stream.defer(error)
        if not self._from_end:
            stream.add_pending(status, path)

    def _update_files(
        self, found: dict[Key, tuple[str, os.stat_result]], now: float
    ) -> list[tuple[int, str, Key, os.stat_result]]:
        """Update the paths of tailed files; return the files to open, least recently modified first."""
        tailed = {file.key: (file, stream) for stream in self.streams.values() for file in stream.chain}
        self._owners = {
            key: stream for stream in self.streams.values() for key in (*stream.completed, *stream.pending)
        }
        new = []
        for key, (path, status) in found.items():
            if key not in tailed and not self._is_completed(key, path, status):
                new.append((status.st_mtime_ns, path, key, status))
        for key, (file, stream) in tailed.items():
            if key in found:
                stream.observe(file, found[key][0], found[key][1].st_size)
            elif not (self._is_unknown(file.path) or self._is_away(stream, file, now)):
                file.update_path(None)
        # Files enter the chain of their name in the order in which they were written.
        new.sort(key=lambda item: item[:2])
        if len(tailed) + len(new) > self._max_open:
            self._warn_once(f"more than {self._max_open} files to tail; raise the limit of open files")
            # The others are not forgotten: every scan finds them again.
            self._left_out = new[max(0, self._max_open - len(tailed))][1]
            del new[max(0, self._max_open - len(tailed)) :]
        return new

    def _is_away(self, stream: FileStream, file: TailedFile, now: float) -> bool:
        """Return whether a file that was not found has gone with its folder, and was not rotated."""
        absence = stream.absence
        if not absence.folder_is_away or absence.lasts(self._forget_after, now):
            return False
        try:
            return file.exists
        except OSError as error:
            stream.defer(error)
            return True

    def _is_completed(self, key: Key, path: str, status: os.stat_result) -> bool:
        owner = self._owners.get(key)
        if owner is None:
            return False
        try:
            return owner.completed.is_unchanged(key, path, status)
        except PathChanged:
            owner.defer()
        except OSError as error:
            owner.defer(error)
        return True  # assumed until the next scan

    def _owner(self, key: Key, path: str) -> FileStream | None:
        """Return the stream that owns a file by its stored position, whatever its name, or None."""
        owner = self._owners.get(key)
        if owner is None or key in owner.pending:
            return owner
        try:
            return owner if key in owner.completed and owner.completed.is_same(key, path) else None
        except PathChanged:
            owner.defer()
        except OSError as error:
            owner.defer(error)
        return owner

    def shift_clock(self, step: float) -> None:
        """Shift the times of all streams because the system clock was set by ``step`` seconds."""
        for stream in self.streams.values():
            until = min([stream.scanned_at, *(file.verified_at for file in stream.chain)]) - CLOCK_MARGIN
            stream.shift_clock(step)
            stream.completed.record_known(stream.path, until, stream.scanned_at, CLOCK_MARGIN)
        self._copies.shift_clock(step)
        self._scanned_at += min(step, 0.0)

    def close(self) -> None:
        """Close all files."""
        self._roots.uncompressor.close()
        for stream in self.streams.values():
            stream.close()

    def _stream(self, path: str, now: float) -> FileStream:
        """Return the stream of a path; create it if there is none."""
        stream = self.streams.get(path)
        if stream is None:
            stream = self.streams[path] = self._make_stream(path, self._stored.get(path))
            if not stream.scanned_at:
                stream.end_scan(self._scanned_at or now)
        return stream

    def _stream_path(self, path: str, paths: set[str]) -> str:
        """Return the path that a file was written under, judging by its name."""
        base = base_of(path)
        return base if base is not None and (base in self.streams or base in paths) else path

    def _find_files(self) -> dict[Key, tuple[str, os.stat_result]]:
        """Return the regular files that match, by key; a file with several names has the first one."""
        found: dict[Key, tuple[str, os.stat_result]] = {}
        self._unknown = set()
        forbidden = self._roots.begin_scan()
        matches = (expand(pattern, self._record_unknown, self._may_enter) for pattern in self._patterns)
        for path, linked in itertools.chain.from_iterable(matches):
            if path.endswith(COMPRESSED):
                continue
            try:
                status = os.lstat(path)
                if linked or stat.S_ISLNK(status.st_mode) or path in forbidden:
                    status = os.stat(self._roots.resolve(path))
            except (FileNotFoundError, ForbiddenPath):
                continue
            except OSError as error:
                self._record_unknown(path, error)
                continue
            if stat.S_ISREG(status.st_mode):
                # Hard links have the same key, and each line of such a file is shipped once.
                found.setdefault(key_of(status), (path, status))
            elif not stat.S_ISDIR(status.st_mode):
                self._roots.forbid_special(path)
            elif path in self._patterns:
                self._warn_once(str(FolderGiven(path)))
        return found

    def _may_enter(self, folder: str) -> bool:
        """Return whether a link leads to a folder whose files may be read."""
        try:
            self._roots.resolve(folder)
        except (FileNotFoundError, ForbiddenPath):
            return False
        except OSError as error:
            self._record_unknown(folder, error)
            return False
        return True

    def _warn_once(self, text: str) -> None:
        if text not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            self._warnings.add(text)
            self._warn(text)
