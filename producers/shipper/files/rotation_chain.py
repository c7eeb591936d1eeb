"""The files that bear one name one after another: which there are, and in which order they are read.

Invariants:

1. Files are known by what they are and by what was read of them, never by their names or inodes alone.
2. What is in ``chain`` is in the order in which it was written; what came and was rotated while nobody looked
   takes its place there.
3. A file that is shipped to its end is remembered while it could be taken for a new one.
"""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Collection, Container, Mapping
from typing import Final

from tickertape.producers.shipper.files.position import Key, Place
from tickertape.producers.shipper.files.rotation import (
    Renamed,
    base_of,
    open_copy,
    open_file,
    open_same,
    siblings,
)
from tickertape.producers.shipper.files.tailed_file import Followed
from tickertape.producers.shipper.parsing.parser import Parser
from tickertape.producers.shipper.sinks.sink import Checkpoint

TICK: Final = 0.02
"""Seconds by which a file's time may lag behind the clock."""

CLOCK_MARGIN: Final = 2.0
"""Seconds; less than the grace after which a rotated file is done with."""

SCANS: Final = 8
"""Times that files are looked for while a rotation renames them."""

MAX_PAST: Final = 256
"""Files that were shipped to their end and are remembered while they are in sight."""


class Succession:
    """The files of one name.

    Args:
        path: the name, absolute.
        checkpoint: of the run before.
        parser: makes a parser for a file.
        grace: seconds, as of ``Followed``.

    Attributes:
        chain: files that are followed, the oldest first.
        past: files that were followed, by what they are.
    """

    def __init__(
        self, path: str, checkpoint: Checkpoint | None, parser: Callable[[], Parser], grace: float
    ) -> None:
        self.path = path
        self.chain: deque[Followed] = deque()
        self.past: dict[Key, Place] = {}
        self._parser = parser
        self._grace = grace
        self._time = 0.0
        self._sure: dict[Key, int] = {}
        self._unsaved = False
        if checkpoint is not None:
            self._time = checkpoint.time
            self.past = {place.key: place for place in checkpoint.places}

    def open(self, path: str, found: os.stat_result, now: float, *, from_end: bool = False) -> None:
        """Follow a file after those that are followed already, but one that was rotated before the live one.

        Args:
            path: that leads to it.
            found: what it was when it was found.

        Raises:
            Renamed: the path leads to another file by now.
            OSError: it cannot be opened.
        """
        handle = open_same(path, found)
        status = os.fstat(handle)
        key = (status.st_dev, status.st_ino)
        place = self.past.pop(key, None)
        if place is not None and not place.fits(handle):
            place = None  # the inode was used again, or the file was truncated
        offset = status.st_size if from_end else 0
        file = Followed(path, handle, self._parser(), now, place, offset, self._grace)
        live = self.chain and self.chain[-1].path == self.path and base_of(path) == self.path
        self.chain.insert(len(self.chain) - 1 if live else len(self.chain), file)
        self._unsaved = self._unsaved or from_end

    def find_lost(self, in_sight: Mapping[Key, str], now: float) -> list[Place]:
        """Open what was rotated while nobody looked; return the files that are not there any more.

        Args:
            in_sight: files that are found by their names.
        """
        beside = {_key(status): (path, status) for path, status in siblings(self.path)}
        lost = []
        for key, place in sorted(self.past.items(), key=lambda item: item[1].done):
            path, status = beside.get(key, (None, None))
            handle = self._reopen(in_sight.get(key, path), place)
            if handle is None and status is not None:
                # It may have been renamed since it was found.
                path = next((other for other, one in siblings(self.path) if _key(one) == key), path)
                handle = self._reopen(path, place)
            complete = place.done and (status is None or status.st_size == place.offset)
            if handle is not None and (key in in_sight or complete):
                os.close(handle)
                continue  # it is opened by its name, or not again
            self.past.pop(key, None)
            if handle is None and place.offset and not place.done:
                copy = open_copy(self.path, place.fits, {file.key for file in self.chain})
                path, handle = copy or (path, None)
            if handle is not None and path is not None:
                self._follow_rotated(path, handle, now, place)
                self.past.pop(self.chain[-1].key, None)
            elif key not in in_sight and not place.done:
                lost.append(place)
        known = set(self.past)
        if self._time:
            self.find_unseen(self._time - CLOCK_MARGIN, now, {*in_sight, *known})
        return lost

    def find_unseen(
        self, since: float, now: float, besides: Collection[Key] = (), *, before: Followed | None = None
    ) -> bool:
        """Follow what came and was rotated between two looks, or while nobody looked.

        Args:
            since: UNIX seconds; what was not written after that was seen.
            besides: files that are known.
            before: follow it before this one; None means last.

        Returns:
            True when there is such a file.
        """
        count = len(self.chain)
        for _ in range(SCANS):
            try:
                self._follow_unseen(since, now, besides, before)
                break
            except Renamed:
                continue  # a rotation goes on; what was found so far is followed already
        found = len(self.chain) > count
        if found and before is not None:
            before.looked_at = now
        return found

    def _follow_unseen(
        self, since: float, now: float, besides: Collection[Key], before: Followed | None
    ) -> None:
        opened = {file.key for file in self.chain}
        for path, status in siblings(self.path):
            key = _key(status)
            known = key in opened or key in besides or (key in self.past and self.knows(key, path))
            if known or status.st_mtime <= since or base_of(path) != self.path:
                continue
            with contextlib.suppress(OSError):
                handle = open_same(path, status)
                if any(not file.over and file.is_like(handle) for file in self.chain):
                    os.close(handle)  # a copy: its file is about to be truncated, and goes on in it then
                    continue
                last = len(self.chain) if before is None else self.chain.index(before)
                place = next((n for n, file in enumerate(self.chain) if file.comes_after(status)), last)
                self._follow_rotated(path, handle, now, at=min(place, last))

    def _follow_rotated(
        self, path: str, handle: int, now: float, place: Place | None = None, at: int | None = None
    ) -> None:
        file = Followed(path, handle, self._parser(), now, place)
        file.rotated(now)
        self.chain.insert(len(self.chain) if at is None else at, file)

    def has_done(self, key: Key, path: str, status: os.stat_result) -> bool:
        """Tell whether a file is shipped to its end, has not grown since, and is no other on its inode."""
        place = self.past[key]
        if not place.done or place.offset != status.st_size:
            return False
        stamp = status.st_mtime_ns
        if self._sure.get(key) != stamp:
            if not self.knows(key, path):
                return False
            self._sure[key] = stamp
        return True

    def changed_since(self, moment: float) -> bool:
        """Tell whether a file that still has its name was not looked at since a moment."""
        return any(
            not file.over and not file.has_lost_its_name and file.looked_at <= moment for file in self.chain
        )

    def knows(self, key: Key, path: str) -> bool:
        """Tell whether a file is one of the past, and not another on its inode: that is forgotten then."""
        place = self.past[key]
        handle = self._reopen(path, place)
        if handle is None:
            del self.past[key]
            return False
        os.close(handle)
        return True

    def _reopen(self, path: str | None, place: Place) -> int | None:
        """Open a file, if it is still the one of a place."""
        if path is None:
            return None
        if not place.offset and (place.done or self.path not in (path, base_of(path))):
            return None  # it is known by nothing but its inode, which another may have by now
        try:
            handle = open_file(path)
        except OSError:
            return None
        if _key(os.fstat(handle)) == place.key and place.fits(handle):
            return handle
        os.close(handle)
        return None

    def forget(self, in_sight: Container[Key]) -> None:
        """Forget the files that were shipped to their end and are out of sight."""
        # While their successors are not read they could be taken for files that nobody has seen.
        for key in [key for key in self.past if key not in in_sight and len(self.chain) <= 1]:
            del self.past[key]
        for key in list(self.past)[:-MAX_PAST]:
            del self.past[key]
        self._sure = {key: stamp for key, stamp in self._sure.items() if key in self.past}


def _key(status: os.stat_result) -> Key:
    return (status.st_dev, status.st_ino)
