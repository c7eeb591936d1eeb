"""Search for the largest sustained number by doubling, halving and bisecting."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def max_sustained(
    attempt: Callable[[int], tuple[bool, Result]], start: int, *, attempts: int = 7, cap: int = 4_000
) -> tuple[int, Result] | None:
    """Find the largest number that is sustained, to within a quarter.

    Args:
        attempt: tries a number; returns whether it was sustained, and the result.
        start: first number to try.
        attempts: maximum number of attempts.
        cap: largest number to try.

    Returns:
        The number and its result, or None if no number was sustained.
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
