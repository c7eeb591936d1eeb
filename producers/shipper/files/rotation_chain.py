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
    Renamed,
    base_of,
    key_of,
    open_copy,
    open_same,
    siblings,
)
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import Parser
from tickertape.producers.shipper.position import FilePosition, Key, unread
from tickertape.producers.shipper.sinks.sink import Checkpoint

TICK: Final = 0.02
"""Seconds by which a file's time may lag behind the clock."""

CLOCK_MARGIN: Final = 2.0
"""Seconds; less than the grace after which a rotated file is done with."""

SCANS: Final = 8
"""Times that files are looked for while a rotation renames them."""

MAX_PAST: Final = 256
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
        self.past: dict[Key, FilePosition] = {}
        self.wanted: dict[Key, FilePosition] = {}
        self.lost: list[FilePosition] = []
        self.held = False
        self.looked_at = 0.0
        self._parser = parser
        self._grace = grace
        self._sure: dict[Key, int] = {}
        self._unsaved = False
        if checkpoint is not None:
            self.looked_at = checkpoint.time
            self.remember(checkpoint.places)

    def begin_look(self) -> None:
        """Begin to look for its files: none is known to be missing yet."""
        self.held = False

    def hold(self) -> None:
        """Leave a file that a rotation moves to the next look."""
        self.held = True

    def end_look(self, now: float) -> None:
        """Note that all its files are known up to now, unless one was left to the next look."""
        if not self.held:
            self.looked_at = now

    def remember(self, places: Iterable[FilePosition]) -> None:
        """Take over places of a checkpoint whose files are not open."""
        for place in places:
            known, other = (self.past, self.wanted) if place.done else (self.wanted, self.past)
            known[place.key] = place
            other.pop(place.key, None)

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
        place = self.wanted.pop(key, None) or self.past.pop(key, None)
        if place is not None and not place.fits(handle):
            place = None  # the inode was used again, or the file was truncated
        offset = status.st_size if from_end else 0
        file = TailedFile(path, handle, self._parser(), now, place, offset, self._grace)
        last = self.chain[-1] if self.chain else None
        if last is not None and (last.path != self.path or last.has_lost_its_name or path == self.path):
            last = None
        self._insert(file, status, before=last)
        self._unsaved = self._unsaved or from_end

    def want(self, found: os.stat_result, path: str) -> None:
        """Note that a file was seen, and is to be opened by any name that it has later."""
        key = key_of(found)
        if key not in self.wanted:
            self.wanted[key] = self.past.pop(key) if key in self.past else unread(key, path)

    def find_past(self, in_sight: Mapping[Key, str], now: float) -> None:
        """At a start, open what was rotated, and what has grown after its end, while nothing was followed.

        Args:
            in_sight: files that are found by their names, and are opened by them.
        """
        self._retry(lambda: self._want_grown(in_sight))
        self.find_wanted(in_sight, now)
        if self.looked_at:
            self.find_unseen(self.looked_at - CLOCK_MARGIN, now, {*in_sight, *self.past})

    def _want_grown(self, in_sight: Container[Key]) -> None:
        for path, status in siblings(self.path):
            key = key_of(status)
            place = self.past.get(key)
            if place is None or key in in_sight:
                continue
            if self.knows(key, path) and status.st_size != place.offset:
                self.wanted[key] = self.past.pop(key)

    def find_wanted(self, in_sight: Mapping[Key, str], now: float) -> None:
        """Open what is wanted and not in sight, or note that it is lost.

        Args:
            in_sight: files that are found by their names, and are opened by them.
        """

        def attempt() -> None:
            for place in list(self.wanted.values()):
                self._find_wanted(place, in_sight, now)

        self._retry(attempt)

    def _retry(self, attempt: Callable[[], object]) -> None:
        """Do what needs files to keep their names; after some attempts, leave it to the next look."""
        for _ in range(SCANS):
            with contextlib.suppress(Renamed):
                attempt()
                return
        self.held = True

    def _find_wanted(self, place: FilePosition, in_sight: Mapping[Key, str], now: float) -> None:
        """Open one file by any of its names, or a copy of it.

        Raises:
            Renamed: while it was looked for.
        """
        key = place.key
        path = in_sight.get(key) or self._name_of(place)
        # Of what was not read nothing is known but its inode, which another file may have by now.
        if path is not None and (place.offset or self.path in (path, base_of(path))):
            try:
                handle = open_same(path, key)
            except OSError:
                self.past[key] = self.wanted.pop(key)  # it must not hold up others; each look tries again
                return
            if not place.fits(handle):
                os.close(handle)
            elif key in in_sight:
                os.close(handle)
                return
            else:
                del self.wanted[key]
                self._follow(path, handle, now, place)
                return
        del self.wanted[key]
        copy = open_copy(self.path, place.fits, {file.key for file in self.chain}) if place.offset else None
        if copy is not None:
            self.past.pop(key_of(os.fstat(copy[1])), None)
            self._follow(*copy, now, place)
        elif key not in in_sight:
            self.lost.append(place)

    def _name_of(self, place: FilePosition) -> str | None:
        """Find the name that a file has now, among those that a rotation gives."""
        return next((path for path, status in siblings(self.path) if key_of(status) == place.key), None)

    def find_unseen(
        self, since: float, now: float, besides: Collection[Key] = (), *, before: TailedFile | None = None
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
        self._retry(lambda: self._follow_unseen(since, now, besides, before))
        found = len(self.chain) > count
        if found and before is not None:
            before.look_from(now)
        return found

    def _follow_unseen(
        self, since: float, now: float, besides: Collection[Key], before: TailedFile | None
    ) -> None:
        opened = {file.key for file in self.chain}
        for path, status in siblings(self.path):
            key = key_of(status)
            known = key in opened or key in besides or key in self.wanted
            if known or status.st_mtime <= since or base_of(path) != self.path:
                continue
            if key in self.past and self.knows(key, path):
                continue
            with contextlib.suppress(OSError):
                handle = open_same(path, key)
                if any(not file.over and file.is_like(handle) for file in self.chain):
                    os.close(handle)  # a copy: its file is about to be truncated, and is continued in it then
                    continue
                self._follow(path, handle, now, before=before)

    def _follow(
        self,
        path: str,
        handle: int,
        now: float,
        place: FilePosition | None = None,
        before: TailedFile | None = None,
    ) -> None:
        file = TailedFile(path, handle, self._parser(), now, place)
        if path != self.path:
            file.rotated(now)
        self._insert(file, os.fstat(handle), before)

    def _insert(self, file: TailedFile, status: os.stat_result, before: TailedFile | None) -> None:
        """Put a file where it belongs: before those that are unread and were written later."""
        last = len(self.chain)
        if before is not None and not before.comes_before(status):
            last = self.chain.index(before)
        later = (number for number, other in enumerate(self.chain) if other.comes_after(status))
        self.chain.insert(min(next(later, last), last), file)

    def has_done(self, key: Key, path: str, status: os.stat_result) -> bool:
        """Tell whether a file is shipped to its end, has not grown since, and is no other on its inode.

        Raises:
            Renamed: the path leads to another file by now.
        """
        place = self.past.get(key)
        if place is None or not place.done or place.offset != status.st_size:
            return False
        stamp = status.st_mtime_ns
        if self._sure.get(key) != stamp:
            if not self.knows(key, path):
                return False
            self._sure[key] = stamp
        return True

    def changed_since(self, moment: float) -> bool:
        """Tell whether the live file was not looked at since a moment."""
        live = (file for file in self.chain if file.path == self.path and not file.has_lost_its_name)
        return any(not file.over and file.looked_at <= moment for file in live)

    def knows(self, key: Key, path: str) -> bool:
        """Tell whether a file is one of the past, and not another on its inode: that is forgotten then.

        Raises:
            Renamed: the path leads to another file by now.
        """
        try:
            handle = open_same(path, key)
        except OSError:
            return False
        try:
            place = self.past[key]
            if place.offset and place.fits(handle):
                return True
            del self.past[key]
            return False
        finally:
            os.close(handle)

    def forget(self, in_sight: Container[Key]) -> None:
        """Forget the files that were shipped to their end and are out of sight."""
        # While their successors are not read they could be taken for files that nobody has seen.
        for key in [key for key in self.past if key not in in_sight and len(self.chain) <= 1]:
            del self.past[key]
        for key in list(self.past)[:-MAX_PAST]:
            del self.past[key]
        self._sure = {key: stamp for key, stamp in self._sure.items() if key in self.past}
