"""Does a gateway go back and forth? Judged by its last results, not by time; pure."""

from collections import deque
from typing import Annotated

from pydantic import Field, model_validator
from tickertape.producers.monitor.types import Settings


class FlappingSettings(Settings):
    """When a gateway counts as flapping: by the share of its last results that differ from the one before."""

    window: Annotated[int, Field(ge=5, le=200, strict=True)] = 20
    enter: Annotated[float, Field(gt=0, le=1)] = 0.5
    leave: Annotated[float, Field(ge=0, lt=1)] = 0.25

    @model_validator(mode="after")
    def _leaves_below_enter(self) -> "FlappingSettings":
        if self.leave >= self.enter:
            raise ValueError("'leave' must be below 'enter', or it would enter and leave at once")
        return self


class Flapping:
    """The share of the last results at which the verdict was another than the one before."""

    def __init__(self, settings: FlappingSettings) -> None:
        self.flaps = False
        self._changes: deque[bool] = deque(maxlen=settings.window)
        self._enter = settings.enter
        self._leave = settings.leave
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
