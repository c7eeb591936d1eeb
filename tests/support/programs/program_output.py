"""The lines that a child process has printed, complete at the moment of each look.

A test often learns of an effect over a socket, and then looks for the line that the process logged before it.
A thread that reads the pipe may not have run by then, so a look reads the pipe, too.
"""

import os
import select
import threading
from typing import IO, Final

_CHUNK: Final = 1 << 16
"""Bytes of one read; the capacity of a pipe."""


class ProgramOutput:
    """Reader of one or more streams of a child process.

    Invariant: ``lines`` contains every whole line that was written before the call.

    Args:
        streams: pipes that the process writes to; None for one it has not. A thread for each keeps it from
            filling up.
    """

    def __init__(self, *streams: IO[str] | None) -> None:
        self._lines: list[str] = []
        self._pipes = [_Pipe(stream, self._lines) for stream in streams if stream is not None]

    @property
    def lines(self) -> list[str]:
        """A copy of the lines, each with its newline; an incomplete last line counts only after the end."""
        for pipe in self._pipes:
            pipe.drain()
        return self._lines.copy()

    def close(self) -> None:
        """Read until each stream ends, and close it; call it after the process has ended."""
        for pipe in self._pipes:
            pipe.close()


class _Pipe:
    def __init__(self, stream: IO[str], lines: list[str]) -> None:
        self._stream = stream
        self._lines = lines
        self._partial = b""
        self._ended = False
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(stream.fileno(), select.POLLIN)
        self._thread = threading.Thread(target=self._read_to_end, name="program output", daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Take what is in the pipe now, without waiting for more."""
        with self._lock:
            while not self._ended and self._poll.poll(0):
                self._read()

    def close(self) -> None:
        self._thread.join()
        self._stream.close()

    def _read_to_end(self) -> None:
        waiting = select.poll()
        waiting.register(self._stream.fileno(), select.POLLIN)
        while not self._ended:
            waiting.poll()
            self.drain()

    def _read(self) -> None:
        data = os.read(self._stream.fileno(), _CHUNK)
        if data:
            *complete, self._partial = (self._partial + data).split(b"\n")
            self._lines += [line.decode(errors="backslashreplace") + "\n" for line in complete]
            return
        self._ended = True
        if self._partial:
            self._lines.append(self._partial.decode(errors="backslashreplace"))
