"""Capacity of a publisher's window: limits, order of waiters, and cancellation."""

import asyncio

import pytest
from tickertape.producers.sdk.capacity import Capacity, check_limits

from tests.support.patience import PATIENCE


def test_both_limits_hold() -> None:
    """Both the number of events and their total size are limited."""
    capacity = Capacity(3, 100)
    capacity.reserve(60)
    assert capacity.fits(40)
    assert not capacity.fits(41)
    capacity.reserve(10)
    capacity.reserve(10)
    assert not capacity.fits(1)
    capacity.release(60)
    assert capacity.fits(80)
    assert repr(capacity) == "<Capacity 2 events, 20 bytes, 0 waiting>"


def test_a_large_event_is_admitted_alone() -> None:
    """An event larger than the capacity is admitted if none is in flight; otherwise it would never be."""
    capacity = Capacity(3, 100)
    assert capacity.fits(500)
    capacity.reserve(1)
    assert not capacity.fits(500)


def test_waiters_are_admitted_in_order() -> None:
    """Waiters are admitted in order: a small event does not overtake a large one."""

    async def main() -> None:
        capacity = Capacity(10, 100)
        capacity.reserve(90)
        entered: list[str] = []

        async def acquire(name: str, size: int) -> None:
            await capacity.acquire(size)
            entered.append(name)

        tasks = [asyncio.create_task(acquire("large", 50)), asyncio.create_task(acquire("small", 5))]
        await asyncio.sleep(0)
        assert entered == []
        assert not capacity.fits(5)
        capacity.release(90)
        tasks.append(asyncio.create_task(acquire("late", 1)))
        await asyncio.gather(*tasks)
        assert entered == ["large", "small", "late"]
        assert (capacity.events, capacity.size) == (3, 56)

    asyncio.run(main())


@pytest.mark.parametrize("admitted", [False, True])
def test_a_cancelled_waiter_blocks_no_others(admitted: bool) -> None:
    """A cancelled waiter blocks no others, even if it was admitted just before the cancellation."""

    async def main() -> None:
        capacity = Capacity(1, 100)
        capacity.reserve(1)
        first, second = (asyncio.create_task(capacity.acquire(1)) for _ in range(2))
        await asyncio.sleep(0)
        if admitted:
            capacity.release(1)
        first.cancel()
        await asyncio.wait({first})
        if not admitted:
            capacity.release(1)
        async with asyncio.timeout(PATIENCE):
            await second
        capacity.release(1)
        assert capacity.events == 0
        assert capacity.fits(1)

    asyncio.run(main())


def test_closing_admits_all_waiters() -> None:
    """Closing admits all waiters, so that none of them hangs at shutdown."""

    async def main() -> None:
        capacity = Capacity(1, 100)
        capacity.reserve(1)
        waiting = [asyncio.create_task(capacity.acquire(1)) for _ in range(3)]
        await asyncio.sleep(0)
        capacity.close()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*waiting)

    asyncio.run(main())


def test_limits_are_at_least_one() -> None:
    """A limit below 1 is rejected."""
    with pytest.raises(ValueError, match="at least 1"):
        check_limits(0, 100, "block")
