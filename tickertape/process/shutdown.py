"""End of the process: the one place that bounds every wait on the way out.

A task that swallows its cancellation, a thread that hangs, or a finalizer must not keep a program that was
told to end, or that has failed, from exiting. Each program therefore sets a time within which it exits: when
a stop signal arrives, and when its main coroutine is done.

Invariants:

1. After ``exit_within`` the process exits within that time, even if its event loop hangs or a write blocks.
2. Once ``begin`` was called, no signal changes the exit code: finished work is not reported as failed.
3. When the time is up, the tracked child processes are ended before the process exits.
4. Nothing here takes a lock, because a signal handler may have interrupted the code that holds it.
5. Without ``enable``, which only entry points of programs call, every function here does nothing.
"""

import _thread
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

EXIT_FAILURE: Final = 1
"""Exit code of a process that did not end in time."""

EXIT_SIGNAL: Final = 128
"""Exit code of a command that a signal ended before it was done, minus the number of the signal."""

FINAL_GRACE: Final = 10.0
"""Seconds from the end of the main coroutine to the exit: remaining tasks are cancelled, connections closed.
"""

REPEATED_GRACE: Final = 5.0
"""Seconds from the second stop signal to the exit."""

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a program."""

_STANDARD_ERROR: Final = 2
_NOTICE_WAIT_MS: Final = 100

received: list[int] = []
"""Stop signals that have arrived, in order."""


class Child(Protocol):
    """Child process: the leader of a session.

    Attributes:
        pid: process id.
        returncode: exit code; None while it runs.
    """

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...


_enabled = False
_pending: Callable[[], list[str]] = list
_children: list[tuple[Child, int]] = []


def enable() -> None:
    """Make the other functions effective, in the entry point of a program."""
    global _enabled
    _enabled = True


def name_pending(names: Callable[[], list[str]]) -> None:
    """Set the function that names what the process still waits for; another thread calls it."""
    global _pending
    _pending = names


def exit_within(seconds: float) -> None:
    """Exit after a number of seconds, whatever this process still does; the earliest of several calls counts.

    A signal handler may call this.
    """
    if _enabled:
        # Not a ``threading.Thread``: its start takes a lock.
        with contextlib.suppress(RuntimeError):  # the interpreter is exiting, or there is no further thread
            _thread.start_new_thread(_exit_after, (seconds,))


def receive(number: int, grace: float) -> None:
    """Record a stop signal, and bound the time until the exit; a signal handler calls this.

    Args:
        number: the signal.
        grace: seconds until the exit after the first signal; later ones shorten them.
    """
    if not _enabled:
        return
    received.append(number)
    exit_within(grace if len(received) == 1 else min(grace, REPEATED_GRACE))


def interrupted_code() -> int:
    """Return the exit code of a command that did not finish: by the first stop signal, or a failure."""
    return EXIT_SIGNAL + received[0] if received else EXIT_FAILURE


def begin() -> None:
    """Ignore further stop signals, and exit within ``FINAL_GRACE``.

    Call this in the main thread once the exit code is known.
    """
    if _enabled:
        ignore_stop_signals()
        exit_within(FINAL_GRACE)


def ignore_stop_signals() -> None:
    """Ignore stop signals from now on: the program ends anyway."""
    if not _enabled:
        return
    ignored = {*STOP_SIGNALS, signal.SIGHUP}
    # A signal that arrives while a handler is replaced is not lost, but has no effect either.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ignored)
    for number in ignored:
        if "asyncio" in sys.modules:
            _remove_loop_handler(number)
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def track(process: Child, number: int = signal.SIGKILL) -> None:
    """Send a signal to the session of a child process if it still runs when this process ends.

    Args:
        process: the child.
        number: the signal.
    """
    _children[:] = [(child, how) for child, how in _children if child.returncode is None]
    _children.append((process, number))


def end_children() -> None:
    """Send their signal to the tracked children that still run."""
    if not _enabled:
        return
    for child, number in _children:
        if child.returncode is None:
            # It has exited and is not reaped yet, or has become another user.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)


def _exit_after(seconds: float) -> None:
    time.sleep(seconds)
    try:
        names = "unknown"
        with contextlib.suppress(RuntimeError):  # the set of tasks changes while it is read
            names = ", ".join(sorted(_pending())) or "none"
        text = f"did not end within {seconds:g} s; exiting with code {EXIT_FAILURE}; pending tasks: {names}"
        _notice(f"tickertape: {text}\n")
        end_children()
    finally:
        os._exit(EXIT_FAILURE)  # whatever has failed above


def _notice(text: str) -> None:
    """Write to standard error without its lock, and only if that does not block."""
    with contextlib.suppress(OSError):  # nowhere is left to report it
        poll = select.poll()
        poll.register(_STANDARD_ERROR, select.POLLOUT)
        if poll.poll(_NOTICE_WAIT_MS):
            os.write(_STANDARD_ERROR, text.encode("ascii", "backslashreplace"))


def _remove_loop_handler(number: int) -> None:
    """Remove the handler of the running event loop, which would restore the default when it is closed."""
    import asyncio

    with contextlib.suppress(RuntimeError, ValueError):  # there is no loop
        asyncio.get_running_loop().remove_signal_handler(number)
