"""A few thousand fuzzer cases with fixed seeds; ``make fuzz`` runs a million."""

import asyncio
import gc

import pytest

from tests.bench.load.attack_kinds import kinds
from tests.fuzz.__main__ import cases, inside, outside
from tests.fuzz.cases import CAPACITY, FULL, NOW, PLAIN, SECRET, Case, case
from tests.fuzz.inside import FoundError, Inside, illegal, upgrade_lines
from tests.fuzz.outside import AT_ONCE
from tests.fuzz.transport import StandingLoop

INSIDE = 3_000
OUTSIDE = 320


def test_no_case_fails_in_the_process() -> None:
    """Acceptor, requests and feed survive every case and leak nothing."""
    assert inside(cases(0, INSIDE)).cases == INSIDE


def test_no_case_fails_over_sockets() -> None:
    """A real relay survives every case, and its honest client receives every event."""
    assert outside(list(cases(0, OUTSIDE))) == OUTSIDE / AT_ONCE


def test_an_upgrade_behind_an_unanswered_request_leaves_no_task_behind() -> None:
    """The task that answers the request ends although its socket no longer reports free capacity."""
    lines = [*upgrade_lines(), f"Authorization: Bearer {PLAIN[0]}", "", ""]
    both = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" + "\r\n".join(lines).encode()
    inside([Case(0, (FULL, both, CAPACITY), stays=False)])


def test_a_flood_of_pings_in_one_read_is_not_parsed_to_its_end() -> None:
    """Parsing stops at the message rate; forty thousand pings would block the event loop for 300 ms."""
    lines = [*upgrade_lines(), f"Authorization: Bearer {PLAIN[0]}", "", ""]
    pings = b"\x89\x80\0\0\0\0" * 40_000
    relay = inside([Case(0, ("\r\n".join(lines).encode(), pings, pings), stays=False)])
    assert relay.slowest[0] < 0.1


def test_a_broken_frame_behind_a_flood_ends_the_connection() -> None:
    """A broken frame in the same read as a flood closes the connection completely."""
    flood = b"\x89\x80\0\0\0\0" * 60 + b"\xff\xff" * 20
    inside([Case(0, ("\r\n".join([*upgrade_lines(), "", ""]).encode(), flood), stays=True)])


def test_closed_connections_need_no_garbage_collection() -> None:
    """Closed connections are freed by reference counting; garbage collection is rare in a relay."""
    some = [
        Case(0, tuple(filter(None, (kind.first, kind.repeat))), stays=False)
        for kind in kinds(SECRET, NOW)
        if not kind.slow
    ]
    gc.collect()
    gc.disable()
    try:
        inside(some * 3)
    finally:
        gc.enable()


def test_a_seed_determines_its_case() -> None:
    """A seed determines its case, so that a failure can be repeated."""
    assert case(7) == case(7)
    assert case(7) != case(8)
    assert "--seed 7" in str(case(7))


@pytest.mark.parametrize(
    "written",
    [b"\x81\x02hi", b"HTTP/1.1 101 x\r\n\r\n\x91\x00", b"HTTP/1.1 101 x\r\n\r\n\x81\x80\0\0\0\0"],
)
def test_an_illegal_response_is_detected(written: bytes) -> None:
    """Frames before the response, reserved bits and masked server frames are detected."""
    assert illegal(written)


def test_an_exception_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the connection is logged, which is how the fuzzer detects it."""

    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("tickertape.relay.core.session.session.decide", broken)
    monkeypatch.setattr("tickertape.relay.core.session.sessions.decide", broken)
    with pytest.raises(FoundError, match="broken on purpose"):
        inside(cases(0, 500))


def test_an_evicted_connection_leaves_no_timer() -> None:
    """Evicting a connection cancels its timer, which would otherwise keep its memory alive."""

    async def check() -> None:
        relay = Inside()
        links = [relay.open() for _ in range(50)]
        await asyncio.sleep(0)
        assert sum(link.lost for link in links) == 30
        assert relay.loop.timers() == 20
        for link in links:
            link.lose()
        relay.close()
        assert relay.loop.timers() == 0

    loop = StandingLoop()
    loop.run_until_complete(check())
    loop.close()
