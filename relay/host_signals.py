"""Hearing of a shutdown before the host's server closes the connections.

uvicorn closes every WebSocket (1012) as soon as it was told to stop, and runs the end of the lifespan only
afterwards: too late to say goodbye. A signal is heard first, and then does what it did before.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def hear(heard: Callable[[], None]) -> Callable[[], None]:
    """Be told of SIGINT and SIGTERM, for as long as somebody else handles them too.

    Args:
        heard: called in the main thread, within whatever runs there.

    Returns:
        ends it; what was there before is back, unless somebody else has put something on top.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    undo = [
        _put_before(number, before, heard)
        for number in (signal.SIGINT, signal.SIGTERM)
        # Without a handler the process ends at once, and nobody may change that.
        if callable(before := signal.getsignal(number))
    ]

    def end() -> None:
        for one in undo:
            one()

    return end


def _put_before(number: int, before: Handler, heard: Callable[[], None]) -> Callable[[], None]:
    ended = False

    def handle(number: int, frame: FrameType | None) -> None:
        if not ended:
            heard()
        before(number, frame)

    def end() -> None:
        nonlocal ended
        ended = True
        if signal.getsignal(number) is handle:
            signal.signal(number, before)

    signal.signal(number, handle)
    return end
