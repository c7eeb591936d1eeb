"""An event loop with virtual time: it advances to the next timer whenever nothing else is left to do."""

import asyncio
import selectors


class _Selector(selectors.SelectSelector):
    """Selector that does not wait for timers, but sets the time of its loop."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        """Return the events that are ready; without any, advance the time instead of waiting."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        events = super().select(0)
        if not events:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop whose time begins at 0, and passes only while all of its tasks wait for timers."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual.now
