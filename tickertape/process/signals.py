"""Signal handling in the event loop of a program."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Final

from tickertape.process import shutdown
from tickertape.process.shutdown import STOP_SIGNALS

STOP_GRACE: Final = 10.0
"""Seconds that a program without a drain has to end."""


def add_signal_handlers(
    callback: Callable[[signal.Signals], object], *signals: signal.Signals
) -> Callable[[], None]:
    """Call a function whenever one of the given signals arrives.

    Args:
        callback: receives the signal.
        signals: the signals to handle.

    Returns:
        a function that removes the handlers, and restores the previous ones.
    """
    loop = asyncio.get_running_loop()
    previous = {}
    for number in signals:
        handler = signal.getsignal(number)
        # Only the main thread of a UNIX process can handle signals; elsewhere the caller cancels the task.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, callback, number)
            previous[number] = handler

    def remove_handlers() -> None:
        # The event loop restores the default, by which SIGHUP would end a program that ignored it before.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, previous)
        for number, handler in previous.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return remove_handlers


def stop_signals(*, hangup: bool = False) -> list[signal.Signals]:
    """Return the signals that stop this program: SIGTERM, and SIGINT unless it is ignored.

    A shell without job control, as in a script, starts background jobs with SIGINT ignored, so that Ctrl-C
    ends only the job in the foreground; ``nohup`` does so with SIGHUP.

    Args:
        hangup: whether SIGHUP also stops the program, unless it is ignored.
    """
    numbers = [*STOP_SIGNALS, signal.SIGHUP] if hangup else STOP_SIGNALS
    return [
        number
        for number in numbers
        if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
    ]


def add_stop_handlers(
    callback: Callable[[signal.Signals], object], grace: float, *, hangup: bool = False
) -> Callable[[], None]:
    """Call a function on each stop signal, and exit after the grace even if the event loop hangs.

    Args:
        callback: receives the signal, in the event loop.
        grace: seconds from the first signal to the exit.
        hangup: whether SIGHUP also stops the program, unless it is ignored.

    Returns:
        a function that removes the handlers.
    """

    def record(number: int, _: object) -> None:
        shutdown.receive(number, grace)

    numbers = stop_signals(hangup=hangup)
    remove_handlers = add_signal_handlers(callback, *numbers)
    for number in numbers:
        # The event loop wakes up by a descriptor, whatever this handler is; it also runs while the loop
        # hangs.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(number, record)
    return remove_handlers


@contextlib.contextmanager
def stop_on_signals(*, hangup: bool = False) -> Iterator[asyncio.Event]:
    """Yield an event that the first stop signal sets; a second one cancels the task that entered the
    context.

    When the context is left, the program ends, and further signals have no effect.

    Args:
        hangup: whether SIGHUP also stops the program, unless it is ignored.
    """
    stop, task = asyncio.Event(), asyncio.current_task()

    def receive(_: signal.Signals) -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    remove_handlers = add_stop_handlers(receive, STOP_GRACE, hangup=hangup)
    try:
        yield stop
    finally:
        # Before the handlers are removed, which would make the next signal end the process.
        shutdown.ignore_stop_signals()
        remove_handlers()
