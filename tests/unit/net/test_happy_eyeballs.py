"""Connections to hosts with several addresses, of which some do not answer."""

import asyncio
import errno
import os
import socket
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.support.servers.black_hole import black_hole
from tests.support.virtual_loop import VirtualLoop
from tickertape.net import happy_eyeballs
from tickertape.net.happy_eyeballs import ATTEMPT_DELAY, ConnectionFailed, connect_first, interleave
from tickertape.net.outgoing import describe_failure
from tickertape.net.resolver import Results

V4, V6 = socket.AF_INET, socket.AF_INET6


def entry(address: str, port: int = 1) -> Any:
    """Return an address as getaddrinfo does."""
    return (V6, 1, 6, "", (address, port, 0, 0)) if ":" in address else (V4, 1, 6, "", (address, port))


class Peer:
    """Addresses that accept (a number of seconds), fail (an error number), or never answer (None)."""

    def __init__(self, answers: dict[str, tuple[float, int] | None]) -> None:
        self.answers = answers
        self.began: list[tuple[str, float]] = []
        self.open: dict[socket.socket, str] = {}
        self.ended = 0

    async def connect(self, address: Any) -> socket.socket:
        """Connect to an address, or fail, as the test says."""
        name = str(address[4][0])
        self.began.append((name, asyncio.get_running_loop().time()))
        try:
            answer = self.answers[name]
            if answer is None:
                await asyncio.Event().wait()
                raise AssertionError
            delay, number = answer
            await asyncio.sleep(delay)
            if number:
                raise OSError(number, os.strerror(number))
            sock = socket.socket()
            self.open[sock] = name
            return sock
        finally:
            self.ended += 1

    def run(self, monkeypatch: pytest.MonkeyPatch) -> tuple[str | OSError, float]:
        """Connect in virtual time; return the address or the error, and the seconds."""
        monkeypatch.setattr(happy_eyeballs, "_connect", self.connect)

        async def work() -> tuple[str | OSError, float]:
            clock = asyncio.get_running_loop().time
            try:
                sock = await connect_first([entry(name) for name in self.answers])
            except OSError as error:
                return error, clock()
            now = clock()
            await asyncio.sleep(0)  # the other attempts end
            await asyncio.sleep(0)
            assert self.ended == len(self.began)
            assert [other for other in self.open if other.fileno() >= 0] == [sock]
            sock.close()
            return self.open[sock], now

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(work())


@pytest.mark.parametrize(
    ("answers", "address", "seconds"),
    [
        ({"::1": None, "127.0.0.1": (0.01, 0)}, "127.0.0.1", ATTEMPT_DELAY + 0.01),
        ({"::1": (0.0, errno.ENETUNREACH), "127.0.0.1": (0.01, 0)}, "127.0.0.1", 0.01),
        ({"::1": (0.2, 0), "127.0.0.1": (0.0, 0)}, "::1", 0.2),
        ({"::1": (0.3, 0), "127.0.0.1": (0.1, 0)}, "::1", 0.3),
        ({"::1": (0.3, 0), "127.0.0.1": (0.01, 0)}, "127.0.0.1", ATTEMPT_DELAY + 0.01),
        ({"::1": None, "::2": None, "::3": None, "127.0.0.1": (0.01, 0)}, "127.0.0.1", ATTEMPT_DELAY + 0.01),
        ({"127.0.0.1": None, "127.0.0.2": None, "127.0.0.3": (0.0, 0)}, "127.0.0.3", 2 * ATTEMPT_DELAY),
        ({"127.0.0.1": (0.01, 0), "::1": (0.01, 0)}, "127.0.0.1", 0.01),
        ({"127.0.0.1": (0.01, 0)}, "127.0.0.1", 0.01),
        # Both end in the same turn of the event loop.
        ({"::1": (0.5, 0), "127.0.0.1": (0.25, 0)}, "::1", 0.5),
    ],
)
def test_an_address_that_does_not_answer_costs_a_quarter_of_a_second(
    answers: dict[str, tuple[float, int] | None],
    address: str,
    seconds: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attempts begin 250 ms after one another, or when the previous one fails; the first one wins."""
    found, took = Peer(answers).run(monkeypatch)
    assert found == address
    assert took == pytest.approx(seconds)


def test_the_order_within_a_family_and_the_preferred_family_are_kept() -> None:
    """Families alternate, beginning with that of the first address."""
    names = ["fe80::1", "fe80::2", "10.0.0.1", "fe80::3", "10.0.0.2"]
    found = [address[4][0] for address in interleave([entry(name) for name in names])]
    assert found == ["fe80::1", "10.0.0.1", "fe80::2", "10.0.0.2", "fe80::3"]


@pytest.mark.parametrize(
    ("answers", "kind", "text"),
    [
        (
            {"2001:db8::1": (0.0, errno.ENETUNREACH), "10.0.0.1": (0.1, errno.ECONNREFUSED)},
            ConnectionFailed,
            "2001:db8::1: network is unreachable; 10.0.0.1: connection refused",
        ),
        (
            {"::1": (0.0, errno.ECONNREFUSED), "127.0.0.1": (0.0, errno.ECONNREFUSED)},
            ConnectionRefusedError,
            "connection refused",
        ),
        # The machine has no IPv6.
        (
            {"::1": (0.0, errno.EADDRNOTAVAIL), "127.0.0.1": (0.0, errno.ECONNREFUSED)},
            ConnectionRefusedError,
            "connection refused",
        ),
        ({"::1": (0.0, errno.EADDRNOTAVAIL)}, OSError, "Cannot assign requested address"),
        ({}, OSError, "host has no address"),
    ],
)
def test_the_errors_of_all_addresses_are_one(
    answers: dict[str, tuple[float, int] | None],
    kind: type[OSError],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Addresses that fail for the same reason have one error, those that fail for several have a list."""
    error, _ = Peer(answers).run(monkeypatch)
    assert isinstance(error, kind)
    assert describe_failure(error) == text


def test_a_real_black_hole_does_not_prevent_a_connection() -> None:
    """The second address is used, and the first attempt is closed, also when the caller is cancelled."""

    async def work() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with black_hole("127.0.0.77", port):
            addresses: Results = [entry("127.0.0.77", port), entry("127.0.0.1", port)]
            async with asyncio.timeout(PATIENCE):
                sock = await connect_first(addresses)
            assert sock.getpeername() == ("127.0.0.1", port)
            sock.close()
            only = asyncio.create_task(connect_first(addresses[:1]))
            done, _ = await asyncio.wait({only}, timeout=2 * ATTEMPT_DELAY)
            assert not done
            only.cancel()
            await asyncio.wait({only})
            assert only.cancelled()
        server.close()

    asyncio.run(work())
