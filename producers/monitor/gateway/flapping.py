"""Flap detection: whether the recent results of a gateway alternate between good and bad; pure.

Detection counts results, not seconds, so that it works the same for every probe interval.
"""

from collections import deque
from typing import Annotated

from pydantic import Field, model_validator
from tickertape.producers.monitor.types import Settings


class FlappingSettings(Settings):
    """Thresholds of flap detection: the share of recent results that differ from their predecessor."""

    window: Annotated[int, Field(ge=5, le=200, strict=True)] = 20
    enter: Annotated[float, Field(gt=0, le=1)] = 0.5
    leave: Annotated[float, Field(ge=0, lt=1)] = 0.25

    @model_validator(mode="after")
    def _check_hysteresis(self) -> "FlappingSettings":
        if self.leave >= self.enter:
            raise ValueError(
                "'leave' must be below 'enter'; otherwise flapping would end as soon as it starts"
            )
        return self


class Flapping:
    """Flap detector with hysteresis over a window of recent results."""

    def __init__(self, settings: FlappingSettings) -> None:
        self.is_flapping = False
        self._changes: deque[bool] = deque(maxlen=settings.window)
        self._enter = settings.enter
        self._leave = settings.leave
        self._last: bool | None = None

    def __repr__(self) -> str:
        return f"Flapping({self.is_flapping}, {sum(self._changes)} of {len(self._changes)})"

    def record_result(self, healthy: bool) -> bool:
        """Record a result; return whether flapping started or stopped with it."""
        if self._last is not None:
            self._changes.append(healthy is not self._last)
        self._last = healthy
        # A share of the whole window, even while it fills: a few changes after a start are no flapping.
        share = sum(self._changes) / (self._changes.maxlen or 1)
        before = self.is_flapping
        self.is_flapping = share > self._leave if before else share >= self._enter
        return self.is_flapping is not before

    def adopt(self, is_flapping: bool) -> None:
        """Adopt the state that another monitor published, so that it is not published twice."""
        self.is_flapping = is_flapping

    def reset(self) -> None:
        """Discard all results: those from before an interruption are not comparable with later ones."""
        self.is_flapping = False
        self._changes.clear()
        self._last = None
