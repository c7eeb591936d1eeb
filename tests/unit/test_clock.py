"""A system clock that is set is noticed, before anything sees its new time."""

import pytest

from tickertape.clock import SteppedClock


class Clocks:
    """The two clocks of a host."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.monotonic = 50.0

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.monotonic += seconds


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1.0, -86400.0])
def test_a_step_is_reported_once(step: float) -> None:
    """A component that shifts its deadlines by the step sees the time after that."""
    clocks = Clocks()
    steps: list[float] = []
    clock = SteppedClock(steps.append, lambda: clocks.wall, lambda: clocks.monotonic)
    clocks.pass_seconds(10)
    assert clock.now() == clocks.wall
    assert steps == []
    clocks.wall += step
    clocks.pass_seconds(5)
    assert clock.now() == clock.now() == clocks.wall
    assert steps == [pytest.approx(step)]


def test_a_suspended_machine_is_a_step() -> None:
    """The monotonic clock does not advance during a suspend, so a resume is a step."""
    clocks = Clocks()
    steps: list[float] = []
    clock = SteppedClock(steps.append, lambda: clocks.wall, lambda: clocks.monotonic)
    clocks.wall += 3600
    clock.now()
    assert steps == [pytest.approx(3600)]


def test_small_adjustments_are_no_steps() -> None:
    """What NTP adjusts gradually changes no deadline by more than half a second."""
    clocks = Clocks()
    steps: list[float] = []
    clock = SteppedClock(steps.append, lambda: clocks.wall, lambda: clocks.monotonic)
    for _ in range(100):
        clocks.pass_seconds(10)
        clocks.wall += 0.004
        clock.now()
    assert steps == []
