"""The acceptor of a real relay: limits for unauthenticated clients, floods, and undisturbed sessions."""

import asyncio
import json
import socket
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.support.clients.attacker import read_all, read_until, upgrade
from tests.support.clients.feed_client import PATIENCE, follow, run
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

LIMITED_ADDRESS = "127.1.2.3"
"""A loopback address with limits; 127.0.0.1 is exempt."""

UPGRADE = upgrade()
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run one NATS server for all relays of this file; none of them publishes."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module")
def relay(server: NatsServer) -> Iterator[Relay]:
    """Run a relay with the default limits."""
    with Relay(server.url) as running:
        yield running


@contextmanager
def open_socket(relay: Relay, source: str = LIMITED_ADDRESS, data: bytes = b"") -> Iterator[socket.socket]:
    """Open a socket from an address, and send something."""
    with closing(socket.create_connection(relay.host_port, PATIENCE, (source, 0))) as link:
        if data:
            link.sendall(data)
        yield link


def test_a_full_relay_responds_with_503(server: NatsServer) -> None:
    """A full relay responds with 503 and a delay, closes silent sockets, and has capacity again when one
    closes.
    """
    with Relay(server.url, "--max-connections", "2") as relay:
        with open_socket(relay), open_socket(relay):
            with open_socket(relay, data=HEALTH) as link:
                head, _, body = read_all(link).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert b"\r\nretry-after: 5" in head
                assert b"connection: close" in head
                assert json.loads(body)["code"] == "unavailable"
            with open_socket(relay) as silent:
                assert read_all(silent) == b"", "in five seconds it would be told 408"
        eventually(lambda: first_status(relay, HEALTH) == b"200", "there is room again")


def first_status(relay: Relay, data: bytes, source: str = LIMITED_ADDRESS) -> bytes:
    """Return the status of the first response."""
    with open_socket(relay, source, data) as link:
        return link.recv(65_536)[9:12]


def test_an_address_beyond_its_rate_is_rejected(server: NatsServer) -> None:
    """An address that exceeds its rate gets 429 and a delay; other and exempt addresses are not affected."""
    with Relay(server.url, "--address-rate", "0.5") as relay:
        statuses = [first_status(relay, HEALTH.replace(b"/health", b"/h\x01")) for _ in range(6)]
        assert statuses == [b"400"] + [b"429"] * 5
        with open_socket(relay, data=HEALTH) as link:
            head, _, body = read_all(link).partition(b"\r\n\r\n")
        assert b"\r\nretry-after: 5" in head
        assert json.loads(body)["code"] == "too_many"
        assert first_status(relay, HEALTH, "127.1.2.4") == b"200"
        assert {first_status(relay, HEALTH, "127.0.0.1") for _ in range(30)} == {b"200"}


def test_pending_sockets_are_evicted_and_sessions_never_are(server: NatsServer) -> None:
    """Beyond the limit the oldest socket without a session is closed, and never one with a session."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            links = [
                socket.create_connection(relay.host_port, PATIENCE, (LIMITED_ADDRESS, 0)) for _ in range(6)
            ]
            try:
                for link in links[:3]:
                    assert await asyncio.to_thread(read_all, link) == b""
                links[-1].sendall(HEALTH)
                assert await asyncio.to_thread(read_until, links[-1], b"200 OK")
                await feed.send_message(type="ping", id=1)
                await feed.until(lambda: feed.messages[-1].type == "pong")
            finally:
                for link in links:
                    link.close()

    with Relay(server.url, "--max-unauthenticated", "3") as strict:
        run(check(strict))


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (HEALTH * 18, b"400", b"more than 16 pipelined requests"),
        (HEALTH + UPGRADE, b"400", b"upgrade request while a response is pending"),
        (b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", b"405", b"use GET"),
        (HEALTH.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\nhello"), b"400", b"not accepted"),
        (HEALTH.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"), b"400", b"not accepted"),
        (b"hello\r\n\r\n", b"400", b"not an HTTP request"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, b"431", b"too large"),
    ],
    ids=["pipelined", "upgrade", "post", "body", "chunked", "no HTTP", "large"],
)  # fmt: skip
def test_what_no_client_sends_ends_the_connection(
    relay: Relay, data: bytes, status: bytes, words: bytes
) -> None:
    """Bytes that no client sends are rejected with a status and a reason in JSON."""
    with open_socket(relay, "127.0.0.1", data) as link:
        answer = read_all(link)
    last = answer[answer.rindex(b"HTTP/1.1 ") :]
    assert last[9:12] == status
    assert words in json.loads(last.partition(b"\r\n\r\n")[2])["message"].encode()


@pytest.mark.parametrize(
    "flood",
    [
        b"\x89\x80\0\0\0\0" * 40_000,
        b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 2_000,
        (b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}') * 400,
    ],
    ids=["pings", "fragments", "messages"],
)
def test_a_flood_of_frames_is_closed_without_parsing_all_of_them(relay: Relay, flood: bytes) -> None:
    """A flood is closed with ``bye`` and 4429 before all of the input is parsed."""
    with open_socket(relay, "127.0.0.1", UPGRADE) as link:
        read_until(link, b'"done":true')
        link.sendall(flood)
        answer = read_all(link)
    assert b'"type":"bye","code":4429' in answer
    # Some 200 in each second in which the relay waits for the client to read.
    assert answer.count(b"\x8a\x00") <= 4_000


def test_compressed_messages_count_by_their_decompressed_size(relay: Relay) -> None:
    """A kilobyte that decompresses to a megabyte counts like a second's worth of messages."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    text = b'{"type":"ping","id":1' + b" " * 1_000_000 + b"}"
    data = (squeeze.compress(text) + squeeze.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
    bomb = b"\xc1\xfe" + len(data).to_bytes(2) + b"\0\0\0\0" + data
    offer = UPGRADE.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    with open_socket(relay, "127.0.0.1", offer) as link:
        read_until(link, b"permessage-deflate")
        link.sendall(bomb * 5)
        answer = read_all(link)
    assert answer.count(b"\x88") >= 1
    assert (4429).to_bytes(2) in answer


def test_a_client_below_the_message_rate_stays_connected(relay: Relay) -> None:
    """A hundred messages in a second are not a flood."""

    async def check() -> None:
        async with connect(relay.ws_url, proxy=None, ping_interval=None) as link:
            for number in range(100):
                await link.send(f'{{"type":"ping","id":{number}}}')
            pongs = 0
            while pongs < 100:
                pongs += '"pong"' in str(await asyncio.wait_for(link.recv(), PATIENCE))
            await link.send('{"type":"ping","id":1' + " " * 100_000 + "}")
            while True:
                try:
                    if '"pong"' in str(await asyncio.wait_for(link.recv(), PATIENCE)):
                        return
                except ConnectionClosed as error:
                    raise AssertionError("a large message is no flood") from error

    run(check())


def test_no_descriptor_is_leaked_by_attackers(relay: Relay) -> None:
    """No descriptor is leaked, however clients disconnect."""
    folder = Path(f"/proc/{relay.pid}/fd")
    before = len(list(folder.iterdir()))
    for data in (b"", HEALTH, HEALTH[:10], UPGRADE, UPGRADE + b"\x81", b"nonsense\r\n\r\n") * 5:
        with open_socket(relay, "127.0.0.1", data):
            pass
    eventually(lambda: len(list(folder.iterdir())) <= before, "their sockets are closed")
