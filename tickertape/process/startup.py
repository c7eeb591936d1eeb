"""Preparation of a process, before anything else: standard streams and the default handling of signals.

| signal | ``serve``, ``monitor``, ``ship`` and their workers | other commands |
| --- | --- | --- |
| SIGTERM | stop; before the program has begun to work, end it | stop, or end it |
| SIGINT | as SIGTERM, unless the program was started with SIGINT ignored | the same |
| SIGHUP | reload (``ship``: ignored) | end it, unless it was started with SIGHUP ignored |
| SIGUSR1, SIGUSR2 | ignored | end it |
| SIGPIPE | ignored: a write fails instead | the same |
| SIGQUIT | end it, with a core dump | the same |
| SIGTSTP, SIGCONT | stop and continue the process | the same |
"""

import os
import signal
from collections.abc import Sequence
from typing import Final

DAEMONS: Final = frozenset({"serve", "monitor", "ship"})
"""Commands that run until they are stopped, and do not end with the terminal in which they were started."""

LOGGING: Final = frozenset({"serve", "monitor", "demo"})
"""Commands whose standard output is for the operator; a missing reader is no reason to end."""

_HELP: Final = frozenset({"-h", "--help"})
_STANDARD_DESCRIPTORS: Final = (0, 1, 2)

_prepared = False


def prepare(arguments: Sequence[str]) -> None:
    """Set up the process; a second call does nothing.

    Args:
        arguments: arguments of the program, of which the first is the command, such as ``serve``.
    """
    global _prepared
    if _prepared:
        return
    _prepared = True
    command = arguments[0] if arguments else ""
    closed = _open_missing_descriptors()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Python's handler raises KeyboardInterrupt, and prints a traceback, wherever the signal arrives.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if command in DAEMONS:
        # Until the program handles SIGHUP itself, there is nothing to reload.
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    # Only now, because these imports take a while.
    from tickertape.process import shutdown, standard_streams

    standard_streams.wrap(closed, daemon=command in LOGGING and _HELP.isdisjoint(arguments))
    shutdown.enable()


def _open_missing_descriptors() -> set[int]:
    """Open /dev/null in place of the standard descriptors that are closed, and return their numbers."""
    closed = set()
    for number in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is used, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            closed.add(number)
    return closed
