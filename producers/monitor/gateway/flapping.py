"""Does a gateway go back and forth? Judged by its last results, not by time; pure."""

from collections import deque


class Flapping:
    """The share of the last results at which the verdict was another than the one before.

    Args:
        window: results that are looked at.
        enter: share from which it flaps.
        leave: share up to which it no longer does.
    """

    def __init__(self, window: int, enter: float, leave: float) -> None:
        self.flaps = False
        self._changes: deque[bool] = deque(maxlen=window)
        self._enter = enter
        self._leave = leave
        self._last: bool | None = None

    def __repr__(self) -> str:
        return f"Flapping({self.flaps}, {sum(self._changes)} of {len(self._changes)})"

    def after(self, well: bool) -> bool:
        """Take in a result; True when it began or ceased to flap with it."""
        if self._last is not None:
            self._changes.append(well is not self._last)
        self._last = well
        share = sum(self._changes) / (self._changes.maxlen or 1)
        before = self.flaps
        self.flaps = share > self._leave if before else share >= self._enter
        return self.flaps is not before

    def agree(self, flaps: bool) -> None:
        """Another has said whether it does; it is not said again."""
        self.flaps = flaps

    def forget(self) -> None:
        """Begin anew: what was before an interruption says nothing."""
        self.flaps = False
        self._changes.clear()
        self._last = None
