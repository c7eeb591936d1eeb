"""How much does it sustain? A short search by doubling, halving and bisecting."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def most_sustained(
    attempt: Callable[[int], tuple[bool, Result]], start: int, *, attempts: int = 7, cap: int = 4_000
) -> tuple[int, Result] | None:
    """Find the largest number that is sustained, to within a quarter.

    Args:
        attempt: tries a number; returns whether it was sustained, and what came out.
        start: the first number to try.
        attempts: bound on the tries.
        cap: no number above is tried.

    Returns:
        The number and what came out for it; None when not even the least that was tried is sustained.
    """
    best: tuple[int, Result] | None = None
    failed: int | None = None
    number = start
    for _ in range(attempts):
        sustained, result = attempt(number)
        if sustained:
            best = (number, result)
            number = min(number * 2, cap) if failed is None else (number + failed) // 2
        else:
            failed = number
            number = number // 2 if best is None else (best[0] + number) // 2
        if number < 1 or (best and number == best[0]):
            break
        if best and failed and failed - best[0] <= best[0] / 4:
            break
    return best
