"""The single bound on everything that a test waits for.

It bounds waiting and measures nothing: only a failing test waits this long, however busy the machine is.
"""

import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 120.0
"""Maximum seconds to wait for anything."""


def undisturbed(scenario: Callable[[int], None], seconds: float) -> None:
    """Run a scenario that is conclusive only if it takes less time than the product allows for it.

    A failure in a slower run shows that the machine was busy, and the scenario is run again; a failure in a
    fast enough run is a failure.

    Args:
        scenario: receives the number of the run, from 0, to choose addresses or names that no other run has
            used.
        seconds: time that the product allows for the scenario.
    """
    for number in range(10):
        began = time.monotonic()
        try:
            scenario(number)
        except (AssertionError, TimeoutError):
            if time.monotonic() - began < seconds:
                raise
        else:
            return
    raise TimeoutError(f"no run of ten took less than {seconds:g} s")
