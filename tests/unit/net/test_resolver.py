"""Look-ups of names, of which some hang: the DNS server that is responsible for them does not answer."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import lru_cache
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.support.servers.name_service import NameService, name_service
from tickertape.net import outgoing, resolver
from tickertape.net.daemon_pool import DaemonPool
from tickertape.net.outgoing import connect, describe_failure, describe_timeout, resolve_blocking
from tickertape.net.resolver import (
    LAST_ADDRESS_SECONDS,
    LookupsExhausted,
    LookupTimeout,
    Resolver,
    Results,
    parse_numeric,
)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    """Replace the name service of the machine; look-ups that still hang at the end are answered."""
    with name_service(monkeypatch) as service:
        yield service


@pytest.fixture
def lookups(names: NameService) -> Resolver:
    """Return a resolver with the time of the name service."""
    return Resolver(lambda: names.now)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine within the patience of the tests."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario()

    asyncio.run(bounded())


def hosts(found: tuple[Results, bool]) -> tuple[list[str], bool]:
    return [address[4][0] for address in found[0]], found[1]


def ended(lookups: Resolver, host: str) -> None:
    """Wait until the look-up of a name has ended."""
    lookups.look_up(host).exception(PATIENCE)


def test_names_that_hang_do_not_delay_those_that_answer(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads are reserved for names that have answered; a look-up without a thread blames no name."""
    monkeypatch.setattr(resolver, "MAX_LOOKUPS", 4)
    monkeypatch.setattr(resolver, "MAX_SUSPECTS", 2)
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", 0.05)

    async def scenario() -> None:
        names.answer("good", "10.0.0.1")
        names.answer("new", "10.0.0.2")
        assert hosts(await lookups.resolve("good")) == (["10.0.0.1"], True)
        for name in ("hangs-1", "hangs-2"):
            with pytest.raises(LookupTimeout):
                await lookups.resolve(name)
        for name in ("hangs-3", "new"):
            with pytest.raises(LookupsExhausted, match="too many look-ups") as caught:
                await lookups.resolve(name)
            assert caught.value.errno == errno.EAGAIN
        for _ in range(3):
            assert hosts(await lookups.resolve("good")) == (["10.0.0.1"], True)
        assert names.calls["hangs-3"] == 0
        names.answer("hangs-1", "10.0.0.3")
        assert lookups.look_up("hangs-3").done() is False
        names.answer("hangs-3", "10.0.0.4")
        assert (await asyncio.wrap_future(lookups.look_up("new")))[0][4] == ("10.0.0.2", 0)

    run(scenario)


