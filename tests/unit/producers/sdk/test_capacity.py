"""The room in a publisher's window: limits, order, and who gives up waiting."""

import asyncio

import pytest
from tickertape.producers.sdk.capacity import Capacity, check_limits

from tests.support.patience import PATIENCE


def test_both_limits_hold() -> None:
    """Neither more events nor more bytes than there is room for."""
    room = Capacity(3, 100)
    room.take(60)
    assert room.fits(40)
    assert not room.fits(41)
    room.take(10)
    room.take(10)
    assert not room.fits(1)
    room.leave(60)
    assert room.fits(80)
    assert repr(room) == "<Capacity 2 events, 20 bytes, 0 waiting>"


def test_a_large_event_enters_alone() -> None:
    """What is larger than all the room would wait for ever otherwise."""
    room = Capacity(3, 100)
    assert room.fits(500)
    room.take(1)
    assert not room.fits(500)


def test_who_waits_enters_in_order_and_is_not_passed() -> None:
    """A small event does not pass a large one that came first."""

    async def main() -> None:
        room = Capacity(10, 100)
        room.take(90)
        entered: list[str] = []

        async def enter(name: str, size: int) -> None:
            await room.enter(size)
            entered.append(name)

        tasks = [asyncio.create_task(enter("large", 50)), asyncio.create_task(enter("small", 5))]
        await asyncio.sleep(0)
        assert entered == []
        assert not room.fits(5)
        room.leave(90)
        tasks.append(asyncio.create_task(enter("late", 1)))
        await asyncio.gather(*tasks)
        assert entered == ["large", "small", "late"]
        assert (room.events, room.size) == (3, 56)

    asyncio.run(main())


@pytest.mark.parametrize("admitted", [False, True])
def test_who_gives_up_gives_back(admitted: bool) -> None:
    """A cancelled waiter keeps nobody out, not even when it was just let in."""

    async def main() -> None:
        room = Capacity(1, 100)
        room.take(1)
        first, second = (asyncio.create_task(room.enter(1)) for _ in range(2))
        await asyncio.sleep(0)
        if admitted:
            room.leave(1)
        first.cancel()
        await asyncio.wait({first})
        if not admitted:
            room.leave(1)
        async with asyncio.timeout(PATIENCE):
            await second
        room.leave(1)
        assert room.events == 0
        assert room.fits(1)

    asyncio.run(main())


def test_a_closed_room_lets_everyone_go_on() -> None:
    """Nobody waits for ever at the end."""

    async def main() -> None:
        room = Capacity(1, 100)
        room.take(1)
        waiting = [asyncio.create_task(room.enter(1)) for _ in range(3)]
        await asyncio.sleep(0)
        room.close()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*waiting)

    asyncio.run(main())


def test_limits_are_at_least_one() -> None:
    """A room for nothing is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        check_limits(0, 100, "block")
