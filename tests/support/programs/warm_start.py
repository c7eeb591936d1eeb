"""Starts ``tickertape``, or a host of the tests, as a process that is forked from one that has imported it.

Importing takes most of a relay's start, and most of the time of several hundred tests. What runs is what
``python -m tickertape`` runs, with its own session, environment, folder and streams. Tests that are about the
start itself start a fresh interpreter.

Invariants:

1. The process that is forked has imported modules, and nothing more: no thread, no loop, no open connection.
2. A process that was forked is reaped by its parent, which hands its status on; ``wait`` returns after that.
3. When the process of the tests ends, so does the one that is forked; its starter ends each fork.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, NoReturn, TextIO

from tests.support.paths import ROOT

COMMAND: Final = "tickertape.__main__"
HOST: Final = "tests.support.programs.asgi_host"
"""Programs that can be started; each has a ``main``."""

_MODULES: Final = {
    HOST: (HOST,),
    COMMAND: (
        "tickertape.cli.main",
        "tickertape.cli.serve",
        "tickertape.relay.server",
        "tickertape.cli.check.command",
        "tickertape.cli.streams",
        "tickertape.cli.publish",
        "tickertape.cli.ship",
        "uvloop",
    ),
}
"""Modules that are imported for each."""

_OPTIONS: Final = {HOST: ("-W", "error"), COMMAND: ()}
"""Options of the interpreter."""

_HEAD: Final = 4
"""Bytes of the length that precedes a request."""

_DESCRIPTORS: Final = 3
"""Descriptors sent with each request: standard output, standard error, and the pipe for the status."""


class Process:
    """A forked process, with the part of ``subprocess.Popen`` that the tests use.

    Attributes:
        returncode: exit code; None while it is not known to have exited.
        stdout: its standard output.
        stderr: its standard error.
    """

    def __init__(self, pid: int, stdout: TextIO, stderr: TextIO, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout = stdout
        self.stderr = stderr
        self._status = status
        self._looking = threading.Lock()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.returncode}>"

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it is running."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to exit.

        Raises:
            subprocess.TimeoutExpired: it has not exited in time.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has exited."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process (SIGKILL)."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        with self._looking:
            if self.returncode is None:
                waiting = select.poll()
                waiting.register(self._status, select.POLLIN)
                if waiting.poll(None if timeout is None else timeout * 1000):
                    output = os.read(self._status, 16)
                    os.close(self._status)
                    # There is no status if the process that forked it was ended first.
                    self.returncode = int(output) if output else -signal.SIGKILL
            return self.returncode


class _Starter:
    """Parent process that forks on request, as the tests see it."""

    def __init__(self, program: str) -> None:
        self._link, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, *_OPTIONS[program], "-m", __name__, program, str(there.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                start_new_session=True,
            )
        self._ordering = threading.Lock()

    def start(self, arguments: Sequence[str], env: Mapping[str, str], cwd: Path) -> Process:
        pipes = [os.pipe() for _ in range(_DESCRIPTORS)]
        order = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": str(cwd)}).encode()
        with self._ordering:
            socket.send_fds(self._link, [len(order).to_bytes(_HEAD)], [write for _, write in pipes])
            self._link.sendall(order)
            for _, write in pipes:
                os.close(write)
            pid = int.from_bytes(_exactly(self._link, _HEAD))
        (out, _), (err, _), (status, _) = pipes
        return Process(pid, os.fdopen(out), os.fdopen(err), status)


_starters: dict[str, _Starter] = {}
_making: Final = threading.Lock()


def start(arguments: Sequence[str], env: Mapping[str, str], cwd: Path, program: str = COMMAND) -> Process:
    """Start a program in a session of its own, with pipes for its output and no standard input.

    Args:
        arguments: command-line arguments, without the program.
        env: its complete environment.
        cwd: its working folder.
        program: module whose ``main`` is called.
    """
    with _making:
        if program not in _starters:
            _starters[program] = _Starter(program)
    return _starters[program].start(arguments, env, cwd)


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise EOFError("the process that is forked has ended")
        data += more
    return data


# The following code runs in the process that forks.


def _serve(link: socket.socket) -> list[str]:
    """Fork for each request and pass on exit statuses; return the arguments in each child."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    waiting = select.poll()
    waiting.register(link, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in waiting.poll()}
        if woken in ready:
            os.read(woken, 1024)
            _reap(statuses)
        if link.fileno() not in ready:
            continue
        head, descriptors, _, _ = socket.recv_fds(link, _HEAD, _DESCRIPTORS)
        if not head:
            sys.exit()
        order = json.loads(_exactly(link, int.from_bytes(head + _exactly(link, _HEAD - len(head)))))
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            link.close()
            for descriptor in (woken, wake, descriptors[2], *statuses.values()):
                os.close(descriptor)
            _become(descriptors, order)
            arguments: list[str] = order["arguments"]
            return arguments
        for descriptor in descriptors[:2]:
            os.close(descriptor)
        statuses[pid] = descriptors[2]
        link.sendall(pid.to_bytes(_HEAD))


def _reap(statuses: dict[int, int]) -> None:
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(statuses[pid], str(os.waitstatus_to_exitcode(status)).encode())
        os.close(statuses.pop(pid))


def _become(descriptors: Sequence[int], order: dict[str, object]) -> None:
    """Set up what an interpreter sets up when it starts."""
    os.setsid()
    for number, descriptor in enumerate(descriptors[:2], 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(str(order["cwd"]))
    os.environ.clear()
    env = order["env"]
    assert isinstance(env, dict)
    os.environ.update(env)
    time.tzset()
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _main() -> NoReturn:
    program, link = sys.argv[1:]
    for name in _MODULES[program]:
        import_module(name)
    gc.collect()
    gc.freeze()
    sys.argv = [program, *_serve(socket.socket(fileno=int(link)))]
    try:
        code = int(import_module(program).main() or 0)
    except Exception:
        traceback.print_exc()
        code = 1
    _end(code)


def _end(code: int) -> NoReturn:
    """Exit like an interpreter, but leave the memory to the system.

    Clearing imported modules would first copy them, page by page, from the parent process.
    """
    gc.collect()  # warns about unclosed or never awaited objects; imported modules are frozen and not scanned
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()


__all__ = ["Process", "start"]
