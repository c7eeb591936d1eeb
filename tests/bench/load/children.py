"""Child processes of the benchmark, which exchange lines of JSON with it.

Invariants:

1. A child dies with the benchmark, even if that is killed: the kernel then sends it SIGKILL.
2. Ctrl-C in a terminal reaches only the benchmark, because children have sessions of their own; the benchmark
   then stops them.
3. The stderr of a child is kept; if the child fails, its last line is shown.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson

from tests.bench.measures.measure import cpu_seconds, rss_bytes
from tests.support.paths import ROOT

_LAUNCHER: Final = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_STOP_SECONDS: Final = 5.0


class BenchError(Exception):
    """Failure that ends the benchmark; the text is one line for the user."""


class Child:
    """Child process.

    Args:
        name: name for messages.
        argv: program, as an absolute path, and its arguments.
    """

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._buffer = b""
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        """Process ID."""
        return self._process.pid

    @property
    def cpu(self) -> float:
        """CPU seconds used so far, including those of its children."""
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> int:
        """Resident bytes now, including those of its children."""
        return rss_bytes(self.pid)

    def check(self) -> None:
        """Raise BenchError if the process has ended."""
        code = self._process.poll()
        if code is not None:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            detail = lines[-1] if lines else "no output on stderr"
            raise BenchError(f"{self.name} ended with status {code}: {detail}")

    def send(self, **message: Any) -> None:
        """Send one line of JSON to the child."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(message) + b"\n")
        except BrokenPipeError:
            self._process.wait(_STOP_SECONDS)
            self.check()

    def receive(self, timeout: float) -> dict[str, Any]:
        """Wait for one line of JSON from the child.

        Raises:
            BenchError: the child ended or did not reply in time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._process.stdout], [], [], remaining)[0]:
                raise BenchError(
                    f"{self.name} did not reply within {timeout:.0f} s; is the machine overloaded?"
                )
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_SECONDS)
                self.check()
                raise BenchError(f"{self.name} closed its output")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = orjson.loads(line)
        assert isinstance(message, dict)
        return message

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Terminate the process, or kill it if it does not end within a few seconds."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._errors.close()


@contextlib.contextmanager
def running(name: str, argv: list[str]) -> Iterator[Child]:
    """Run a child process for the duration of a ``with`` block."""
    child = Child(name, argv)
    try:
        yield child
    finally:
        child.stop()


def module(name: str, part: str, **spec: Any) -> contextlib.AbstractContextManager[Child]:
    """Run a module of ``tests.bench.load`` as a child, with its specification as JSON."""
    return running(name, [sys.executable, "-m", f"tests.bench.load.{part}", orjson.dumps(spec).decode()])


def report(**message: Any) -> None:
    """Send one line of JSON to the parent. For use in a child."""
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def receive_order() -> dict[str, Any] | None:
    """Wait for the next line of JSON from the parent; return None if it is done. For use in a child."""
    # Unbuffered, so that select() on the descriptor reports every unread line.
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    if not line:
        return None
    message = orjson.loads(line)
    assert isinstance(message, dict)
    return message
