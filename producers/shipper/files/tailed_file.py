"""Open file that is tailed: its bytes are split into lines, and its lines are parsed into events.

Invariants:

1. Every byte is read once per generation of a file; a file that is truncated starts a new generation.
2. New bytes are used only if the bytes just before them are unchanged: a file that was truncated and has
   grown again is detected, whatever its size.
3. Memory holds at most one chunk of the file, one incomplete line, and the events of that chunk.
"""

import os
import secrets
from typing import Final

from tickertape.producers.shipper.content.open_file import OpenFile
from tickertape.producers.shipper.files.rotation import is_later_rotation
from tickertape.producers.shipper.lines.encoded_lines import EncodedLines
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser
from tickertape.producers.shipper.position import (
    HEAD_BYTES,
    FilePosition,
    digest,
    hash_before,
    key_of,
)
from tickertape.producers.shipper.timing import MULTILINE_TIMEOUT, Timing

CHUNK_BYTES: Final = 64 * 1024
"""Bytes that one read requests."""


class TailedFile(OpenFile):
    """Open file with its read, batched and shipped offsets.

    Args:
        path: path at which the file was found.
        fd: file descriptor, open for reading; this object closes it.
        parser: turns the lines of this file into events.
        now: UNIX seconds, here and in all methods.
        position: how far the file is shipped; None starts a new generation.
        offset: offset at which a new generation starts.
        timing: its timeouts, which do not depend on ``now``.

    Attributes:
        batched_offset: bytes whose events are in a batch.
        shipped_offset: bytes whose events are acknowledged.
        missing: no path or glob matches the file any more.
        at_eof: the last read reached the end of the file.
        truncated: the file no longer contains the data that was read, and this is not handled yet.
        settled: the system has reported no change for ``MULTILINE_TIMEOUT``.
        verified_at: UNIX seconds at which the file was last known to contain the data that was read.
        decoder: decoder of its lines.
    """

    def __init__(
        self,
        path: str,
        fd: int,
        parser: Parser,
        now: float,
        position: FilePosition | None = None,
        offset: int = 0,
        timing: Timing = Timing(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(path, fd, position.offset if position is not None else offset)
        self.batched_offset = self.shipped_offset = self.read_offset
        self.generation = position.generation if position is not None else secrets.token_hex(8)
        self.missing = self.at_eof = self.truncated = self.settled = False
        self.verified_at = now
        self._timing = timing
        self._parser = parser
        self.decoder = parser.decoder
        self._grew_at = 0.0
        # Size and modification time at the last read that reached the end of the file, or before the first.
        self._eof_fingerprint = self._unread_fingerprint = (-1, -1)
        self._line = EncodedLines(self.decoder)
        self._restart_lines(*((position.encoding, position.dates) if position is not None else ("", "")))

    def __repr__(self) -> str:
        return f"<TailedFile {self.path} read {self.read_offset}, shipped {self.shipped_offset}>"

    def _restart_lines(self, encoding: str | None, dates: str | None) -> None:
        self._load_context()
        self._line.restart(self.read_offset, self._head, encoding)
        self._parser.restart_dates(self.read_offset, dates)

    def rewind(self, position: FilePosition | None = None) -> None:
        """Discard what is not shipped and read it again, from another process's position if given."""
        if position is not None:
            self.generation = position.generation
            self.shipped_offset = position.offset
        self.read_offset = self.batched_offset = self.shipped_offset
        self.at_eof = False
        self._eof_fingerprint = (-1, -1)
        # The parser holds lines of the discarded range, which are fed again.
        self._parser.reset()
        self._restart_lines(*((position.encoding, position.dates) if position is not None else (None, None)))

    def mark_batched(self, offset: int) -> int:
        """Record that all events up to an offset are in a batch; return the previous such offset."""
        previous, self.batched_offset = self.batched_offset, offset
        return previous

    def mark_shipped(self, offset: int) -> None:
        """Record that all events up to an offset are acknowledged."""
        self.shipped_offset = offset

    def switch_to_copy(self, fd: int, path: str) -> None:
        """Continue in a copy of the file that contains all data that was read.

        Raises:
            OSError: the copy cannot be used; nothing has changed.
        """
        key = key_of(os.fstat(fd))
        os.close(self._fd)
        self.key = key
        self._fd, self.path = fd, path
        self.truncated = self.ended = self.at_eof = False
        self._eof_fingerprint = (-1, -1)
        self._known_size = self.read_offset

    def end(self) -> None:
        """End this generation, whose content was truncated."""
        # It counts as read to its end, or the next generation would wait for it.
        self.truncated, self.ended, self.at_eof = False, True, True

    def shift_clock(self, step: float) -> None:
        """Shift what is compared with the times of files, as the system clock was set by ``step`` seconds."""
        # Files from before a step ahead must not look verified.
        self.verified_at += min(step, 0.0)

    def next_generation(self, parser: Parser, now: float) -> "TailedFile":
        """Return the next generation of a truncated file, read from its start.

        Raises:
            OSError: there is no free descriptor, or the file cannot be read.
        """
        # Duplicated, because each generation closes its own descriptor.
        fd = os.dup(self._fd)
        try:
            successor = TailedFile(self.path, fd, parser, now, timing=self._timing)
            successor.observe(os.fstat(fd).st_size)
            return successor
        except OSError:
            os.close(fd)
            raise

    def update_path(self, path: str | None) -> None:
        """Record the path at which the file was found, or None if it was not found."""
        # A file that was deleted counts as rotated as well: its descriptor still leads to the unread rest.
        self.missing = path is None
        if path != self.path:
            self.path = path or self.path
            self.mark_rotated()

    def mark_rotated(self) -> None:
        """Record that the file was renamed: its writer will soon switch to another file."""
        # Later renames must not restart the grace period.
        if self._rotated_at is None:
            self._rotated_at = self._timing.clock()

    def is_complete(self) -> bool:
        """Return whether the file is read to its end and its writer has certainly moved on."""
        if self._rotated_at is None or not self.at_eof:
            return False
        if self._timing.clock() < self._complete_at(self._rotated_at):
            return False
        # It may have grown since: while an older file is pending, this one is not read.
        return self._fingerprint() == self._eof_fingerprint

    def _complete_at(self, rotated_at: float) -> float:
        return max(rotated_at, self._grew_at) + self._timing.grace

    @property
    def lag(self) -> int:
        """Number of bytes that are not shipped yet."""
        try:
            return max(0, os.fstat(self._fd).st_size - self.shipped_offset)
        except OSError:
            return 0

    def may_have_data(self, now: float) -> bool:
        """Return whether a read may produce anything, at the cost of one system call."""
        if self.ended:
            return True
        # The time matters as well as the size: a file can be truncated and filled to the same size.
        if self._fingerprint() != self._eof_fingerprint or not self.at_eof:
            return True
        self.verified_at = now
        return self._is_flush_due()

    def _is_flush_due(self) -> bool:
        return self._timing.clock() >= self.flush_at

    @property
    def flush_at(self) -> float:
        """Monotonic seconds at which the incomplete line or event is flushed; infinity if there is none."""
        if self._line:  # it may continue the event that the parser holds
            half_line_at = self._grew_at + self._timing.half_line_after
            # A rotated file is not written to any more, and its successor waits for this line.
            rotated_at = self._rotated_at
            return half_line_at if rotated_at is None else min(half_line_at, self._complete_at(rotated_at))
        return self._grew_at + MULTILINE_TIMEOUT if self._parser.has_partial else float("inf")

    def mark_verified(self, now: float) -> None:
        """Record that all files that precede this one are known as of now."""
        self.verified_at = now

    def changed_before_first_read(self) -> bool:
        """Return, once per change, whether the file changed before its first read."""
        if self.read_offset:
            return False
        fingerprint = self._fingerprint()
        changed, self._unread_fingerprint = fingerprint != self._unread_fingerprint, fingerprint
        return changed

    def rearm_first_read_check(self) -> None:
        """Make ``changed_before_first_read`` report the last change again, as it could not be handled."""
        self._unread_fingerprint = (-1, -1)

    def read(self, now: float) -> list[ParsedEvent]:
        """Read one chunk; return the events that it completes."""
        # The status is taken before the read: what is written in between then differs from the fingerprint,
        # and causes another read. The reverse order could miss it.
        fingerprint = self._fingerprint()
        if fingerprint == self._eof_fingerprint and self.at_eof:
            self.verified_at = now
            return self._flush_if_due(now)
        if fingerprint[0] < self.read_offset or self._later_sizes:
            return self._end_truncated(fingerprint[0])
        overlap = len(self._preceding)
        # The bytes before the offset are read again in the same call: they show that the new bytes continue
        # what was read before.
        data = os.pread(self._fd, overlap + CHUNK_BYTES, self.read_offset - overlap)
        # After a pause the head is compared as well: padded lines can have the same preceding bytes.
        is_same = data.startswith(self._preceding) and self._has_data_before_hole()
        if not is_same or (self.at_eof and not self.contains_at(self._head, 0)):
            return self._end_truncated(fingerprint[0])
        self._known_size = max(self._known_size, fingerprint[0])
        self.verified_at = now
        self.at_eof = len(data) < overlap + CHUNK_BYTES
        if self.at_eof:
            self._eof_fingerprint = fingerprint
        added = len(data) - overlap
        if not added:
            return self._flush_if_due(now)
        # Every timeout counts from the last growth, not from the last read.
        self._grew_at = self._timing.grown_at(now - fingerprint[1] / 1e9 if self.settled else 0.0)
        self._record_preceding(data, self.read_offset - overlap)
        if len(self._head) < HEAD_BYTES:
            self._head += data[overlap : overlap + HEAD_BYTES - len(self._head)]
        start = self.read_offset
        self.read_offset += added
        lines, ends, truncated = self._line.split(data[overlap:] if overlap else data, start)
        return self._parser.feed(lines, ends, now, truncated, written=fingerprint[1] / 1e9)

    def _end_truncated(self, size: int) -> list[ParsedEvent]:
        self.truncated = True
        self.observe(size)
        return []

    def _flush_if_due(self, now: float) -> list[ParsedEvent]:
        """Flush incomplete lines and events whose timeout has expired."""
        return self.finish(now) if self._is_flush_due() else []

    def finish(self, now: float) -> list[ParsedEvent]:
        """Flush the incomplete line and event; what is written later becomes a separate event."""
        events = []
        if self._line:
            line, truncated = self._line.take()
            events = self._parser.feed([line], [self.read_offset], now, truncated)
        return [*events, *self._parser.flush(now)]

    @property
    def has_partial(self) -> bool:
        """Whether an incomplete line, or an event that may continue, is buffered."""
        return bool(self._line) or self._parser.has_partial

    def position(self, *, done: bool = False) -> FilePosition:
        """Return the position once everything that is batched is shipped."""
        count = min(HEAD_BYTES, self.batched_offset)
        # ``_preceding`` ends at the read offset, which may be ahead of the batched one.
        is_ahead = self.read_offset != self.batched_offset
        before = hash_before(self._fd, self.batched_offset) if is_ahead else digest(self._preceding)
        return FilePosition(
            *self.key, self.generation, self.batched_offset, digest(self._head[:count]), count, before,
            self.path, done,
            self.decoder.state_at(self.batched_offset), self._parser.dates_at(self.batched_offset),
        )  # fmt: skip

    def still_matches(self, position: FilePosition) -> bool:
        """Return whether the file still contains everything that another process has shipped."""
        return position.matches(self._fd)

    @property
    def is_found_again(self) -> bool:
        """Whether this is the content of a compressed file that a restart uncompresses from its start."""
        return self.is_uncompressed and not self.batched_offset

    def is_unread_and_newer_than(self, other: "TailedFile", status: os.stat_result) -> bool:
        """Return whether nothing was read of this file, and it was written after another with a status."""
        if self.read_offset:
            return False
        if other.is_uncompressed == self.is_uncompressed:
            return self.is_newer_than(status)
        # One is compressed, and its time may be later than its last line; numbers of files have an order.
        is_newer = is_later_rotation(self.path, than=other.path) if self.is_at_its_path() else None
        if is_newer is None:
            return other.is_uncompressed and self.is_newer_than(status)
        return is_newer
