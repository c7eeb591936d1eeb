"""Child processes of the benchmark: started, talked to in lines of JSON, and always ended.

Invariants:

1. A child dies with the benchmark, also when that is killed: the kernel then sends SIGKILL.
2. A terminal's Ctrl-C reaches the benchmark alone, since children have sessions of their own; it ends them.
3. What a child writes on stderr is kept, and its end is shown when the child fails.
"""

import contextlib
import os
import select
import signal
import socket
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
    """The benchmark cannot go on; the text is one line for the one who runs it."""


def free_port() -> int:
    """A TCP port on the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """One child process.

    Args:
        name: for messages.
        argv: program and arguments; the program is an absolute path.
    """

    def __init__(self, name: str, argv: list[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._held = b""
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
        """Process id."""
        return self._process.pid

    @property
    def cpu(self) -> float:
        """CPU seconds used so far, children included."""
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> int:
        """Resident bytes now, children included."""
        return rss_bytes(self.pid)

    def check(self) -> None:
        """Raise BenchError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            said = lines[-1] if lines else "nothing on stderr"
            raise BenchError(f"{self.name} ended with status {code}: {said}")

    def say(self, **message: Any) -> None:
        """Send one line of JSON to the child."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(orjson.dumps(message) + b"\n")
        except BrokenPipeError:
            self._process.wait(_STOP_SECONDS)
            self.check()

    def hear(self, timeout: float) -> dict[str, Any]:
        """Wait for one line of JSON from the child.

        Raises:
            BenchError: the child ended, or said nothing in time.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._held:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise BenchError(f"{self.name} said nothing for {timeout:.0f} s; is the machine overloaded?")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_STOP_SECONDS)
                self.check()
                raise BenchError(f"{self.name} closed its output")
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        answer = orjson.loads(line)
        assert isinstance(answer, dict)
        return answer

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End the process: politely, then not."""
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
    """A child for the length of a ``with`` block."""
    child = Child(name, argv)
    try:
        yield child
    finally:
        child.stop()


def module(name: str, part: str, **spec: Any) -> contextlib.AbstractContextManager[Child]:
    """A child that runs a module of this package, given its specification as JSON."""
    return running(name, [sys.executable, "-m", f"tests.bench.load.{part}", orjson.dumps(spec).decode()])


def report(**message: Any) -> None:
    """Say one line of JSON to the parent; for use in a child."""
    sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
    sys.stdout.buffer.flush()


def told() -> dict[str, Any] | None:
    """Next line of JSON from the parent; None when it is gone or done. Waits. For use in a child."""
    # Unbuffered, so that select() on the descriptor tells the truth about what is left.
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    if not line:
        return None
    message = orjson.loads(line)
    assert isinstance(message, dict)
    return message
