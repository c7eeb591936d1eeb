"""Flap detection: whether the published status of a gateway alternates between up and down; pure.

Transitions are counted per probe result, not per second, so that it works the same for every probe interval,
and only those that were published, so that all monitors of a gateway count the same ones.
"""

from collections import deque
from typing import Annotated

from pydantic import Field, model_validator
from tickertape.producers.monitor.types import Settings


class FlappingSettings(Settings):
    """Thresholds of flap detection: the share of the possible transitions that took place."""

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
    """Flap detector with hysteresis over a window of recent results.

    Args:
        settings: the thresholds.
        cycle: results that it takes to go down and come up again, during which two transitions are possible.

    Attributes:
        is_flapping: whether the gateway is flapping.
    """

    def __init__(self, settings: FlappingSettings, cycle: int) -> None:
        self.is_flapping = False
        self._settings = settings
        self._possible = 2 * settings.window / cycle
        self._transitions: deque[int] = deque(maxlen=settings.window)
        self._latest = 0

    def __repr__(self) -> str:
        return f"Flapping({self.is_flapping}, {sum(self._transitions)} of {self._possible:g})"

    def record_transition(self) -> None:
        """Record that a transition from up to down or back was published."""
        self._latest += 1

    def record_result(self) -> None:
        """Record a result, which moves the window on."""
        self._transitions.append(self._latest)
        self._latest = 0
        # A share of the whole window, even while it fills: a few transitions after a start are no flapping.
        share = sum(self._transitions) / self._possible
        if not self.is_flapping:
            self.is_flapping = share >= self._settings.enter
        elif len(self._transitions) == self._settings.window:
            self.is_flapping = share > self._settings.leave

    def adopt(self, is_flapping: bool) -> None:
        """Adopt the state that another monitor published; it is corrected only after a whole window."""
        if is_flapping and not self.is_flapping:
            self._transitions.clear()
        self.is_flapping = is_flapping

    def reset(self) -> None:
        """Discard all results: those from before an interruption are not comparable with later ones."""
        self.is_flapping = False
        self._transitions.clear()
        self._latest = 0
