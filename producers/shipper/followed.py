"""One file that is followed: what was read of it, and how far that is acknowledged."""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts.subjects import SubjectError, escape
from producers.lines import CHUNK_BYTES, RawLine, Splitter
from producers.shipper.checkpoint import HEAD_BYTES, Position, Progress, head_hash
from producers.shipper.parse import MAX_LINE_BYTES

ROTATION_GRACE: Final = 5.0
"""Seconds without growth after which a rotated file is at its end: its writer has opened the next by then."""

_ROTATION_NUMBER = re.compile(r"[.-]\d+$")

Key = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        source: name of the file without its ending.
        id: the same at every reading of this line, and of no other.
        progress: where to say that the line is done, with ``end``.
    """

    source: str
    id: str
    data: bytes
    cut: bool
    end: int
    progress: Progress


class Followed:
    """One open file.

    Args:
        path: where it was found.
        handle: open for reading; this object closes it.
        position: how far it is shipped; None begins a generation.
        offset: where that begins.
    """

    def __init__(self, path: str, handle: int, position: Position | None, offset: int = 0) -> None:
        status = os.fstat(handle)
        self.key: Key = (status.st_dev, status.st_ino)
        self.path = path
        self.source = source_of(path)
        self.before: Followed | None = None
        """The file that had the same name before a rotation; drained first."""
        self.gone = False
        """True when no path or glob leads to it any more."""
        self.drained = False
        """True when the last read met the end of the file."""
        self.closed = False
        self._rotated_at: float | None = None
        self._grew_at = 0.0
        self._handle = handle
        if position is not None:
            self._begin(position.generation, position.offset)
        else:
            self._begin(secrets.token_hex(8), offset)

    def __repr__(self) -> str:
        return f"<Followed {self.path} {self._splitter!r}>"

    def _begin(self, generation: str, offset: int) -> None:
        self.generation = generation
        self.progress = Progress(offset)
        self._splitter = Splitter(MAX_LINE_BYTES, offset)
        self._head = b""

    def named_after(self, path: str) -> None:
        """Let its lines have the source of the name that it had when they were written."""
        self.source = source_of(path)

    def rotated(self, now: float) -> None:
        """Note that it lost its name: nothing will be written to it for long."""
        if self._rotated_at is None:
            self._rotated_at = now

    def at_end(self, now: float) -> bool:
        """Tell whether its writer has surely left it."""
        if self._rotated_at is None or not self.drained:
            return False
        return now - max(self._rotated_at, self._grew_at) >= ROTATION_GRACE

    def read(self, now: float) -> list[Line]:
        """Read one piece; return the lines that it completes."""
        lines: list[Line] = []
        if os.fstat(self._handle).st_size < self._splitter.offset:
            # Truncated. What was under way still counts, for the generation that it belonged to.
            lines = self.finish()
            self._begin(secrets.token_hex(8), 0)
        data = os.pread(self._handle, CHUNK_BYTES, self._splitter.offset)
        self.drained = len(data) < CHUNK_BYTES
        if data:
            self._grew_at = now
            lines += self._lines(self._splitter.feed(data))
        return lines

    def finish(self) -> list[Line]:
        """Return the half line at the end as a line: its rest will not come."""
        return self._lines(self._splitter.finish())

    def close(self) -> None:
        """Let go of the file; its position can still be asked for."""
        if not self.closed:
            self._read_head()
            self.closed = True
            os.close(self._handle)

    def position(self) -> Position:
        """How far the file is acknowledged."""
        head = self._read_head()[: self.progress.offset]
        return Position(
            *self.key, self.generation, self.progress.offset, head_hash(head), len(head), self.path
        )

    def _read_head(self) -> bytes:
        if len(self._head) < HEAD_BYTES and not self.closed:
            self._head = os.pread(self._handle, HEAD_BYTES, 0)
        return self._head

    def _lines(self, raw: list[RawLine]) -> list[Line]:
        for line in raw:
            self.progress.begin(line.end)
        return [
            Line(self.source, f"{self.generation}-{line.start}", line.data, line.cut, line.end, self.progress)
            for line in raw
        ]


def source_of(path: str) -> str:
    """Name of a file without its ending, and without the number that a rotation gave it."""
    name = Path(_ROTATION_NUMBER.sub("", Path(path).name)).stem
    try:
        escape(name)
    except SubjectError:
        return "file"
    return name
