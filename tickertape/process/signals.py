"""Signal handling in the event loop of a program."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a program gracefully."""


def add_signal_handlers(
    callback: Callable[[signal.Signals], object], *signals: signal.Signals
) -> Callable[[], None]:
    """Call a function whenever one of the given signals arrives.

    Args:
        callback: receives the signal.
        signals: the signals to handle.

    Returns:
        a function that removes the handlers.
    """
    loop = asyncio.get_running_loop()
    handled = []
    for number in signals:
        # Only the main thread of a UNIX process can handle signals; elsewhere the caller cancels the task.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, callback, number)
            handled.append(number)

    def remove_handlers() -> None:
        for number in handled:
            loop.remove_signal_handler(number)

    return remove_handlers


@contextlib.contextmanager
def stop_on_signals(*extra: signal.Signals) -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set; remove the handlers on exit.

    Args:
        extra: further signals that set the event.
    """
    stop = asyncio.Event()
    remove_handlers = add_signal_handlers(lambda _: stop.set(), *STOP_SIGNALS, *extra)
    try:
        yield stop
    finally:
        remove_handlers()
