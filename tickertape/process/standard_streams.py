"""Standard streams of a program: readers that are gone or do not read, and streams that were closed.

Invariants:

1. Writing to a log (standard error, and the standard output of a daemon) never fails and never blocks for
   long: what cannot be written is dropped and counted.
2. Writing the result of a command to standard output raises ``OutputError`` once if it fails. It waits for a
   slow reader, but not after a stop signal.
"""

import errno
import io
import os
import select
import sys
import time
from typing import Final

from tickertape.errors import OperatorError
from tickertape.process import shutdown

STANDARD_INPUT: Final = 0
STANDARD_OUTPUT: Final = 1
STANDARD_ERROR: Final = 2

STALL_SECONDS: Final = 0.25
"""Seconds that a write to a log waits for a reader that has stopped reading; later ones do not wait for it.
"""

_POLL_MS: Final = 100
_ATOMIC_BYTES: Final = select.PIPE_BUF
"""Bytes that a pipe accepts without blocking if ``poll`` reports it as writable."""

_closed: set[int] = set()


class OutputError(OperatorError):
    """Failure to write the result of a command to standard output."""


class ReaderGone(OutputError):
    """Standard output without a reader, as in ``tickertape tail | head``."""


class InputClosed(OperatorError):
    """Standard input that was closed when the program started."""


def wrap(closed: set[int], *, daemon: bool) -> None:
    """Replace ``sys.stdin`` if it is missing, and ``sys.stdout`` and ``sys.stderr`` by the streams of this
    module.

    Args:
        closed: descriptors that were closed when the program started.
        daemon: whether standard output is a log for the operator, rather than the result of a command.
    """
    _closed.update(closed)
    if sys.stdin is None:
        sys.stdin = open(STANDARD_INPUT, closefd=False, encoding="utf-8")  # noqa: SIM115
    output = LogFile(STANDARD_OUTPUT) if daemon else ResultFile(STANDARD_OUTPUT)
    sys.stdout = _text(output, sys.stdout, line_buffering=daemon)
    sys.stderr = _text(LogFile(STANDARD_ERROR), sys.stderr, line_buffering=True)


def check_input() -> None:
    """Check that standard input was open when the program started.

    Raises:
        InputClosed: it was closed.
    """
    if STANDARD_INPUT in _closed:
        raise InputClosed("standard input is closed", "connect it to a pipe or a file, or pass file names")


def _text(raw: io.RawIOBase, like: object, *, line_buffering: bool) -> io.TextIOWrapper:
    if isinstance(like, io.TextIOWrapper):
        like.flush()
    encoding = getattr(like, "encoding", None) or "utf-8"
    errors = getattr(like, "errors", None) or "backslashreplace"
    buffer = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding=encoding, errors=errors, line_buffering=line_buffering)


class _DescriptorFile(io.FileIO):
    """File of a descriptor that stays open, written in pieces that do not block."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def _writable(self, milliseconds: int) -> bool:
        return bool(self._poll.poll(milliseconds))

    def _write_piece(self, data: memoryview) -> int:
        """Write up to ``_ATOMIC_BYTES``; return 0 if the descriptor does not block and is full."""
        try:
            return os.write(self.fileno(), data[:_ATOMIC_BYTES])
        except BlockingIOError:
            return 0


class LogFile(_DescriptorFile):
    """Log of a program, which never waits long for its reader and never fails.

    Attributes:
        dropped: number of writes that were dropped since the reader last kept up.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.dropped = 0
        self._cut = False  # the last line that was written is incomplete

    def write(self, data: object, /) -> int:
        """Write data, or drop it."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        size, deadline = len(view), time.monotonic() + STALL_SECONDS
        if self.dropped:
            if not self._writable(0):
                self.dropped += 1
                return size
            notice = f"tickertape: {self.dropped} writes were dropped: the reader of this log did not read\n"
            view = memoryview(b"\n" * self._cut + notice.encode() + view)
            self.dropped, self._cut = 0, False
        try:
            while view:
                wait = max(0, int(1000 * (deadline - time.monotonic())))
                if self._writable(wait) and (written := self._write_piece(view)):
                    self._cut, view = len(view) > written, view[written:]
                elif time.monotonic() >= deadline:
                    self.dropped += 1
                    break
        except OSError:
            pass  # there is no place left to report that a log cannot be written
        return size


class ResultFile(_DescriptorFile):
    """Result of a command, which waits for its reader until a stop signal arrives."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._failed = False

    def write(self, data: object, /) -> int:
        """Write data.

        Raises:
            OutputError: the data cannot be written; raised once, so that exiting does not raise it again.
        """
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(view)
        try:
            while view and not self._failed:
                if self._writable(_POLL_MS) and (written := self._write_piece(view)):
                    view = view[written:]
                elif shutdown.received:
                    raise BrokenPipeError(errno.EPIPE, "its reader does not read")
        except OSError as error:
            self._failed = True
            kind = ReaderGone if error.errno == errno.EPIPE else OutputError
            raise kind(
                f"standard output cannot be written: {error.strerror}", "free space, or write elsewhere"
            ) from None
        return size
