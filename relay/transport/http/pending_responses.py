"""Responses in progress on one connection: HTTP clients may pipeline requests."""

from collections import deque

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class PendingResponses:
    """Responses in progress, in the order of their requests."""

    __slots__ = ("_cycles",)

    def __init__(self) -> None:
        self._cycles: deque[RequestResponseCycle] = deque()

    def in_progress(self) -> bool:
        """Return whether a response is not complete."""
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        return bool(self._cycles)

    def add(self, cycle: RequestResponseCycle) -> None:
        """Add the response to a new request."""
        self._cycles.append(cycle)

    def cancel(self) -> None:
        """Stop all responses.

        uvicorn notifies only the last one, and only when the connection is lost; the others would write to a
        closed transport, and each such write logs a long traceback.
        """
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        self._cycles.clear()
