"""Open file: what was read, by which it is recognized, and how much is not read yet.

Invariants:

1. A size counts only if the bytes just before the read offset are unchanged at that moment: unread bytes of a
   file that was truncated are known exactly, up to the last look at it.
2. Every look that a truncation follows is remembered until the truncation is handled.
3. Holes of null bytes prove nothing: any two files may have one at the same place.
"""

import os
from typing import Final

from tickertape.producers.shipper.content.comparison import Evidence
from tickertape.producers.shipper.position import (
    HEAD_BYTES,
    PRECEDING_BYTES,
    Key,
    digest,
    hash_before,
    key_of,
)

COMPARED_BYTES: Final = 64 * 1024
"""Bytes at the beginning and at the end of the data of a file that are compared."""

MAX_HOLE_BLOCKS: Final = 256
"""Blocks of ``COMPARED_BYTES`` in which the end of the data is looked for, which takes milliseconds."""


class OpenFile:
    """Open file with the bytes by which it is recognized.

    Args:
        path: path at which the file was found.
        fd: file descriptor, open for reading; this object closes it.
        offset: bytes that are read, or skipped.

    Attributes:
        key: its device and inode.
        path: path at which it was found last.
        read_offset: bytes that have been read.
        ended: nothing more is read from this generation.
        is_uncompressed: it is the content of a compressed file, whose time may be later than its last line.
    """

    def __init__(self, path: str, fd: int, offset: int) -> None:
        self.key: Key = key_of(os.fstat(fd))
        self.path = path
        self.read_offset = offset
        self.ended = self.is_uncompressed = False
        self._fd = fd
        self._rotated_at: float | None = None
        self._load_context()
        # Size at the last look at which the file was not truncated yet.
        self._known_size = offset
        # Sizes of later generations at the last look at each; empty until a truncation is seen.
        self._later_sizes: list[int] = []

    def _load_context(self) -> None:
        """Read again the bytes by which the file is recognized."""
        start = max(0, self.read_offset - PRECEDING_BYTES)
        self._preceding = os.pread(self._fd, self.read_offset - start, start)
        self._head = os.pread(self._fd, min(HEAD_BYTES, self.read_offset), 0)
        self._before_hole = (b"", 0)
        if not self._preceding.strip(b"\0"):
            self._record_before_hole(*_last_data(self._fd, self.read_offset))

    def _record_preceding(self, data: bytes, start: int) -> None:
        """Record the last bytes that were read, and those before the hole with which they end, if they do.

        Args:
            data: the bytes.
            start: their offset.
        """
        self._preceding = data[-PRECEDING_BYTES:]
        if self._preceding.strip(b"\0"):
            self._before_hole = (b"", 0)
        elif before := data.rstrip(b"\0"):  # otherwise the hole began earlier
            self._record_before_hole(before, start)

    def _record_before_hole(self, data: bytes, start: int) -> None:
        skipped = max(0, len(data) - PRECEDING_BYTES)
        self._before_hole = (data[skipped:], start + skipped)

    def _fingerprint(self) -> tuple[int, int]:
        """Return the size and the modification time in nanoseconds."""
        status = os.fstat(self._fd)
        return (status.st_size, status.st_mtime_ns)

    @property
    def is_rotated(self) -> bool:
        """Whether the file was renamed."""
        return self._rotated_at is not None

    @property
    def exists(self) -> bool:
        """Whether the file has a name, at whatever path."""
        return os.fstat(self._fd).st_nlink > 0

    def observe(self, size: int) -> None:
        """Record the size at which the file was found, for the case that it is truncated unread.

        Raises:
            OSError: the file cannot be read at the moment.
        """
        if self.ended or size == (self._later_sizes[-1] if self._later_sizes else self._known_size):
            return
        size = os.fstat(self._fd).st_size  # it may have changed since it was found
        if not self._later_sizes and self._is_continued(size):
            self._known_size = size
            return
        size = os.fstat(self._fd).st_size  # it may have been truncated just now
        if self._later_sizes and size >= self._later_sizes[-1]:
            self._later_sizes[-1] = size
        else:
            self._later_sizes.append(size)

    def _is_continued(self, size: int) -> bool:
        """Return whether the file still contains what was read."""
        if not self.read_offset:
            return size >= self._known_size
        start = self.read_offset - len(self._preceding)
        return self.contains_at(self._preceding, start) and self._has_data_before_hole()

    def _has_data_before_hole(self) -> bool:
        """Return whether the data before the hole with which what was read ends, if it does, is unchanged."""
        data, offset = self._before_hole
        return not data or self.contains_at(data, offset)

    def take_unread_sizes(self) -> tuple[int, list[int]]:
        """Return the unread bytes of this generation, and those of later ones that were truncated as well."""
        unread, later = self._known_size - self.read_offset, self._later_sizes[:-1]
        self._known_size, self._later_sizes = self.read_offset, []
        return max(0, unread), [size for size in later if size]

    @property
    def modified_at(self) -> float:
        """UNIX seconds at which the file was modified."""
        return os.fstat(self._fd).st_mtime

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return os.fstat(self._fd).st_size

    def evidence(self) -> Evidence:
        """Return the bytes by which another content is recognized as that of this file."""
        if self.read_offset:
            return Evidence(digest(self._head), len(self._head), digest(self._preceding), self.read_offset)
        head = os.pread(self._fd, COMPARED_BYTES, 0)
        return Evidence(digest(head), len(head), hash_before(self._fd, len(head)), len(head))

    def matches_copy(self, fd: int) -> bool:
        """Return whether another open file contains everything that was read of this one."""
        if not self.read_offset or os.fstat(fd).st_size < self.read_offset:
            return False
        start = self.read_offset - len(self._preceding)
        before, offset = self._before_hole
        same_end = os.pread(fd, len(self._preceding), start) == self._preceding
        same_end = same_end and os.pread(fd, len(before), offset) == before
        return same_end and os.pread(fd, len(self._head), 0) == self._head

    def is_newer_than(self, other: os.stat_result) -> bool:
        """Return whether this file was last modified after another."""
        return os.fstat(self._fd).st_mtime_ns > other.st_mtime_ns

    def is_at_its_path(self) -> bool:
        """Return whether the file still has the path at which it was found."""
        try:
            return self.is_uncompressed or key_of(os.stat(self.path)) == self.key
        except OSError:
            return False

    def is_older_than(self, other: os.stat_result) -> bool:
        """Return whether this file was last modified before another."""
        return os.fstat(self._fd).st_mtime_ns < other.st_mtime_ns

    def is_copied_in(self, fd: int) -> bool:
        """Return whether another open file is a copy of this one, complete or still being written."""
        size = os.fstat(fd).st_size
        # Nothing is in memory to compare with, so the other file is compared with this one on disk.
        if not self.read_offset and not self.is_rotated:
            return bool(size) and self.has_content_of(fd, size)
        # A copy in the making is shorter than what was read; what it has must be at the same place of this
        # file.
        return self.matches_copy(fd) if size >= self.read_offset else self.has_content_of(fd, size)

    def has_content_of(self, fd: int, size: int) -> bool:
        """Return whether the beginning and the end of another open file are at the same place of this one.

        Args:
            fd: descriptor of the other file.
            size: its size in bytes.
        """
        return self.contains_at(os.pread(fd, COMPARED_BYTES, 0), 0) and self.contains_at(
            *_last_data(fd, size)
        )

    def has_same_head(self, head: bytes) -> bool:
        """Return whether what was read of this file has the same head as another, as far as both extend."""
        count = min(len(head), len(self._head))
        return bool(self.read_offset) and head[:count] == self._head[:count]

    def contains_at(self, data: bytes, offset: int) -> bool:
        """Return whether the file contains the given bytes at an offset."""
        return os.pread(self._fd, len(data), offset) == data

    def close(self) -> None:
        """Close the file descriptor."""
        os.close(self._fd)


def _last_data(fd: int, size: int) -> tuple[bytes, int]:
    """Return the last bytes of an open file before the hole with which it ends, if it does, and their offset.

    Args:
        fd: descriptor of the file.
        size: bytes of the file to look at, from its beginning.
    """
    start, data = size, b""
    for _ in range(MAX_HOLE_BLOCKS):
        if data or not start:
            break
        end, start = start, max(0, start - COMPARED_BYTES)
        data = os.pread(fd, end - start, start).rstrip(b"\0")
    end = start + len(data)
    start = max(0, end - COMPARED_BYTES)
    return os.pread(fd, end - start, start), start
