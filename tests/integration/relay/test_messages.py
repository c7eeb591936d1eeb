"""Messages of a client: up to the promised size in every form, and replies in order."""

import asyncio
import json
import re
import socket
import zlib
from collections.abc import Iterator

import pytest
from tickertape.contracts.messages import MAX_MESSAGE_BYTES
from websockets.asyncio.client import connect

from tests.support.clients.attacker import masked, read_all, upgrade
from tests.support.clients.feed_client import PATIENCE, run
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

PONG = b'{"type":"pong","id":7}'
KILOBYTE = 1024


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay with its default limits."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server, Relay(server.url) as running:
        yield running


def ping(size: int) -> bytes:
    """Return a message of exactly this size."""
    text = b'{"type":"ping","id":7'
    return text + b" " * (size - len(text) - 1) + b"}"


def fragments(payload: bytes, size: int, first: int = 0x01) -> bytes:
    """Return a message in fragments."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    last = len(parts) - 1
    return b"".join(
        masked((0x80 if at == last else 0) | (first if at == 0 else 0), part) for at, part in enumerate(parts)
    )


def squeezed(payload: bytes, level: int = 9) -> bytes:
    """Return a message compressed with permessage-deflate."""
    made = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (made.compress(payload) + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


SHAPES = {
    "one frame": lambda text: masked(0x81, text),
    "two fragments": lambda text: fragments(text, len(text) // 2 + 1),
    "fragments of 64 KiB": lambda text: fragments(text, 64 * KILOBYTE),
    "fragments of 4 KiB": lambda text: fragments(text, 4 * KILOBYTE),
    "fragments of 1 KiB": lambda text: fragments(text, KILOBYTE),
    "a large fragment and an empty one": lambda text: masked(0x01, text) + masked(0x80, b""),
    "compressed": lambda text: masked(0xC1, squeezed(text)),
    "compressed badly": lambda text: masked(0xC1, squeezed(text, 0)),
    "compressed, in fragments": lambda text: fragments(squeezed(text, 0), 64 * KILOBYTE, 0x41),
    "compressed, in two": lambda text: fragments(squeezed(text), len(squeezed(text)) // 2 + 1, 0x41),
}
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"


HEARTBEAT = re.compile(rb'<1>{"type":"heartbeat"[^}]*}')
"""A message that may come at any time on a busy machine."""


def output(relay: Relay, *frames: bytes, until: re.Pattern[bytes] | None = None) -> bytes:
    """Send frames after the session has started; return what follows, up to a mark or the end."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
        link.sendall(upgrade("/ws", DEFLATE))
        data = b""
        while b'"done":true' not in data and not (b"\xc1" in data and _plain(data).count(b'"type"') >= 3):
            more = link.recv(65_536)
            assert more
            data += more
        try:
            for one in frames:
                link.sendall(one)
        except ConnectionError:
            pass  # it was answered before the connection closed
        start = len(data)
        while until is None or not until.search(HEARTBEAT.sub(b"", _plain(data[start:]))):
            try:
                more = link.recv(65_536)
            except ConnectionError:
                break
            if not more:
                break
            data += more
        return HEARTBEAT.sub(b"", _plain(data[start:]))


def _plain(data: bytes) -> bytes:
    """Return the payloads of a server's frames, decompressed and joined."""
    if data.startswith(b"HTTP/1.1 "):
        data = data.partition(b"\r\n\r\n")[2]
    found = b""
    while len(data) >= 2:
        first, size, at = data[0], data[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(data[2:at])
        if len(data) < at + size:
            break
        payload, data = data[at : at + size], data[at + size :]
        if first & 0x40:
            payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
        found += b"<%x>" % (first & 0x0F) + payload
    return found


def close_code(answer: bytes) -> int:
    """Return the close code at the end."""
    return int.from_bytes(answer.rpartition(b"<8>")[2][:2])


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES - 1, 830_000, 32_768])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_message_of_the_promised_size_is_accepted(relay: Relay, shape: str, size: int) -> None:
    """A message of exactly 1 MiB is answered, and the session stays open."""
    answer = output(
        relay, SHAPES[shape](ping(size)), masked(0x89, b"still there"), until=re.compile(b"still there|<8>")
    )
    assert PONG in answer
    assert b"<a>still there" in answer
    assert b"<8>" not in answer


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, MAX_MESSAGE_BYTES + 1024, MAX_MESSAGE_BYTES + 1025])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_byte_more_is_too_large(relay: Relay, shape: str, size: int) -> None:
    """A message of one byte more is closed with 1009 and not answered."""
    answer = output(relay, SHAPES[shape](ping(size)))
    assert PONG not in answer
    assert close_code(answer) == 1009


