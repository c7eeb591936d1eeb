"""Signal handlers that detect a shutdown before the host's server closes the connections.

uvicorn closes every WebSocket (1012) as soon as it receives a signal, and runs the end of the lifespan only
afterwards: too late to send ``bye``. These handlers intercept the signal, and forward it to the original
handler once ``bye`` is sent. Event loop callbacks would not do: the two could run in either order.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def intercept(on_signal: Callable[[Callable[[], None]], None]) -> Callable[[], None]:
    """Intercept SIGINT and SIGTERM in front of the handlers that the host has installed.

    Args:
        on_signal: called on the first signal, in the main thread, interrupting the code that runs there. It
            receives a callback that forwards the signal to the original handler, and must call that soon.

    Returns:
        A function that restores the original handlers, unless other handlers were installed on top.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    restore = [
        _install(number, original, on_signal)
        for number in (signal.SIGINT, signal.SIGTERM)
        # Without a handler, the signal ends the process immediately; that must not change.
        if callable(original := signal.getsignal(number))
    ]

    def restore_all() -> None:
        for restore_handler in restore:
            restore_handler()

    return restore_all


def _install(
    number: int, original: Handler, on_signal: Callable[[Callable[[], None]], None]
) -> Callable[[], None]:
    removed = received = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if removed or received:
            original(number, frame)  # a second signal is forwarded immediately
            return
        received = True

        def forward() -> None:
            original(number, frame)

        on_signal(forward)

    def restore() -> None:
        nonlocal removed
        # A handler that was installed on top may still call this one, which then only forwards.
        removed = True
        if signal.getsignal(number) is handle:
            signal.signal(number, original)

    signal.signal(number, handle)
    return restore
