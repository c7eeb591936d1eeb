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


class Spool:
    """Standard input as a lineage of segments.

    Args:
        folder: of the segments; made if it is not there.
        lineage: that they become.
        limit: bytes that the segments may hold together.

    Attributes:
        ended: nothing more will come.
    """

    def __init__(self, folder: Path, lineage: FileStream, limit: int) -> None:
        self.lineages = {lineage.path: lineage}
        self.ended = False
        self._folder = folder
        self._lineage = lineage
        self._limit = limit
        self._segment = min(SEGMENT_BYTES, limit // SEGMENTS)
        folder.mkdir(parents=True, exist_ok=True)
        self._opened: set[Path] = set()
        self._number = max((int(path.stem) for path in self._segments()), default=0)
        self._handle: int | None = None
        self._written = 0

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.spool"))

    async def fill(self, pieces: AsyncIterator[bytes]) -> None:
        """Write all that comes."""
        try:
            async for piece in pieces:
                while self._held() >= self._limit:  # noqa: ASYNC110 - the disk tells nobody
                    await asyncio.sleep(FULL_WAIT)
                self._write(piece)
        finally:
            if self._handle is not None:
                os.close(self._handle)
        self.ended = True

    def _write(self, piece: bytes) -> None:
        if self._handle is not None and self._written >= self._segment:
            # A segment ends with a line, unless that is endless.
            end = piece.rfind(b"\n") + 1
            if end or self._written >= 2 * self._segment:
                self._append(self._handle, piece[:end])
                piece = piece[end:]
                os.close(self._handle)
                self._handle = None
        if not piece:
            return
        if self._handle is None:
            self._number += 1
            path = self._folder / f"{self._number:08}.spool"
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._written = 0
        self._append(self._handle, piece)

    def _append(self, handle: int, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            count = os.write(handle, view)
            self._written += count
            view = view[count:]

    def _held(self) -> int:
        return sum(path.stat().st_size for path in self._segments())

    def look(self, now: float) -> None:
        """Follow new segments, and delete those that are shipped."""
        while self._lineage.finished:
            Path(self._lineage.finished.popleft()).unlink(missing_ok=True)
        known = {}
        for path in self._segments():
            status = path.stat()
            known[(status.st_dev, status.st_ino)] = path
        followed = {file.key for file in self._lineage.chain}
        for key, path in known.items():
            place = self._lineage.past.get(key)
            if place is not None and place.done and place.offset == path.stat().st_size:
                path.unlink()  # shipped, and the shipper killed before it was deleted
            elif path not in self._opened and key not in followed:
                self._lineage.open(str(path), path.stat(), now)
                self._opened.add(path)
        self._lineage.find_wanted({key: str(path) for key, path in known.items()}, now)
        # Every segment but the newest is complete; the newest is when nothing more comes.
        for file in list(self._lineage.chain)[: None if self.ended else -1]:
            file.rotated(now)
        self._lineage.forget(known)

    def close(self) -> None:
        """Let go of the segments; the folder goes when it is empty."""
        self._lineage.close()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