def test_welcome_states_the_maximum_message_size(relay: Relay) -> None:
    """``welcome`` states the maximum message size, which an ordinary library can send."""

    async def check() -> None:
        async with connect(relay.ws_url, proxy=None, ping_interval=None, compression=None) as link:
            welcome = json.loads(await link.recv())
            size = welcome["limits"]["max_message_bytes"]
            await link.send(ping(size).decode())
            while json.loads(await asyncio.wait_for(link.recv(), PATIENCE))["type"] != "pong":
                pass

    run(check())


def numbered(number: int) -> bytes:
    """Return a protocol-level ping as a text message."""
    return masked(0x81, b'{"type":"ping","id":%d}' % number)


def test_answers_come_in_the_order_of_what_they_answer(relay: Relay) -> None:
    """Pongs are sent between messages and the close after them, although all requests came in one read."""
    sent = [
        masked(0x89, b"one"), numbered(2), masked(0x89, b"three"), masked(0x89, b"four"), numbered(5),
        numbered(6), masked(0x8A, b"unasked"), masked(0x89, b"seven"), masked(0x88, b"\x03\xe8"),
    ]  # fmt: skip
    expected = (
        b'<a>one<1>{"type":"pong","id":2}<a>three<a>four<1>{"type":"pong","id":5}'
        b'<1>{"type":"pong","id":6}<a>seven<8>\x03\xe8'
    )
    assert output(relay, b"".join(sent)) == expected
    assert output(relay, *sent) == expected


def test_a_pong_between_fragments_does_not_wait(relay: Relay) -> None:
    """A ping between fragments is answered before the message."""
    text = b'{"type":"ping","id":7}'
    data = masked(0x01, text[:5]) + masked(0x89, b"x") + masked(0x80, text[5:]) + masked(0x89, b"y")
    assert output(relay, data, until=re.compile(b"<a>y")) == b"<a>x<1>" + PONG + b"<a>y"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (masked(0x83, b"x"), 1002),
        (masked(0x80, b"x"), 1002),
        (masked(0x82, b"x"), 1003),
        (masked(0x81, b"\xff"), 1007),
        (b"\x81\x02hi", 1002),
    ],
)
def test_messages_before_a_protocol_error_are_answered(relay: Relay, broken: bytes, code: int) -> None:
    """Messages before a protocol error are answered, and messages after it are not, although all came in one
    read.
    """
    answer = output(relay, numbered(1) + masked(0x89, b"x") + broken + numbered(2) + masked(0x89, b"y"))
    assert answer.startswith(b'<1>{"type":"pong","id":1}<a>x')
    assert close_code(answer) == code
    assert b'"id":2' not in answer
    assert answer.count(b"<8>") == 1


def test_a_client_may_go_in_the_middle_of_a_message(relay: Relay) -> None:
    """A close in the middle of a message is answered like any other."""
    assert close_code(output(relay, masked(0x01, b"half") + masked(0x88, b"\x03\xe8"))) == 1000


def test_messages_after_a_close_are_ignored(relay: Relay) -> None:
    """Messages after a close are ignored, also right after the handshake."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
        link.sendall(upgrade("/ws") + masked(0x88, b"\x03\xe8") + numbered(1))
        data = read_all(link)
    assert b'"pong"' not in data
    assert data.endswith(b"\x88\x02\x03\xe8")
