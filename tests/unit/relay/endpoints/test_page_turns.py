"""``PageTurns``: pages take turns, and leave the event loop to others in between."""

import asyncio
from itertools import pairwise

import pytest
from tickertape.relay.endpoints import page_turns
from tickertape.relay.endpoints.page_turns import PageTurns


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_turns, "MAX_SECONDS", -1.0)


def test_other_tasks_run_between_any_two_slices() -> None:
    """However many pages are computed, a task that is ready runs after each slice, and all pages progress."""
    turns = PageTurns()
    log: list[str] = []

    async def page(client: str) -> None:
        async with turns.take(client) as turn:
            for _ in range(10):
                log.append(client)
                await turn.pause()

    async def other() -> None:
        while True:
            log.append("other")
            await asyncio.sleep(0)

    async def check() -> None:
        running = asyncio.create_task(other())
        await asyncio.gather(*(page(client) for client in "abcdef"))
        running.cancel()

    asyncio.run(check())
    slices = [index for index, entry in enumerate(log) if entry != "other"]
    assert all("other" in log[first:second] for first, second in pairwise(slices))
    clients = [log[index] for index in slices]
    # Those that come first may have a slice before the others have come.
    for number in range(len(clients) - 12):
        counts = [clients[:number].count(client) for client in "abcdef"]
        assert max(counts) - min(counts) <= 2


def test_one_page_of_a_client_is_computed() -> None:
    """A client that requests many pages delays its own; the page of another client takes turns with one."""
    turns = PageTurns()
    log: list[str] = []

    async def page(client: str, name: str) -> None:
        async with turns.take(client) as turn:
            for _ in range(3):
                log.append(name)
                await turn.pause()

    async def check() -> None:
        await asyncio.gather(*(page("greedy", str(number)) for number in range(3)), page("modest", "m"))

    asyncio.run(check())
    assert sorted(log[:6]) == ["0", "0", "0", "m", "m", "m"]
    assert log[6:] == ["1", "1", "1", "2", "2", "2"]


def test_a_page_that_is_cancelled_gives_its_turn_back() -> None:
    """A client that leaves at any moment keeps no other page from its turn."""
    turns = PageTurns()

    async def page(client: str) -> None:
        async with turns.take(client) as turn:
            for _ in range(3):
                await turn.pause()

    async def check() -> None:
        for moment in range(12):
            tasks = [asyncio.create_task(page(client)) for client in ("a", "a", "b")]
            for _ in range(moment):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await page("a")

    asyncio.run(asyncio.wait_for(check(), 30))


def test_turns_do_not_belong_to_an_event_loop() -> None:
    """Applications of tests, and hosts that start again, have one loop after another."""
    turns = PageTurns()

    async def page(client: str) -> None:
        async with turns.take(client) as turn:
            await turn.pause()

    async def check() -> None:
        await asyncio.gather(page("a"), page("a"), page("b"))

    for _ in range(3):
        asyncio.run(check())
