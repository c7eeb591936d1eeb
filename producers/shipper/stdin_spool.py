"""Spool that keeps standard input on disk until it is shipped, because a pipe cannot be read again.

Invariants:

1. A chunk is in a segment file before the next one is read. The segments are bounded, and while they are
   full nothing is read, so the process that writes to the pipe blocks.
2. Segments are shipped in order, like the files of a rotation chain, and deleted once they are shipped.
"""

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.position import Key, key_of

from tickertape.errors import OperatorError

SEGMENT_BYTES: Final = 4 * 1024 * 1024
"""Bytes after which a segment is closed at the next line break."""

MIN_SEGMENTS: Final = 4
"""Minimum number of segments in a full spool: space is freed one complete segment at a time."""

FULL_WAIT: Final = 0.05
"""Seconds between two checks for free capacity while the spool is full."""

_SEGMENT: Final = re.compile(r"\d+\.spool").fullmatch


class SpoolError(OperatorError):
    """Spool that must not be used."""


class StdinSpool:
    """Source of one file stream, whose files are the segments of standard input.

    Args:
        folder: folder of the segments; created if it does not exist.
        stream: file stream that reads the segments.
        limit: maximum total size of the segments in bytes.

    Raises:
        SpoolError: the folder is a symbolic link, which may have been planted.
        OSError: the folder cannot be created or read.

    Attributes:
        streams: the file stream by its path.
        ended: standard input is at its end.
        read_error: always None, as ``scan`` raises errors.
        forbidden: always 0: what is not a segment is not counted.
    """

    read_error: tuple[str, OSError] | None = None
    forbidden = 0

    def __init__(self, folder: Path, stream: FileStream, limit: int) -> None:
        self.streams = {stream.path: stream}
        self.ended = False
        self._folder = folder
        self._stream = stream
        self._limit = limit
        self._segment_bytes = min(SEGMENT_BYTES, limit // MIN_SEGMENTS)
        # Readable by the owner only, as secrets are redacted when lines are read from the spool.
        folder.mkdir(0o700, parents=True, exist_ok=True)
        if folder.is_symlink():
            raise SpoolError(f"{folder}: is a symbolic link", "remove it, or choose another --state-dir")
        self._opened: set[Path] = set()
        # Numbers continue across restarts, so the order of the names is the order of the input.
        self._number = max((int(path.stem) for path, _ in self._segments()), default=0)
        self._fd: int | None = None
        self._written = 0

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

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Write all chunks to the spool, waiting while it is full."""
        try:
            async for chunk in chunks:
                while self._is_full():  # noqa: ASYNC110 - nothing signals free space
                    await asyncio.sleep(FULL_WAIT)
                self._write(chunk)
        finally:
            if self._fd is not None:
                os.close(self._fd)
        self.ended = True

    def _write(self, chunk: bytes) -> None:
        if self._fd is not None and self._written >= self._segment_bytes:
            # A segment ends after a line break, unless the line is longer than a segment.
            end = chunk.rfind(b"\n") + 1
            if end or self._written >= 2 * self._segment_bytes:
                self._append(self._fd, chunk[:end])
                chunk = chunk[end:]
                os.close(self._fd)
                self._fd = None
        if not chunk:
            return
        if self._fd is None:
            self._fd = self._create_segment()
            self._written = 0
        self._append(self._fd, chunk)

    def _create_segment(self) -> int:
        while True:
            self._number += 1
            path = self._folder / f"{self._number:08}.spool"
            # With O_EXCL, a link that was planted is not followed.
            with contextlib.suppress(FileExistsError):
                return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def _append(self, fd: int, chunk: bytes) -> None:
        # A full disk can cut a write short; the next one then raises the error.
        view = memoryview(chunk)
        while view:
            count = os.write(fd, view)
            self._written += count
            view = view[count:]

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
            file.mark_rotated(now)
        stream.prune_completed(visible)
        stream.end_scan(now)

    def close(self) -> None:
        """Close the segments, and remove the folder if it is empty."""
        self._stream.close()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
