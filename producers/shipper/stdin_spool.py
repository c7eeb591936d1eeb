"""What comes on standard input, on disk until it is shipped: a pipe cannot be read again.

Invariants:

1. What was read is in a file before more is read; the files are bounded, and while they are full nothing is
   read, so whoever writes into the pipe waits.
2. Segments are shipped in order like a file and its successors, and deleted when they are shipped.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tickertape.producers.shipper.files.file_stream import FileStream

SEGMENT_BYTES: Final = 4 * 1024 * 1024
SEGMENTS: Final = 4
"""Segments at least that fill the spool: only one that is complete can be deleted, and makes room."""

FULL_WAIT: Final = 0.05
"""Seconds between two looks for room."""


class StdinSpool:
    """Standard input as a lineage of segments.

    Args:
        folder: of the segments; made if it is not there.
        lineage: that they become.
        limit: bytes that the segments may hold together.

    Attributes:
        ended: nothing more will come.
    """

    def __init__(self, folder: Path, stream: FileStream, limit: int) -> None:
        self.streams = {stream.path: stream}
        self.ended = False
        self._folder = folder
        self._lineage = stream
        self._limit = limit
        self._segment_bytes = min(SEGMENT_BYTES, limit // SEGMENTS)
        folder.mkdir(parents=True, exist_ok=True)
        self._opened: set[Path] = set()
        self._number = max((int(path.stem) for path in self._segments()), default=0)
        self._handle: int | None = None
        self._written = 0

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.spool"))

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Write all that comes."""
        try:
            async for chunk in chunks:
                while self._spooled_bytes() >= self._limit:  # noqa: ASYNC110 - the disk tells nobody
                    await asyncio.sleep(FULL_WAIT)
                self._write(chunk)
        finally:
            if self._handle is not None:
                os.close(self._handle)
        self.ended = True

    def _write(self, chunk: bytes) -> None:
        if self._handle is not None and self._written >= self._segment_bytes:
            # A segment ends with a line, unless that is endless.
            end = chunk.rfind(b"\n") + 1
            if end or self._written >= 2 * self._segment_bytes:
                self._append(self._handle, chunk[:end])
                chunk = chunk[end:]
                os.close(self._handle)
                self._handle = None
        if not chunk:
            return
        if self._handle is None:
            self._number += 1
            path = self._folder / f"{self._number:08}.spool"
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._written = 0
        self._append(self._handle, chunk)

    def _append(self, handle: int, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            count = os.write(handle, view)
            self._written += count
            view = view[count:]

    def _spooled_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._segments())

    def scan(self, now: float) -> None:
        """Follow new segments, and delete those that are shipped."""
        while self._lineage.finished_paths:
            Path(self._lineage.finished_paths.popleft()).unlink(missing_ok=True)
        known = {}
        for path in self._segments():
            status = path.stat()
            known[(status.st_dev, status.st_ino)] = path
        followed = {file.key for file in self._lineage.chain}
        for key, path in known.items():
            position = self._lineage.completed.get(key)
            if position is not None and position.done and position.offset == path.stat().st_size:
                path.unlink()  # shipped, and the shipper killed before it was deleted
            elif path not in self._opened and key not in followed:
                self._lineage.open(str(path), path.stat(), now)
                self._opened.add(path)
        self._lineage.open_pending({key: str(path) for key, path in known.items()}, now)
        # Every segment but the newest is complete; the newest is when nothing more comes.
        for file in list(self._lineage.chain)[: None if self.ended else -1]:
            file.mark_rotated(now)
        self._lineage.prune_completed(known)

    def close(self) -> None:
        """Let go of the segments; the folder goes when it is empty."""
        self._lineage.close()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
