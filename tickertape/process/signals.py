"""Signals that a program heeds in its event loop."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
"""Signals that end a program in good order."""


def add_signal_handlers(
    heard: Callable[[signal.Signals], object], *numbers: signal.Signals
) -> Callable[[], None]:
    """Call a function with each of these signals that comes.

    Returns:
        a function that takes the handlers out again.
    """
    loop = asyncio.get_running_loop()
    handled = []
    for number in numbers:
        # Only the main thread of a UNIX process can have them; elsewhere the caller cancels.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, heard, number)
            handled.append(number)

    def stop() -> None:
        for number in handled:
            loop.remove_signal_handler(number)

    return stop


@contextlib.contextmanager
def stop_on_signals(*more: signal.Signals) -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT and SIGTERM set; the handlers are taken out at the end.

    Args:
        more: signals that set it as well.
    """
    stop = asyncio.Event()
    unheed = add_signal_handlers(lambda _: stop.set(), *STOP_SIGNALS, *more)
    try:
        yield stop
    finally:
        unheed()
