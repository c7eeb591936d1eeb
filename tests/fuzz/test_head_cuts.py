"""A request head has one outcome however it is cut into reads, on both ports and the feed.

The transports have no sockets, so each read is exactly one piece.
"""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tickertape.relay.endpoints.routes import json_app
from tickertape.relay.transport.http.head_reader import MAX_HEAD_BYTES
from tickertape.relay.transport.http.protocol import GuardedHttp
from uvicorn.config import Config
from uvicorn.server import ServerState

from tests.fuzz.inside import Inside
from tests.fuzz.transport import FakeTransport, StandingLoop
from tests.support.clients.request_heads import ROWS, Destination

DESTINATIONS = {
    "main port": Destination("/health"),
    "feed": Destination("/ws", feed=True),
    "ops port": Destination("/livez"),
}
EVERY_BYTE = 600
"""Size in bytes up to which a head is cut at each byte, and into single bytes."""

CHANCES = 15
"""Number of random cuts of a larger head."""


class Ports:
    """Main port and ops port of a relay, within a running ``StandingLoop``."""

    def __init__(self) -> None:
        self.relay = Inside()
        self._state = ServerState()
        self._config = Config(json_app([Route("/livez", _live)]), ws="none", lifespan="off", log_config=None)
        self._config.load()

    async def answer(self, destination: Destination, pieces: Sequence[bytes]) -> tuple[str, str]:
        """Send a head in pieces; return the status, and the code and message of a rejection."""
        transport = self._open() if destination.target == "/livez" else self.relay.open()
        for piece in pieces:
            if not transport.is_closing():
                transport.receive(piece)
            await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)
        written = bytes(transport.written)
        transport.lose()
        for _ in range(3):
            await asyncio.sleep(0)
        head, _, body = written.partition(b"\r\n\r\n")
        status = head.split(b"\r\n")[0].decode()
        if b"application/json" not in head or not body:
            return status, ""
        return status, str(sorted(json.loads(body).items()))

    def _open(self) -> FakeTransport:
        loop = cast(StandingLoop, asyncio.get_running_loop())
        transport = FakeTransport(loop)
        transport.open(GuardedHttp(self._config, self._state, {}, _loop=loop))
        return transport


async def _live(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def play(part: Callable[[Ports], Any]) -> None:
    """Run a test body against both ports."""

    async def played() -> None:
        ports = Ports()
        try:
            await part(ports)
        finally:
            ports.relay.close()
            await asyncio.sleep(0)

    loop = StandingLoop()
    loop.run_until_complete(played())
    loop.close()


def cuts(head: bytes) -> list[list[bytes]]:
    """Return ways to cut a head."""
    if len(head) <= EVERY_BYTE:
        return [[head[:at], head[at:]] for at in range(1, len(head))] + [[bytes([one]) for one in head]]
    rng = random.Random(len(head))
    edges = [MAX_HEAD_BYTES + by for by in (-2, -1, 0, 1, 2)] + [len(head) + by for by in (-4, -3, -2, -1)]
    found = [[head[:at], head[at:]] for at in edges if 0 < at < len(head)]
    for _ in range(CHANCES):
        offsets = sorted(rng.sample(range(1, len(head)), rng.choice((1, 2, 5, 50))))
        found.append([head[start:end] for start, end in zip([0, *offsets], [*offsets, None], strict=True)])
    return found


@pytest.mark.parametrize("where", DESTINATIONS)
def test_a_head_has_one_answer_however_it_is_cut(where: str) -> None:
    """Every cut has the status and message of the table."""
    destination = DESTINATIONS[where]

    async def part(ports: Ports) -> None:
        for name, row in ROWS.items():
            head = row.head(destination)
            complete = await ports.answer(destination, [head])
            assert complete[0].split(" ")[1] == str(row.status(destination)), name
            for pieces in cuts(head):
                assert await ports.answer(destination, pieces) == complete, (
                    name,
                    [len(one) for one in pieces],
                )

    play(part)


def test_a_head_is_counted_alone() -> None:
    """Each of two heads in one read may have the full size; bytes after the first do not count towards it."""
    row = ROWS["the largest head"]
    destination = DESTINATIONS["main port"]
    head = row.head(destination)
    kept = head.replace(b"Connection: close", b"Connection: keepx")

    async def part(ports: Ports) -> None:
        for pieces in ([kept + head], [kept[:-1], kept[-1:] + head], [kept + head[:1], head[1:]]):
            transport = ports.relay.open()
            for piece in pieces:
                transport.receive(piece)
            for _ in range(10):
                await asyncio.sleep(0)
            assert transport.written.count(b"HTTP/1.1 200 ") == 2
            transport.lose()
            await asyncio.sleep(0)

    play(part)


def test_frames_right_behind_an_upgrade_are_read() -> None:
    """Frames sent before the client has read the response are processed, wherever the bytes are cut."""
    head = ROWS["ordinary"].head(DESTINATIONS["feed"])
    ping = b"\x89\x82\0\0\0\0hi"

    async def part(ports: Ports) -> None:
        for at in range(len(head) - 6, len(head + ping)):
            transport = ports.relay.open()
            transport.receive((head + ping)[:at])
            transport.receive((head + ping)[at:])
            assert transport.written.startswith(b"HTTP/1.1 101 ")
            assert transport.written.endswith(b"\x8a\x02hi")
            transport.lose()
            await asyncio.sleep(0)

    play(part)
