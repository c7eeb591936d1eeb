"""Spool that keeps an input on disk until it is shipped, because a pipe or a socket cannot be read again.

Invariants:

1. A chunk is read only if there is space for it in a segment file. While the segments or their disk are full,
   nothing is read, so the process that writes to the pipe blocks, and no line is lost, even if this process
   ends then.
2. Segments are shipped in order, like the files of a rotation chain, and deleted once they are shipped.
"""

import asyncio
import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tickertape.producers.shipper.encodings.names import AUTO
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.lines.segments import HEAD_BYTES, MARK_BYTES, find_split
from tickertape.producers.shipper.position import Key, key_of
from tickertape.producers.shipper.standard_input import CHUNK_BYTES

from tickertape.errors import OperatorError
from tickertape.process.files import write_hint

SEGMENT_BYTES: Final = 4 * 1024 * 1024
"""Bytes after which a segment is closed at the next line break."""

MIN_SEGMENTS: Final = 4
"""Minimum number of segments in a full spool: space is freed one complete segment at a time."""

FULL_WAIT: Final = 0.05
"""Seconds between two checks for free capacity while the spool is full."""

_SEGMENT: Final = re.compile(r"\d+\.spool").fullmatch


class InputSource(Protocol):
    """Input of a spool: ``InputReader`` or ``SyslogReceiver``."""

    async def wait(self) -> None:
        """Wait until there is something to read, or the end."""

    def read(self) -> bytes | None:
        """Read a chunk; return nothing at the end, and None if there is nothing to read yet."""

    def confirm(self) -> None:
        """Record that all chunks that were read are spooled."""


@dataclass(slots=True)
class _Segment:
    """Segment that is being written; its size without what is reserved."""

    path: Path
    fd: int
    size: int = 0

    def append(self, data: bytes) -> None:
        """Write all data, or none and raise OSError."""
        view, end = memoryview(data), self.size
        while view:
            count = os.pwrite(self.fd, view, end)
            end += count
            view = view[count:]
        self.size = end


