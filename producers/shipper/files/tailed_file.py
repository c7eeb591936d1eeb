"""One open file that is followed: its bytes become lines, and its lines events.

Invariants:

1. Every byte comes once per generation of a file; a file that was truncated begins a new generation.
2. Before new bytes count, those just before them must be as they were: a file that was truncated and has
   grown again is noticed, whatever its size.
3. In memory are at most one piece of the file, a half line and the events of that piece.
"""

import os
import secrets
from typing import Final

from tickertape.producers.shipper.files.line_buffer import LineBuffer
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser
from tickertape.producers.shipper.position import BEFORE_BYTES, HEAD_BYTES, FilePosition, Key, before, digest

CHUNK_BYTES: Final = 64 * 1024
ROTATION_GRACE: Final = 5.0
"""Seconds without growth after which a rotated file is at its end: its writer has opened the next by then."""

HALF_LINE_AFTER: Final = 5.0
"""Seconds without growth after which a line without its break goes out as it is."""

JOIN_AFTER: Final = 0.25
"""Seconds without growth after which an event waits no more for lines that could belong to it. Loggers write
a traceback at once, and whoever watches the feed sees the last line of a quiet log so much later."""


class TailedFile:
    """One open file.

    Args:
        path: where it was found.
        handle: open for reading; this object closes it.
        parser: makes events of its lines.
        now: UNIX seconds, here and elsewhere.
        place: how far it is shipped; None begins a generation.
        offset: where that begins.
        grace: seconds without growth after which it is at its end, once it has lost its name.

    Attributes:
        at: bytes that were read.
        planned: bytes whose events are in a batch.
        shipped: bytes whose events are acknowledged.
        gone: no path or glob leads to it any more.
        drained: the last read met its end.
        truncated: it is not any more what was read of it, and that is to be seen to.
        over: nothing will come of it any more.
        looked_at: UNIX seconds at which it was last known to be what it was.
    """

    def __init__(
        self,
        path: str,
        handle: int,
        parser: Parser,
        now: float,
        position: FilePosition | None = None,
        offset: int = 0,
        grace: float = ROTATION_GRACE,
    ) -> None:
        status = os.fstat(handle)
        self.key: Key = (status.st_dev, status.st_ino)
        self.path = path
        self.generation = position.generation if position is not None else secrets.token_hex(8)
        self.missing = False
        self.at_eof = False
        self.truncated = False
        self.ended = False
        self._first_stamp = (-1, -1)
        self.verified_at = now
        self._grace = grace
        self._parser = parser
        self._handle = handle
        self._rotated_at: float | None = None
        self._grew_at = 0.0
        self._stamp = (-1, -1)
        self._head = b""
        self._line = LineBuffer()
        self.read_offset = self.batched_offset = self.shipped_offset = (
            position.offset if position is not None else offset
        )
        self._load_context()

    def __repr__(self) -> str:
        return f"<TailedFile {self.path} read {self.read_offset}, shipped {self.shipped_offset}>"

    def _load_context(self) -> None:
        self._line.clear()
        begin = max(0, self.read_offset - BEFORE_BYTES)
        self._before = os.pread(self._handle, self.read_offset - begin, begin)
        self._head = os.pread(self._handle, min(HEAD_BYTES, self.read_offset), 0)

    def rewind(self, position: FilePosition | None = None) -> None:
        """Forget what is not shipped, and read it again; from where another process got to, if given."""
        if position is not None:
            self.generation = position.generation
            self.shipped_offset = position.offset
        self.read_offset = self.batched_offset = self.shipped_offset
        self.at_eof = False
        self._stamp = (-1, -1)
        self._parser.reset()
        self._load_context()

    def mark_batched(self, end: int) -> int:
        """Plan to ship it up to an offset; return the one up to which it was planned before."""
        begin, self.batched_offset = self.batched_offset, end
        return begin

    def mark_shipped(self, mark: int) -> None:
        """Note that it is shipped up to an offset."""
        self.shipped_offset = mark

    def switch_to_copy(self, handle: int, path: str) -> None:
        """Go on in a copy of the file, which holds all that was read of it."""
        os.close(self._handle)
        status = os.fstat(handle)
        self.key = (status.st_dev, status.st_ino)
        self._handle, self.path = handle, path
        self.truncated = self.ended = self.at_eof = False
        self._stamp = (-1, -1)

    def next_generation(self, parser: Parser, now: float) -> "TailedFile":
        """The same file from its start, as another generation: it was truncated."""
        self.truncated, self.ended, self.at_eof = False, True, True
        return TailedFile(self.path, os.dup(self._handle), parser, now)

    def update_path(self, path: str | None, now: float) -> None:
        """Note the name under which it was found, or that it was not."""
        self.missing = path is None
        if path != self.path:
            self.path = path or self.path
            self.mark_rotated(now)

    def mark_rotated(self, now: float) -> None:
        """Note that it lost its name: nothing will be written to it for long."""
        if self._rotated_at is None:
            self._rotated_at = now

    @property
    def is_rotated(self) -> bool:
        """True when it was rotated."""
        return self._rotated_at is not None

    def is_complete(self, now: float) -> bool:
        """Tell whether its writer has surely left it."""
        if self._rotated_at is None or not self.at_eof:
            return False
        return now - max(self._rotated_at, self._grew_at) >= self._grace

    @property
    def lag(self) -> int:
        """Bytes that are not shipped yet."""
        try:
            return max(0, os.fstat(self._handle).st_size - self.shipped_offset)
        except OSError:
            return 0

    def may_have_data(self, now: float) -> bool:
        """Tell, at the price of one system call, whether a read would give anything."""
        if self.ended:
            return True
        status = os.fstat(self._handle)
        if (status.st_size, status.st_mtime_ns) != self._stamp or not self.at_eof:
            return True
        self.verified_at = now
        return now >= self.flush_at

    @property
    def flush_at(self) -> float:
        """UNIX seconds at which what waits for its rest goes out as it is; infinity when nothing waits."""
        if self._line:  # it may belong to what the parser holds
            return self._grew_at + HALF_LINE_AFTER
        return self._grew_at + JOIN_AFTER if self._parser.has_partial else float("inf")

    def mark_verified(self, now: float) -> None:
        """Note that what came before it is known up to now."""
        self.verified_at = now

    def changed_before_first_read(self) -> bool:
        """Tell, once, that it has changed before anything of it was read: it may have held something else."""
        if self.read_offset:
            return False
        status = os.fstat(self._handle)
        stamp = (status.st_size, status.st_mtime_ns)
        changed, self._first_stamp = stamp != self._first_stamp, stamp
        return changed

    def rearm_first_read_check(self) -> None:
        """Have ``begins`` tell the same once more: what it was asked for could not be done."""
        self._first_stamp = (-1, -1)

    def read(self, now: float) -> list[ParsedEvent]:
        """Read one piece; return the events that it completes."""
        status = os.fstat(self._handle)
        stamp = (status.st_size, status.st_mtime_ns)
        if stamp == self._stamp and self.at_eof:
            self.verified_at = now
            return self._flush_if_due(now)
        if status.st_size < self.read_offset:
            self.truncated = True
            return []
        known = len(self._before)
        data = os.pread(self._handle, known + CHUNK_BYTES, self.read_offset - known)
        # After a pause its beginning is looked at, too: lines of one padding end alike.
        if not data.startswith(self._before) or (self.at_eof and not self.contains_at(self._head, 0)):
            self.truncated = True
            return []
        self.verified_at = now
        self.at_eof = len(data) < known + CHUNK_BYTES
        if self.at_eof:
            self._stamp = stamp
        new = len(data) - known
        if not new:
            return self._flush_if_due(now)
        self._grew_at = now
        self._before = data[-BEFORE_BYTES:]
        if len(self._head) < HEAD_BYTES:
            self._head += data[known : known + HEAD_BYTES - len(self._head)]
        begin = self.read_offset
        self.read_offset += new
        lines, ends, cut = self._line.split(data[known:] if known else data, begin)
        return self._parser.feed(lines, ends, now, cut)

    def _flush_if_due(self, now: float) -> list[ParsedEvent]:
        """What has waited for long enough."""
        return self.finish(now) if now >= self.flush_at else []

    def finish(self, now: float) -> list[ParsedEvent]:
        """Return what waits for more as it is: its rest will not come, or comes as an event of its own."""
        events = []
        if self._line:
            line, cut = self._line.take()
            events = self._parser.feed([line], [self.read_offset], now, cut)
        return [*events, *self._parser.flush(now)]

    @property
    def has_partial(self) -> bool:
        """True while a half line, or an event that could go on, is held."""
        return bool(self._line) or self._parser.has_partial

    def position(self, *, done: bool = False) -> FilePosition:
        """How far it is shipped once what is planned is."""
        count = min(HEAD_BYTES, self.batched_offset)
        return FilePosition(
            *self.key, self.generation, self.batched_offset, digest(self._head[:count]), count,
            before(self._handle, self.batched_offset), self.path, done,
        )  # fmt: skip

    def matches_copy(self, handle: int) -> bool:
        """Tell whether another open file holds all that was read of this one."""
        if not self.read_offset or os.fstat(handle).st_size < self.read_offset:
            return False
        begin = self.read_offset - len(self._before)
        same_end = os.pread(handle, len(self._before), begin) == self._before
        return same_end and os.pread(handle, len(self._head), 0) == self._head

    def still_matches(self, position: FilePosition) -> bool:
        """Tell whether all that another process shipped of it is still there."""
        return position.matches(self._handle)

    def is_unread_and_newer_than(self, other: os.stat_result) -> bool:
        """Tell whether nothing of it was read yet, and it was written later than another file."""
        return not self.read_offset and os.fstat(self._handle).st_mtime_ns > other.st_mtime_ns

    def is_older_than(self, other: os.stat_result) -> bool:
        """Tell whether it was last written before another file."""
        return os.fstat(self._handle).st_mtime_ns < other.st_mtime_ns

    def is_copied_in(self, handle: int) -> bool:
        """Tell whether another open file is a copy of this one, or is becoming one."""
        if not self.read_offset and not self.is_rotated:
            start = os.pread(handle, CHUNK_BYTES, 0)
            return bool(start) and self.contains_at(start, 0)
        size = os.fstat(handle).st_size
        if size >= self.read_offset:
            return self.matches_copy(handle)
        begin = max(0, size - CHUNK_BYTES)
        return self.contains_at(os.pread(handle, CHUNK_BYTES, begin), begin)

    def has_same_head(self, head: bytes) -> bool:
        """Tell whether what was read of it begins like another file, as far as both go."""
        count = min(len(head), len(self._head))
        return bool(self.read_offset) and head[:count] == self._head[:count]

    def contains_at(self, data: bytes, offset: int) -> bool:
        """Tell whether bytes stand at a place of it."""
        return os.pread(self._handle, len(data), offset) == data

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)
