"""Hearing of a shutdown before the host's server closes the connections.

uvicorn closes every WebSocket (1012) as soon as it was told to stop, and runs the end of the lifespan only
afterwards: too late to say goodbye. A signal is heard first, and does what it did before once that was said:
left to the event loop, the two could come in either order.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]


def hear(heard: Callable[[Callable[[], None]], None]) -> Callable[[], None]:
    """Be told of SIGINT and SIGTERM, for as long as another handles them too.

    Args:
        heard: called in the main thread, within what runs there, at the first signal; it has to call, soon,
            what it is given: that does what the signal did before.

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


def _put_before(
    number: int, before: Handler, heard: Callable[[Callable[[], None]], None]
) -> Callable[[], None]:
    ended = told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if ended or told:
            before(number, frame)  # the second one waits for nothing
            return
        told = True

        def then() -> None:
            before(number, frame)

        heard(then)

    def end() -> None:
        nonlocal ended
        ended = True
        if signal.getsignal(number) is handle:
            signal.signal(number, before)

    signal.signal(number, handle)
    return end