def test_a_name_keeps_one_thread(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that want a name share its look-up, whose error says how long they waited."""
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", 0.05)

    async def scenario() -> None:
        for _ in range(3):
            waiting = (lookups.resolve("hangs") for _ in range(100))
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            assert {describe_failure(error) for error in errors if isinstance(error, LookupTimeout)} == {
                "name did not resolve within 0.05 s"
            }
            assert len(errors) == 100
        assert names.calls["hangs"] == 1

    run(scenario)


def test_the_last_addresses_are_used_while_a_name_hangs_or_fails(
    names: NameService, lookups: Resolver
) -> None:
    """They are used for an hour after the last look-up that succeeded."""

    async def scenario() -> None:
        names.answer("name", "10.0.0.1")
        assert hosts(await lookups.resolve("name")) == (["10.0.0.1"], True)
        names.hang("name")
        assert hosts(await lookups.resolve("name")) == (["10.0.0.1"], False)
        assert lookups.count_outdated() == 0
        names.now += LAST_ADDRESS_SECONDS - 1
        assert lookups.count_outdated() == 1
        assert hosts(await lookups.resolve("name")) == (["10.0.0.1"], False)
        for error in (socket.gaierror(socket.EAI_AGAIN, "try again"), OSError(errno.EIO, "broken")):
            names.answer("name", error)
            ended(lookups, "name")
            assert hosts(await lookups.resolve("name")) == (["10.0.0.1"], False)
            assert lookups.count_outdated() == 1
        names.now += 1
        assert lookups.count_outdated() == 0  # nothing is left to use
        with pytest.raises(OSError, match="broken"):
            await lookups.resolve("name")
        names.answer("name", "10.0.0.2")
        assert hosts(await lookups.resolve("name")) == (["10.0.0.2"], True)
        assert lookups.count_outdated() == 0

    run(scenario)


def test_a_name_that_does_not_exist_has_no_last_address(names: NameService, lookups: Resolver) -> None:
    """The answer of the DNS server that the name does not exist is no failure of a look-up."""

    async def scenario() -> None:
        names.answer("name", "10.0.0.1")
        await lookups.resolve("name")
        names.answer("name", socket.gaierror(socket.EAI_NONAME, "not known"))
        for _ in range(2):
            with pytest.raises(socket.gaierror, match="not known"):
                await lookups.resolve("name")
        assert lookups.count_outdated() == 0
        names.answer("name", socket.gaierror(socket.EAI_AGAIN, "try again"))
        with pytest.raises(socket.gaierror, match="try again"):
            await lookups.resolve("name")

    run(scenario)


def test_a_name_that_hung_is_not_waited_for(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first look-up of a name that hangs takes long; its late result is used."""
    timeout = 3600.0
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", timeout)

    async def scenario() -> None:
        lookups.look_up("name")
        names.now += timeout + 1
        with pytest.raises(LookupTimeout):
            await lookups.resolve("name")
        names.answer("name", socket.gaierror(socket.EAI_AGAIN, "try again"))
        ended(lookups, "name")
        names.hang("name")
        with pytest.raises(LookupTimeout):
            await lookups.resolve("name")
        names.answer("name", "10.0.0.1")
        ended(lookups, "name")
        names.hang("name")
        assert hosts(await lookups.resolve("name")) == (["10.0.0.1"], False)

    run(scenario)


def test_a_host_that_has_moved_is_found(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no last address accepts a connection, the look-up in progress is waited for."""
    monkeypatch.setattr(outgoing, "_resolver", lookups)

    async def scenario() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        names.answer("name", "127.0.0.2")
        with pytest.raises(ConnectionRefusedError):
            await connect("name", port)
        names.hang("name")
        connecting = asyncio.create_task(connect("name", port))
        while names.calls["name"] < 2:
            await asyncio.sleep(0.001)
        done, _ = await asyncio.wait({connecting}, timeout=4 * resolver.KNOWN_WAIT)
        assert not done
        names.answer("name", "127.0.0.1")
        sock = await connecting
        assert sock.getpeername() == ("127.0.0.1", port)
        sock.close()
        server.close()

    run(scenario)


def test_the_error_of_a_last_address_names_both_failures(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection to an address that cannot be looked up again may have either cause."""
    monkeypatch.setattr(outgoing, "_resolver", lookups)

    async def scenario() -> None:
        names.answer("name", "127.0.0.2")
        with pytest.raises(ConnectionRefusedError):
            await connect("name", 1)
        names.answer("name", socket.gaierror(socket.EAI_AGAIN, "try again"))
        with pytest.raises(OSError, match="refused") as caught:
            await connect("name", 1)
        assert describe_failure(caught.value) == (
            "connection refused at its last known address; host name does not resolve: try again"
        )
        assert caught.value.errno == errno.ECONNREFUSED

    run(scenario)


def test_a_deadline_names_the_look_up(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller with a shorter deadline than that of a look-up reports the name, too."""
    monkeypatch.setattr(outgoing, "_resolver", lookups)

    async def scenario() -> None:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await connect("hangs", 1)
        assert describe_timeout(caught.value, 0.01) == "name did not resolve within 0.01 s"

    run(scenario)


def test_a_look_up_without_a_thread_blames_no_name(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system has no further thread; later look-ups are not affected."""
    names.answer("name", "10.0.0.1")

    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(DaemonPool, "submit", fail)
            for _ in range(resolver.MAX_SUSPECTS + 1):
                with pytest.raises(LookupsExhausted, match="no further thread"):
                    await lookups.resolve("name")
        assert hosts(await lookups.resolve("name")) == (["10.0.0.1"], True)

    run(scenario)


def test_names_are_forgotten(names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that redirects a program to ever new names does not fill its memory."""
    monkeypatch.setattr(resolver, "MAX_NAMES", 2)

    async def scenario() -> None:
        for name in ("a", "b", "a", "c"):
            names.answer(name, "10.0.0.1")
            await lookups.resolve(name)
        failure = socket.gaierror(socket.EAI_AGAIN, "try again")
        names.answer("a", failure)
        assert hosts(await lookups.resolve("a")) == (["10.0.0.1"], False)
        names.answer("b", failure)
        with pytest.raises(socket.gaierror):
            await lookups.resolve("b")

    run(scenario)


def test_a_program_without_an_event_loop_waits_for_a_name(
    names: NameService, lookups: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up after its own time limit."""
    monkeypatch.setattr(outgoing, "_resolver", lookups)
    names.answer("name", "10.0.0.1")
    assert resolve_blocking("name", 80)[0][4] == ("10.0.0.1", 80)
    with pytest.raises(TimeoutError, match="look-up of 'hangs' took more than"):
        resolve_blocking("hangs", 80, 0.01)


def test_an_address_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parsed form is remembered for each port and family, but not the number of an interface."""
    calls: list[str] = []

    def getaddrinfo(host: str, port: int, **options: Any) -> Any:
        calls.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    forgetful = lru_cache(8)(resolver._parse_numeric.__wrapped__)
    monkeypatch.setattr(resolver, "_parse_numeric", forgetful)
    for _ in range(2):
        assert [address[4] for address in parse_numeric("192.0.2.77", 1) or ()] == [("192.0.2.77", 1)]
        parse_numeric("192.0.2.77", 2)
        parse_numeric("192.0.2.77", 1, family=socket.AF_INET)
        parse_numeric("fe80::77%lo", 1)
    assert calls == [*3 * ["192.0.2.77"], *2 * ["fe80::77%lo"]]