def _allocate(fd: int, size: int) -> None:
    """Reserve the space of a file up to a size, where the file system can.

    Raises:
        OSError: there is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


class SpoolError(OperatorError):
    """Spool that must not be used."""


class Spool:
    """Source of one file stream, whose files are the segments of an input.

    Args:
        folder: folder of the segments; created if it does not exist.
        stream: file stream that reads the segments.
        limit: maximum total size of the segments in bytes.
        warn: called with a line when the spool cannot be written.
        encoding: canonical name of the encoding of the input, or "auto".
        notify: called with the path of a segment that has grown.

    Raises:
        SpoolError: the folder is a symbolic link, which may have been planted.
        OSError: the folder cannot be created or read.

    Attributes:
        streams: the file stream by its path.
        ended: the input is at its end.
        read_error: always None, as ``scan`` raises errors.
        forbidden: always 0: what is not a segment is not counted.
        unreadable: always False, as ``scan`` raises errors.
        lost_files: always 0: nothing but this process removes segments.
        lost_bytes: always 0.
    """

    read_error: tuple[str, OSError] | None = None
    forbidden = 0
    unreadable = False
    lost_files = lost_bytes = 0

    def __init__(
        self,
        folder: Path,
        stream: FileStream,
        limit: int,
        warn: Callable[[str], None] = lambda _: None,
        encoding: str = AUTO,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.streams = {stream.path: stream}
        self.ended = False
        self._folder = folder
        self._stream = stream
        self._limit = limit
        self._warn = warn
        self._warned = False
        self._encoding = encoding
        self._notify = notify
        self._segment_bytes = min(SEGMENT_BYTES, limit // MIN_SEGMENTS)
        # Readable by the owner only, as secrets are redacted when lines are read from the spool.
        folder.mkdir(0o700, parents=True, exist_ok=True)
        if folder.is_symlink():
            raise SpoolError(f"{folder}: is a symbolic link", "remove it, or choose another --state-dir")
        self._opened: set[Path] = set()
        # A process that is killed while it closes a segment leaves the next one with this name.
        for leftover in folder.glob("*.spool.next"):
            leftover.rename(leftover.with_suffix(""))
        # Numbers continue across restarts, so the order of the names is the order of the input.
        self._number = max((int(path.stem) for path, _ in self._segments()), default=0)
        self._segment: _Segment | None = None
        self._next: _Segment | None = None

    def _segments(self) -> list[tuple[Path, os.stat_result]]:
        """Return the segments with their status, oldest first.

        Raises:
            OSError: the folder cannot be read at the moment.
        """
        # Not ``Path.glob``, which takes a folder that cannot be read for an empty one.
        with os.scandir(self._folder) as entries:
            names = sorted((int(entry.name[:-6]), entry.path) for entry in entries if _SEGMENT(entry.name))
        segments = [(Path(path), os.lstat(path)) for _, path in names]
        # A link or a pipe was planted.
        return [(path, status) for path, status in segments if stat.S_ISREG(status.st_mode)]

    async def fill(self, source: InputSource) -> None:
        """Write all input to the spool, waiting while it or its disk is full.

        Nothing waits between a read and the write of what it returned: whatever ends this process leaves the
        rest in the pipe.
        """
        try:
            while True:
                while self._is_full():  # noqa: ASYNC110 - nothing signals free space
                    await asyncio.sleep(FULL_WAIT)
                await source.wait()
                if not self._reserve():
                    await asyncio.sleep(FULL_WAIT)
                    continue
                chunk = source.read()
                while not self._write(chunk or b""):  # noqa: ASYNC110 - space that could not be reserved
                    await asyncio.sleep(FULL_WAIT)
                source.confirm()
                if self._segment is not None:
                    self._notify(str(self._segment.path))
                if chunk == b"":
                    break
        finally:
            if self._segment is not None:
                os.close(self._segment.fd)
            if self._next is not None:
                os.close(self._next.fd)
                self._next.path.unlink()
        self.ended = True

    def _reserve(self) -> bool:
        """Reserve space for a chunk; return False while the disk does not have it."""
        try:
            if self._segment is None:
                self._segment = self._create_segment(".spool")
            # A segment ends after a line break, which can be anywhere in the chunk.
            if self._segment.size >= self._segment_bytes and self._next is None:
                self._next = self._create_segment(".spool.next")
            for segment in (self._segment, self._next):
                if segment is not None:
                    _allocate(segment.fd, segment.size + CHUNK_BYTES + MARK_BYTES)
        except OSError as error:
            self._release()
            self._report(error)
            return False
        if self._warned:
            self._warned = False
            self._warn(f"{self._folder}: can be written again")
        return True

    def _report(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            hint = write_hint(error, "set --state-dir to a writable folder")
            problem = f"{self._folder}: cannot be written: {error.strerror}"
            self._warn(f"{problem}; {hint}; waiting, no lines are lost")

    def _release(self) -> None:
        """Release what is reserved and not used; this needs no space."""
        for segment in (self._segment, self._next):
            if segment is not None:
                os.ftruncate(segment.fd, segment.size)

    def _write(self, chunk: bytes) -> bool:
        """Write a chunk, for which space is reserved if possible; return whether it could be written."""
        segment, following = self._segment, self._next
        assert segment is not None
        # A segment ends after a line break; a line that is longer than a segment is split.
        mark = b""
        if following is None:
            end = len(chunk)
        else:
            end, mark = find_split(chunk, segment.size, os.pread(segment.fd, HEAD_BYTES, 0), self._encoding)
        if following is not None and not end and segment.size < 2 * self._segment_bytes:
            end, following = len(chunk), None
        elif mark and not end:
            end = segment.size % 2  # not within a character
        try:
            if following is not None:
                following.append(mark + chunk[end:])
            segment.append(chunk[:end])
        except OSError as error:
            if following is not None:
                following.size = 0
            self._release()
            self._report(error)
            return False
        self._release()
        if following is not None:
            os.close(segment.fd)
            # Only now: a segment is complete when there is a later one.
            following.path = following.path.rename(following.path.with_suffix(""))
            self._segment, self._next = following, None
        return True

    def _create_segment(self, suffix: str) -> "_Segment":
        while True:
            self._number += 1
            path = self._folder / f"{self._number:08}{suffix}"
            # With O_EXCL, a link that was planted is not followed.
            with contextlib.suppress(FileExistsError):
                return _Segment(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _is_full(self) -> bool:
        try:
            return sum(status.st_size for _, status in self._segments()) >= self._limit
        except OSError:
            return True  # until the folder can be read again

    def scan(self, now: float) -> None:
        """Tail new segments, and delete those that are shipped.

        Args:
            now: UNIX seconds.

        Raises:
            OSError: a segment cannot be found, read or deleted at the moment.
        """
        stream = self._stream
        # Only these are acknowledged; a segment that is deleted earlier cannot be read again after a
        # conflict.
        while stream.finished_paths:
            Path(stream.finished_paths[0]).unlink(missing_ok=True)
            stream.finished_paths.popleft()
        segments = self._segments()
        visible: dict[Key, str] = {key_of(status): str(path) for path, status in segments}
        stream.begin_scan()
        tailed = {file.key for file in stream.chain}
        for path, status in segments:
            key = key_of(status)
            position = stream.completed.get(key)
            if position is not None and position.done and position.offset == status.st_size:
                path.unlink()  # shipped, but the shipper was killed before it deleted the segment
            elif path not in self._opened and key not in tailed:
                stream.open(str(path), status, now)
                self._opened.add(path)
        stream.open_pending(visible, now)
        # Every segment but the newest is complete, and so is the newest at the end of the input.
        for file in list(stream.chain)[: None if self.ended else -1]:
            file.mark_rotated()
        stream.prune_completed(visible, now)
        stream.end_scan(now)

    def shift_clock(self, step: float) -> None:
        """Shift the times of all streams because the system clock was set by ``step`` seconds."""
        for stream in self.streams.values():
            stream.shift_clock(step)

    def close(self) -> None:
        """Close the segments, and remove the folder if it is empty."""
        self._stream.close()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
