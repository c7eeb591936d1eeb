"""Liveness of a relay: whether the task that runs it still does."""

import asyncio


class Liveness:
    """Liveness of the task that creates it, which runs a relay or the supervisor of its workers.

    Attributes:
        ended: whether the task has stopped serving, and only cleans up.
    """

    def __init__(self) -> None:
        self.ended = False
        self._task = asyncio.current_task()

    def __repr__(self) -> str:
        return f"Liveness({self.check()})"

    def check(self) -> bool:
        """Return whether the task still serves; a drain counts as serving."""
        return not self.ended and (self._task is None or not self._task.done())
