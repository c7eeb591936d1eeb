"""Targets: what a client or a proxy sends to the main port, from the first byte to the last frame."""

import asyncio
from functools import cache
from ipaddress import ip_address
from typing import Final

from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.client_address import Networks, client_address, is_https
from tickertape.relay.core.session.subscription import parse_query
from tickertape.relay.endpoints import history

from tests.fuzz.cases import CAPACITY, END, FULL, PLAIN, WAIT, Case
from tests.fuzz.inside import Inside, upgrade_lines
from tests.fuzz.targets.texts import check_text
from tests.fuzz.transport import StandingLoop

MARK: Final = b"\xfe\xff"
"""Separates the steps of a connection; it is in no valid head, and not in UTF-8."""

_STEPS: Final = {b"w": WAIT, b"e": END, b"f": FULL, b"c": CAPACITY}
_PROXIES: Final = Networks("10.0.0.0/8, 127.0.0.1")
_CLIENT: Final = "203.0.113.7"
_DEFLATE: Final = "Sec-WebSocket-Extensions: permessage-deflate"
_OPEN: Final = "\r\n".join([*upgrade_lines(), f"Authorization: Bearer {PLAIN[0]}", _DEFLATE, "", ""]).encode()


def connection(data: bytes) -> None:
    """Check the invariants of ``tests/fuzz/inside.py`` for any bytes, in any number of reads."""
    _play(data.split(MARK))


def frames(data: bytes) -> None:
    """Check the same for the bytes after a valid handshake that offers compression."""
    _play([_OPEN, *data.split(MARK)])


def _play(pieces: list[bytes]) -> None:
    loop, relay = _relay()
    steps = tuple(_STEPS.get(piece, piece) for piece in pieces if piece)
    loop.run_until_complete(relay.run(Case(0, steps, stays=WAIT in steps)))


@cache
def _relay() -> tuple[StandingLoop, Inside]:
    loop = StandingLoop()

    async def start() -> Inside:
        return Inside()

    return loop, loop.run_until_complete(start())


def close() -> None:
    """End the relay of ``connection`` and ``frames``, if it runs."""
    if not _relay.cache_info().currsize:
        return
    loop, relay = _relay()
    _relay.cache_clear()

    async def stop() -> None:
        relay.close()
        await asyncio.sleep(0)

    loop.run_until_complete(stop())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def query(data: bytes) -> None:
    """Check that a query is understood the same way by the feed and by the history, or is a short error."""
    text = data.decode("latin-1")
    found = []
    for parse in (parse_query, history.parse):
        try:
            found.append(parse(text))
        except ProtocolError as error:
            check_text(str(error))
    match found:
        case [feed, history.Query(request=request)]:
            assert feed == request


def forwarded(data: bytes) -> None:
    """Check that a client cannot choose its address or scheme, whatever precedes what the proxy appends."""
    text = data.decode("latin-1")
    first, _, second = text.partition("\n")
    forged = [[("x-forwarded-for", first)], [("forwarded", first)]]
    for sent in (*forged, [("forwarded", second), *forged[0]]):
        found = client_address("10.0.0.1", sent, _PROXIES)
        ip_address(found.partition("%")[0])
        assert client_address(_CLIENT, sent, _PROXIES) == _CLIENT
        assert not is_https("http", _CLIENT, sent, _PROXIES)
    for name, entry in (("x-forwarded-for", _CLIENT), ("forwarded", f"for={_CLIENT};proto=http")):
        for headers in ([(name, f"{first}, {entry}")], [(name, first), (name, entry)]):
            assert client_address("10.0.0.1", headers, _PROXIES) == _CLIENT
    appended = [("x-forwarded-for", f"{first}, {_CLIENT}, 10.1.1.1"), ("forwarded", second)]
    assert client_address("10.0.0.1", appended, _PROXIES) == _CLIENT
    assert not is_https("http", "10.0.0.1", [("x-forwarded-proto", f"{first}, http")], _PROXIES)
