"""Budget of the pages of history in memory: bounded, and shared fairly between clients."""

import asyncio
from contextlib import AsyncExitStack
from typing import cast

import pytest
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.endpoints import page_budget
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.history_endpoint import HistoryEndpoint
from tickertape.relay.endpoints.page_budget import (
    MAX_CONCURRENT_PAGES,
    MAX_PAGE_BYTES,
    READ_BYTES,
    PageBudget,
)
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.transport.connections import Connections

from tests.support.clients.feed_client import PATIENCE, run

PLACES = 3


def test_pages_of_any_number_of_clients_are_bounded() -> None:
    """However many clients request pages, the budget bounds their memory, and each client gets its page."""
    peak = 0

    async def read(budget: PageBudget, client: str) -> None:
        nonlocal peak
        async with budget.reserve(client) as page:
            peak = max(peak, budget.used)
            await asyncio.sleep(0)
            page.start_sending(MAX_PAGE_BYTES, lambda: None)
            await asyncio.sleep(0)
            peak = max(peak, budget.used)

    async def part() -> None:
        budget = PageBudget(PLACES * READ_BYTES)
        await asyncio.gather(*(read(budget, f"10.0.0.{n // 2}") for n in range(200)))
        assert budget.used == 0
        assert not budget.sending

    run(part())
    assert MAX_PAGE_BYTES < peak <= PLACES * READ_BYTES


def test_a_client_meets_its_own_limit_first() -> None:
    """A client beyond its own limit is rejected as such, also while the budget of all is used up."""

    async def part() -> None:
        budget = PageBudget(READ_BYTES)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(budget.reserve("other"))
            waiting = [asyncio.ensure_future(_hold(budget, "greedy")) for _ in range(MAX_CONCURRENT_PAGES)]
            await asyncio.sleep(0)
            with pytest.raises(ProtocolError) as caught:
                await stack.enter_async_context(budget.reserve("greedy"))
            assert caught.value.code is ErrorCode.TOO_MANY
            for task in waiting:
                task.cancel()
        await asyncio.wait(waiting)
        assert budget.used == 0

    run(part())


def test_clients_take_turns() -> None:
    """A client that has a page waits behind those that have none, whenever they came."""
    order: list[str] = []

    async def read(budget: PageBudget, client: str, done: asyncio.Event) -> None:
        async with budget.reserve(client):
            order.append(client)
            await done.wait()

    async def part() -> None:
        budget = PageBudget(2 * READ_BYTES)
        one, two, rest = asyncio.Event(), asyncio.Event(), asyncio.Event()
        rest.set()
        clients = (("a", one), ("a", two), ("a", rest), ("a", rest), ("b", rest), ("c", rest))
        tasks = [asyncio.ensure_future(read(budget, client, done)) for client, done in clients]
        await asyncio.sleep(0)  # all have asked
        one.set()
        await asyncio.wait_for(asyncio.gather(tasks[0], *tasks[2:]), PATIENCE)
        two.set()
        await tasks[1]

    run(part())
    assert order == ["a", "a", "b", "c", "a", "a"]


def test_one_page_is_always_read() -> None:
    """A budget smaller than a page, as of one of many workers, still admits one page after another."""

    async def part() -> None:
        budget = PageBudget(1)
        await asyncio.gather(*(_hold(budget, f"client-{n}", 0) for n in range(5)))

    run(part())


def test_a_client_that_waits_too_long_is_told_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is not admitted in time gets ``unavailable``, and leaves nothing counted."""
    monkeypatch.setattr(page_budget, "WAIT_TIME", 0.01)

    async def part() -> None:
        budget = PageBudget(READ_BYTES)
        async with budget.reserve("first"):
            with pytest.raises(ProtocolError) as caught:
                await _hold(budget, "second", 0)
            assert caught.value.code is ErrorCode.UNAVAILABLE
        assert budget.used == 0
        await _hold(budget, "second", 0)

    run(part())


def test_who_does_not_read_loses_its_page_to_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the page without progress is taken away, and only while others wait."""
    monkeypatch.setattr(page_budget, "STALL_TIME", 0.2)

    async def part() -> None:
        budget = PageBudget(2 * READ_BYTES)
        ended = asyncio.Event()

        async def stalled() -> None:
            async with budget.reserve("stalled") as page:
                page.start_sending(READ_BYTES, ended.set)
                await ended.wait()

        async def reader(until: asyncio.Event) -> None:
            async with budget.reserve("reader") as page:
                page.start_sending(READ_BYTES, lambda: pytest.fail("it reads"))
                while not until.is_set():
                    page.record_progress()
                    await asyncio.sleep(0.01)

        done = asyncio.Event()
        tasks = [asyncio.ensure_future(stalled()), asyncio.ensure_future(reader(done))]
        await asyncio.sleep(0.5)
        assert not ended.is_set()
        await asyncio.wait_for(_hold(budget, "newcomer", 0), PATIENCE)
        assert ended.is_set()
        done.set()
        await asyncio.gather(*tasks)
        assert budget.used == 0

    run(part())


def test_a_network_of_addresses_is_one_client() -> None:
    """Pages are counted by the subject of the token, or by the address, for IPv6 the whole /64."""
    connections = Connections(Hub(HubSettings(), lambda: None), lambda: 0.0)
    endpoint = HistoryEndpoint(connections, History(connections.hub, cast(ReplayReaders, None)))

    def key(address: str, subject: str = "") -> str:
        return endpoint._client_key({"client": (address, 1), "headers": []}, Grant(subject=subject))

    assert key("2001:db8::1") == key("2001:db8::ffff:2") != key("2001:db8:0:1::1")
    assert key("10.0.0.1") != key("10.0.0.2")
    assert key("10.0.0.1", "reader") == key("10.0.0.2", "reader")


async def _hold(budget: PageBudget, client: str, seconds: float = PATIENCE) -> None:
    async with budget.reserve(client):
        await asyncio.sleep(seconds)
